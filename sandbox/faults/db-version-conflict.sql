-- The queue's first event goes to the organization's stream, where version 1 is taken.
-- inject
do $fault$
declare
    healthy constant text := pg_get_functiondef('public.enqueue_bootstrap()'::regprocedure);
    broken constant text := replace(healthy, $a$v_queue_id, 'workflow_queue', 1,$a$, $b$new.stream_id, new.stream_type, 1,$b$);
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
        pg_get_functiondef('public.enqueue_bootstrap()'::regprocedure), $b$new.stream_id, new.stream_type, 1,$b$, $a$v_queue_id, 'workflow_queue', 1,$a$);
end
$fault$;
