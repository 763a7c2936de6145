-- The claim is called org_id, the policy asks for organization_id: nobody sees anything, which no leak test finds.
-- inject
alter policy organizations_own on public.organizations_projection
    using (id::text = (select auth.jwt() ->> 'organization_id'));
-- clear
alter policy organizations_own on public.organizations_projection
    using (id::text = (select auth.jwt() ->> 'org_id'));
