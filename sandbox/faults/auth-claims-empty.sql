-- The access-token function forgets the permissions; sign-in still works.
-- inject
do $fault$
declare
    healthy constant text := pg_get_functiondef('auth.access_token_claims(uuid)'::regprocedure);
    broken constant text := replace(healthy, $a$'permissions', u.raw_app_meta_data -> 'permissions'$a$, $b$'permissions', null$b$);
begin
    if broken = healthy then
        raise exception 'the function does not contain what this fault replaces';
    end if;
    execute broken;
end
$fault$;
-- clear
do $fault$
begin
    execute replace(
        pg_get_functiondef('auth.access_token_claims(uuid)'::regprocedure), $b$'permissions', null$b$, $a$'permissions', u.raw_app_meta_data -> 'permissions'$a$);
end
$fault$;
