//! What was decided about a request, with what it takes to explain it.

use std::sync::Arc;

use crate::explanation::Explanation;
use crate::ruleset::{Personal, RegionId};
use crate::secret::{Secret, hex};
use crate::trace::Trace;

/// What was decided about one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Id: 26 characters of Crockford base 32, sortable by time (48 bits of milliseconds, 80 random bits).
    pub id: String,
    /// Tenant, once known.
    pub tenant: Option<Arc<str>>,
    /// Version of the tenant's bundle, once known.
    pub bundle: Option<Arc<str>>,
    /// Name of the route, once known.
    pub route: Option<Arc<str>>,
    /// Outcome in one word.
    pub outcome: Outcome,
    /// Status that the client got.
    pub status: u16,
    /// Region that answered.
    pub region: Option<RegionId>,
    /// Verified subject.
    pub subject: Option<Arc<str>>,
    /// Tells subjects of the tenant apart without naming them: [`subject_hash`].
    pub subject_hash: Option<Arc<str>>,
    /// Variant by experiment.
    pub variants: Vec<(Arc<str>, Arc<str>)>,
    /// What its experiments are to count.
    pub participation: Participation,
    /// Value of `Cache-Status`, without the cache's name.
    pub cache: Option<String>,
    /// How long the bodies are, as far as it is known when the reply begins.
    pub bytes: Bytes,
    /// What its event tells of persons.
    pub persons: Persons,
    /// How many decisions its event stands for: more than one where others like it are not written down, 0 where it is
    /// not.
    pub weight: u32,
    /// Its part of a trace.
    pub trace: Trace,
    /// What the request waited for, in order.
    pub waits: Vec<Wait>,
    /// Each stage with its rule, its inputs and its outcome.
    pub explanation: Explanation,
}

/// Tells subjects with their issuers apart without naming them, in 32 hexadecimal characters: HMAC-SHA256 with the platform's
/// secret, as subjects can be guessed. It changes with the secret.
#[must_use]
pub(crate) fn subject_hash(secret: &Secret, tenant: &str, person: &str) -> String {
    hex(&secret.short_tag([b"meridian-subject-v1\n", tenant.as_bytes(), b"\n", person.as_bytes()]))
}

/// Bytes of a request's and its reply's bodies: what their heads say, and what the edge has itself. A body that breaks off is
/// shorter. None where nobody says, as of a body in chunks and of one that is changed or coded on its way out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// Of the request's body, whether it was read or not.
    pub request: Option<u64>,
    /// Of the body that the client gets.
    pub response: Option<u64>,
}

/// What the event of a decision tells of persons: data that need not leave the edge does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persons {
    /// The route's rule, or what holds where no route was found.
    pub rule: Personal,
    /// The route's path, which stands in place of the request's unless the rule keeps that. Without a route, a keyed hash of the
    /// request's where the rule says so.
    pub path: Option<Arc<str>>,
    /// Keyed hash of the client's network, where the explanation has that and the rule hashes it.
    pub client: Option<String>,
}

impl Default for Persons {
    /// All is told: to whoever asks for the decision, and to nobody else.
    fn default() -> Self {
        Self { rule: Personal::Keep, path: None, client: None }
    }
}

impl Persons {
    /// What is told of an input of a stage: all of it, something in its place, or nothing.
    #[must_use]
    pub fn input<'a>(&'a self, name: &str, value: &'a str) -> Option<&'a str> {
        match (self.rule, name) {
            (Personal::Keep, _) => Some(value),
            (Personal::Hash, "path") => self.path.as_deref(),
            (Personal::Hash, "client") => self.client.as_deref(),
            (Personal::Hash, _) => Some(value),
            (Personal::Drop, _) => None,
        }
    }
}

/// Tells paths or networks of a tenant apart without naming them: `#` and 16 hexadecimal characters of HMAC-SHA256 with the
/// platform's secret.
#[must_use]
pub(crate) fn personal_hash(secret: &Secret, tenant: &str, value: &str) -> String {
    let parts = ["meridian-personal-v1\n", tenant, "\n", value];
    format!("#{}", hex(secret.short_tag(parts.map(str::as_bytes)).get(..8).unwrap_or_default()))
}

/// Something that a request waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// `sync`, `load`, `keys`, `signature`, `take`, `lookup`, `forward`.
    pub what: &'static str,
    /// How long after its arrival, in milliseconds.
    pub after_ms: u32,
    /// How long, in milliseconds; never 0.
    pub ms: u32,
}

/// What experiments are to count of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Participation {
    /// Variants that were given by assignment; a forced variant is none of them.
    pub exposures: Vec<Exposure>,
    /// Goals that were reached.
    pub conversions: Vec<Conversion>,
}

/// A unit was given a variant. However often it is, it counts once for a version of the experiment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// Name of the experiment.
    pub experiment: Arc<str>,
    /// Its version: what decides which variant a unit gets.
    pub version: Arc<str>,
    /// Keyed hash of the unit: tells units apart without naming them.
    pub unit: String,
    /// The variant.
    pub variant: Arc<str>,
}

/// A unit reached a goal. However often it does, it counts once for a version of the experiment, and only if the unit was
/// given a variant before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversion {
    /// Name of the experiment.
    pub experiment: Arc<str>,
    /// Its version.
    pub version: Arc<str>,
    /// The unit, as in its exposure.
    pub unit: String,
    /// Name of the goal.
    pub goal: String,
}

/// Outcome of a decision in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A target answered.
    Forwarded,
    /// The cache answered.
    Cached,
    /// The rules answered themselves: a redirect, a preflight, or an `OPTIONS` that may go no further.
    Answered,
    /// The rules said no.
    Denied,
    /// A limit said no.
    Limited,
    /// Nothing could answer.
    Failed,
}

impl Outcome {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::Cached => "cached",
            Self::Answered => "answered",
            Self::Denied => "denied",
            Self::Limited => "limited",
            Self::Failed => "failed",
        }
    }
}

/// Those of the bits of an id that are random.
const RANDOM_BITS: u128 = (1 << 80) - 1;
/// Digits of Crockford's base 32.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The random bits that the id of a decision shows.
#[must_use]
pub fn decision_bits(id: &str) -> Option<u128> {
    let digit = |letter: u8| DIGITS.iter().position(|digit| *digit == letter);
    let bits = id.bytes().try_fold(0, |bits: u128, letter| Some(bits << 5 | digit(letter)? as u128))?;
    (id.len() == 26).then_some(bits & RANDOM_BITS)
}

/// The id of a decision made at `now_ms` with these random bits, as [`Decision::id`] describes it.
#[must_use]
pub fn decision_id(now_ms: u64, random: [u8; 16]) -> String {
    let bits = u128::from(now_ms & 0xffff_ffff_ffff) << 80 | (u128::from_be_bytes(random) & RANDOM_BITS);
    let mut id = String::with_capacity(26);
    id.extend((0..26).rev().map(|digit| {
        let digit = DIGITS.get((bits >> (digit * 5)) as usize & 31);
        char::from(digit.copied().unwrap_or(b'0'))
    }));
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_told_apart_by_issuer_and_tenant_and_only_with_the_secret() {
        let hash = |secret, tenant, issuer, subject| {
            subject_hash(&Secret::new(&[secret; 32]), tenant, &crate::policy::jwt::person(issuer, subject))
        };
        let ada = hash(7, "acme", "https://a.example", "ada");
        assert_eq!((ada.len(), &ada), (32, &hash(7, "acme", "https://a.example", "ada")));
        for other in [
            hash(8, "acme", "https://a.example", "ada"),
            hash(7, "globex", "https://a.example", "ada"),
            hash(7, "acme", "https://b.example", "ada"),
            hash(7, "acme", "https://a.examplea", "da"),
        ] {
            assert_ne!(ada, other);
        }
    }

    #[test]
    fn ids_sort_by_time_and_tell_the_random_bits_apart() {
        assert_eq!(decision_id(0, [0; 16]), "00000000000000000000000000");
        assert_eq!(decision_id(0xffff_ffff_ffff, [0xff; 16]), "7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
        // The example of the ULID specification's time part.
        assert!(decision_id(1_469_918_176_385, [0; 16]).starts_with("01ARYZ6S41"));
        assert!(decision_id(1, [0xff; 16]) < decision_id(2, [0; 16]));
        assert_ne!(decision_id(1, [1; 16]), decision_id(1, [2; 16]));
        assert_eq!(decision_bits(&decision_id(7, [0xa5; 16])), Some(0xa5a5_a5a5_a5a5_a5a5_a5a5));
    }
}
