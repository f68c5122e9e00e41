//! Routes: which requests, who may, and where they go.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Fail, RegionId, RuleRef, UpstreamRef};
use crate::expr::Expr;

/// What requests a route is for and what is done with them.
#[derive(Clone, Debug)]
pub struct Route {
    /// Where it stands.
    pub rule: RuleRef,
    /// Which requests.
    pub matcher: Matcher,
    /// Who may.
    pub auth: Auth,
    /// Only says whom it would refuse.
    pub auth_shadow: bool,
    /// What becomes of a request whose token can't be checked since its issuer's keys are not to be had.
    pub auth_fail: Fail,
    /// Limits, all of them checked.
    pub limits: Vec<usize>,
    /// Experiments that it takes part in.
    pub experiments: Vec<usize>,
    /// Whether and how responses are stored.
    pub cache: Option<usize>,
    /// Security policies beside the tenant's.
    pub security: Vec<usize>,
    /// Transforms, in order.
    pub transforms: Vec<usize>,
    /// How a region is chosen.
    pub steering: Steering,
    /// Where it goes.
    pub target: RouteTarget,
    /// What it goes through on its way there and back.
    pub function: Option<usize>,
    /// Which of its decisions are written down.
    pub sampling: Sampling,
    /// What is written down of persons.
    pub personal: Personal,
    /// Its path as the rule says it, in place of requests' own where these might name a person.
    pub pattern: Arc<str>,
}

/// Bytes of a route beside its texts, places and conditions, about as WebAssembly has them.
const FLAT_BYTES: usize = 600;
/// Bytes of a text beside its letters.
const TEXT_BYTES: usize = 24;
/// Bytes of a place in the index: a segment of a path below a host.
const PLACE_BYTES: usize = 128;
/// Bytes of a node of a condition.
const NODE_BYTES: usize = 48;

impl Route {
    /// Upstreams that it may send requests to: its target and its canary's.
    pub fn upstreams(&self) -> impl Iterator<Item = &UpstreamRef> {
        let target = match &self.target {
            RouteTarget::Upstream(upstream) => Some(upstream),
            RouteTarget::Origin => None,
        };
        target.into_iter().chain(self.steering.canary.as_ref().map(|canary| &canary.upstream))
    }

    /// Bytes that it takes in an edge's memory with its places in the index, about: an estimate, the same on every machine,
    /// so that a push is judged by what every edge counts. Places that routes share count for each of them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let Matcher { hosts, path, methods, headers, query, when } = &self.matcher;
        let (scopes, permission) = match &self.auth {
            Auth::Required { scopes, when } => (scopes.as_slice(), when.as_ref()),
            Auth::Anonymous | Auth::Optional => (&[][..], None),
        };
        let segment = |segment: &Segment| match segment {
            Segment::Literal(text) | Segment::Capture(text) => text.len() + TEXT_BYTES,
        };
        let text = |text: &String| text.len() + TEXT_BYTES;
        let pair = |(name, value): &(String, Option<String>)| {
            name.len() + value.as_ref().map_or(0, String::len) + 2 * TEXT_BYTES
        };
        let texts = hosts.iter().chain(methods).chain(scopes).map(text).sum::<usize>()
            + path.segments.iter().map(segment).sum::<usize>()
            + headers.iter().chain(query).map(pair).sum::<usize>()
            + self.rule.name.len()
            + self.rule.file.len();
        let places = hosts.len().max(1) * (path.segments.len() + 1);
        let conditions = [when.as_ref(), permission, self.sampling.when.as_ref()];
        let nodes: usize = conditions.into_iter().flatten().map(Expr::nodes).sum();
        FLAT_BYTES + texts + places * PLACE_BYTES + nodes * NODE_BYTES
    }
}

/// All of a share, in hundredths of a per cent.
pub const SHARE_ALL: u32 = 10_000;

/// Which decisions of a route are written down, and which new traces are followed. Shares are in hundredths of a per cent,
/// 0 to [`SHARE_ALL`].
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Share of the decisions that are written down; each counts for the others.
    pub share: u32,
    /// For which requests that is so; all others are written down.
    pub when: Option<Expr>,
    /// Share of the traces beginning here that are followed.
    pub traces: u32,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { share: SHARE_ALL, when: None, traces: 0 }
    }
}

/// What is written down of persons, from all to nothing. No subject and no whole address ever is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Personal {
    /// Path, country and the client's network as they are, and a keyed hash of the subject.
    Keep,
    /// The country, keyed hashes of the subject and of the client's network, and the route's path in place of the request's.
    #[default]
    Hash,
    /// The route's path alone.
    Drop,
}

/// Which requests a route is for. All that is given must hold.
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    /// Hostnames, exact or with a leading `*.`; empty is all of the tenant's.
    pub hosts: Vec<String>,
    /// Segments of the path.
    pub path: PathTemplate,
    /// Methods; empty is all.
    pub methods: Vec<String>,
    /// Header fields that must be there, with this value if one is given (name in lower case).
    pub headers: Vec<(String, Option<String>)>,
    /// Query parameters that must be there, with this value if one is given.
    pub query: Vec<(String, Option<String>)>,
    /// Condition on the facts.
    pub when: Option<Expr>,
}

/// Path of a route as segments; the last may take the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathTemplate {
    /// Segments in order.
    pub segments: Vec<Segment>,
    /// Whether anything may follow.
    pub open: bool,
}

impl PathTemplate {
    /// What the segment of this name captures of a path that the template fits, encoded as it came.
    #[must_use]
    pub fn capture<'a>(&self, path: &'a str, name: &str) -> Option<&'a str> {
        let named = |segment: &Segment| matches!(segment, Segment::Capture(have) if have == name);
        let place = self.segments.iter().position(named)?;
        path.strip_prefix('/').unwrap_or(path).split('/').nth(place)
    }
}

/// One segment of a [`PathTemplate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Exactly this, in the form that normalised paths have.
    Literal(String),
    /// Anything but nothing; the name captures it.
    Capture(String),
}

/// Who may use a route.
#[derive(Clone, Debug, PartialEq)]
pub enum Auth {
    /// Anybody; a token is not looked at.
    Anonymous,
    /// Anybody; a token that is there must be right.
    Optional,
    /// Whoever has a token with all these scopes.
    Required {
        /// Scopes, all of them needed.
        scopes: Vec<String>,
        /// What must hold of the token and the request beside.
        when: Option<Expr>,
    },
}

/// How a region is chosen among those allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steering {
    /// Order of preference.
    pub strategy: Strategy,
    /// Statuses that count as a failure of the region.
    pub retry_statuses: Vec<u16>,
    /// Attempts at the most, the first included.
    pub attempts_max: u32,
    /// Until the head of a response must be there, for one attempt.
    pub timeout_ms: u32,
    /// What keeps a client at its region.
    pub affinity: Affinity,
    /// A share of clients that goes to another target.
    pub canary: Option<Canary>,
    /// When another region is asked beside the first that does not answer.
    pub hedge: Option<Hedge>,
}

/// When another region is asked beside the first that does not answer; for safe methods without a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hedge {
    /// After so many milliseconds.
    After(u32),
    /// After the time within which 95 of 100 of the first region's last answers came.
    Percentile95,
}

/// What keeps a client at its region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Affinity {
    /// Nothing.
    #[default]
    None,
    /// A signed cookie that names the region which answered first.
    Cookie,
    /// A hash of the client's address (IPv6: its /64).
    Client,
    /// A hash of the verified subject, or of the client's address where there is none.
    Subject,
}

/// A share of clients that goes to another target, always the same ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
    /// Share of units, in hundredths of a per cent (0 to 10,000).
    pub share: u32,
    /// The upstream that they go to.
    pub upstream: UpstreamRef,
}

/// Order of preference of regions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// The nearest by great circle.
    Nearest,
    /// The one that has answered fastest lately; the nearest where nothing is known.
    Latency,
    /// Each for its share of these weights, or of the regions' own where none is given.
    Weighted(BTreeMap<RegionId, u32>),
    /// Only these, in this order.
    Pinned(Vec<RegionId>),
    /// In this order.
    Priority(Vec<RegionId>),
    /// The tenant's home region, then the nearest.
    Home,
}

/// Where a route goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteTarget {
    /// The region's Meridian origin.
    Origin,
    /// An upstream.
    Upstream(UpstreamRef),
}
