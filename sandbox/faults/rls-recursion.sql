-- A policy that looks up the parent organization in the table that it guards: 42P17 for every reader.
-- inject
create policy organizations_of_parent on public.organizations_projection
    for select to authenticated using (
        exists (select from public.organizations_projection parent where parent.id = organizations_projection.id));
-- clear
drop policy organizations_of_parent on public.organizations_projection;
