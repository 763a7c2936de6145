-- Dispatch. The handler runs inside a subtransaction: when it fails, its effects are rolled back, the event
-- is stored all the same with the reason in processing_error, and the caller gets 200. An event type without
-- a handler counts as processed. Both are how the reference system behaves, and why a prober must look.

create function public.process_domain_event() returns trigger
language plpgsql
set search_path = ''
as $$
begin
    case new.event_type
        when 'workflow.queue.pending' then perform public.handle_workflow_queue_pending(new);
        when 'workflow.queue.claimed' then perform public.handle_workflow_queue_claimed(new);
        when 'workflow.queue.completed' then perform public.handle_workflow_queue_completed(new);
        when 'workflow.queue.failed' then perform public.handle_workflow_queue_failed(new);
        when 'organization.created' then perform public.handle_organization_created(new);
        when 'organization.dns.configured' then perform public.handle_organization_dns_configured(new);
        when 'organization.dns.verified' then perform public.handle_organization_dns_verified(new);
        when 'organization.dns.removed' then perform public.handle_organization_dns_removed(new);
        when 'organization.activated' then perform public.handle_organization_activated(new);
        when 'organization.deactivated' then perform public.handle_organization_deactivated(new);
        when 'user.invited' then perform public.handle_user_invited(new);
        when 'invitation.email.sent' then perform public.handle_invitation_email_sent(new);
        when 'invitation.revoked' then perform public.handle_invitation_revoked(new);
        else null;
    end case;
    new.processed_at := clock_timestamp();
    new.processing_error := null;
    return new;
exception when others then
    new.processed_at := null;
    new.processing_error := sqlerrm || ' (SQLSTATE ' || sqlstate || ')';
    return new;
end;
$$;

create trigger process_domain_event
    before insert on public.domain_events
    for each row execute function public.process_domain_event();

-- A bootstrap becomes work: the queue's own stream starts with `workflow.queue.pending`, in the same
-- transaction. Of the metadata only what identifies the cause travels on.
create function public.enqueue_bootstrap() returns trigger
language plpgsql
set search_path = ''
as $$
declare
    v_queue_id uuid := gen_random_uuid();
begin
    insert into public.domain_events
        (stream_id, stream_type, stream_version, event_type, event_data, event_metadata)
    values (
        v_queue_id, 'workflow_queue', 1,
        'workflow.queue.pending',
        jsonb_build_object(
            'queue_id', v_queue_id,
            'event_id', new.id,
            'event_type', new.event_type,
            'event_data', new.event_data,
            'stream_id', new.stream_id,
            'stream_type', new.stream_type),
        public.inherited_metadata(new.event_metadata));
    return null;
end;
$$;

create function public.inherited_metadata(metadata jsonb) returns jsonb
language sql stable
set search_path = ''
return jsonb_strip_nulls(jsonb_build_object(
    'timestamp', to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
    'correlation_id', metadata -> 'correlation_id',
    'traceparent', metadata -> 'traceparent',
    'tags', metadata -> 'tags',
    'source', metadata -> 'source'));

create trigger enqueue_bootstrap
    after insert on public.domain_events
    for each row when (new.event_type = 'organization.bootstrap.initiated')
    execute function public.enqueue_bootstrap();
