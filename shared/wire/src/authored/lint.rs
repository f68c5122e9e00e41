//! What is odd in documents that hold together.

use std::collections::BTreeSet;

use super::invalid::Warning;
use crate::document::{Body, Document};

/// What is odd, in the order of the documents.
pub(super) fn lint(documents: &[Document]) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let used = used(documents);
    let domains: Vec<&str> = names(documents, "Domain");
    for document in documents {
        let mut warn = |what: String| {
            let source = &document.source;
            warnings.push(Warning { file: source.file.clone(), line: source.line, what });
        };
        let (kind, name) = (document.body.kind(), document.metadata.name.as_str());
        match &document.body {
            Body::RateLimit(_)
            | Body::Experiment(_)
            | Body::CachePolicy(_)
            | Body::Transform(_)
            | Body::Upstream(_)
                if !used.contains(&(kind, name)) =>
            {
                warn(format!("{kind} {name:?} is not used by any route"));
            }
            Body::Security(spec) if !spec.every_request && !used.contains(&(kind, name)) => {
                warn(format!("{kind} {name:?} is not used by any route and not for every request"));
            }
            Body::Issuer(spec) if spec.keys.iter().any(|key| key.k.is_some()) => {
                warn(format!(
                    "{kind} {name:?} holds a shared secret: whoever reads the rules can sign tokens with it"
                ));
            }
            Body::Route(spec) => {
                for host in spec.matcher.hosts.iter().filter(|host| !covered(host, &domains)) {
                    warn(format!("{kind} {name:?} is for {host:?}, which is no domain of the tenant"));
                }
            }
            _ => {}
        }
    }
    warnings
}

/// Kind and name of what routes use.
fn used(documents: &[Document]) -> BTreeSet<(&'static str, &str)> {
    let mut used = BTreeSet::new();
    for document in documents {
        let Body::Route(spec) = &document.body else { continue };
        let lists = [
            ("RateLimit", &spec.limits),
            ("Experiment", &spec.experiments),
            ("Transform", &spec.transforms),
            ("Security", &spec.security),
        ];
        used.extend(
            lists.into_iter().flat_map(|(kind, names)| names.iter().map(move |name| (kind, name.as_str()))),
        );
        used.extend(spec.cache.iter().map(|name| ("CachePolicy", name.as_str())));
        used.extend(spec.upstream.iter().map(|name| ("Upstream", name.as_str())));
    }
    used
}

fn names<'a>(documents: &'a [Document], kind: &str) -> Vec<&'a str> {
    let of_kind = documents.iter().filter(|document| document.body.kind() == kind);
    of_kind.map(|document| document.metadata.name.as_str()).collect()
}

/// Whether a host is one of the domains, or below a wildcard among them.
fn covered(host: &str, domains: &[&str]) -> bool {
    domains.iter().any(|domain| {
        *domain == host
            || domain.strip_prefix('*').is_some_and(|suffix| host.trim_start_matches('*').ends_with(suffix))
    })
}
