-- The tables of the laboratory in which the frames of recorded.jsonl were taken from a real server.

create schema app;
create type mood as enum ('calm', 'busy');

create table rt_plain (
  id bigint generated always as identity primary key, note text, n int, amount numeric, ok boolean,
  tags text[], doc jsonb, blob bytea, m mood, at timestamptz default now(), u uuid);
create table rt_nopub (id bigint generated always as identity primary key, note text);
create table rt_pair_a (id bigint generated always as identity primary key, note text);
create table rt_toast (id bigint generated always as identity primary key, note text, x int);
create table rt_sentinel (id bigint generated always as identity primary key, note text);
create table rt_rls_nopol (id bigint generated always as identity primary key, note text);
create table rt_rls_owner (id bigint generated always as identity primary key, owner uuid, note text);
create table rt_rls_svcpol (id bigint generated always as identity primary key, note text);
create table rt_rls_force (id bigint generated always as identity primary key, note text);
create table rt_nogrant (id bigint generated always as identity primary key, note text);
create table rt_colgrant (id bigint generated always as identity primary key, note text, secret text);
create table rt_colgrant_nopk (id bigint generated always as identity primary key, note text);
create table rt_nopk (id bigint, note text);
create table rt_full (id bigint generated always as identity primary key, note text, n int);
create table rt_full_rls (id bigint generated always as identity primary key, note text, n int);
create table rt_badpol (id bigint generated always as identity primary key, note text);
create table rt_part (id bigint, note text, primary key (id)) partition by range (id);
create table rt_part_1 partition of rt_part for values from (0) to (1000000);
create table app.rt_priv (id bigint generated always as identity primary key, note text);
create table app.rt_unusable (id bigint generated always as identity primary key, note text);

alter table rt_full replica identity full;
alter table rt_full_rls replica identity full;

alter table rt_rls_nopol enable row level security;
alter table rt_rls_owner enable row level security;
alter table rt_rls_svcpol enable row level security;
alter table rt_rls_force enable row level security;
alter table rt_rls_force force row level security;
alter table rt_full_rls enable row level security;
alter table rt_badpol enable row level security;
alter table app.rt_unusable enable row level security;

create policy owner on rt_rls_owner for select to authenticated
  using (owner = (current_setting('request.jwt.claims', true)::jsonb ->> 'sub')::uuid);
create policy service on rt_rls_svcpol for select to service_role, svc_nobypass using (true);
create policy everyone on rt_full_rls for select to authenticated using (true);
create policy broken on rt_badpol for select to authenticated using (1 / (id - id) = 1);
create policy everyone on app.rt_unusable for select to authenticated using (true);

grant usage on schema app to service_role, authenticated;
grant select on all tables in schema public to anon, authenticated, service_role, svc_nobypass;
grant select on app.rt_priv to service_role, authenticated;
grant select on app.rt_unusable to anon;
revoke select on rt_nogrant from anon, authenticated, service_role;
revoke select on rt_colgrant from anon, authenticated, service_role;
grant select (id, note) on rt_colgrant to authenticated, service_role;
revoke select on rt_colgrant_nopk from anon, authenticated, service_role;
grant select (note) on rt_colgrant_nopk to authenticated, service_role;

create publication supabase_realtime for table
  rt_plain, rt_pair_a, rt_toast, rt_sentinel, rt_rls_nopol, rt_rls_owner, rt_rls_svcpol, rt_rls_force, rt_nogrant,
  rt_colgrant, rt_colgrant_nopk, rt_nopk, rt_full, rt_full_rls, rt_badpol, rt_part_1, app.rt_priv, app.rt_unusable;
