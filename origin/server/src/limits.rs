//! Every limit of the origin's server, in one place.

use std::time::Duration;

use meridian_wire::limits::{NAME_CHARS_MAX, SLUG_BYTES_MAX};

/// Bytes of a request's body: records, batches, leases.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a body that is too large which are still read, so that its sender sees the answer.
pub const FORGOTTEN_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of a push: all files of it as JSON.
pub const PUSH_BYTES_MAX: usize = 48 * 1024 * 1024;
/// How long a context is remembered, so that it can't be used again: longer than it is accepted.
pub const REPLAY_WINDOW: Duration = Duration::from_secs(36);
/// Contexts remembered at once; beyond it the oldest are forgotten.
pub const REPLAYS_MAX: u64 = 1_000_000;
/// How long a read waits for the changes that its session has seen.
pub const SESSION_WAIT: Duration = Duration::from_millis(500);
/// Bytes of cached answers in memory.
pub const CACHE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How long an answer stays in memory at the most.
pub const CACHE_AGE_MAX: Duration = Duration::from_secs(60);
/// Bytes of one cached answer; a larger one is not kept.
pub const CACHE_ENTRY_BYTES_MAX: usize = 1024 * 1024;
/// Slots that count what became stale; tags that share one only cost a needless read.
pub const CACHE_SLOTS: usize = 1 << 16;
/// Operations of one batch.
pub const BATCH_OPERATIONS_MAX: usize = 200;
/// Bytes of an idempotency key.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 200;
/// How long the answer to a request with an idempotency key is kept.
pub const IDEMPOTENCY_KEEP_MS: i64 = 24 * 60 * 60 * 1000;
/// Days that reported decisions are kept, beside today, where the configuration does not say.
pub const EVENT_KEEP_DAYS_DEFAULT: u16 = 7;
/// Days that reported decisions may be kept; each is a partition.
pub const EVENT_KEEP_DAYS_MAX: u16 = 92;
/// Rows that one round of forgetting removes.
pub const TRIM_ROWS_MAX: i64 = 5_000;
/// Time between rounds of forgetting.
pub const TRIM_INTERVAL: Duration = Duration::from_secs(60);
/// Events that wait to be written; a report that finds no room is told to come again.
pub const EVENTS_QUEUED_MAX: usize = 20_000;
/// Bytes of the events that wait to be written, as JSON text.
pub const EVENTS_QUEUED_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Events that one statement writes.
pub const EVENTS_WRITTEN_MAX: usize = 2_000;
/// When an edge may report again after it was sent away.
pub const EVENTS_RETRY_AFTER_S: u64 = 1;
/// How far back the purge journal is told to an edge that asks for the first time.
pub const SYNC_FIRST_MS: i64 = 10 * 60 * 1000;
/// Rows of a page of the control API.
pub const PAGE_ROWS_MAX: i64 = 200;
/// Rows of a page of the control API where the request does not say.
pub const PAGE_ROWS_DEFAULT: i64 = 50;
/// Tags of one purge by hand.
pub const PURGE_TAGS_MAX: usize = 100;
/// Bytes of a tag.
pub const TAG_BYTES_MAX: usize = 256;
/// Bytes of a hostname (RFC 1035, section 2.3.4).
pub const HOSTNAME_BYTES_MAX: usize = 253;
/// Bytes of a free text: a name, a note.
pub const TEXT_BYTES_MAX: usize = 500;
/// Tenants whose regions are remembered at once.
pub const TENANTS_REMEMBERED_MAX: u64 = 20_000;
/// How long a tenant's regions are remembered.
pub const TENANT_AGE_MAX: Duration = Duration::from_secs(1);
/// Control tokens remembered at once.
pub const TOKENS_REMEMBERED_MAX: u64 = 1_000;
/// How long a control token is remembered without looking again whether it was revoked.
pub const TOKEN_AGE_MAX: Duration = Duration::from_secs(5);
/// The longest part of a pause between health checks of another region: then it is looked whether rules have changed it.
pub const PEER_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long what a region said of its upstreams counts, once it is due to be asked again and does not answer.
pub const PEER_WORD_KEEP: Duration = Duration::from_secs(60);
/// Time between looks for new releases of tenants whose upstreams are checked.
pub const CHECK_FOLLOW_INTERVAL: Duration = Duration::from_secs(1);
/// Tenants whose newest release one look asks for.
pub const CHECKED_PAGE_ROWS: i64 = 500;
/// Bundles that one look reads; more are read by the next ones.
pub const CHECKED_BUNDLES_MAX: usize = 20;
/// Tenants whose upstreams are checked, or would be if there were room.
pub const CHECKED_TENANTS_MAX: usize = 10_000;
/// Tenants of which is remembered that they have none checked here; releases of those beyond are read again and again.
pub const IDLE_TENANTS_MAX: usize = 50_000;
/// Upstreams that are checked, of a tenant as many as its rules may have checked (`HEALTH_CHECKS_MAX`); those beyond count as
/// healthy until there is room.
pub const CHECKS_MAX: usize = 2_000;
/// Time between looks for what is due to be checked.
pub const CHECK_TICK: Duration = Duration::from_millis(100);
/// Checks that one look begins: all upstreams within ten seconds.
pub const CHECKS_PER_TICK_MAX: usize = 20;
/// Checks under way at once.
pub const CHECKS_AT_ONCE_MAX: usize = 200;
/// Checks of one tenant under way at once.
pub const TENANT_CHECKS_AT_ONCE_MAX: usize = 20;
/// Addresses of an upstream that one check tries.
pub const CHECK_ADDRESSES_MAX: usize = 8;
/// Bytes of the head of a response to a check; of what follows no more than comes with it is read.
pub const CHECK_HEAD_BYTES_MAX: usize = 16 * 1024;
/// How long another region is asked for something that this one does not have.
pub const PEER_ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a connection to another region may take to come about.
pub const PEER_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the home region of a target may take for what is passed on to it; less than clients wait.
pub const HOME_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the home region waits for the changes that what is passed on to it was made from.
pub const HOME_WAIT: Duration = Duration::from_secs(5);
/// Bytes of another region's answer.
pub const PEER_ANSWER_BYTES_MAX: usize = 1024 * 1024;
// A region may say of all upstreams that are checked there that they are unhealthy, each as `"SLUG/NAME",`.
const _: () = assert!(CHECKS_MAX * (SLUG_BYTES_MAX + NAME_CHARS_MAX + 4) < PEER_ANSWER_BYTES_MAX);
/// Connections to the database.
pub const DATABASE_CONNECTIONS_MAX: u32 = 16;
/// How long everything is still served after the signal to stop, every answer closing its connection.
pub const STOP_PAUSE: Duration = Duration::from_millis(500);
/// How long requests in flight may take once nothing new is accepted.
pub const DRAIN_MAX: Duration = Duration::from_secs(10);
/// How long closing the connections to the database may take at the end.
pub const CLOSE_MAX: Duration = Duration::from_secs(3);
/// How long a client may take to send a request's head.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may take to send a request's body.
pub const BODY_READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections served at once; who comes beyond it waits to be accepted.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Control tokens looked up in the database at once: whoever guesses tokens takes no more of it than that.
pub const TOKEN_LOOKUPS_MAX: usize = 4;
/// Names looked up at once for servers in front of edges, which need no token for it.
pub const TLS_ASKS_MAX: usize = 4;
/// Time between two looks at the tenants below others.
pub const LINEAGE_INTERVAL: Duration = Duration::from_secs(1);
/// The same after one could not be released.
pub const LINEAGE_PAUSE: Duration = Duration::from_secs(5);
/// Tenants below others that are looked at together.
pub const LINEAGE_ROWS_MAX: i64 = 100;
/// Of those, how many are released at once: each takes a connection to the database for as long as its rules are compiled.
pub const LINEAGE_AT_ONCE_MAX: usize = 4;
/// Pause after a connection could not be accepted.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Pause before events that could not be written are tried again.
pub const EVENTS_PAUSE: Duration = Duration::from_millis(500);
/// Addresses whose names are remembered.
pub const NAMES_REMEMBERED_MAX: u64 = 20_000;
/// How long the name of an address is believed.
pub const NAME_KEEP: Duration = Duration::from_secs(3_600);
/// How long after a lookup in vain the next one is made.
pub const NAME_AGAIN: Duration = Duration::from_secs(5);
/// How long the lookups of one address may take together.
pub const NAME_LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a name server may take to answer before it is asked once more.
pub const NAME_SERVER_TIMEOUT: Duration = Duration::from_secs(1);
/// Addresses that are looked up at once.
pub const NAME_LOOKUPS_MAX: usize = 16;
/// Lookups that begin in one second, whatever edges ask for.
pub const NAME_LOOKUPS_PER_S: u32 = 50;
/// Names of one address that are looked at.
pub const NAMES_OF_ADDRESS_MAX: usize = 4;
/// Spans that may wait for the collector, where no variable says so; the standard's default.
pub const TRACE_QUEUE_SPANS: usize = 2_048;
/// Spans of one request to the collector; the standard's default.
pub const TRACE_BATCH_SPANS: usize = 512;
/// How long a span waits for others to go with; the standard's default is five seconds.
pub const TRACE_DELAY: Duration = Duration::from_secs(1);
/// How long the collector may take; the standard's default.
pub const TRACE_EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of the collector's answer.
pub const TRACE_ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Waits of one request that become spans.
pub const TRACE_WAITS_MAX: usize = 64;
/// Tenants with numbers of their own at `/metrics`.
pub const METRIC_TENANTS_MAX: usize = 1_000;
/// Kinds of decisions that one region counts for a list of the most frequent.
pub const TOP_COUNTED_MAX: i64 = 1_000;
/// Seconds that a list of the most frequent looks back.
pub const TOP_WINDOW_S_MAX: i64 = 24 * 60 * 60;
/// Seconds that it looks back where the request does not say.
pub const TOP_WINDOW_S_DEFAULT: i64 = 5 * 60;
/// Bytes of the decisions in one region's part of a list, as JSON text: less than another region's answer may have.
pub const LOGS_BYTES_MAX: usize = PEER_ANSWER_BYTES_MAX / 2;
