-- The event got its dotted name, the dispatcher still waits for the old one. It counts as processed.
-- inject
do $fault$
declare
    healthy constant text := pg_get_functiondef('public.process_domain_event()'::regprocedure);
    broken constant text := replace(healthy, $a$when 'user.invited'$a$, $b$when 'UserInvited'$b$);
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
        pg_get_functiondef('public.process_domain_event()'::regprocedure), $b$when 'UserInvited'$b$, $a$when 'user.invited'$a$);
end
$fault$;
