-- The roles and schemas of a Supabase project, as the reference system expects to find them.
-- Roles belong to the cluster and the cluster belongs to one sandbox, so plain CREATE is enough.

-- A function is executable by nobody until somebody says so. Without this line every new function
-- in an exposed schema would be an RPC for anonymous callers.
alter default privileges revoke execute on functions from public;

create role anon nologin noinherit;
create role authenticated nologin noinherit;
create role service_role nologin noinherit bypassrls;

-- PostgREST logs in as this one and becomes one of the three. The supervisor sets its password.
create role authenticator login noinherit;
grant anon, authenticated, service_role to authenticator;

alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';
alter role authenticator set statement_timeout = '8s';
alter role authenticator set lock_timeout = '8s';

create schema api;
create schema auth;
create schema realtime;

revoke create on schema public from public;
grant usage on schema public, api, auth to anon, authenticated, service_role;
