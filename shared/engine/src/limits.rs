//! Every limit of the engine, in one place. Reaching one is a clear outcome, never a panic.

/// Steps of one exchange.
pub const STEPS_MAX: u32 = 64;
/// How old the news of the origins may be before they are refreshed after a reply.
pub const SYNC_FRESH_MS: u64 = 500;
/// How old the news of the origins may be before a decision waits for newer.
pub const SYNC_STALE_MS: u64 = 1_000;
/// How long a decision waits for news.
pub const SYNC_WAIT_MS: u32 = 300;
/// Tenants in memory at once.
pub const TENANTS_MAX: usize = 1_000;
/// Hostnames in memory at once.
pub const HOSTS_MAX: usize = 10_000;
/// How long an unknown hostname is remembered.
pub const UNKNOWN_HOST_MS: u64 = 1_000;
/// Bytes of a key set.
pub const JWKS_BYTES_MAX: usize = 256 * 1024;
/// Keys of a key set that are looked at.
pub const JWKS_KEYS_MAX: usize = 100;
/// Bytes of a token.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Depth of the JSON in a token.
pub const TOKEN_DEPTH_MAX: usize = 16;
/// Verified tokens in memory at once.
pub const TOKENS_REMEMBERED_MAX: usize = 10_000;
/// Counters of limits in memory at once.
pub const LIMIT_KEYS_MAX: usize = 50_000;
/// Entries of the purge journal in memory at once; beyond it the oldest half becomes one "everything before" mark.
pub const PURGES_MAX: usize = 50_000;
/// How far back a region's purge journal answers an edge that reads it for the first time.
pub const PURGE_REACH_MS: u64 = 600_000;
/// Regions whose positions are kept for one purged tag; beyond it the time of the purge counts.
pub const PURGE_SOURCES_MAX: usize = 64;
/// Bytes of a request body that are kept for another attempt.
pub const REPLAY_BODY_BYTES_MAX: u64 = 64 * 1024;
/// Bytes of a body that is stored in the cache.
pub const CACHE_BODY_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Bytes of a cache key; a longer one is replaced by its hash.
pub const CACHE_KEY_BYTES_MAX: usize = 512;
/// Attempts of one exchange, whatever the rule says.
pub const ATTEMPTS_MAX: u32 = 5;
/// Header fields of a request.
pub const HEADER_FIELDS_MAX: usize = 128;
/// Bytes of a request's header fields together.
pub const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a hostname (RFC 1035, section 2.3.4).
pub const HOST_BYTES_MAX: usize = 253;
/// Bytes of path and query together.
pub const URL_BYTES_MAX: usize = 16 * 1024;
/// Steps of an expression's evaluation.
pub const EXPR_COST_MAX: u32 = 10_000;
/// Nesting of an expression, lists in values included.
pub const EXPR_DEPTH_MAX: u32 = 64;
