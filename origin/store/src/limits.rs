//! Every limit of this crate, with its unit.

use std::time::Duration;

/// Bytes of one record's fields as JSON.
pub const FIELDS_BYTES_MAX: usize = 1024 * 1024;
/// Fields of one record.
pub const FIELDS_MAX: usize = 256;
/// Characters of a field's name.
pub const FIELD_NAME_CHARS_MAX: usize = 63;
/// Bytes of a collection's JSON Schema.
pub const SCHEMA_BYTES_MAX: usize = 64 * 1024;
/// Collections of one tenant.
pub const COLLECTIONS_MAX: i64 = 1000;
/// Characters of a collection's name.
pub const COLLECTION_NAME_CHARS_MAX: usize = 63;
/// Violations of a JSON Schema that one answer lists.
pub const VIOLATIONS_MAX: usize = 20;
/// How long a collection's declaration may be served from memory after it changed elsewhere.
pub const COLLECTION_AGE_MAX: Duration = Duration::from_secs(1);
/// Collections held in memory.
pub const COLLECTIONS_CACHED_MAX: usize = 4096;
/// Records of one page.
pub const PAGE_MAX: u32 = 200;
/// Records of one page when the client doesn't say.
pub const PAGE_DEFAULT: u32 = 50;
/// Filters of one list request.
pub const FILTERS_MAX: usize = 16;
/// Characters of one filter's value.
pub const FILTER_CHARS_MAX: usize = 1024;
/// Bytes of a page cursor.
pub const CURSOR_BYTES_MAX: usize = 8 * 1024;
/// Operations of one batch.
pub const BATCH_MAX: usize = 500;
/// Tags of one manual purge.
pub const PURGE_TAGS_MAX: usize = 256;
/// Characters of one purge tag.
pub const TAG_CHARS_MAX: usize = 256;
/// Rows of the purge journal that one read returns.
pub const PURGES_MAX: i64 = 10_000;
/// How long the purge journal keeps a row.
pub const PURGE_AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Tags of one tenant in one apply transaction before `*` (everything of the tenant) stands for them.
pub const APPLY_TAGS_MAX: usize = 256;
/// Rows that are applied in one statement; more are worth the round trips of a transaction.
pub const APPLY_WHOLE_ROWS_MAX: usize = 100;
/// Conflicts that one list returns.
pub const CONFLICTS_LIST_MAX: i64 = 500;
/// Conflicts kept; the oldest go first.
pub const CONFLICTS_KEPT_MAX: i64 = 100_000;
/// Changes set aside and not yet applied; beyond this, the source is not read further until some are.
pub const PARKED_MAX: i64 = 100_000;
/// Parked changes tried again in one round.
pub const PARKED_ROUND_MAX: i64 = 500;
/// The highest ordinal of a region: the bits above it in a row's stamp say which unique values the row gave up.
pub const REGION_ORDINAL_MAX: u16 = 255;
/// Unique indexes of one table, beside its primary key, whose clashes are settled.
pub const CLASH_INDEXES_MAX: usize = 7;
/// How long settling a clash waits for a row that a transaction here is writing; then it is tried again.
pub const CLASH_WAIT_MAX: Duration = Duration::from_secs(1);
/// How often rows that changed between being read and written are tried again within one apply transaction.
pub const APPLY_ROUNDS_MAX: usize = 20;
/// Tenants from one without a parent down to the lowest: partner, organisation, team.
pub const TENANT_DEPTH_MAX: usize = 3;
/// How long to wait for a connection of the pool.
pub const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one statement of the data and control API may take.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a tombstone stays after every region has passed it.
pub const TOMBSTONE_GRACE: Duration = Duration::from_secs(3600);
/// How long what experiments count is kept.
pub const PARTICIPATION_AGE_MAX: Duration = Duration::from_secs(180 * 24 * 3600);
/// Tombstones that one round of collection takes away.
pub const TOMBSTONES_ROUND_MAX: i64 = 5000;
/// Series of roll-ups that one tenant may begin in one minute; what comes beyond them counts under
/// [`OTHER`](crate::rollup::OTHER), told apart by outcome and class of status alone.
pub const ROLLUP_SERIES_MAX: i64 = 500;
/// Bytes of a route's or region's name in roll-ups; what is longer counts under [`OTHER`](crate::rollup::OTHER).
pub const ROLLUP_NAME_BYTES_MAX: usize = 100;
/// Days that roll-ups are kept.
pub const ROLLUP_KEEP_DAYS: u16 = 31;
/// Decisions that one page of the log looks at, whatever its filters.
pub const EVENTS_SCANNED_MAX: i64 = 5_000;
