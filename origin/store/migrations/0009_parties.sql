-- Tenants below tenants, their plans, and how far their hostnames are. What was there before is under nobody, without a plan,
-- and its hostnames are verified: they were served.
alter table meridian.tenant
    add column parent text,
    -- The nearest tenant above it that is suspended, as far as its home region has released that.
    add column suspended_by text,
    add column plan jsonb,
    add constraint tenant_parent_other check (parent <> slug);
create index tenant_parent on meridian.tenant (parent) where parent is not null;

alter table meridian.domain
    add column verification text not null default 'verified'
        check (verification in ('pending', 'verified', 'failed')),
    add column tls text not null default 'none'
        check (tls in ('none', 'issuing', 'active', 'renewing', 'failed'));
