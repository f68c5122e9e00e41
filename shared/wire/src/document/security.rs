//! What requests are checked for.

use serde::{Deserialize, Serialize};

use super::policy::FailSpec;

spec! {
/// What requests are checked for, in this order: `limits`, networks, `countries`, `asns`, `bots`, `injection`. The first
/// that blocks ends it. A section without a `mode` has the mode of the document, and networks have that always.
#[derive(Eq)]
pub struct SecuritySpec {
    /// Networks that alone may come: `192.0.2.0/24`, `2001:db8::/32`, or one address. Without any, all may.
    #[serde(default)]
    pub allow: Vec<String>,
    /// Networks that may not; wins over `allow`.
    #[serde(default)]
    pub deny: Vec<String>,
    /// Files beside this one that list further networks of `allow`, one a line; `#` begins a comment. Their names end with
    /// `.netset` or `.ipset`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_from: Vec<NetworkFile>,
    /// Files beside this one that list further networks of `deny`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny_from: Vec<NetworkFile>,
    /// Countries of clients, by their ISO 3166-1 alpha-2 codes in upper case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub countries: Option<CountriesSpec>,
    /// Autonomous systems of clients, by their numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asns: Option<AsnsSpec>,
    /// How large a request may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<SizesSpec>,
    /// What is thought of bots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bots: Option<BotsSpec>,
    /// Signs of an injection in path, query, cookies and header fields, and in the beginning of bodies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub injection: Option<InjectionSpec>,
    /// What a hit does.
    #[serde(default)]
    pub mode: ModeSpec,
    /// Whether it is for every request of the tenant, or only for the routes that name it.
    #[serde(default)]
    pub every_request: bool,
}
}

/// A file that lists networks. Written as its name; a bundle carries `{"file": NAME, "networks": PACKED}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "NetworkFileForm")]
pub struct NetworkFile {
    /// Its path in the pushed folder.
    pub file: String,
    /// What it lists, packed; only a bundle has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networks: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum NetworkFileForm {
    Named(String),
    Read { file: String, networks: String },
}

impl From<NetworkFileForm> for NetworkFile {
    fn from(form: NetworkFileForm) -> Self {
        match form {
            NetworkFileForm::Named(file) => Self { file, networks: None },
            NetworkFileForm::Read { file, networks } => Self { file, networks: Some(networks) },
        }
    }
}

#[cfg(feature = "documents")]
impl schemars::JsonSchema for NetworkFile {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "NetworkFile".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "description": "A file that lists networks, one a line." })
    }
}

/// A file that lists autonomous systems. Written as its name; a bundle carries `{"file": NAME, "asns": PACKED}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "AsnFileForm")]
pub struct AsnFile {
    /// Its path in the pushed folder.
    pub file: String,
    /// What it lists, packed; only a bundle has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asns: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum AsnFileForm {
    Named(String),
    Read { file: String, asns: String },
}

impl From<AsnFileForm> for AsnFile {
    fn from(form: AsnFileForm) -> Self {
        match form {
            AsnFileForm::Named(file) => Self { file, asns: None },
            AsnFileForm::Read { file, asns } => Self { file, asns: Some(asns) },
        }
    }
}

#[cfg(feature = "documents")]
impl schemars::JsonSchema for AsnFile {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "AsnFile".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "description": "A file that lists numbers of autonomous systems, one a line." })
    }
}

spec! {
/// Countries that alone may come, or that may not: one of `allow` and `deny`.
#[derive(Eq)]
pub struct CountriesSpec {
    /// What a hit does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ModeSpec>,
    /// Countries that alone may come.
    #[serde(default)]
    pub allow: Vec<String>,
    /// Countries that may not.
    #[serde(default)]
    pub deny: Vec<String>,
    /// With `allow`: what becomes of clients whose country is not known.
    #[serde(default)]
    pub unknown: UnknownSpec,
}
}

spec! {
/// Autonomous systems that alone may come, or that may not: one of `allow` and `deny`.
#[derive(Eq)]
pub struct AsnsSpec {
    /// What a hit does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ModeSpec>,
    /// Numbers that alone may come.
    #[serde(default)]
    pub allow: Vec<u32>,
    /// Numbers that may not.
    #[serde(default)]
    pub deny: Vec<u32>,
    /// Files beside this one that list further numbers of `allow`, one a line, `64500` or `AS64500`; `#` begins a comment.
    /// Their names end with `.asnset`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_from: Vec<AsnFile>,
    /// Files beside this one that list further numbers of `deny`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny_from: Vec<AsnFile>,
    /// With `allow`: what becomes of clients whose number is not known.
    #[serde(default)]
    pub unknown: UnknownSpec,
}
}

spec! {
/// What becomes of clients of whom it is not known where they are.
pub enum UnknownSpec {
    /// They may come.
    #[default]
    Allow,
    /// They may not.
    Deny,
}
}

spec! {
/// How large a request may be, below what the platform takes of any. At least one of them.
#[derive(Eq)]
pub struct SizesSpec {
    /// What a hit does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ModeSpec>,
    /// Bytes of names and values of the header fields together, those of the connection aside (else 431).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header_bytes: Option<u64>,
    /// Number of header fields, those of the connection aside (else 431).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<u64>,
    /// Bytes of the body (else 413; 411 where its length is not told beforehand).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_bytes: Option<u64>,
    /// Bytes of the path, percent-encoded (else 414).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_bytes: Option<u64>,
    /// Bytes of the query, percent-encoded (else 414).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_bytes: Option<u64>,
}
}

spec! {
/// What is thought of bots, by what a request says of itself. It sorts out the careless, and proves nothing.
#[derive(Eq)]
pub struct BotsSpec {
    /// What a hit does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ModeSpec>,
    /// Scores below this are hits; 1 to 100, 100 being a browser without a sign of anything else.
    pub below: u8,
    /// Crawlers, known ones such as `googlebot` or those of `own`, that pass whatever their score. A crawler claims in
    /// `User-Agent` to be one; origins verify that by the name of its address in DNS, a moment after it first came.
    #[serde(default)]
    pub crawlers: Vec<String>,
    /// Crawlers beside the known ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub own: Vec<CrawlerSpec>,
    /// What a claim to be a crawler does that is known to be false, whether the crawler is listed or not. Without it, the
    /// mode of the section.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub false_claims: Option<ModeSpec>,
    /// What becomes of listed crawlers that are not verified yet; some never can be, as their operators name no domain.
    #[serde(default)]
    pub unverified: UnverifiedSpec,
    /// Whether limits are not for listed crawlers once they are verified.
    #[serde(default)]
    pub unlimited: bool,
}
}

spec! {
/// A crawler that says in `User-Agent` which it is, and whose addresses have names in DNS.
#[derive(Eq)]
pub struct CrawlerSpec {
    /// Its name, for `crawlers`.
    pub name: String,
    /// A word of its `User-Agent`, in upper or lower case.
    pub agent: String,
    /// Domains that its addresses have names under: `crawl.example.com`.
    pub domains: Vec<String>,
}
}

spec! {
/// What becomes of a crawler that is not verified yet.
pub enum UnverifiedSpec {
    /// It passes while the name of its address is asked for. Its score counts, as of anybody else, where too many names are
    /// asked for at once (of a /64 of IPv6 one), and where another address of its /64 turned out to be no crawler's.
    #[default]
    Allow,
    /// Its score counts, as of anybody else.
    Score,
    /// It is a hit.
    Block,
}
}

spec! {
/// Signs of an injection in path, query, cookies and header fields, and in the beginning of bodies where `bodyBytes` says so.
#[derive(Eq)]
pub struct InjectionSpec {
    /// What a hit does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ModeSpec>,
    /// Rules up to this level, 1 to 4, are applied; a higher one finds more, wrongly too.
    #[serde(default = "paranoia")]
    pub paranoia: u8,
    /// Sum of the scores of rules from which on it is a hit. The gravest score 5.
    #[serde(default = "threshold")]
    pub threshold: u32,
    /// Header fields to look at, beside `Referer`, `User-Agent`, `X-Original-URL` and `X-Rewrite-URL`.
    #[serde(default)]
    pub headers: Vec<String>,
    /// How many of the first bytes of a body are looked at, 1 to 131,072; bodies are not looked at without it. It is for
    /// bodies of `application/x-www-form-urlencoded`, `application/json` and other types that end with `+json`,
    /// `multipart/form-data` (of files the name only) and `text/plain`, in no content coding. What is longer passes
    /// unseen: `limits` with the same `bodyBytes` refuses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_bytes: Option<u32>,
    /// What happens to a request whose body is of such a type and is not at hand: it passes (`open`), or that counts as a hit
    /// (`closed`). Only with `bodyBytes`.
    #[serde(default, skip_serializing_if = "FailSpec::is_open")]
    pub fail: FailSpec,
    /// Rules that are not applied in a place.
    #[serde(default)]
    pub exclude: Vec<ExclusionSpec>,
}
}

spec! {
/// A rule that is not applied in a place.
#[derive(Eq)]
pub struct ExclusionSpec {
    /// Id of the rule, as explanations name it. These are there, by the level of `paranoia` from which on they are applied, each with its
    /// score:
    ///
    /// - 1: `sqli-union` 5, `sqli-tautology` 5, `sqli-constant` 5, `sqli-call` 5, `sqli-quote-operator` 5,
    ///   `sqli-quote-comment` 5, `sqli-stacked` 5, `sqli-subselect` 5, `sqli-function` 5, `sqli-catalogue` 5,
    ///   `sqli-outfile` 5, `xss-script` 5, `xss-handler` 5, `xss-attribute` 5, `xss-element` 5, `xss-scheme` 5, `xss-data`
    ///   5, `xss-call` 5, `traversal-climb` 5, `traversal-file` 5, `traversal-dotfile` 5, `traversal-scheme` 5,
    ///   `command-chain` 5, `command-line` 5, `command-substitution` 5, `command-program` 5, `command-shellshock` 5,
    ///   `command-lookup` 5, `command-expression` 5, `header-split` 5, `protocol-null` 5, `protocol-overlong` 5,
    ///   `protocol-unicode` 5, `protocol-body-malformed` 5
    /// - 2: `sqli-statement` 4, `sqli-constant-end` 5, `xss-popup` 4, `traversal-relative` 5, `command-alone` 4,
    ///   `command-template` 5, `protocol-double` 3
    /// - 3: `sqli-quotes` 4, `sqli-select` 3, `xss-tag` 3, `header-break` 3
    /// - 4: `sqli-quote` 3, `traversal-dots` 3
    pub rule: String,
    /// `query:NAME`, `header:NAME`, `cookie:NAME`, `body:NAME`, `path` or `body`. A value in JSON has the names of its members
    /// with dots between, `body:user.name`; `body` is the body as such.
    #[serde(rename = "in")]
    pub place: String,
}
}

spec! {
/// What a security rule does when it hits.
pub enum ModeSpec {
    /// Nothing.
    Off,
    /// Is written to the decision.
    Log,
    /// Refuses the request.
    #[default]
    Block,
}
}

fn paranoia() -> u8 {
    1
}

fn threshold() -> u32 {
    5
}
