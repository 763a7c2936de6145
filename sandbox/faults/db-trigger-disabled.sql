-- Somebody disabled the trigger for a bulk load.
-- inject
alter table public.domain_events disable trigger enqueue_bootstrap;
-- clear
alter table public.domain_events enable trigger enqueue_bootstrap;
