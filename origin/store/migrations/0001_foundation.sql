-- The foundation: this region's identity and clock, stamping, row-level security, enrolment of replicated
-- tables, records, and what replication keeps beside them. Runs as meridian_owner in the schema `meridian`.

alter default privileges in schema meridian
    grant select, insert, update, delete on tables to meridian_app, meridian_replicator;
alter default privileges in schema meridian
    grant usage, select, update on sequences to meridian_app, meridian_replicator;
-- Readiness compares the migrations done with those known.
grant select on meridian._sqlx_migrations to meridian_app, meridian_replicator;

-- Who this database is. `incarnation` tells peers that positions start anew after a restore or a rebuild.
create table meridian.node (
    one boolean primary key default true check (one),
    region text not null,
    ordinal smallint not null check (ordinal > 0),
    incarnation uuid not null default gen_random_uuid()
);
revoke insert, update, delete on meridian.node from meridian_app, meridian_replicator;

-- This region's ordinal. `migrate` replaces it by the real one; a function with a constant costs nothing in a trigger.
create function meridian.region() returns smallint language sql immutable as 'select 0::smallint';

------------------------------------------------------------------------------------------------------------
-- The clock: a hybrid logical clock in a sequence (48 bits of milliseconds, 16 bits of counter). A sequence
-- survives restarts and is shared by concurrent transactions without one waiting for the other to end.
create sequence meridian.clock as bigint minvalue 0 start 1;

-- Moves the clock to `target` if it is behind, and returns a fresh reading. Only one session moves it at a time;
-- the others take the next reading instead of waiting, which is still above all earlier ones. One expression, so
-- that nothing can interrupt between lock and unlock.
create function meridian.advance(target bigint) returns bigint language plpgsql as $$
begin
    return case when pg_try_advisory_lock(7220469)
        then case when nextval('meridian.clock') < target then setval('meridian.clock', target)
                  else nextval('meridian.clock') end * pg_advisory_unlock(7220469)::int
        else nextval('meridian.clock') end;
end $$;

-- Puts the clock above a stamp that was applied here, so that no later local write is below it.
create function meridian.observe(stamp bigint) returns void language plpgsql as $$
begin
    for attempt in 1..5000 loop
        if nextval('meridian.clock') > stamp or meridian.advance(stamp + 1) > stamp then
            return;
        end if;
        perform pg_sleep(0.001);
    end loop;
    raise exception 'the clock could not be moved past %', stamp;
end $$;

-- A fresh stamp, at least the wall clock (to the millisecond) and above every stamp given out or applied here.
create function meridian.tick() returns bigint language plpgsql as $$
declare
    tick bigint := nextval('meridian.clock');
    wall bigint := (date_part('epoch', clock_timestamp()) * 1000)::bigint << 16;
begin
    -- Within a millisecond of the wall clock there is no need to move: it keeps the common case lock-free.
    if tick < wall - 65536 then
        tick := meridian.advance(wall);
    end if;
    return tick;
end $$;

------------------------------------------------------------------------------------------------------------
-- Triggers of enrolled tables. They don't fire for the apply loop (session_replication_role = replica).

-- Stamps a local write and remembers what it was based on.
create function meridian.stamp() returns trigger language plpgsql as $$
declare
    tick bigint := nextval('meridian.clock');
    wall bigint := (date_part('epoch', clock_timestamp()) * 1000)::bigint << 16;
begin
    if tick < wall - 65536 then
        tick := meridian.advance(wall);
    end if;
    if tg_op = 'UPDATE' then
        if tick <= old._stamp then
            perform meridian.observe(old._stamp);
            tick := meridian.tick();
        end if;
        new._base_stamp := old._stamp;
        new._base_region := old._region;
    end if;
    new._stamp := tick;
    new._region := meridian.region();
    return new;
end $$;

-- A local delete leaves a tombstone; deleting a tombstone is the collector's work and takes it away.
-- Argument: the condition that finds the row by its key.
create function meridian.bury() returns trigger language plpgsql security definer set search_path = pg_catalog as $$
begin
    if old._deleted then
        return old;
    end if;
    execute format('update %I.%I t set _deleted = true where %s', tg_table_schema, tg_table_name, tg_argv[0])
        using old;
    return null;
end $$;

-- An insert over a tombstone takes its place, based on it.
create function meridian.revive() returns trigger language plpgsql security definer set search_path = pg_catalog as $$
declare
    dead record;
begin
    execute format('delete from %I.%I t where _deleted and %s returning _stamp, _region',
                   tg_table_schema, tg_table_name, tg_argv[0])
        into dead using new;
    new._base_stamp := coalesce(dead._stamp, 0);
    new._base_region := coalesce(dead._region, 0);
    return new;
end $$;

------------------------------------------------------------------------------------------------------------
-- Row-level security: what a session may see follows from the settings that travel with its `begin`.

-- Lets meridian_app see the rows of the tenant in `meridian.tenant`, or all rows when `meridian.role` is
-- `control`; tombstones never. Without a tenant column only `control` sees anything. The owner and the apply
-- loop see everything by policies of their own: nobody bypasses row-level security.
create function meridian.protect(relation regclass, tenant_column text) returns void language plpgsql as $$
declare
    alive text := case when exists (select from pg_attribute where attrelid = relation and attname = '_deleted'
                                    and not attisdropped) then ' and not _deleted' else '' end;
    own text := case when tenant_column is not null
                     then format('%I = current_setting(''meridian.tenant'', true)', tenant_column) end;
    control text := 'current_setting(''meridian.role'', true) = ''control''';
begin
    execute format('alter table %s enable row level security', relation);
    execute format('alter table %s force row level security', relation);
    execute format('drop policy if exists meridian_tenant on %s', relation);
    execute format('drop policy if exists meridian_control on %s', relation);
    execute format('drop policy if exists meridian_internal on %s', relation);
    if tenant_column is not null then
        execute format('create policy meridian_tenant on %s to meridian_app using (%s%s) with check (%s)',
                       relation, own, alive, own);
    end if;
    execute format('create policy meridian_control on %s to meridian_app using (%s%s) with check (%s)',
                   relation, control, alive, control);
    execute format('create policy meridian_internal on %s to meridian_owner, meridian_replicator '
                   'using (true) with check (true)', relation);
end $$;

------------------------------------------------------------------------------------------------------------
-- Enrolment.

create table meridian.enrolled (
    table_name text primary key,
    tenant_column text,
    key_columns text[] not null
);
revoke insert, update, delete on meridian.enrolled from meridian_app, meridian_replicator;

create publication meridian with (publish = 'insert, update');

-- Makes a table of the schema `meridian` replicated: stamp columns, triggers, publication, row-level security.
-- `tenant_column` holds the tenant's slug, by which residency decides where a row may go; null means that rows
-- belong to the platform and go everywhere. `revive` lets an insert take the place of a tombstone.
-- It refuses, with a reason, a table without a primary key or with an identity that two regions would both give out.
create function meridian.enroll(relation regclass, tenant_column text, revive boolean default true)
returns void language plpgsql as $$
declare
    relation_name text := (select relname from pg_class where oid = relation
                           and relnamespace = 'meridian'::regnamespace);
    keys text[];
    finder text;
begin
    if relation_name is null then
        raise exception 'table % is not in the schema meridian', relation;
    end if;
    select array_agg(a.attname::text order by k.place),
           string_agg(format('t.%1$I = ($1).%1$I', a.attname), ' and ' order by k.place)
      into keys, finder
      from pg_index i, unnest(i.indkey) with ordinality k(number, place), pg_attribute a
     where i.indrelid = relation and i.indisprimary and a.attrelid = relation and a.attnum = k.number;
    if keys is null then
        raise exception 'table % has no primary key, by which its rows could be found elsewhere', relation;
    end if;
    if exists (select from pg_attribute where attrelid = relation and attidentity <> '' and not attisdropped) then
        raise exception 'table % has an identity column: two regions would give out the same numbers', relation;
    end if;
    if tenant_column is not null and not exists (select from pg_attribute where attrelid = relation
                                                 and attname = tenant_column and not attisdropped) then
        raise exception 'table % has no column %', relation, tenant_column;
    end if;
    execute format('alter table %s
        add column if not exists _stamp bigint not null default 0,
        add column if not exists _region smallint not null default 0,
        add column if not exists _base_stamp bigint not null default 0,
        add column if not exists _base_region smallint not null default 0,
        add column if not exists _deleted boolean not null default false', relation);
    execute format('create or replace trigger meridian_stamp before insert or update on %s
        for each row execute function meridian.stamp()', relation);
    execute format('create or replace trigger meridian_bury before delete on %s
        for each row execute function meridian.bury(%L)', relation, finder);
    if revive then
        execute format('create or replace trigger meridian_revive before insert on %s
            for each row execute function meridian.revive(%L)', relation, finder);
    end if;
    -- The collector finds tombstones by age.
    execute format('create index if not exists %I on %s (_stamp) where _deleted',
                   relation_name || '_tombstones', relation);
    perform meridian.protect(relation, tenant_column);
    execute format('update %s set _deleted = false where _stamp = 0', relation);
    if relation_name = 'tenant' then
        -- Residency compares the regions allowed before with those allowed after.
        execute format('alter table %s replica identity full', relation);
    end if;
    insert into meridian.enrolled values (relation_name, tenant_column, keys)
        on conflict (table_name) do update
        set tenant_column = excluded.tenant_column, key_columns = excluded.key_columns;
    if not exists (select from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
                   where p.pubname = 'meridian' and r.prrelid = relation) then
        execute format('alter publication meridian add table %s', relation);
    end if;
end $$;

------------------------------------------------------------------------------------------------------------
-- Collections and records.

create table meridian.collection (
    tenant text collate "C" not null check (tenant <> ''),
    name text collate "C" not null check (name <> ''),
    json_schema jsonb not null,
    merge jsonb not null default '{}',
    created_at timestamptz(3) not null default now(),
    updated_at timestamptz(3) not null default now(),
    primary key (tenant, name)
);
select meridian.enroll('meridian.collection', 'tenant');

-- `fields` is what readers see; `merge` holds the states of counters, sets and maps. A tombstone keeps both:
-- a merging field never forgets what it has counted, and an id is not used twice.
create table meridian.record (
    tenant text collate "C" not null check (tenant <> ''),
    collection text collate "C" not null,
    id uuid not null,
    fields jsonb not null,
    merge jsonb not null default '{}',
    created_at timestamptz(3) not null default now(),
    updated_at timestamptz(3) not null default now(),
    primary key (tenant, collection, id)
);
select meridian.enroll('meridian.record', 'tenant', revive => false);

------------------------------------------------------------------------------------------------------------
-- What replication keeps in each region for itself; never replicated.

-- How far each source has been applied; written in the transaction that applies.
create table meridian.cursor (
    source smallint primary key,
    region text not null,
    incarnation text not null,
    position bigint not null,
    commit_ms bigint not null,
    updated_at timestamptz not null default now()
);
revoke insert, update, delete on meridian.cursor from meridian_app;

create function meridian.applied(p_source smallint, p_region text, p_incarnation text, p_position bigint,
                                 p_commit_ms bigint, p_stamp bigint) returns void language plpgsql as $$
begin
    if p_stamp > 0 then
        perform meridian.observe(p_stamp);
    end if;
    insert into meridian.cursor as c (source, region, incarnation, position, commit_ms)
        values (p_source, p_region, p_incarnation, p_position, p_commit_ms)
        on conflict (source) do update
        set region = excluded.region, incarnation = excluded.incarnation, position = excluded.position,
            commit_ms = excluded.commit_ms, updated_at = now();
end $$;

-- What became stale, for the edges. Writers hold a lock from here to their commit, so that the order of `seq`
-- is the order in which rows become visible, and a reader that has seen one number has seen all below it.
create table meridian.purge (
    seq bigserial primary key,
    tenant text not null,
    tag text not null,
    source smallint not null,
    position bigint not null,
    at_ms bigint not null
);
create index purge_at on meridian.purge (at_ms);

create function meridian.journal(p_tenants text[], p_tags text[], p_source smallint, p_positions bigint[])
returns void language plpgsql as $$
begin
    perform pg_advisory_xact_lock(7220470);
    insert into meridian.purge (tenant, tag, source, position, at_ms)
        select t, g, p_source, p, (date_part('epoch', clock_timestamp()) * 1000)::bigint
          from unnest(p_tenants, p_tags, p_positions) as x(t, g, p);
end $$;

-- Concurrent changes of which one gave way: both sides, what won and why.
create table meridian.conflict (
    id bigint generated always as identity primary key,
    at timestamptz(3) not null default now(),
    tenant text,
    table_name text not null,
    key jsonb not null,
    class text not null,
    source smallint not null,
    winner text not null,
    reason text not null,
    mine_stamp text not null,
    theirs_stamp text not null,
    mine jsonb not null,
    theirs jsonb not null
);
create unique index conflict_once on meridian.conflict (table_name, key, mine_stamp, theirs_stamp);
create index conflict_at on meridian.conflict (at);
select meridian.protect('meridian.conflict', 'tenant');

-- Changes that could not be applied yet, with the reason; they are tried again.
create table meridian.parked (
    id bigint generated always as identity primary key,
    at timestamptz(3) not null default now(),
    source smallint not null,
    position bigint not null,
    tenant text,
    table_name text not null,
    content jsonb not null,
    state text not null,
    detail text not null,
    attempts integer not null default 0,
    next_at timestamptz not null default now()
);
create index parked_next on meridian.parked (source, next_at);
create unique index parked_once on meridian.parked (source, table_name, md5(content::text));
select meridian.protect('meridian.parked', 'tenant');
