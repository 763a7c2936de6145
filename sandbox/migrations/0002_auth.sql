-- Who is asking. PostgREST and the Realtime server both set `request.jwt.claims` for the transaction;
-- everything that decides about visibility reads it through these three functions.

create function auth.jwt() returns jsonb
language sql stable
set search_path = ''
return coalesce(nullif(pg_catalog.current_setting('request.jwt.claims', true), ''), '{}')::jsonb;

create function auth.uid() returns uuid
language sql stable
set search_path = ''
return nullif(auth.jwt() ->> 'sub', '')::uuid;

create function auth.role() returns text
language sql stable
set search_path = ''
return auth.jwt() ->> 'role';

grant execute on function auth.jwt(), auth.uid(), auth.role() to anon, authenticated, service_role;

-- Password sign-in. `password_hash` is PBKDF2-HMAC-SHA256 over `password_salt`; the gateway computes it,
-- so that no clear password ever reaches the database or its log.
create table auth.users (
    id uuid primary key default gen_random_uuid(),
    email text not null unique check (email = lower(email)),
    password_salt bytea not null,
    password_hash bytea not null,
    password_iterations int not null check (password_iterations >= 10000),
    raw_app_meta_data jsonb not null default '{}' check (jsonb_typeof(raw_app_meta_data) = 'object'),
    created_at timestamptz not null default now()
);

-- What a user's access token says beyond who he is. The gateway asks at every sign-in, as a hosted
-- project asks its access-token hook; policies and functions believe these claims.
create function auth.access_token_claims(p_user_id uuid) returns jsonb
language plpgsql stable
set search_path = ''
as $$
declare
    v_claims jsonb;
begin
    select jsonb_strip_nulls(jsonb_build_object(
        'org_id', u.raw_app_meta_data -> 'org_id',
        'user_role', u.raw_app_meta_data -> 'user_role',
        'permissions', u.raw_app_meta_data -> 'permissions',
        'scope_path', u.raw_app_meta_data -> 'scope_path',
        'claims_version', 1))
    into v_claims
    from auth.users u
    where u.id = p_user_id;
    return v_claims;
end;
$$;
