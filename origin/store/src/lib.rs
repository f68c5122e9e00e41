//! PostgreSQL tables of an origin, one file a table family.
