-- What experiments count: each unit once for a version and region, when it was first given a variant, and each goal that it
-- reached. Who orders through one region may have been shown the variant in another, so both go to every region that the
-- tenant allows; the region is in the key, so that no two of them write the same row. `unit` is a keyed hash and names
-- nobody. Times are milliseconds since the Unix epoch.
create table meridian.exposure (
    tenant text collate "C" not null check (tenant <> ''),
    experiment text collate "C" not null,
    version text collate "C" not null,
    unit text collate "C" not null,
    region smallint not null default meridian.region(),
    variant text not null,
    at_ms bigint not null,
    primary key (tenant, experiment, version, unit, region)
);
create index exposure_at on meridian.exposure (at_ms);
select meridian.enroll('meridian.exposure', 'tenant');

create table meridian.conversion (
    tenant text collate "C" not null check (tenant <> ''),
    experiment text collate "C" not null,
    version text collate "C" not null,
    goal text collate "C" not null,
    unit text collate "C" not null,
    region smallint not null default meridian.region(),
    at_ms bigint not null,
    primary key (tenant, experiment, version, goal, unit, region)
);
create index conversion_at on meridian.conversion (at_ms);
select meridian.enroll('meridian.conversion', 'tenant');
