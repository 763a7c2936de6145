-- The least-privilege database role of Throughline.
--
-- Apply it once per target, as the owner of the tables (on Supabase: the SQL editor), and again whenever a
-- table of your chain changes; running it twice changes nothing. Then give the role a password:
--
--     alter role throughline_prober password '...';
--
-- What the role can do:  read the chain's tables (not through BYPASSRLS: through policies of its own, so that
--                        `drop policy` takes the permission away); read the catalogs that explain a silence;
--                        delete rows that carry Throughline's tag, and only those.
-- What it cannot do:     insert, update, call any RPC, become another role, or delete a row whose `tags`
--                        (for events: `event_metadata -> 'tags'`) has no element starting with `throughline:`.
--
-- A table of the list that does not exist in your database is skipped with a notice. To watch other
-- tables, add them to `projections`; each needs a column `tags text[]` before its rows can be cleaned up.

do $role$
begin
    if not exists (select from pg_roles where rolname = 'throughline_prober') then
        create role throughline_prober login noinherit;
    end if;
    if exists (select from pg_roles where rolname = 'throughline_prober' and (rolsuper or rolbypassrls)) then
        raise exception 'role throughline_prober is a superuser or bypasses row level security'
            using hint = 'As a superuser: alter role throughline_prober nosuperuser nobypassrls;';
    end if;
end
$role$;

alter role throughline_prober connection limit 20;
alter role throughline_prober set statement_timeout = '15s';
alter role throughline_prober set lock_timeout = '5s';
alter role throughline_prober set idle_in_transaction_session_timeout = '30s';

grant usage on schema public to throughline_prober;

do $grants$
declare
    projections constant text[] := array[
        'workflow_queue_projection', 'organizations_projection', 'invitations_projection', 'services'];
    tagged constant text :=
        'exists (select from unnest(tags) tag where starts_with(tag, ''throughline:''))';
    tagged_event constant text :=
        'jsonb_typeof(event_metadata -> ''tags'') = ''array'' and exists (select from '
        'jsonb_array_elements_text(case jsonb_typeof(event_metadata -> ''tags'') when ''array'' '
        'then event_metadata -> ''tags'' else ''[]'' end) tag where starts_with(tag, ''throughline:''))';
    name text;
    condition text;
begin
    foreach name in array array['domain_events'] || projections loop
        if to_regclass(format('public.%I', name)) is null then
            raise notice 'public.% does not exist: skipped', name;
            continue;
        end if;
        execute format('grant select on public.%I to throughline_prober', name);
        execute format('drop policy if exists throughline_read on public.%I', name);
        execute format('drop policy if exists throughline_clean on public.%I', name);
        execute format(
            'create policy throughline_read on public.%I for select to throughline_prober using (true)', name);

        if name = 'domain_events' then
            condition := tagged_event;
        elsif exists (select from pg_attribute
                      where attrelid = format('public.%I', name)::regclass
                        and attname = 'tags' and atttypid = 'text[]'::regtype and not attisdropped) then
            condition := tagged;
        else
            execute format('revoke delete on public.%I from throughline_prober', name);
            raise notice 'public.% has no column "tags text[]": its rows can be read, not cleaned up', name;
            continue;
        end if;

        -- Without row level security a DELETE grant would reach every row.
        if not (select relrowsecurity from pg_class where oid = format('public.%I', name)::regclass) then
            execute format('revoke delete on public.%I from throughline_prober', name);
            raise notice 'row level security is off on public.%: its rows can be read, not cleaned up', name;
            continue;
        end if;
        execute format('grant delete on public.%I to throughline_prober', name);
        execute format(
            'create policy throughline_clean on public.%I for delete to throughline_prober using (%s)',
            name, condition);
    end loop;

    -- Whether a subscription reached the server, and as which role, is the first question about silence.
    if to_regclass('realtime.subscription') is not null then
        begin
            grant usage on schema realtime to throughline_prober;
            grant select on realtime.subscription to throughline_prober;
        exception when insufficient_privilege then
            raise notice 'no right to grant realtime.subscription: ask its owner, or go without that evidence';
        end;
    end if;
end
$grants$;
