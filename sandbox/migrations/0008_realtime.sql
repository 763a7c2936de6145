-- What the Realtime server publishes, and where it keeps its subscriptions. Type, column and publication
-- names are those of a Supabase project (realtime-protocol, sections 6 to 8): they are what people look at
-- when a subscription is silent. The store of events is not published.

create publication supabase_realtime for table
    public.workflow_queue_projection,
    public.organizations_projection,
    public.invitations_projection,
    public.services;

create type realtime.equality_op as enum
    ('eq', 'neq', 'lt', 'lte', 'gt', 'gte', 'in', 'like', 'ilike', 'is', 'match', 'imatch', 'isdistinct');

create type realtime.user_defined_filter as (
    column_name text,
    op realtime.equality_op,
    value text,
    negate boolean
);

-- A generated column wants an immutable expression; role names do not change under a subscription.
create function realtime.to_regrole(role_name text) returns regrole
language sql immutable
set search_path = ''
return role_name::regrole;

create table realtime.subscription (
    id bigint generated always as identity primary key,
    subscription_id uuid not null,
    entity regclass not null,
    filters realtime.user_defined_filter[] not null default '{}',
    claims jsonb not null,
    claims_role regrole not null generated always as (realtime.to_regrole(claims ->> 'role')) stored,
    created_at timestamp not null default timezone('utc', now()),
    action_filter text not null default '*' check (action_filter in ('*', 'INSERT', 'UPDATE', 'DELETE')),
    selected_columns text[]
);

create index subscription_entity_idx on realtime.subscription (entity);
