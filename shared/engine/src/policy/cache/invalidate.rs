//! What unsafe requests make stale (RFC 9111, section 4.4).

use super::{Subject, key};
use crate::facts::{Facts, normalise_host, normalise_path};
use crate::ruleset::CachePolicy;
use crate::step::{CacheKey, Purge, ResponseHead};

/// What an unsafe request made stale (RFC 9111, section 4.4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invalidation {
    /// Keys to forget in the host's store.
    pub forget: Vec<CacheKey>,
    /// Marks for the journal of this node: every stored variant of these URIs is stale.
    pub purges: Vec<Purge>,
}

/// What the response to an unsafe request makes stale (RFC 9111, section 4.4): its own URI, and those of the same host that
/// `Location` and `Content-Location` name. `policy` is that of the route, for the key.
#[must_use]
pub fn invalidate(
    subject: &Subject<'_>,
    policy: Option<&CachePolicy>,
    head: &ResponseHead,
    now_ms: u64,
) -> Invalidation {
    let facts = subject.facts;
    let is_safe = matches!(facts.method.as_str(), "GET" | "HEAD" | "OPTIONS" | "TRACE");
    if is_safe || !(200..400).contains(&head.status) {
        return Invalidation::default();
    }
    let named = ["location", "content-location"].into_iter().filter_map(|name| head.headers.get(name));
    let mut uris: Vec<String> = named.filter_map(|reference| resolve(facts, reference)).collect();
    uris.push(uri_tag(facts, &facts.path, facts.query.as_deref()));
    uris.sort();
    uris.dedup();
    let own = format!("={}", facts.host);
    let mut invalidation = Invalidation::default();
    for uri in uris {
        if let (Some(policy), Some(target)) = (policy, uri.strip_prefix(&own)) {
            let (path, query) =
                target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
            invalidation.forget.push(key::at(policy, subject, path, query).0);
        }
        let tenant = subject.tenant.to_owned();
        invalidation.purges.push(Purge { tenant, tag: uri, source: 0, position: 0, at_ms: now_ms });
    }
    invalidation
}

/// The tag of a URI reference (RFC 3986, section 5.2) on this host; `None` for another host or what can't be read.
fn resolve(facts: &Facts, reference: &str) -> Option<String> {
    let reference = reference.split('#').next().unwrap_or_default();
    let absolute = reference.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"));
    let target = match (absolute, reference.strip_prefix("//")) {
        (Some((_, rest)), _) | (None, Some(rest)) => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (authority, target) = rest.split_at_checked(end)?;
            if normalise_host(authority).ok()? != facts.host {
                return None;
            }
            if target.starts_with('/') { target.to_owned() } else { format!("/{target}") }
        }
        (None, None) if reference.starts_with('/') => reference.to_owned(),
        (None, None) if reference.starts_with('?') => format!("{}{reference}", facts.path),
        (None, None) if reference.is_empty() || reference.contains(':') => return None,
        (None, None) => {
            format!("{}/{reference}", facts.path.rsplit_once('/').map_or("", |(folder, _)| folder))
        }
    };
    let (path, query) =
        target.split_once('?').map_or((target.as_str(), None), |(path, query)| (path, Some(query)));
    let path = normalise_path(path).ok()?;
    Some(uri_tag(facts, &path, query))
}

/// Stands for a URI among tags.
pub(super) fn uri_tag(facts: &Facts, path: &str, query: Option<&str>) -> String {
    let mut tag = format!("={}{path}", facts.host);
    if let Some(query) = query {
        tag.push('?');
        tag.push_str(query);
    }
    tag
}
