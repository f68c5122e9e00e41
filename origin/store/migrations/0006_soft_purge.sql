-- Soft purges: what they reach is stale from then on, but may be of use while it is fetched anew. Only purges by hand are
-- soft; the writers that know no such thing go on as they did.
alter table meridian.purge add column soft boolean not null default false;

drop function meridian.journal(text[], text[], smallint, bigint[]);

create function meridian.journal(p_tenants text[], p_tags text[], p_source smallint, p_positions bigint[],
                                 p_soft boolean default false)
returns void language plpgsql as $$
begin
    perform pg_advisory_xact_lock(7220470);
    insert into meridian.purge (tenant, tag, source, position, at_ms, soft)
        select t, g, p_source, p, (date_part('epoch', clock_timestamp()) * 1000)::bigint, p_soft
          from unnest(p_tenants, p_tags, p_positions) as x(t, g, p);
end $$;
