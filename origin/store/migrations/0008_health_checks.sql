-- Which targets have ever had an upstream with a health check: origins look there every second, and most targets have none.
-- The text is that of a member's name in a bundle: inside a JSON string it can't stand, for the quotes are escaped there.
create index release_checked on meridian.release (target) where strpos(bundle, '"healthCheck":{') > 0;
