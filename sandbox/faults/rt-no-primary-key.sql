-- The primary key is gone. With REPLICA IDENTITY FULL updates still work, so nothing else complains.
-- inject
alter table public.workflow_queue_projection replica identity full;
alter table public.workflow_queue_projection drop constraint workflow_queue_projection_pkey;
-- clear
alter table public.workflow_queue_projection
    add constraint workflow_queue_projection_pkey primary key (id);
alter table public.workflow_queue_projection replica identity default;
