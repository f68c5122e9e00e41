//! Where rules are released: each target at one region alone, its home, so that compare-and-set holds everywhere.
//!
//! A tenant's rules are released at the home region of the tenant, with everything that makes a release of them: its
//! hostnames and its own changes. The platform's are released at the platform's home, which also makes tenants, so that
//! a slug is given once. Any other region passes such a request on and answers what the home region answered; with it
//! goes what it had applied, and the home region catches up with that first: whoever asks sees their own changes.
//!
//! A home moves in the last transaction that the old one commits for the tenant. The new one takes over when it has
//! applied that, and has every release before it by then: no two regions are home at once.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::response::Response;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use meridian_engine::ruleset::Target;
use meridian_store::{Access, Fault, Scope as Transaction, tenant};
use meridian_wire::session::Session;
use serde::Serialize;

use super::Where;
use crate::consistency::{SESSION, Visit, reflected};
use crate::edge::peers::local;
use crate::limits::{HOME_TIMEOUT, HOME_WAIT};
use crate::observe::REGION;
use crate::problem::Problem;
use crate::request::Query;
use crate::state::Origin;

/// What of a request is needed to pass it on.
#[derive(Debug)]
pub(super) struct Asked {
    method: Method,
    path: String,
    headers: HeaderMap,
    /// Whether it shall not be passed on.
    local: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Query(Where { local }) = Query::from_request_parts(parts, state).await?;
        let (method, headers) = (parts.method.clone(), parts.headers.clone());
        Ok(Self { method, path: parts.uri.path().to_owned(), headers, local })
    }
}

/// The home region's answer to a request about a target, where that is another region. `None`: it is to be done here, and
/// once the target is locked [`confirm`] says whether that is still so.
///
/// # Errors
/// 421 `home-elsewhere` where the request may not be passed on, 503 `home-away` where the home region does not answer,
/// 503 `behind` where a region has not applied what it needs in time.
pub(super) async fn elsewhere(
    origin: &Arc<Origin>,
    asked: &Asked,
    target: &Target,
    body: &impl Serialize,
) -> Result<Option<Response>, Problem> {
    Visit::of(origin, &target.to_string(), &asked.headers).arrived(origin, HOME_WAIT).await?;
    let mut transaction = origin.store.begin(Access::Control).await?;
    let home = match of(origin, &mut transaction, target).await {
        // Whoever needs the tenant says that there is none.
        Err(Fault::NotFound { .. }) => return Ok(None),
        home => home?,
    };
    drop(transaction);
    if home == origin.config.identity.region {
        return Ok(None);
    }
    let peer = origin.config.peers.iter().find(|peer| peer.region == home && !asked.local);
    let peer = peer.ok_or_else(|| misdirected(origin, target, &home))?;
    let body = serde_json::to_vec(body).map_err(|error| Problem::internal(&error))?;
    let authorization = asked.headers.get(AUTHORIZATION);
    let mut request = local(asked.method.clone(), &asked.path, authorization, Bytes::from(body))
        .map_err(|fault| Problem::internal(&fault))?;
    let session = Session { tenant: target.to_string(), positions: reflected(origin).await? };
    let session = HeaderValue::from_str(&session.sign(&origin.config.context_keys));
    request.headers_mut().insert(SESSION, session.map_err(|error| Problem::internal(&error))?);
    match origin.peers.ask(peer, request, HOME_TIMEOUT).await {
        // The token is valid here: it was made a moment ago.
        Ok(answer) if answer.status() == StatusCode::UNAUTHORIZED => Err(Problem::behind(
            origin.config.identity.region_ordinal,
            "The home region does not know the control token yet",
        )),
        Ok(answer) => Ok(Some(passed_back(answer, &home))),
        Err(fault) => {
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "home-away", "The home region does not answer")
                .detail(format!(
                    "{target} is released at {home}: {fault}. Look at its newest release before trying again"
                ))
                .member("home_region", home)
                .header(RETRY_AFTER, "1"))
        }
    }
}

/// Makes sure that this region is the target's home, once its lock is held: a home moves under the same lock.
///
/// # Errors
/// 421 `home-elsewhere`; 404 where there is no such tenant.
pub(super) async fn confirm(
    origin: &Origin,
    transaction: &mut Transaction,
    target: &Target,
) -> Result<(), Problem> {
    let home = of(origin, transaction, target).await?;
    if home == origin.config.identity.region { Ok(()) } else { Err(misdirected(origin, target, &home)) }
}

async fn of(origin: &Origin, transaction: &mut Transaction, target: &Target) -> Result<String, Fault> {
    match target {
        Target::Platform => Ok(origin.config.platform_home().to_owned()),
        Target::Tenant(slug) => Ok(tenant::get(transaction, slug).await?.home_region),
    }
}

/// RFC 9110, section 15.5.20: somebody else has the authority for this.
fn misdirected(origin: &Origin, target: &Target, home: &str) -> Problem {
    let url = origin.config.peers.iter().find(|peer| peer.region == home).map(|peer| peer.url.as_str());
    Problem::new(StatusCode::MISDIRECTED_REQUEST, "home-elsewhere", "This is for another region")
        .detail(format!("{target} is released at {home}"))
        .member("home_region", home)
        .member("home_url", url)
}

fn passed_back(answer: http::Response<Bytes>, home: &str) -> Response {
    let (head, body) = answer.into_parts();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = head.status;
    for name in [CONTENT_TYPE, RETRY_AFTER] {
        if let Some(value) = head.headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    if let Ok(home) = HeaderValue::from_str(home) {
        response.headers_mut().insert(REGION, home);
    }
    response
}
