//! Every limit of this host, in one place.

use meridian_engine::limits::CACHE_BODY_BYTES_MAX;

use crate::place::NUMBER_BYTES;

/// Bytes of the place database.
pub const PLACES_BYTES_MAX: u64 = 96 * 1024 * 1024;

/// How long all origins together may take for a bundle or a hostname.
pub const LOAD_TIMEOUT_MS: u32 = 3_000;
/// How long an origin may take to say what is new when nobody waits for it.
pub const SYNC_TIMEOUT_MS: u32 = 2_000;
/// How long an origin may take to grant a lease.
pub const LEASE_TIMEOUT_MS: u32 = 250;
/// Origins that are asked for a lease, one after the other: together they take less time than the shortest lease lives.
pub const LEASE_ORIGINS_MAX: usize = 3;
/// How long an origin may take to accept events.
pub const EVENTS_TIMEOUT_MS: u32 = 5_000;
/// Bytes of an origin's answer to a sync.
pub const SYNC_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of an origin's short answers.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Age up to which it is believed what another instance heard of the newest sequences.
pub const HEADS_FRESH_MS: u64 = 1_000;
/// Age up to which a hostname in the key-value store is believed without asking an origin.
pub const HOST_FRESH_MS: u64 = 30_000;

/// How long after a component could not be had it is asked for again.
pub const FUNCTION_AGAIN_MS: u64 = 1_000;
/// Components of which an instance knows whether they are in the store.
pub const FUNCTIONS_KNOWN_MAX: usize = 1_000;
/// Pause between two looks at whether another instance has fetched a key set.
pub const KEYS_PAUSE_MS: u64 = 20;

/// Parts that the places of each size are divided into.
pub const CACHE_PARTS: u32 = 16;
/// Parts that a tenant may use: a quarter of the cache, so that it can displace no more of what others have stored. Another
/// tenant has one of these four parts on average, and all of them once in 1,820 cases.
pub const CACHE_SHARE_PARTS: usize = 4;
/// Places of the cache for entries with a small body. A key has two of them, by a keyed hash.
pub const CACHE_ENTRY_PLACES: u32 = 16_384;
/// Bytes of such an entry with its head.
pub const CACHE_ENTRY_BYTES_MAX: usize = 32 * 1024;
/// Places of the cache for bodies of one chunk.
pub const CACHE_MEDIUM_PLACES: u32 = 256;
/// Places of the cache for larger bodies.
pub const CACHE_LARGE_PLACES: u32 = 16;
/// Bytes of a body in one chunk: as much of it is in memory while it is stored or served.
pub const CACHE_CHUNK_BYTES: usize = 1024 * 1024;
/// Bytes of all values that the cache ever has in the key-value store, notes of uses and records of places aside, which
/// have 32 bytes each: 1.75 GiB.
pub const CACHE_BYTES_MAX: u64 = CACHE_ENTRY_PLACES as u64 * CACHE_ENTRY_BYTES_MAX as u64
    + CACHE_MEDIUM_PLACES as u64 * (CACHE_CHUNK_BYTES + NUMBER_BYTES) as u64
    + CACHE_LARGE_PLACES as u64 * (CACHE_BODY_BYTES_MAX + CACHE_CHUNKS_MAX * NUMBER_BYTES as u64);
/// Chunks of a body.
pub const CACHE_CHUNKS_MAX: u64 = CACHE_BODY_BYTES_MAX.div_ceil(CACHE_CHUNK_BYTES as u64);
/// How long after the last one a use of a place is noted again.
pub const CACHE_USE_MS: u64 = 60_000;
/// Places whose last use an instance remembers to have noted.
pub const CACHE_USES_MAX: usize = 1_024;

/// How long a body that is coded may pause before what is there is sent rather than kept for better compression.
pub const PAUSE_MS: u64 = 10;
/// Bytes of a body that are worked on at once.
pub const PIECE_BYTES: usize = 64 * 1024;

/// How long an event waits for others to be sent with.
pub const EVENTS_WAIT_MS: u64 = 200;
/// How long after a batch that no origin took it is sent once more.
pub const EVENTS_AGAIN_MS: u64 = 1_000;
/// Revalidations that may follow one another from one reply.
pub const RUNS_MAX: u32 = 4;
