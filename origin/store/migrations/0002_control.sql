-- The control plane: tenants, their hostnames, releases of rules, tokens, the audit log; decisions reported by edges;
-- answers kept for repeated requests.
--
-- Tenants, domains, releases, tokens and the audit log go to every region, whatever regions a tenant allows for its
-- data: an edge anywhere has to know whose hostname it is and by which rules it answers. They are therefore enrolled
-- without a tenant column, and only the control plane sees them. Times are milliseconds since the Unix epoch.

create table meridian.tenant (
    slug text primary key,
    name text not null,
    state text not null check (state in ('active', 'suspended')),
    home_region text not null,
    allowed_regions text[] not null check (cardinality(allowed_regions) > 0),
    created_at_ms bigint not null,
    updated_at_ms bigint not null
);
select meridian.enroll('meridian.tenant', null);

create table meridian.domain (
    hostname text primary key,
    tenant text not null,
    created_at_ms bigint not null
);
create index domain_tenant on meridian.domain (tenant);
select meridian.enroll('meridian.domain', null);

-- One row for each release of a target (`platform` or `tenant:SLUG`); the head is the one with the highest sequence.
create table meridian.release (
    target text not null,
    sequence bigint not null check (sequence > 0),
    version text not null,
    parent text,
    kind text not null check (kind in ('push', 'rollback', 'generated')),
    files jsonb not null,
    bundle text not null,
    ticket text not null,
    note text,
    created_by text not null,
    created_at_ms bigint not null,
    primary key (target, sequence)
);
create index release_version on meridian.release (target, version);
select meridian.enroll('meridian.release', null);

-- What a writer of releases locks, so that compare-and-set is decided by one writer at a time. Never leaves the region.
create table meridian.release_lock (
    target text primary key
);

-- Control tokens; the token itself is never stored.
create table meridian.token (
    sha256 text primary key check (length(sha256) = 64),
    name text not null,
    scopes text[] not null,
    created_by text not null,
    created_at_ms bigint not null,
    expires_at_ms bigint,
    revoked_at_ms bigint
);
select meridian.enroll('meridian.token', null);

create table meridian.audit (
    id uuid primary key,
    at_ms bigint not null,
    actor text not null,
    action text not null,
    subject text not null,
    tenant text,
    before_sha256 text,
    after_sha256 text,
    detail jsonb not null
);
create index audit_at on meridian.audit (at_ms);
select meridian.enroll('meridian.audit', null);
revoke update, delete on meridian.audit from meridian_app;

-- Decisions as the edges reported them, in the region that they were reported to.
create table meridian.event (
    decision text primary key,
    tenant text,
    edge text not null,
    at_ms bigint not null,
    body jsonb not null
);
create index event_at on meridian.event (at_ms);
create index event_tenant on meridian.event (tenant, at_ms);
select meridian.protect('meridian.event', 'tenant');

-- Answers to requests that carried an idempotency key, for as long as the key is remembered.
create table meridian.idempotency (
    tenant text not null,
    subject text not null,
    key text not null,
    request_sha256 text not null,
    response jsonb,
    created_at_ms bigint not null,
    primary key (tenant, subject, key)
);
create index idempotency_at on meridian.idempotency (created_at_ms);
select meridian.protect('meridian.idempotency', 'tenant');
