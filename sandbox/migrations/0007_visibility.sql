-- Who may see what. "Hidden" is a grant without a policy that matches (PostgREST: 200 and an empty list);
-- "denied" is no grant at all (42501). Nobody but the owner writes the event store or its projections:
-- the RPCs above are SECURITY DEFINER and the triggers run as their owner.

alter table public.domain_events enable row level security;
alter table public.workflow_queue_projection enable row level security;
alter table public.organizations_projection enable row level security;
alter table public.invitations_projection enable row level security;
alter table public.services enable row level security;
alter table auth.users enable row level security;

grant select on public.domain_events to service_role;

grant select on
    public.workflow_queue_projection, public.organizations_projection, public.invitations_projection
to anon, authenticated, service_role;

grant select on public.services to anon, authenticated;
grant select, insert, update, delete on public.services to service_role;

-- service_role bypasses RLS; the policy states what the queue is for, and keeps the worker hearing it in a
-- database where the role lost BYPASSRLS.
create policy workflow_queue_service on public.workflow_queue_projection
    for select to service_role using (true);

create policy organizations_own on public.organizations_projection
    for select to authenticated using (id::text = (select auth.jwt() ->> 'org_id'));

create policy invitations_own on public.invitations_projection
    for select to authenticated using (organization_id::text = (select auth.jwt() ->> 'org_id'));

create policy services_own on public.services
    for select to authenticated using (organization_id::text = (select auth.jwt() ->> 'org_id'));
