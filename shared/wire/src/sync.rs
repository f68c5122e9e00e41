//! `POST /edge/v1/sync` and `GET /edge/v1/hosts/{host}`: how an edge learns what is new.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use meridian_engine::ruleset::Target;
use meridian_engine::step::{AddressName, Purge, RegionNews, SyncAsk, SyncNews};
use serde::{Deserialize, Serialize};

use crate::limits::{
    SLUG_BYTES_MAX, SYNC_ADDRESSES_MAX, SYNC_PURGES_MAX, SYNC_TARGETS_MAX, SYNC_UNHEALTHY_MAX,
};
use crate::session::Positions;

/// What an edge has, and asks to hear beyond.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncRequest {
    /// Name of the edge.
    pub edge: String,
    /// Sequence of each target in memory; the target as [`Target`] prints itself.
    pub targets: BTreeMap<String, u64>,
    /// How far the purge journal of each region has been read; `None` at the first time.
    pub purge_cursor: Option<BTreeMap<String, u64>>,
    /// Addresses whose names it would like to know; at most [`SYNC_ADDRESSES_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
}

/// What is new since.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncReply {
    /// The region that answers.
    pub region: String,
    /// Its clock, in milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// Newest release of each target that was asked about and exists.
    pub heads: BTreeMap<String, Head>,
    /// New entries of the purge journal, oldest first.
    pub purges: Vec<PurgeEntry>,
    /// How far the journal has been read now.
    pub purge_cursor: BTreeMap<String, u64>,
    /// The journal no longer reaches back to the cursor: entries stored before `now_ms` are stale.
    pub reset: bool,
    /// What the region knows of every region.
    pub regions: Vec<RegionStatus>,
    /// Names that were asked for, as far as they are known by now. What is missing is to be asked for again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<NameEntry>,
}

/// The name of an address in DNS, as far as the name has the address too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameEntry {
    /// The address.
    pub address: IpAddr,
    /// The name; none where none is confirmed.
    pub name: Option<String>,
    /// How long that may be believed.
    pub keep_ms: u64,
}

/// The newest release of a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Sequence.
    pub sequence: u64,
    /// Version of the bundle.
    pub version: String,
}

/// One entry of the purge journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeEntry {
    /// Number in the region's journal.
    pub seq: u64,
    /// Tenant whose cache is meant.
    pub tenant: String,
    /// Tag that went stale; `*` is all of them.
    pub tag: String,
    /// Ordinal of the region whose change did it; 0 for a purge by hand.
    pub source: u16,
    /// Commit position of that change in its region; 0 for a purge by hand.
    pub position: u64,
    /// When it was written to the journal.
    pub at_ms: u64,
    /// Whether what went stale may be of use while it is fetched anew. An edge that does not know the field takes the
    /// purge for a hard one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub soft: bool,
}

/// What a region knows of one region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionStatus {
    /// The region.
    pub id: String,
    /// Its ordinal.
    pub ordinal: u16,
    /// `active`, `draining` or `down`, as its document says.
    pub state: String,
    /// Whether its health check passes.
    pub healthy: bool,
    /// Position applied there of each source.
    pub applied: Positions,
    /// Upstreams of the asked tenants whose health check fails there, as `tenant/name`; at most [`SYNC_UNHEALTHY_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unhealthy: Vec<String>,
}

/// Which tenant a hostname belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostReply {
    /// The hostname asked about.
    pub host: String,
    /// Slug of the tenant.
    pub tenant: String,
    /// The domain that matched: the hostname, or a wildcard.
    pub matched: String,
}

/// A text that names no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a target: expected \"platform\" or \"tenant:SLUG\"")]
pub struct InvalidTarget(pub String);

/// Reads a target as it prints itself: `platform` or `tenant:SLUG`.
///
/// # Errors
/// Where the text is anything else, or the slug is not 1 to 63 lower-case letters, digits and inner hyphens.
pub fn parse_target(text: &str) -> Result<Target, InvalidTarget> {
    match text.split_once(':') {
        None if text == "platform" => Ok(Target::Platform),
        Some(("tenant", slug)) if is_slug(slug) => Ok(Target::Tenant(slug.to_owned())),
        _ => Err(InvalidTarget(text.chars().take(80).collect())),
    }
}

/// Whether a text can be a tenant's slug or a region's id: 1 to 63 lower-case letters, digits and inner hyphens.
#[must_use]
pub fn is_slug(text: &str) -> bool {
    (1..=SLUG_BYTES_MAX).contains(&text.len())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

impl SyncRequest {
    /// The question of an engine.
    #[must_use]
    pub fn of(edge: &str, ask: &SyncAsk) -> Self {
        let cursor = ask.purge_cursor.iter().map(|(region, seq)| (region.to_string(), *seq));
        Self {
            edge: edge.to_owned(),
            targets: ask
                .targets
                .iter()
                .take(SYNC_TARGETS_MAX)
                .map(|(target, sequence)| (target.to_string(), *sequence))
                .collect(),
            addresses: ask.addresses.iter().take(SYNC_ADDRESSES_MAX).copied().collect(),
            purge_cursor: (!ask.purge_cursor.is_empty()).then(|| cursor.collect()),
        }
    }
}

impl From<SyncReply> for SyncNews {
    /// What cannot be a target is left out.
    fn from(reply: SyncReply) -> Self {
        let head =
            |(target, head): (String, Head)| parse_target(&target).ok().map(|target| (target, head.sequence));
        Self {
            heads: reply.heads.into_iter().filter_map(head).collect(),
            purges: reply.purges.into_iter().take(SYNC_PURGES_MAX).map(Purge::from).collect(),
            purge_cursor: reply.purge_cursor.into_iter().map(|(id, seq)| (Arc::from(id), seq)).collect(),
            reset: reply.reset,
            now_ms: reply.now_ms,
            regions: reply.regions.into_iter().map(RegionNews::from).collect(),
            names: reply.names.into_iter().take(SYNC_ADDRESSES_MAX).map(AddressName::from).collect(),
        }
    }
}

impl From<PurgeEntry> for Purge {
    fn from(entry: PurgeEntry) -> Self {
        let PurgeEntry { seq: _, tenant, tag, source, position, at_ms, soft } = entry;
        Self { tenant, tag, source, position, at_ms, soft }
    }
}

impl From<NameEntry> for AddressName {
    fn from(entry: NameEntry) -> Self {
        let NameEntry { address, name, keep_ms } = entry;
        Self { address, name, keep_ms }
    }
}

impl From<RegionStatus> for RegionNews {
    fn from(status: RegionStatus) -> Self {
        Self {
            id: Arc::from(status.id),
            ordinal: status.ordinal,
            healthy: status.healthy && status.state != "down",
            applied: status.applied.into_iter().collect(),
            unhealthy: status.unhealthy.into_iter().take(SYNC_UNHEALTHY_MAX).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_upstreams_are_taken_for_unhealthy_than_may_be_told() {
        let status = |unhealthy| RegionStatus {
            id: "us-east-1".to_owned(),
            ordinal: 1,
            state: "active".to_owned(),
            healthy: true,
            applied: Positions::new(),
            unhealthy,
        };
        let told = (0..SYNC_UNHEALTHY_MAX + 5).map(|number| format!("acme/{number:04}")).collect();
        let news = RegionNews::from(status(told));
        assert_eq!(news.unhealthy.len(), SYNC_UNHEALTHY_MAX);
        assert!(news.unhealthy.contains("acme/0000"));
        // What an older edge does not expect is not there where there is nothing to say.
        assert!(!serde_json::to_string(&status(vec![])).unwrap().contains("unhealthy"));
    }

    #[test]
    fn targets_are_read_as_they_print() {
        for text in ["platform", "tenant:acme", "tenant:a-1"] {
            assert_eq!(parse_target(text).unwrap().to_string(), text);
        }
        for text in ["", "tenant:", "tenant:-a", "tenant:A", "platform:x", "region:a", "tenant:a/b"] {
            assert!(parse_target(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_reply_becomes_news() {
        let reply: SyncReply = serde_json::from_str(
            r#"{"region":"us-east-1","now_ms":5,"heads":{"tenant:acme":{"sequence":3,"version":"ab"},"odd":{"sequence":1,"version":"x"}},
                "purges":[{"seq":1,"tenant":"acme","tag":"orders","source":2,"position":18446744073709551615,"at_ms":4}],
                "purge_cursor":{"us-east-1":1},"reset":false,
                "regions":[{"id":"us-east-1","ordinal":1,"state":"down","healthy":true,"applied":{"2":7}}]}"#,
        )
        .unwrap();
        let news = SyncNews::from(reply);
        assert_eq!(news.heads, [(Target::Tenant("acme".into()), 3)]);
        assert_eq!(news.purges[0].position, u64::MAX);
        assert!(!news.regions[0].healthy);
        assert_eq!(news.regions[0].applied, [(2, 7)]);
        assert!(news.regions[0].unhealthy.is_empty(), "an older origin says nothing of upstreams");
    }
}
