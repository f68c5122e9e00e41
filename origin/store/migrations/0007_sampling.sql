-- How many of the requests of a series were not written down: those that decisions written down stand for beside
-- themselves. Where there are any, the counts are estimates.
alter table meridian.rollup add column unwritten bigint not null default 0;
