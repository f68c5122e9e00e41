-- How many bytes the bodies of a series had: of requests that went on to a target, and of replies. `unmeasured` is how many of
-- its requests had a body of a length that was not known when the reply began; where there are any, the sums are too low.
alter table meridian.rollup
    add column request_bytes bigint not null default 0,
    add column response_bytes bigint not null default 0,
    add column unmeasured bigint not null default 0;
