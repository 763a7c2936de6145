-- The column was renamed, the handler was not: a bootstrap is stored and never queued.
-- inject
do $fault$
declare
    healthy constant text := pg_get_functiondef('public.handle_workflow_queue_pending(public.domain_events)'::regprocedure);
    broken constant text := replace(healthy, $a$stream_type, status, tags$a$, $b$stream_type, job_status, tags$b$);
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
        pg_get_functiondef('public.handle_workflow_queue_pending(public.domain_events)'::regprocedure), $b$stream_type, job_status, tags$b$, $a$stream_type, status, tags$a$);
end
$fault$;
