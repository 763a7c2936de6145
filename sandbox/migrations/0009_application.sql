-- The application's own login: a server of its own that reads the projections for every tenant, without a token.
-- It has policies that say so instead of BYPASSRLS, and neither the queue nor the store of events nor the RPCs.

create role app_backend login noinherit;
alter role app_backend set statement_timeout = '8s';

grant usage on schema public to app_backend;
grant select on public.organizations_projection, public.invitations_projection, public.services to app_backend;

create policy organizations_backend on public.organizations_projection
    for select to app_backend using (true);

create policy invitations_backend on public.invitations_projection
    for select to app_backend using (true);

create policy services_backend on public.services
    for select to app_backend using (true);
