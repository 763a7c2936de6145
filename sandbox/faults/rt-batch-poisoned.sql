-- A policy for signed-in users reads a setting that only one application sets, and raises for everybody
-- else. One of them is subscribed: the check of every change raises, and the whole batch is lost.
-- inject
create policy workflow_queue_tenant on public.workflow_queue_projection
    for select to authenticated using (stream_id = current_setting('app.current_org')::uuid);
-- clear
drop policy workflow_queue_tenant on public.workflow_queue_projection;
