//! Who may use the control API: bearer tokens (RFC 6750), known by their SHA-256 alone.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use meridian_store::token::{self, Token};
use meridian_store::{Access, Fault};
use meridian_wire::encoding::sha256_hex;
use moka::future::Cache;
use serde::Serialize;
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use crate::context::now_ms_i64;
use crate::limits::{TOKEN_AGE_MAX, TOKEN_LOOKUPS_MAX, TOKENS_REMEMBERED_MAX};
use crate::problem::Problem;
use crate::state::Origin;

/// Name of the actor that the first token, from the configuration, stands for.
const BOOTSTRAP: &str = "bootstrap";
/// Name of the actor that stands for what the origin does by itself.
const SYSTEM: &str = "system";
/// The scope that includes all others.
const ALL: &str = "*";

/// What a token may do beside reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything that only shows something.
    Read,
    /// Tenants.
    Tenants,
    /// Hostnames.
    Domains,
    /// Collections.
    Collections,
    /// Releases of rules.
    Rules,
    /// Purges by hand.
    Purges,
    /// Control tokens.
    Tokens,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Read,
        Self::Tenants,
        Self::Domains,
        Self::Collections,
        Self::Rules,
        Self::Purges,
        Self::Tokens,
    ];

    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Tenants => "tenants:write",
            Self::Domains => "domains:write",
            Self::Collections => "collections:write",
            Self::Rules => "rules:write",
            Self::Purges => "purges:write",
            Self::Tokens => "tokens:write",
        }
    }

    /// Whether a text is a scope, or all of them.
    #[must_use]
    pub fn known(text: &str) -> bool {
        text == ALL || Self::ALL.iter().any(|scope| scope.as_str() == text)
    }
}

/// Who uses the control API.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Operator {
    /// Name of the token; what the audit log calls the actor.
    pub name: String,
    /// What the token may do.
    pub scopes: Vec<String>,
    /// When the token ends, in milliseconds since the Unix epoch; never without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<i64>,
}

impl Operator {
    /// The origin itself: what it does follows from what others were allowed to do.
    pub(super) fn system() -> Self {
        Self { name: SYSTEM.to_owned(), scopes: Vec::new(), expires_at_ms: None }
    }

    /// Makes sure that the token allows this.
    ///
    /// # Errors
    /// 403 `insufficient-scope`.
    pub fn may(&self, scope: Scope) -> Result<(), Problem> {
        let allowed = |have: &String| have == ALL || have == scope.as_str();
        if self.scopes.iter().any(allowed) { Ok(()) } else { Err(Problem::scope(scope.as_str())) }
    }

    /// Makes sure that the token allows everything: what concerns all tenants at once is for operators of the platform.
    ///
    /// # Errors
    /// 403 `insufficient-scope`.
    pub fn may_all(&self) -> Result<(), Problem> {
        if self.scopes.iter().any(|have| have == ALL) { Ok(()) } else { Err(Problem::scope(ALL)) }
    }
}

/// Tokens that were looked up lately, by their SHA-256.
pub struct Operators {
    known: Cache<String, Arc<Token>>,
    lookups: Semaphore,
}

impl Operators {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        let known = Cache::builder().max_capacity(TOKENS_REMEMBERED_MAX).time_to_live(TOKEN_AGE_MAX);
        Self { known: known.build(), lookups: Semaphore::new(TOKEN_LOOKUPS_MAX) }
    }

    /// Forgets all, after one was revoked.
    pub fn forget(&self) {
        self.known.invalidate_all();
    }
}

impl Default for Operators {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: Sync> FromRequestParts<S> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| refused(None))
    }
}

/// The layer: refuses what has no valid token, and hands the operator to the handler.
pub async fn verify(State(origin): State<Arc<Origin>>, mut request: Request, next: Next) -> Response {
    match check(&origin, request.headers()).await {
        Ok(operator) => {
            request.extensions_mut().insert(operator);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

async fn check(origin: &Origin, headers: &HeaderMap) -> Result<Operator, Problem> {
    let token = bearer(headers).ok_or_else(|| refused(None))?;
    let sha256 = sha256_hex(token.as_bytes());
    if let Some(first) = &origin.config.control_token_sha256
        && bool::from(first.as_str().as_bytes().ct_eq(sha256.as_bytes()))
    {
        return Ok(Operator {
            name: BOOTSTRAP.to_owned(),
            scopes: vec![ALL.to_owned()],
            expires_at_ms: None,
        });
    }
    let look = async {
        // Closed never: a lookup without a permit would only be one more.
        let _permit = origin.operators.lookups.acquire().await;
        let mut scope = origin.store.begin(Access::Control).await?;
        token::get(&mut scope, &sha256).await.map(Arc::new)
    };
    // The lookup is by hash, so that its time says nothing about any stored token.
    match origin.operators.known.try_get_with(sha256.clone(), look).await {
        Ok(token) if token.valid(now_ms_i64()) => Ok(Operator {
            name: token.name.clone(),
            scopes: token.scopes.clone(),
            expires_at_ms: token.expires_at_ms,
        }),
        Ok(_) => Err(refused(Some("invalid_token"))),
        Err(fault) if matches!(*fault, Fault::NotFound { .. }) => Err(refused(Some("invalid_token"))),
        Err(fault) => Err(Problem::unavailable(&*fault)),
    }
}

pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim()).filter(|token| !token.is_empty())
}

fn refused(error: Option<&str>) -> Problem {
    let challenge = match error {
        Some(error) => format!("Bearer realm=\"meridian-control\", error=\"{error}\""),
        None => "Bearer realm=\"meridian-control\"".to_owned(),
    };
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "A valid control token is needed")
        .header(header::WWW_AUTHENTICATE, &challenge)
}

/// Who I am.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Whoami {
    /// Name of the token.
    name: String,
    /// What it may do.
    scopes: Vec<String>,
    /// Region that answers.
    region: String,
}

/// Whom the token stands for.
#[utoipa::path(
    get,
    path = "/control/v1/whoami",
    tag = "control",
    responses((status = 200, description = "Name and scopes of the token", body = Whoami)),
    security(("token" = []))
)]
pub(super) async fn whoami(State(origin): State<Arc<Origin>>, operator: Operator) -> Json<Whoami> {
    let region = origin.config.identity.region.clone();
    Json(Whoami { name: operator.name, scopes: operator.scopes, region })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_read_from_its_header() {
        let mut headers = HeaderMap::new();
        assert_eq!(bearer(&headers), None);
        for (value, token) in
            [("Bearer a", Some("a")), ("bearer  a ", Some("a")), ("Basic a", None), ("Bearer ", None)]
        {
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            assert_eq!(bearer(&headers), token, "{value}");
        }
    }

    #[test]
    fn scopes_allow_what_they_say() {
        let operator =
            Operator { name: "ci".into(), scopes: vec!["rules:write".into()], expires_at_ms: None };
        assert!(operator.may(Scope::Rules).is_ok());
        assert!(operator.may(Scope::Tenants).is_err());
        let all = Operator { name: "root".into(), scopes: vec!["*".into()], expires_at_ms: None };
        assert!(Scope::ALL.into_iter().all(|scope| all.may(scope).is_ok()));
    }
}
