//! What the engine asks of its host, and what the host answers.
//!
//! An [`Exchange`](crate::exchange::Exchange) hands out one [`Step`] at a time; the host performs it and resumes the
//! exchange with the [`Answer`] of the same name. The number of steps of an exchange is bounded
//! ([`STEPS_MAX`](crate::limits::STEPS_MAX)). Bodies stay in the host and stream: of a request's the engine sees the
//! beginning at most, where a rule looks into it, and of a response's nothing.

pub mod function;
mod keys;
mod news;

use std::borrow::Cow;
use std::sync::Arc;

pub use self::function::{FunctionCall, FunctionFailure, FunctionFault, Ran};
pub use self::keys::{Algorithm, FetchFault, FetchKeys, FetchedKeys, VerificationKey, Verify};
pub use self::news::{AddressName, Purge, RegionNews, SyncAsk, SyncNews};
use crate::decision::Decision;
use crate::exchange::Exchange;
use crate::headers::Headers;
use crate::policy::jwt::Identity;
use crate::policy::steering::Connection;
use crate::ruleset::{Coding, LimitAlgorithm, LimitScope, PageChanges, Platform, RegionId, Ruleset, Target};

/// One thing that the host shall do.
#[derive(Debug)]
pub enum Step {
    /// Ask an origin what is new, within [`SYNC_WAIT_MS`](crate::limits::SYNC_WAIT_MS).
    Sync(SyncAsk),
    /// Load what these keys name, from the host's store or an origin.
    Load(Vec<LoadKey>),
    /// Fetch an issuer's key set (RFC 7517) from its URL.
    FetchKeys(FetchKeys),
    /// Check one signature.
    Verify(Verify),
    /// Read the beginning of the request's body, and keep it for forwarding.
    Peek {
        /// How many bytes are of use.
        bytes_max: u32,
    },
    /// Take from limits that an authority keeps.
    Take(Vec<Take>),
    /// Look up one cache entry.
    LookUp(CacheKey),
    /// Do nothing for so long: another request fetches what this one needs.
    Pause {
        /// How long.
        ms: u32,
    },
    /// Forward the request; the host keeps the response body as a stream.
    Forward(Box<Forward>),
    /// Wait for the attempts that are still out. Every step but this one and [`Step::Forward`] gives them up.
    Await,
    /// Answer the client. The last step.
    Reply(Box<Reply>),
}

/// What the host says to a [`Step`].
#[derive(Clone, Debug)]
pub enum Answer {
    /// To [`Step::Sync`]; `None` where no origin answered in time.
    Synced(Option<SyncNews>),
    /// To [`Step::Load`], in the order asked.
    Loaded(Vec<Loaded>),
    /// To [`Step::FetchKeys`].
    Keys(FetchedKeys),
    /// To [`Step::Verify`]: whether the signature is right.
    Verified(bool),
    /// To [`Step::Peek`]; `None` where the body broke off or is gone.
    Peeked(Option<Peeked>),
    /// To [`Step::Take`], in the order asked; `None` where the authority is away.
    Taken(Vec<Option<Lease>>),
    /// To [`Step::LookUp`]: the entry's head, if there is one; the host keeps its body at hand.
    Found(Option<Entry>),
    /// To [`Step::Pause`]: the time is over.
    Paused,
    /// To [`Step::Forward`] or [`Step::Await`]: what came of one of the attempts that are out, the first to end.
    Forwarded {
        /// Which attempt, as in [`Forward::attempt`].
        attempt: u32,
        /// The head of the response, or why there is none.
        result: Result<ResponseHead, ForwardFault>,
    },
    /// To [`Step::Forward`]: none of the attempts that are out has ended within [`Forward::patience_ms`]. They go on.
    Slow,
}

/// What may be loaded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LoadKey {
    /// Which tenant a hostname belongs to.
    Host(String),
    /// The same, as far as the host has it stored, however old: no origin is asked. What is not there is [`Loaded::Missing`].
    StoredHost(String),
    /// The rules of a target.
    Target(Target),
}

/// What a [`LoadKey`] turned out to be.
#[derive(Clone, Debug)]
pub enum Loaded {
    /// The tenant's slug, or `None` where nobody has claimed the hostname.
    Host(Option<String>),
    /// The platform's regions and upstreams.
    Platform(Arc<Platform>),
    /// A tenant's rules.
    Ruleset(Arc<Ruleset>),
    /// There is no such thing.
    Missing,
    /// It could not be had, or what came was not acceptable; what was loaded before stays in force.
    Unavailable(String),
}

/// The beginning of a request's body.
#[derive(Clone, PartialEq, Eq)]
pub struct Peeked {
    /// Its first bytes: as many as were asked for, or all where it has fewer.
    pub bytes: Vec<u8>,
    /// Whether these are all.
    pub whole: bool,
}

impl std::fmt::Debug for Peeked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Peeked({} bytes, whole: {})", self.bytes.len(), self.whole)
    }
}

/// Something to take from a limit whose count an authority keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Take {
    /// Tenant of the limit.
    pub tenant: String,
    /// Name of the `RateLimit` document.
    pub limit: String,
    /// Whom it counts: a keyed hash, so that nobody without the edges' secret learns who it is.
    pub key: String,
    /// Units of the quota that the edge would like to hold; at least what this request costs.
    pub amount: u32,
    /// Units that this request needs at the least.
    pub cost: u32,
    /// `Region` or `Global`: how many authorities the limit has.
    pub scope: LimitScope,
    /// Whose authority counts: the region nearest to the client, or the tenant's home region.
    pub region: RegionId,
    /// Whose authority may count where that one can't be reached: other regions that the tenant allows, for a limit of scope
    /// `Region`. One of scope `Global` is counted in one place or nowhere.
    pub others: Vec<RegionId>,
    /// How it is counted.
    pub algorithm: LimitAlgorithm,
    /// Units in a window.
    pub quota: u32,
    /// Length of the window.
    pub window_ms: u64,
    /// Units that may be taken at once.
    pub burst: u32,
}

/// What an authority granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Units that the edge may spend without asking again; 0 where the limit is reached.
    pub granted: u32,
    /// Units that are left at the authority.
    pub remaining: u32,
    /// Until at least one more unit is there than those; 0 where all are.
    pub reset_ms: u64,
    /// Until as many are there as the request costs, where the limit is reached; 0 where it is not.
    pub wait_ms: u64,
    /// When unspent units lapse, in milliseconds since the Unix epoch.
    pub expires_ms: u64,
}

/// Key of a cache entry: tenant, method and target, then whatever the policy adds. Printable, at most 512 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CacheKey(pub String);

impl CacheKey {
    /// The tenant whose entry it is, as the key writes it; of a text that is no key, all of it.
    #[must_use]
    pub fn tenant(&self) -> &str {
        self.0.split('|').nth(1).unwrap_or(&self.0)
    }
}

/// Head of a stored response, with what the engine wants to know again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Status code.
    pub status: u16,
    /// Header fields to serve.
    pub headers: Headers,
    /// The engine's own notes (freshness, tags, positions seen, `Vary`), opaque to the host.
    pub meta: String,
    /// Length of the stored body, or [`BODY_BYTES_UNKNOWN`].
    pub body_bytes: u64,
}

/// Length of a stored body that the host does not know: no parts of it are served.
pub const BODY_BYTES_UNKNOWN: u64 = u64::MAX;

/// Only the pipeline makes one, and a [`Forward`] can't be made without: no host can forward what was not permitted.
#[derive(Debug)]
pub struct Permit(pub(crate) ());

/// One attempt to have a target answer.
#[derive(Debug)]
pub struct Forward {
    /// Proof that the pipeline let the request through.
    pub permit: Permit,
    /// Counts the attempts of this exchange from 0.
    pub attempt: u32,
    /// Where to: a region's origin or an upstream.
    pub region: Option<RegionId>,
    /// Absolute URL of the request.
    pub url: String,
    /// Method.
    pub method: String,
    /// Header fields, complete but for those that the host's client sets and those of `sign`. `Upgrade: websocket` asks for a
    /// WebSocket (RFC 6455), which a status of 101 brings; the host makes the handshake, and the socket is the response's body.
    pub headers: Headers,
    /// Present where the target is a Meridian origin: the context to sign and send as `Meridian-Context`.
    pub sign: Option<Box<ContextClaims>>,
    /// The function that it goes through. What it sends on may take as long as the attempt without it.
    pub function: Option<Box<FunctionCall>>,
    /// Whether to send the request's body.
    pub send_body: bool,
    /// The body may be needed again for another attempt: keep it, if it is within
    /// [`REPLAY_BODY_BYTES_MAX`](crate::limits::REPLAY_BODY_BYTES_MAX).
    pub keep_body: bool,
    /// Until the head of the response must be here, from when the request's body is sent, and until the target must take more
    /// of that. The time in which the host waits for the client's body does not count.
    pub timeout_ms: u32,
    /// Until there must be a connection, where the host can tell; at most `timeout_ms`.
    pub connect_timeout_ms: u32,
    /// The longest pause in the body of the response; after a longer one it breaks off. `None` leaves it to the host.
    pub body_timeout_ms: Option<u32>,
    /// Bytes that the body of the response may have. Where its head does not say how many there are
    /// ([`ResponseHead::body_bytes`]), the host counts, and breaks the body off, for the client and for the cache.
    pub response_bytes_max: Option<u64>,
    /// Present where its target takes only so many at once: the host keeps it until the body of the response has come, or
    /// its head where the host can't tell, or the attempt is given up.
    pub connection: Option<Connection>,
    /// After which time without an answer the host says [`Answer::Slow`].
    pub patience_ms: Option<u32>,
}

/// What the signed context says of the request; `wire::context` gives it its shape and signature.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContextClaims {
    /// Tenant.
    pub tenant: Arc<str>,
    /// Who the verified token says that its bearer is.
    pub identity: Option<Arc<Identity>>,
    /// Where the client is.
    pub country: Option<String>,
    /// The region nearest to the client among those allowed, whatever its health.
    pub nearest: Option<RegionId>,
    /// Address of the client.
    pub client: String,
    /// Variant by experiment.
    pub variants: Vec<(Arc<str>, Arc<str>)>,
    /// Attributes for personalisation.
    pub attributes: Vec<(&'static str, Cow<'static, str>)>,
    /// Id of the decision.
    pub decision: String,
    /// Attempt, as in [`Forward::attempt`].
    pub attempt: u32,
    /// Consistency asked: `eventual` or `session`.
    pub consistency: &'static str,
    /// Version of the tenant's bundle.
    pub bundle: Arc<str>,
    /// When it was made.
    pub issued_ms: u64,
}

/// Head of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// Status code.
    pub status: u16,
    /// Header fields.
    pub headers: Headers,
    /// Milliseconds from sending the request to having the head.
    pub elapsed_ms: u32,
    /// What the function did that it came through, if there was one.
    pub ran: Option<Ran>,
}

impl ResponseHead {
    /// How many bytes the content has, where the head says so (RFC 9110, section 8.6).
    #[must_use]
    pub fn body_bytes(&self) -> Option<u64> {
        self.headers.get("content-length")?.trim().parse().ok()
    }
}

/// Why an attempt brought no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardFault {
    /// No connection could be made: the target saw nothing.
    Connect,
    /// No head in time.
    Timeout,
    /// The connection broke after the request was sent.
    Broken,
    /// The body was not kept, so that this attempt could not be made.
    BodyGone,
    /// The client's body did not come, which says nothing of the target.
    Client(ClientFault),
    /// The function that it was to go through failed.
    Function(FunctionFault),
}

/// What was wrong with the body that a client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientFault {
    /// It broke off before its end (RFC 9112, section 8).
    BrokeOff,
    /// It paused for longer than the host waits.
    Paused,
}

/// The answer to the client.
#[derive(Debug)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Header fields, complete but for `Server-Timing`, `Content-Length` (where `html` and `coding` leave the body as
    /// it is) and the `Date` of what is the edge's own answer, which the host adds. What came from a target has one, also
    /// where it is stored.
    pub headers: Headers,
    /// Where the body comes from.
    pub body: ReplyBody,
    /// Changes to the body's HTML, before anything else: in UTF-8, all of them, or the reply breaks off visibly.
    pub html: PageChanges,
    /// The content coding that the body gets. Neither it nor `html` touches what is stored.
    pub coding: Option<Coding>,
    /// What was decided and why.
    pub decision: Decision,
    /// What to do once the reply is on its way.
    pub after: Vec<After>,
}

/// Where a reply's body comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyBody {
    /// No body.
    Empty,
    /// These bytes.
    Bytes(Vec<u8>),
    /// The body of the response that the last [`Step::Forward`] brought.
    Forwarded,
    /// The body of the entry that the last [`Step::LookUp`] found.
    Cached,
    /// A part of it.
    CachedPart {
        /// The first byte, from 0.
        first: u64,
        /// How many; at least one, and none beyond the body's end.
        bytes: u64,
    },
}

/// What the host does off the critical path.
#[derive(Debug)]
pub enum After {
    /// Store the forwarded response under this key: head as given, body teed from the reply's stream, dropped whole
    /// when it breaks or grows beyond [`CACHE_BODY_BYTES_MAX`](crate::limits::CACHE_BODY_BYTES_MAX). However that ends,
    /// [`Node::fetched`](crate::node::Node::fetched) is told: others may wait for it.
    Store {
        /// Key.
        key: CacheKey,
        /// Head and notes to store; `body_bytes` is the host's to fill in.
        entry: Entry,
        /// How long it is of any use, stale service included.
        keep_ms: u64,
        /// Store it with the body of the entry found, in place of the forwarded one (after a 304).
        refresh: bool,
    },
    /// Forget these keys.
    Forget(Vec<CacheKey>),
    /// Drive another exchange whose reply goes to nobody: a revalidation.
    Run(Box<Exchange>, Box<Step>),
    /// Ask an origin what is new and hand the answer to [`Node::synced`](crate::node::Node::synced).
    Sync(SyncAsk),
    /// Fetch a key set and hand the answer to [`Node::keys_fetched`](crate::node::Node::keys_fetched).
    FetchKeys(FetchKeys),
    /// Queue the decision as an event for the origin.
    Log,
}
