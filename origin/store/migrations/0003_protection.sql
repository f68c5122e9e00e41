-- Row-level security of the two tables that had none. The purge journal tells what tenants' records are called, the locks
-- which tenants there are: the control plane reads them whole, a tenant its own journal alone.
select meridian.protect('meridian.purge', 'tenant');
select meridian.protect('meridian.release_lock', null);
