-- A policy written to make a dashboard work, and never removed.
-- inject
create policy organizations_dashboard on public.organizations_projection
    for select to authenticated using (true);
-- clear
drop policy organizations_dashboard on public.organizations_projection;
