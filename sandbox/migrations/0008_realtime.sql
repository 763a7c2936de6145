-- What the Realtime server publishes, and where it keeps its subscriptions. Table, column and publication
-- names are those of a Supabase project: they are what people look at when a subscription is silent. The store of events is not published.

create publication supabase_realtime for table
    public.workflow_queue_projection,
    public.organizations_projection,
    public.invitations_projection,
    public.services;

-- Filters are kept as they were written (`status=eq.pending`); the hosted service keeps them taken apart.
create table realtime.subscription (
    id bigint generated always as identity primary key,
    subscription_id uuid not null,
    entity regclass not null,
    filters text[] not null default '{}',
    claims jsonb not null,
    claims_role regrole not null,
    action_filter text not null default '*' check (action_filter in ('*', 'INSERT', 'UPDATE', 'DELETE')),
    selected_columns text[],
    created_at timestamptz not null default now()
);

create index subscription_entity_idx on realtime.subscription (entity);
