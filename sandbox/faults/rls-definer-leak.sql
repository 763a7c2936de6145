-- The check inside a SECURITY DEFINER function was lost in a refactoring; the tables stay clean.
-- inject
do $fault$
declare
    healthy constant text := pg_get_functiondef('api.get_bootstrap_status(uuid)'::regprocedure);
    broken constant text := replace(healthy, $a$auth.jwt() ->> 'org_id' = p_organization_id::text$a$, $b$auth.jwt() ->> 'org_id' is not null$b$);
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
        pg_get_functiondef('api.get_bootstrap_status(uuid)'::regprocedure), $b$auth.jwt() ->> 'org_id' is not null$b$, $a$auth.jwt() ->> 'org_id' = p_organization_id::text$a$);
end
$fault$;
