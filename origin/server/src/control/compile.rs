//! From files to a bundle, with every error at once and in its place.

use std::collections::BTreeMap;

use http::StatusCode;
use meridian_engine::destination::Destination;
use meridian_engine::ruleset::{Platform, Route, RouteTarget, Ruleset, Target, UpstreamRef, Version};
use meridian_store::{Scope as Transaction, release};
use meridian_wire::authored::{self, Invalid, TestFailure, TestReport, Warning, nearest, run_tests};
use meridian_wire::bundle::{Bundle, InvalidBundle, Rules};
use meridian_wire::document::{Body, Document};
use meridian_wire::encoding::version;
use meridian_wire::limits::INVALID_MAX;
use serde_json::{Value, json};

use super::publish::File;
use crate::config::BaseUrl;
use crate::problem::Problem;
use crate::state::Origin;

/// A bundle that holds together.
pub(super) struct Compiled {
    /// Its bytes, canonical JSON.
    pub bundle: String,
    /// Its version.
    pub version: String,
    /// What is allowed but looks wrong.
    pub warnings: Vec<Value>,
    rules: Rules,
    tests: Vec<authored::Test>,
    beyond_plan: Vec<Invalid>,
}

impl Compiled {
    /// Makes sure that it is within the tenant's plan. What is released already is not asked for that: a plan that became
    /// smaller keeps nothing from being served.
    ///
    /// # Errors
    /// 422 with `errors`, as where something else is wrong with documents.
    pub(super) fn within_plan(&self) -> Result<(), Problem> {
        if self.beyond_plan.is_empty() { Ok(()) } else { Err(refused(&self.beyond_plan)) }
    }
}

/// Compiles files with the documents that are made of the tables.
///
/// # Errors
/// 422 with `errors: [{file, line, column, path, found, expected, suggestion}]`.
pub(super) async fn compile(
    target: &Target,
    files: &[File],
    generated: Vec<Document>,
) -> Result<Compiled, Problem> {
    let target = target.clone();
    let files: Vec<_> = files
        .iter()
        .map(|file| authored::File { path: file.path.clone(), content: file.content.clone() })
        .collect();
    let compiled = aside(move || authored::compile(&target, &files, Some(&generated))).await?;
    let compiled = compiled.map_err(|errors| refused(&errors))?;
    Ok(Compiled {
        beyond_plan: compiled.beyond_plan(),
        bundle: String::from_utf8(compiled.bytes).map_err(|error| Problem::internal(&error))?,
        version: compiled.version,
        warnings: compiled.warnings.iter().map(|warning| json!(warning)).collect(),
        rules: compiled.rules,
        tests: compiled.tests,
    })
}

/// A released bundle with the documents that are made of the tables as they are now. Where files that were released once no
/// longer compile, as after an upgrade that refuses more, this is what goes on: edges accept what they have accepted.
///
/// # Errors
/// 422 where edges would refuse it.
pub(super) async fn renew(
    target: &Target,
    released: &str,
    generated: Vec<Document>,
) -> Result<Compiled, Problem> {
    let invalid = |error: InvalidBundle| Problem::invalid(json!([])).detail(error.to_string());
    let mut documents = Bundle::read(released.as_bytes(), target).map_err(invalid)?.documents;
    documents.retain(|document| !matches!(document.body, Body::Tenant(_) | Body::Domain(_)));
    documents.extend(generated);
    let bytes = Bundle::new(target, documents).to_bytes();
    let rules = Bundle::parse(&bytes, target, 0).map_err(invalid)?;
    Ok(Compiled {
        version: version(&bytes),
        bundle: String::from_utf8(bytes).map_err(|error| Problem::internal(&error))?,
        warnings: Vec::new(),
        rules,
        tests: Vec::new(),
        beyond_plan: Vec::new(),
    })
}

/// Does what takes processor time beside the threads that serve.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Problem::internal(&error))
}

fn refused(errors: &[Invalid]) -> Problem {
    let detail = errors.first().map(ToString::to_string).unwrap_or_default();
    Problem::invalid(json!(errors)).detail(detail)
}

/// Makes sure that nothing is out of reach.
///
/// # Errors
/// 422 with an error for each such URL and name; a fault of the database.
pub(super) async fn reach(
    origin: &Origin,
    transaction: &mut Transaction,
    compiled: &Compiled,
) -> Result<(), Problem> {
    let wrong = out_of_reach(origin, transaction, compiled).await?;
    if wrong.is_empty() { Ok(()) } else { Err(refused(&wrong)) }
}

/// The same as a warning for each, where rules are released that were so before.
///
/// # Errors
/// A fault of the database.
pub(super) async fn warn_of_reach(
    origin: &Origin,
    transaction: &mut Transaction,
    compiled: &mut Compiled,
) -> Result<(), Problem> {
    let wrong = out_of_reach(origin, transaction, compiled).await?;
    let warning = |Invalid { file, line, path, found, expected, .. }: Invalid| {
        json!(Warning { file, line, what: format!("{path}: found {found}, expected {expected}") })
    };
    compiled.warnings.extend(wrong.into_iter().map(warning));
    Ok(())
}

/// Upstreams that lead to an origin: of a region as it is released, this one or a peer. To an origin nothing goes but what is signed
/// for it. And what routes name of the platform that it has not as it is released, or not for this tenant.
///
/// # Errors
/// A fault of the database.
async fn out_of_reach(
    origin: &Origin,
    transaction: &mut Transaction,
    compiled: &Compiled,
) -> Result<Vec<Invalid>, Problem> {
    let Rules::Tenant(ruleset) = &compiled.rules else { return Ok(Vec::new()) };
    let is_shared = |upstream: &UpstreamRef| matches!(upstream, UpstreamRef::Platform(_));
    if ruleset.upstreams.is_empty() && !ruleset.routes.iter().flat_map(Route::upstreams).any(is_shared) {
        return Ok(Vec::new());
    }
    let platform = platform(transaction).await?;
    let released = platform.regions.iter().flat_map(|region| &region.origins).map(|url| &**url);
    let peers = origin.config.peers.iter().map(|peer| peer.url.as_str());
    let own = origin.config.public_urls.iter().map(BaseUrl::as_str);
    let origins: Vec<&str> = released.chain(peers).chain(own).collect();
    let is_origin = |url: &str| {
        let to = Destination::of(url);
        let mut origins = origins.iter().filter_map(|origin| Destination::of(origin));
        to.is_some_and(|to| origins.any(|origin| origin.is_same(to)))
    };
    let urls = ruleset
        .upstreams
        .iter()
        .flat_map(|upstream| upstream.regions.iter().map(move |(region, url)| (&upstream.rule, region, url)));
    let wrong = urls.filter(|(_, _, url)| is_origin(url)).map(|(rule, region, url)| Invalid {
        file: rule.file.to_string(),
        line: rule.line,
        column: 1,
        path: format!("spec.regions.{region}"),
        found: format!("{url:?}"),
        expected: "a service that is no origin of the platform".to_owned(),
        suggestion: None,
    });
    Ok(wrong.chain(missing(ruleset, &platform)).take(INVALID_MAX).collect())
}

/// An error for each upstream of the platform that a route names and that is not there for the tenant. Names of those that are for
/// others are proposed to nobody.
fn missing(ruleset: &Ruleset, platform: &Platform) -> impl Iterator<Item = Invalid> {
    let has = move |name: &str| platform.upstream(name, &ruleset.tenant.slug).is_some();
    let names: Vec<&str> = platform.upstreams.keys().map(|name| &**name).filter(|name| has(name)).collect();
    let named = ruleset.routes.iter().flat_map(|route| {
        let target = match &route.target {
            RouteTarget::Upstream(upstream) => Some(("spec.upstream", upstream)),
            RouteTarget::Origin => None,
        };
        let canary = route.steering.canary.as_ref();
        let canary = canary.map(|canary| ("spec.steering.canary.upstream", &canary.upstream));
        target.into_iter().chain(canary).map(move |(path, upstream)| (&route.rule, path, upstream))
    });
    named.filter_map(move |(rule, path, upstream)| {
        let UpstreamRef::Platform(name) = upstream else { return None };
        (!has(name)).then(|| Invalid {
            file: rule.file.to_string(),
            line: rule.line,
            column: 1,
            path: path.to_owned(),
            found: format!("{name:?}"),
            expected: "an upstream that the platform has for this tenant".to_owned(),
            suggestion: nearest(name, names.iter().copied()),
        })
    })
}

/// Runs the tests that stand beside the rules, on the platform as it is released.
///
/// # Errors
/// 422 `tests-failed` with what each failing test says; a fault of the database.
pub(super) async fn test(transaction: &mut Transaction, compiled: &Compiled) -> Result<(), Problem> {
    let Rules::Tenant(ruleset) = compiled.rules.clone() else { return Ok(()) };
    if compiled.tests.is_empty() {
        return Ok(());
    }
    let (platform, tests) = (platform(transaction).await?, compiled.tests.clone());
    let reports = aside(move || run_tests(&ruleset, &platform, &tests)).await?;
    let failed: Vec<_> = reports.into_iter().filter(|report| !report.passed()).collect();
    if failed.is_empty() {
        return Ok(());
    }
    let detail = format!("{} of {} tests failed", failed.len(), compiled.tests.len());
    let title = "A test that stands beside the rules failed";
    Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "tests-failed", title)
        .detail(detail)
        .member("errors", json!(failed.iter().map(failure).collect::<Vec<_>>()))
        .member("tests", json!(failed)))
}

/// A failed test in the shape of what is wrong with a document.
fn failure(report: &TestReport) -> Invalid {
    let first = report.failures.first();
    let text = |part: fn(&TestFailure) -> &String| first.map(part).cloned().unwrap_or_default();
    Invalid {
        file: report.file.clone(),
        line: report.line,
        column: 1,
        path: text(|failure| &failure.path),
        found: text(|failure| &failure.found),
        expected: text(|failure| &failure.expected),
        suggestion: None,
    }
}

/// The released platform; one without regions where there is no release yet.
async fn platform(transaction: &mut Transaction) -> Result<Platform, Problem> {
    let head = release::head(transaction, &Target::Platform.to_string()).await?;
    let parsed = head.map(|(release, contents)| {
        let sequence = u64::try_from(release.sequence).unwrap_or(0);
        Bundle::parse(contents.bundle.as_bytes(), &Target::Platform, sequence)
    });
    match parsed.transpose().map_err(|invalid| Problem::internal(&invalid))? {
        Some(Rules::Platform(platform)) => Ok(platform),
        Some(Rules::Tenant(_)) | None => {
            let version = Version { sequence: 0, hash: String::new() };
            Ok(Platform { version, regions: Vec::new(), upstreams: BTreeMap::new() })
        }
    }
}
