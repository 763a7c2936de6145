-- A migration dropped the trigger and did not create it again.
-- inject
drop trigger enqueue_bootstrap on public.domain_events;
-- clear
create trigger enqueue_bootstrap
    after insert on public.domain_events
    for each row when (new.event_type = 'organization.bootstrap.initiated')
    execute function public.enqueue_bootstrap();
