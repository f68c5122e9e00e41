//! Every limit of this host, in one place.

use std::time::Duration;

/// How long the Durable Object of a limit may take to answer.
pub const AUTHORITY_WAIT_MS: u32 = 250;
/// Shards of a limit: one Durable Object for every first byte of a key's hash.
pub const AUTHORITY_SHARD_CHARS: usize = 2;
/// How often a Durable Object forgets counters that are whole again.
pub const AUTHORITY_SWEEP: Duration = Duration::from_secs(10 * 60);
/// Counters that are listed at once.
pub const AUTHORITY_PAGE: usize = 1_000;
/// Counters that one sweep looks at, and up to a page more; the next one goes on there.
pub const AUTHORITY_SWEPT_MAX: usize = 10_000;
/// How long after a sweep that stopped before the end the next one goes on.
pub const AUTHORITY_SWEEP_PAUSE: Duration = Duration::from_secs(1);
/// Keys that a Durable Object's storage deletes at once, as Cloudflare limits it.
pub const STORAGE_KEYS_MAX: usize = 128;
/// How long all origins together may take for a bundle, a hostname or a batch of events.
pub const ORIGIN_WAIT_MS: u32 = 3_000;
/// How long an origin may take to say what is new when nobody waits for it.
pub const SYNC_BACKGROUND_MS: u32 = 2_000;
/// Bytes of an origin's answer to a sync.
pub const SYNC_BYTES_MAX: u32 = 4 * 1024 * 1024;
/// Bytes of an origin's short answers.
pub const ANSWER_BYTES_MAX: u32 = 64 * 1024;
/// Age up to which a hostname found in KV is believed without asking an origin.
pub const HOST_FRESH_MS: u64 = 5 * 60 * 1000;
/// How long a client's body may pause, or take where it is short: up to as much as is kept for another attempt.
pub const BODY_PAUSE_MS: u32 = 25_000;
/// How long a body that is coded may pause before what is there is sent rather than kept for better compression.
pub const PAUSE_MS: u32 = 10;
/// Bytes of a body in a content coding that is stored: the runtime reads it decoded and codes it anew, so that it is in memory
/// whole. They are those of the body as it is decoded; one that says it has more of coded ones is not stored either.
pub const CACHE_CODED_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Imported keys in memory at once.
pub const KEYS_MAX: usize = 512;
/// Sets of header fields that are kept as `Headers` at once.
pub const FIELDS_KEPT_MAX: usize = 512;
/// Bytes of such a set.
pub const FIELDS_KEPT_BYTES_MAX: usize = 2 * 1024;
/// How long an event waits for others to be sent with.
pub const EVENTS_WAIT_MS: u32 = 500;
/// How long after a batch that no origin took it is sent once more.
pub const EVENTS_AGAIN_MS: u32 = 1_000;
/// How long the sending of a batch may take before it counts as lost.
pub const FLUSH_LOST_MS: u64 = 10_000;
/// Bytes of randomness that are fetched at once.
pub const RANDOM_POOL_BYTES: usize = 1024;
/// How long a promise is waited for, and in `worker.js` an instance's answer: longer than anything here may take.
pub const WAIT_MS_MAX: u64 = 10 * 60 * 1000;
/// Every so many waits, those that were given up are looked for.
pub const WAITS_A_SWEEP: u32 = 256;
