-- The event store and the projections that are derived from it.

create table public.domain_events (
    id uuid primary key default gen_random_uuid(),
    sequence_number bigserial not null unique,
    stream_id uuid not null,
    stream_type text not null,
    stream_version int not null check (stream_version > 0),
    event_type text not null
        constraint domain_events_event_type_check check (event_type ~ '^[a-z_]+(\.[a-z_]+)+$'),
    event_data jsonb not null
        constraint domain_events_event_data_check check (jsonb_typeof(event_data) = 'object'),
    event_metadata jsonb not null default '{}'
        constraint domain_events_event_metadata_check check (jsonb_typeof(event_metadata) = 'object'),
    created_at timestamptz not null default now(),
    processed_at timestamptz,
    processing_error text,
    retry_count int not null default 0,
    constraint domain_events_stream_version_key unique (stream_id, stream_type, stream_version)
);

create index domain_events_event_type_idx on public.domain_events (event_type, created_at);
create index domain_events_stream_idx on public.domain_events (stream_id, stream_type);
create index domain_events_workflow_id_idx on public.domain_events ((event_metadata ->> 'workflow_id'));
create index domain_events_workflow_run_id_idx on public.domain_events ((event_metadata ->> 'workflow_run_id'));
create index domain_events_correlation_id_idx on public.domain_events ((event_metadata ->> 'correlation_id'));

create table public.workflow_queue_projection (
    id uuid primary key,
    event_id uuid not null unique,
    event_type text not null,
    event_data jsonb not null,
    stream_id uuid not null,
    stream_type text not null,
    status text not null check (status in ('pending', 'processing', 'completed', 'failed')),
    worker_id text,
    claimed_at timestamptz,
    workflow_id text,
    workflow_run_id text,
    completed_at timestamptz,
    failed_at timestamptz,
    error_message text,
    error_stack text,
    retry_count int not null default 0,
    result jsonb,
    tags text[] not null default '{}',
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

create index workflow_queue_projection_pending_idx
    on public.workflow_queue_projection (created_at) where status = 'pending';
create index workflow_queue_projection_stream_idx on public.workflow_queue_projection (stream_id);

create table public.organizations_projection (
    id uuid primary key,
    name text not null,
    type text not null,
    subdomain text not null,
    subdomain_status text not null
        check (subdomain_status in ('pending', 'verifying', 'verified', 'removed')),
    status text not null check (status in ('provisioning', 'active', 'failed')),
    tags text[] not null default '{}',
    activated_at timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

create table public.invitations_projection (
    id uuid primary key,
    organization_id uuid not null,
    email text not null,
    first_name text,
    last_name text,
    role text,
    token text not null,
    status text not null check (status in ('pending', 'accepted', 'revoked', 'expired')),
    expires_at timestamptz not null,
    email_sent_at timestamptz,
    tags text[] not null default '{}',
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

create index invitations_projection_organization_idx on public.invitations_projection (organization_id);

-- Written by the activity of the Temporal Cloud topology, not by an event.
create table public.services (
    id uuid primary key default gen_random_uuid(),
    organization_id uuid not null,
    name text not null,
    status text not null default 'active',
    tags text[] not null default '{}',
    created_at timestamptz not null default now()
);

create index services_organization_idx on public.services (organization_id);
