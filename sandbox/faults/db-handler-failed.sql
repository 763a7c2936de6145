-- The column was renamed, the handler was not: every organization.created fails inside its trigger.
-- inject
do $fault$
declare
    healthy constant text := pg_get_functiondef('public.handle_organization_created(public.domain_events)'::regprocedure);
    broken constant text := replace(healthy, $a$(id, name, type, subdomain,$a$, $b$(id, name, org_type, subdomain,$b$);
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
        pg_get_functiondef('public.handle_organization_created(public.domain_events)'::regprocedure), $b$(id, name, org_type, subdomain,$b$, $a$(id, name, type, subdomain,$a$);
end
$fault$;
