-- The RPC surface. Every function is SECURITY DEFINER with an empty search_path, and executable by exactly
-- the roles named below it.

-- Stream-based, for functions and APIs that know which version they write: a second writer of the same
-- version gets 23505, which PostgREST answers as 409.
create function api.emit_domain_event(
    p_stream_id uuid,
    p_stream_type text,
    p_stream_version int,
    p_event_type text,
    p_event_data jsonb,
    p_event_metadata jsonb default '{}'
) returns uuid
language plpgsql security definer
set search_path = ''
as $$
declare
    v_id uuid;
begin
    insert into public.domain_events
        (stream_id, stream_type, stream_version, event_type, event_data, event_metadata)
    values (p_stream_id, p_stream_type, p_stream_version, p_event_type, p_event_data, p_event_metadata)
    returning id into v_id;
    return v_id;
end;
$$;

-- Aggregate-based, for activities, which are retried: the caller chooses the event id, so a second call
-- with the same id is answered and not stored. The lock makes `max + 1` mean what it says.
create function api.emit_domain_event(
    p_event_id uuid,
    p_event_type text,
    p_aggregate_type text,
    p_aggregate_id uuid,
    p_event_data jsonb,
    p_event_metadata jsonb default '{}'
) returns uuid
language plpgsql security definer
set search_path = ''
as $$
begin
    perform pg_advisory_xact_lock(hashtextextended(p_aggregate_type || ':' || p_aggregate_id, 0));
    if exists (select 1 from public.domain_events e where e.id = p_event_id) then
        return p_event_id;
    end if;
    insert into public.domain_events
        (id, stream_id, stream_type, stream_version, event_type, event_data, event_metadata)
    select p_event_id, p_aggregate_id, p_aggregate_type, coalesce(max(e.stream_version), 0) + 1,
           p_event_type, p_event_data, p_event_metadata
    from public.domain_events e
    where e.stream_id = p_aggregate_id and e.stream_type = p_aggregate_type;
    return p_event_id;
end;
$$;

-- Says that the workflow of a bootstrap was started. Idempotent per (bootstrap event, run).
create function api.emit_workflow_started_event(
    p_stream_id uuid,
    p_bootstrap_event_id uuid,
    p_workflow_id text,
    p_workflow_run_id text,
    p_workflow_type text default 'organizationBootstrapWorkflow'
) returns uuid
language plpgsql security definer
set search_path = ''
as $$
declare
    v_cause public.domain_events;
    v_id uuid;
begin
    select e.* into v_cause from public.domain_events e where e.id = p_bootstrap_event_id;
    if not found then
        raise exception 'bootstrap event % does not exist', p_bootstrap_event_id
            using hint = 'p_bootstrap_event_id is the id of the organization.bootstrap.initiated event';
    end if;

    perform pg_advisory_xact_lock(hashtextextended('organization:' || p_stream_id, 0));
    select e.id into v_id
    from public.domain_events e
    where e.stream_id = p_stream_id
      and e.event_type = 'organization.bootstrap.workflow_started'
      and e.event_data ->> 'bootstrap_event_id' = p_bootstrap_event_id::text
      and e.event_data ->> 'workflow_run_id' = p_workflow_run_id;
    if found then
        return v_id;
    end if;

    insert into public.domain_events
        (stream_id, stream_type, stream_version, event_type, event_data, event_metadata)
    select p_stream_id, 'organization', coalesce(max(e.stream_version), 0) + 1,
           'organization.bootstrap.workflow_started',
           jsonb_build_object(
               'bootstrap_event_id', p_bootstrap_event_id,
               'workflow_id', p_workflow_id,
               'workflow_run_id', p_workflow_run_id,
               'workflow_type', p_workflow_type),
           public.inherited_metadata(v_cause.event_metadata) || jsonb_build_object(
               'workflow_id', p_workflow_id,
               'workflow_run_id', p_workflow_run_id,
               'workflow_type', p_workflow_type)
    from public.domain_events e
    where e.stream_id = p_stream_id and e.stream_type = 'organization'
    returning id into v_id;
    return v_id;
end;
$$;

-- At most a thousand events whatever the caller asks for: one correlation id is one user action.
create function api.get_events_by_correlation(p_correlation_id text, p_limit int default 100)
returns setof public.domain_events
language sql stable security definer
set search_path = ''
as $$
    select e.*
    from public.domain_events e
    where e.event_metadata ->> 'correlation_id' = p_correlation_id
    order by e.sequence_number
    limit least(greatest(p_limit, 0), 1000)
$$;

-- How far a bootstrap has come, for the service and for the organization's own members; nobody else gets
-- a row. Being SECURITY DEFINER it sees everything, so the last condition is all that keeps tenants apart.
create function api.get_bootstrap_status(p_organization_id uuid)
returns table (
    organization_id uuid,
    status text,
    subdomain_status text,
    queue_status text,
    workflow_id text,
    workflow_run_id text
)
language sql stable security definer
set search_path = ''
as $$
    select p_organization_id, o.status, o.subdomain_status, q.status, q.workflow_id, q.workflow_run_id
    from (select 1) one
    left join public.organizations_projection o on o.id = p_organization_id
    left join lateral (
        select w.status, w.workflow_id, w.workflow_run_id
        from public.workflow_queue_projection w
        where w.stream_id = p_organization_id
        order by w.created_at desc
        limit 1
    ) q on true
    where (o.id is not null or q.status is not null)
      and (auth.role() = 'service_role' or auth.jwt() ->> 'org_id' = p_organization_id::text)
$$;

grant execute on function
    api.emit_domain_event(uuid, text, int, text, jsonb, jsonb),
    api.emit_domain_event(uuid, text, text, uuid, jsonb, jsonb),
    api.emit_workflow_started_event(uuid, uuid, text, text, text),
    api.get_events_by_correlation(text, int)
to service_role;

grant execute on function api.get_bootstrap_status(uuid) to authenticated, service_role;
