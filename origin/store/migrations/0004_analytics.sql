-- Decisions in partitions by the day, and their roll-ups by the minute. Both stay in the region that they were reported
-- to. Times are milliseconds since the Unix epoch, days those of UTC.

-- Makes the partitions of the days from `p_keep_days` ago to the day after tomorrow, and drops those of the days before.
-- A lock that is not to be had soon is a fault: readers must not queue behind a waiting drop.
create function meridian.keep_days(parent regclass, p_now_ms bigint, p_keep_days integer) returns integer
language plpgsql security definer
set search_path = pg_catalog set lock_timeout = '2s' set client_min_messages = warning as $$
declare
    day_ms constant bigint := 86400000;
    today bigint := p_now_ms / day_ms;
    parent_name text := (select relname from pg_class where oid = parent);
    child text;
    dropped integer := 0;
begin
    if parent not in ('meridian.event'::regclass, 'meridian.rollup'::regclass) or p_keep_days < 1 then
        raise exception 'table % is not kept for % days', parent, p_keep_days;
    end if;
    perform pg_advisory_xact_lock(7220471, parent::oid::integer);
    for day in today - p_keep_days .. today + 2 loop
        child := parent_name || to_char(to_timestamp(day * 86400) at time zone 'UTC', '_YYYYMMDD');
        if to_regclass('meridian.' || child) is null then
            -- Attaching lets readers and writers go on, as creating in place would not.
            execute format('create table meridian.%I (like %s including all)', child, parent);
            perform meridian.protect(format('meridian.%I', child)::regclass, 'tenant');
            execute format('alter table %s attach partition meridian.%I for values from (%s) to (%s)',
                           parent, child, day * day_ms, (day + 1) * day_ms);
        end if;
    end loop;
    for child in
        select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
         where i.inhparent = parent
           and right(c.relname, 8) < to_char(to_timestamp((today - p_keep_days) * 86400) at time zone 'UTC', 'YYYYMMDD')
    loop
        execute format('drop table meridian.%I', child);
        dropped := dropped + 1;
    end loop;
    return dropped;
end $$;
revoke execute on function meridian.keep_days(regclass, bigint, integer) from public;
grant execute on function meridian.keep_days(regclass, bigint, integer) to meridian_app;

alter table meridian.event rename to event_whole;
alter index meridian.event_pkey rename to event_whole_pkey;
drop index meridian.event_at;
drop index meridian.event_tenant;

-- `seq` is the order of arrival, by which readers follow: writers hold a lock from here to their commit, so that who has
-- seen one number has seen all below it.
create sequence meridian.event_seq as bigint;
create table meridian.event (
    seq bigint not null default nextval('meridian.event_seq'),
    decision text not null,
    tenant text,
    edge text not null,
    at_ms bigint not null,
    body jsonb not null,
    primary key (decision, at_ms)
) partition by range (at_ms);
create index event_order on meridian.event (seq);
create index event_tenant on meridian.event (tenant, seq);
select meridian.protect('meridian.event', 'tenant');

-- What was decided within a minute, by what is worth telling apart; '' where there is none. `elapsed_buckets` counts by
-- time to the reply's head: the places are those of the code.
create table meridian.rollup (
    minute_ms bigint not null,
    tenant text not null,
    route text not null,
    outcome text not null,
    status_class smallint not null,
    cache text not null,
    region text not null,
    requests bigint not null,
    elapsed_sum_ms bigint not null,
    elapsed_max_ms bigint not null,
    elapsed_buckets bigint[] not null,
    primary key (tenant, minute_ms, route, outcome, status_class, cache, region)
) partition by range (minute_ms);
select meridian.protect('meridian.rollup', 'tenant');

do $$
declare
    now_ms bigint := (date_part('epoch', clock_timestamp()) * 1000)::bigint;
begin
    perform meridian.keep_days('meridian.event', now_ms, 7);
    perform meridian.keep_days('meridian.rollup', now_ms, 31);
    insert into meridian.event (decision, tenant, edge, at_ms, body)
        select decision, tenant, edge, at_ms, body from meridian.event_whole
         where at_ms >= (now_ms / 86400000 - 7) * 86400000 and at_ms < (now_ms / 86400000 + 3) * 86400000
         order by at_ms;
end $$;
drop table meridian.event_whole;
