//! Routes: which requests, who may, how a region is chosen.

use std::collections::BTreeMap;

use meridian_engine::ruleset::{Personal, SHARE_ALL};
use serde::{Deserialize, Serialize};

use super::condition::Condition;
use super::policy::FailSpec;
use super::unit::{Patience, Share, Span};

spec! {
/// Which requests a route is for and what is done with them.
pub struct RouteSpec {
    /// Which requests: all that is given must hold.
    #[serde(rename = "match")]
    pub matcher: MatchSpec,
    /// Who may. Without it, whoever has a valid token.
    #[serde(default)]
    pub auth: AuthSpec,
    /// Names of `RateLimit` documents, all of them checked. Redirects and preflights, which come before auth, are counted by
    /// those whose key is `client` or `tenant`.
    #[serde(default)]
    pub limits: Vec<String>,
    /// Names of `Experiment` documents that it takes part in. One that asks for another's variant comes after it.
    #[serde(default)]
    pub experiments: Vec<String>,
    /// Name of a `CachePolicy` document. Without it, nothing is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<String>,
    /// Names of `Security` documents beside those for every request.
    #[serde(default)]
    pub security: Vec<String>,
    /// Names of `Transform` documents, in order.
    #[serde(default)]
    pub transforms: Vec<String>,
    /// How a region is chosen.
    #[serde(default)]
    pub steering: SteeringSpec,
    /// Name of an `Upstream` document, or `platform:NAME` of one of the platform's that this tenant may use; not with a `function`
    /// then, which would see its header fields. Without it, the region's Meridian origin answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// Name of a `Function` document that requests go through on their way to the target and back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// Which of its decisions are written down. Without it, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogSpec>,
}
}

spec! {
/// Which decisions of a route are written down, and which traces are followed.
///
/// Denied, limited and failed decisions, those with a status of 500 or above, those that count for an experiment and those
/// of a sampled trace are always written down. Of the others a share is, chosen by the decision's random bits, and each
/// counts for those that are not: `meridian top` and the metrics estimate how many there were.
pub struct LogSpec {
    /// Share of the decisions that are written down, `5%`. Without it, all of them.
    #[serde(default = "whole")]
    pub share: Share,
    /// Requests that the share is for; all others are written down. Without it, all requests. With `auth.mode: anonymous`, `auth`
    /// can't be asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Condition>,
    /// Share of the traces beginning here that are followed; a client's own trace is followed where its `traceparent`
    /// says so.
    #[serde(default)]
    pub traces: Share,
    /// What is written down of persons. A region may be told to keep less.
    #[serde(default)]
    pub personal: PersonalSpec,
}
}

spec! {
/// What is written down of persons. No subject and no whole address ever is, and experiments count their units by keyed
/// hashes in any case.
pub enum PersonalSpec {
    /// Path, country and the client's network as they are, and a keyed hash of the subject.
    Keep,
    /// The country, keyed hashes of the subject and of the client's network, and the route's `match.path` in place of the
    /// request's, which may hold names. The same holds where no route is found, with a keyed hash of the path.
    #[default]
    Hash,
    /// The route's `match.path` alone: neither subject nor country, no inputs of explanations, no units of experiments.
    Drop,
}
}

impl From<PersonalSpec> for Personal {
    fn from(spec: PersonalSpec) -> Self {
        match spec {
            PersonalSpec::Keep => Self::Keep,
            PersonalSpec::Hash => Self::Hash,
            PersonalSpec::Drop => Self::Drop,
        }
    }
}

spec! {
/// Which requests a route is for. All that is given must hold.
pub struct MatchSpec {
    /// Hostnames, exact or with a leading `*.` for any number of labels. Without any, all of the tenant's. Of several routes for
    /// a request, one that names its host goes first, then the one with the longest wildcard over it, then one for all hosts;
    /// what else is matched decides only where the host does not.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Path: `/v1/orders/{id}`; `{name}` takes one segment, a last `**` takes all that follow.
    pub path: String,
    /// Methods. Without any, all. `HEAD` goes wherever `GET` goes.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Header fields that must be there, with this value if one is given. A field on several lines has one value, theirs joined
    /// by `, `.
    #[serde(default)]
    pub headers: BTreeMap<String, Option<String>>,
    /// Query parameters that must be there, with this value if one is given.
    #[serde(default)]
    pub query: BTreeMap<String, Option<String>>,
    /// Condition on the request, the client and the place. The token is not checked yet and no variant is given: `auth` and
    /// `variants` can't be asked for, nor segments that ask for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Condition>,
    /// Decides between routes that are otherwise equally specific: the higher goes first.
    #[serde(default)]
    pub priority: i32,
}
}

spec! {
/// Who may use a route.
pub struct AuthSpec {
    /// Whether a token is needed.
    #[serde(default)]
    pub mode: AuthMode,
    /// Scopes that the token must have, all of them. Only with `mode: required`.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// What must hold beside, of the claims above all. Only with `mode: required`. No variant is given yet: `variants` can't be
    /// asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Condition>,
    /// Only reports whom it would refuse: such a request goes on without an identity, as an anonymous one. Not with
    /// `mode: anonymous`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shadow: bool,
    /// What happens to a request with a token that can't be checked, since its issuer's keys are not to be had: it is refused
    /// with 503 (`closed`), or goes on without an identity (`open`). While it is open, whoever writes that issuer's name into a
    /// token needs none, scopes or not. Not with `mode: anonymous`.
    #[serde(default = "FailSpec::closed", skip_serializing_if = "FailSpec::is_closed")]
    pub fail: FailSpec,
}
}

impl Default for AuthSpec {
    fn default() -> Self {
        Self {
            mode: AuthMode::Required,
            scopes: Vec::new(),
            when: None,
            shadow: false,
            fail: FailSpec::Closed,
        }
    }
}

spec! {
/// Whether a token is needed.
pub enum AuthMode {
    /// A valid token is needed.
    #[default]
    Required,
    /// Anybody; a token that is there must be valid.
    Optional,
    /// Anybody; a token is not looked at.
    Anonymous,
}
}

spec! {
/// How a region is chosen among those allowed.
#[derive(Eq)]
pub struct SteeringSpec {
    /// Order of preference.
    #[serde(default)]
    pub strategy: StrategySpec,
    /// Regions in order, for `strategy: priority` and `strategy: pinned`.
    #[serde(default)]
    pub regions: Vec<String>,
    /// Weight by region, for `strategy: weighted`; a region that is not here gets traffic only when the others fail.
    /// Without any, the regions' own weights.
    #[serde(default)]
    pub weights: BTreeMap<String, u32>,
    /// What keeps a client at its region.
    #[serde(default)]
    pub affinity: AffinitySpec,
    /// A share of clients, always the same ones, that goes to another target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanarySpec>,
    /// Statuses that count as a failure of the region, for this tenant alone.
    #[serde(default = "retry_statuses")]
    pub retry_statuses: Vec<u16>,
    /// Attempts at the most, the first included. Further ones are for idempotent methods (RFC 9110, section 9.2.2), for requests with an
    /// `Idempotency-Key` to Meridian's own origins, which honour it, and where nothing of the first was sent. Of a region whose
    /// origin has several addresses all come before the next region, but for the last attempt, which goes to another region.
    #[serde(default = "attempts")]
    pub attempts: u32,
    /// Until the head of a response must be there, for one attempt. What the client takes to send its body does not count.
    #[serde(default = "timeout")]
    pub timeout: Span,
    /// Asks another region too where the first takes its time, for safe methods without a body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hedge: Option<HedgeSpec>,
}
}

impl Default for SteeringSpec {
    fn default() -> Self {
        Self {
            strategy: StrategySpec::Nearest,
            regions: Vec::new(),
            weights: BTreeMap::new(),
            affinity: AffinitySpec::None,
            canary: None,
            retry_statuses: retry_statuses(),
            attempts: attempts(),
            timeout: timeout(),
            hedge: None,
        }
    }
}

spec! {
/// Order of preference of regions.
pub enum StrategySpec {
    /// The nearest by great circle.
    #[default]
    Nearest,
    /// The one that has answered fastest lately; the nearest where nothing is known.
    Latency,
    /// Each for its share of `weights`.
    Weighted,
    /// In the order of `regions`, then the others.
    Priority,
    /// Only `regions`, in their order.
    Pinned,
    /// The tenant's home region, then the nearest.
    Home,
}
}

spec! {
/// What keeps a client at its region.
pub enum AffinitySpec {
    /// Nothing.
    #[default]
    None,
    /// A signed cookie that names the region which answered first.
    Cookie,
    /// A hash of the client's address (IPv6: its /64), for `strategy: weighted`.
    Client,
    /// A hash of the verified subject, or of the client's address where there is none, for `strategy: weighted`.
    Subject,
}
}

spec! {
/// When another region is asked too. The first good answer wins, the other is given up. It counts as an attempt and as a
/// retry: where retries are used up, nobody else is asked.
#[derive(Eq)]
pub struct HedgeSpec {
    /// After which time without an answer: a span from 10ms up to the timeout, or `p95`, the time within which 95 of 100 of the
    /// first region's last 64 answers came, once there were 20.
    pub after: Patience,
}
}

spec! {
/// A share of clients that goes to another target.
#[derive(Eq)]
pub struct CanarySpec {
    /// Share of subjects, or of browsers where there is no subject. When it grows, all that went still go.
    pub share: Share,
    /// Name of the `Upstream` that they go to, or `platform:NAME` of one of the platform's.
    pub upstream: String,
}
}

fn whole() -> Share {
    Share { basis_points: SHARE_ALL }
}

fn timeout() -> Span {
    Span::from_secs(5)
}

fn retry_statuses() -> Vec<u16> {
    vec![500, 502, 503, 504]
}

fn attempts() -> u32 {
    3
}
