-- One handler per event that has an effect. A handler derives everything, times included, from the event,
-- so that replaying the store would rebuild the same projections. A handler that finds nothing to change
-- raises: an event that claims to have moved a row that was not there is a fault worth a processing_error.

create function public.event_tags(metadata jsonb) returns text[]
language sql immutable
set search_path = ''
return case pg_catalog.jsonb_typeof(metadata -> 'tags')
    when 'array' then array(select pg_catalog.jsonb_array_elements_text(metadata -> 'tags'))
    else '{}'::text[]
end;

create function public.handle_workflow_queue_pending(event public.domain_events) returns void
language plpgsql
set search_path = ''
as $$
begin
    insert into public.workflow_queue_projection
        (id, event_id, event_type, event_data, stream_id, stream_type, status, tags, created_at, updated_at)
    values (
        (event.event_data ->> 'queue_id')::uuid,
        (event.event_data ->> 'event_id')::uuid,
        event.event_data ->> 'event_type',
        event.event_data -> 'event_data',
        (event.event_data ->> 'stream_id')::uuid,
        event.event_data ->> 'stream_type',
        'pending',
        public.event_tags(event.event_metadata),
        event.created_at,
        event.created_at);
end;
$$;

create function public.handle_workflow_queue_claimed(event public.domain_events) returns void
language plpgsql
set search_path = ''
as $$
begin
    update public.workflow_queue_projection q
    set status = 'processing',
        worker_id = event.event_data ->> 'worker_id',
        claimed_at = event.created_at,
        updated_at = event.created_at
    where q.id = (event.event_data ->> 'queue_id')::uuid and q.status = 'pending';
    if not found then
        raise exception 'queue row % is not pending', event.event_data ->> 'queue_id';
    end if;
end;
$$;

create function public.handle_workflow_queue_completed(event public.domain_events) returns void
language plpgsql
set search_path = ''
as $$
begin
    update public.workflow_queue_projection q
    set status = 'completed',
        workflow_id = event.event_data ->> 'workflow_id',
        workflow_run_id = event.event_data ->> 'workflow_run_id',
        result = event.event_data -> 'result',
        completed_at = event.created_at,
        updated_at = event.created_at
    where q.id = (event.event_data ->> 'queue_id')::uuid and q.status = 'processing';
    if not found then
        raise exception 'queue row % is not processing', event.event_data ->> 'queue_id';
    end if;
end;
$$;

create function public.handle_workflow_queue_failed(event public.domain_events) returns void
language plpgsql
set search_path = ''
as $$
begin
    update public.workflow_queue_projection q
    set status = 'failed',
        error_message = event.event_data ->> 'error_message',
        error_stack = event.event_data ->> 'error_stack',
        retry_count = q.retry_count + 1,
        failed_at = event.created_at,
        updated_at = event.created_at
    where q.id = (event.event_data ->> 'queue_id')::uuid and q.status = 'processing';
    if not found then
        raise exception 'queue row % is not processing', event.event_data ->> 'queue_id';
    end if;
end;
$$;

create function public.handle_organization_created(event public.domain_events) returns void
language plpgsql
set search_path = ''
as $$
begin
    insert into public.organizations_projection
        (id, name, type, subdomain, subdomain_status, status, tags, created_at, updated_at)
    values (
        event.stream_id,
        event.event_data ->> 'name',
        event.event_data ->> 'type',
        event.event_data ->> 'subdomain',
        'pending',
        'provisioning',
        public.event_tags(event.event_metadata),
        event.created_at,
        event.created_at);
end;
$$;

-- The four handlers below move one column of one organization each; a second copy of the update would
-- only be a second place to forget the check.
create function public.move_organization(
    p_event public.domain_events, p_status text, p_subdomain_status text
) returns void
language plpgsql
set search_path = ''
as $$
begin
    update public.organizations_projection o
    set status = coalesce(p_status, o.status),
        subdomain_status = coalesce(p_subdomain_status, o.subdomain_status),
        activated_at = case when p_status = 'active' then p_event.created_at else o.activated_at end,
        updated_at = p_event.created_at
    where o.id = p_event.stream_id;
    if not found then
        raise exception 'organization % has no row in organizations_projection', p_event.stream_id;
    end if;
end;
$$;

create function public.handle_organization_dns_configured(event public.domain_events) returns void
language sql
set search_path = ''
as $$ select public.move_organization(event, null, 'verifying') $$;

create function public.handle_organization_dns_verified(event public.domain_events) returns void
language sql
set search_path = ''
as $$ select public.move_organization(event, null, 'verified') $$;

create function public.handle_organization_dns_removed(event public.domain_events) returns void
language sql
set search_path = ''
as $$ select public.move_organization(event, null, 'removed') $$;

create function public.handle_organization_activated(event public.domain_events) returns void
language sql
set search_path = ''
as $$ select public.move_organization(event, 'active', null) $$;

create function public.handle_organization_deactivated(event public.domain_events) returns void
language sql
set search_path = ''
as $$ select public.move_organization(event, 'failed', null) $$;

create function public.handle_user_invited(event public.domain_events) returns void
language plpgsql
set search_path = ''
as $$
begin
    insert into public.invitations_projection
        (id, organization_id, email, first_name, last_name, role, token, status, expires_at, tags,
         created_at, updated_at)
    values (
        (event.event_data ->> 'invitation_id')::uuid,
        (event.event_data ->> 'organization_id')::uuid,
        event.event_data ->> 'email',
        event.event_data ->> 'first_name',
        event.event_data ->> 'last_name',
        event.event_data ->> 'role',
        event.event_data ->> 'token',
        'pending',
        (event.event_data ->> 'expires_at')::timestamptz,
        public.event_tags(event.event_metadata),
        event.created_at,
        event.created_at);
end;
$$;

create function public.handle_invitation_email_sent(event public.domain_events) returns void
language plpgsql
set search_path = ''
as $$
begin
    update public.invitations_projection i
    set email_sent_at = event.created_at, updated_at = event.created_at
    where i.id = (event.event_data ->> 'invitation_id')::uuid;
    if not found then
        raise exception 'invitation % has no row', event.event_data ->> 'invitation_id';
    end if;
end;
$$;

create function public.handle_invitation_revoked(event public.domain_events) returns void
language plpgsql
set search_path = ''
as $$
begin
    update public.invitations_projection i
    set status = 'revoked', updated_at = event.created_at
    where i.id = (event.event_data ->> 'invitation_id')::uuid;
    if not found then
        raise exception 'invitation % has no row', event.event_data ->> 'invitation_id';
    end if;
end;
$$;
