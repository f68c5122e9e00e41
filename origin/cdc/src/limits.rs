//! Every limit of this crate, with its unit.

use std::time::Duration;

/// Rows that a receiver gathers before it applies them in one transaction.
pub const APPLY_ROWS_TARGET: usize = 4000;
/// Messages that a receiver holds while it applies.
pub const MESSAGES_HELD_MAX: usize = 32;
/// How often an apply transaction that met another one is tried again before the stream starts anew.
pub const APPLY_TRIES_MAX: u32 = 10;
/// How often a receiver asks whether what it applied is on disk, to acknowledge it.
pub const ACK_INTERVAL: Duration = Duration::from_millis(100);
/// How often it tells the source a position again that has not moved.
pub const ACK_AGAIN_INTERVAL: Duration = Duration::from_secs(1);
/// How often a receiver writes down progress of a source that has nothing for it.
pub const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// How often changes set aside are tried again.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How often a source tells an idle receiver its time, so that lag is known.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// Silence after which either side gives a connection up.
pub const SILENCE_MAX: Duration = Duration::from_secs(15);
/// How long to wait for a connection to a peer.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait for a slot that another connection holds.
pub const SLOT_WAIT_MAX: Duration = Duration::from_secs(10);
/// How often it asks meanwhile.
pub const SLOT_ASK_INTERVAL: Duration = Duration::from_millis(50);
/// How long a row's version may be in the log before it can be read.
pub const VISIBLE_WAIT_MAX: Duration = Duration::from_secs(10);
/// How often it is read meanwhile.
pub const VISIBLE_ASK_INTERVAL: Duration = Duration::from_millis(2);
/// How often a reader of the log tells PostgreSQL how far it has come.
pub const SLOT_STATUS_INTERVAL: Duration = Duration::from_millis(200);
/// Events of the log that are read ahead.
pub const LOG_EVENTS_HELD_MAX: usize = 16 * 1024;
/// First wait before connecting again.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// Longest wait before connecting again.
pub const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Age of a peer's proof, in either direction, in milliseconds.
pub const PROOF_AGE_MS_MAX: u64 = 60_000;
/// Own commits journalled in one transaction.
pub const LOCAL_COMMITS_MAX: usize = 1000;
/// Tags of one tenant among them before `*` stands for them.
pub const LOCAL_TAGS_MAX: usize = 256;
/// How often the slots are looked at: how much of the log they keep.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(10);
/// How often tombstones and old conflicts are looked for.
pub const COLLECT_INTERVAL: Duration = Duration::from_secs(60);
/// Over how long the rows applied a second are counted.
pub const RATE_WINDOW: Duration = Duration::from_secs(5);
/// Peers that one origin can have.
pub const PEERS_MAX: usize = 32;
/// How long shutting down waits for streams to end.
pub const SHUTDOWN_MAX: Duration = Duration::from_secs(5);
/// Failures in a row of which each is logged; beyond, only every power of two.
pub const FAILURES_LOGGED: u32 = 3;
/// Characters that an error repeats of what the other region sent.
pub const FOUND_CHARS_MAX: usize = 80;
