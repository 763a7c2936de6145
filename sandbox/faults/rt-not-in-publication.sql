-- The table was created again by a migration, and nobody added it to the publication.
-- inject
alter publication supabase_realtime drop table public.workflow_queue_projection;
-- clear
alter publication supabase_realtime add table public.workflow_queue_projection;
