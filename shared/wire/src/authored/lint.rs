//! What is odd in documents that hold together: in the documents themselves, and in the rules that they are
//! (`meridian_engine::lint`).

use std::collections::BTreeSet;

use meridian_engine::lint::Finding;

use super::conditions::{Known, asked_of_token};
use super::invalid::Warning;
use crate::bundle::Rules;
use crate::document::{AuthMode, Body, Document, RouteSpec};

/// What is odd.
pub(super) fn lint(documents: &[Document], rules: &Rules) -> Vec<Warning> {
    let mut warnings = match rules {
        Rules::Tenant(ruleset) => meridian_engine::lint::lint(ruleset).into_iter().map(warning).collect(),
        Rules::Platform(_) => Vec::new(),
    };
    let of_tenant = matches!(rules, Rules::Tenant(_));
    let used = used_by(documents, |_| true);
    let used_with_tokens = used_by(documents, |route| route.auth.mode != AuthMode::Anonymous);
    let known = Known::of(documents);
    let domains = names(documents, "Domain");
    for document in documents {
        let mut warn = |what: String| {
            let source = &document.source;
            warnings.push(Warning { file: source.file.clone(), line: source.line, what });
        };
        let (kind, name) = (document.body.kind(), document.metadata.name.as_str());
        if used.contains(&(kind, name))
            && !used_with_tokens.contains(&(kind, name))
            && let Some(asked) = asked_of_token(document, &known)
        {
            warn(format!(
                "{kind} {name:?} asks for {asked}, and only routes with auth.mode: anonymous use it"
            ));
        }
        match &document.body {
            Body::RateLimit(_)
            | Body::Experiment(_)
            | Body::CachePolicy(_)
            | Body::Transform(_)
            | Body::Upstream(_)
            | Body::Function(_)
                if of_tenant && !used.contains(&(kind, name)) =>
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

fn warning(finding: Finding) -> Warning {
    let Finding { rule, found } = finding;
    Warning {
        file: rule.file.to_string(),
        line: rule.line,
        what: format!("{} {:?} {found}", rule.kind, rule.name),
    }
}

/// Kind and name of what these routes use.
fn used_by(documents: &[Document], of: impl Fn(&RouteSpec) -> bool) -> BTreeSet<(&'static str, &str)> {
    let mut used = BTreeSet::new();
    for document in documents {
        let Body::Route(spec) = &document.body else { continue };
        if !of(spec) {
            continue;
        }
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
        let canary = spec.steering.canary.as_ref().map(|canary| &canary.upstream);
        used.extend(spec.upstream.iter().chain(canary).map(|name| ("Upstream", name.as_str())));
        used.extend(spec.function.iter().map(|name| ("Function", name.as_str())));
    }
    used
}

fn names<'a>(documents: &'a [Document], kind: &str) -> BTreeSet<&'a str> {
    let of_kind = documents.iter().filter(|document| document.body.kind() == kind);
    of_kind.map(|document| document.metadata.name.as_str()).collect()
}

/// Whether a host is one of the domains, or below a wildcard among them.
fn covered(host: &str, domains: &BTreeSet<&str>) -> bool {
    let inside = host.trim_start_matches('*');
    let mut above = inside.match_indices('.').filter_map(|(at, _)| inside.get(at..));
    domains.contains(host) || above.any(|suffix| domains.contains(format!("*{suffix}").as_str()))
}
