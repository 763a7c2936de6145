-- After a restore the role lacks BYPASSRLS, and no policy lets it read the queue.
-- inject
alter role service_role nobypassrls;
drop policy workflow_queue_service on public.workflow_queue_projection;
-- clear
alter role service_role bypassrls;
create policy workflow_queue_service on public.workflow_queue_projection
    for select to service_role using (true);
