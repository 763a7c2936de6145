-- The table was created by another role than the one whose default privileges grant SELECT.
-- inject
revoke select on public.workflow_queue_projection from service_role;
-- clear
grant select on public.workflow_queue_projection to service_role;
