-- The function gained a parameter without a default; its callers were not told.
-- inject
do $fault$
declare
    healthy constant text := pg_get_functiondef(
        'api.emit_domain_event(uuid, text, int, text, jsonb, jsonb)'::regprocedure);
begin
    drop function api.emit_domain_event(uuid, text, int, text, jsonb, jsonb);
    execute replace(healthy, 'p_event_metadata jsonb DEFAULT', 'p_tenant_id uuid, p_event_metadata jsonb DEFAULT');
    grant execute on function api.emit_domain_event(uuid, text, int, text, jsonb, uuid, jsonb) to service_role;
end
$fault$;
notify pgrst, 'reload schema';
-- clear
do $fault$
declare
    broken constant text := pg_get_functiondef(
        'api.emit_domain_event(uuid, text, int, text, jsonb, uuid, jsonb)'::regprocedure);
begin
    drop function api.emit_domain_event(uuid, text, int, text, jsonb, uuid, jsonb);
    execute replace(broken, 'p_tenant_id uuid, ', '');
    grant execute on function api.emit_domain_event(uuid, text, int, text, jsonb, jsonb) to service_role;
end
$fault$;
notify pgrst, 'reload schema';
