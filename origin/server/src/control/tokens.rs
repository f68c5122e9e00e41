//! `/control/v1/tokens`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use meridian_store::record::rfc3339;
use meridian_store::token::{self, Token as Row};
use meridian_store::{Access, Fault};
use meridian_wire::encoding::{base64url, sha256_hex};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::audit::{self, Change};
use super::auth::{Operator, Scope};
use super::{invalid, text};
use crate::context::now_ms_i64;
use crate::limits::PAGE_ROWS_MAX;
use crate::problem::Problem;
use crate::request::{Body, Path};
use crate::state::Origin;

/// A control token, without the token itself.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Token {
    /// First 16 characters of the token's SHA-256.
    id: String,
    name: String,
    scopes: Vec<String>,
    created_by: String,
    created_at: String,
    expires_at: Option<String>,
    revoked_at: Option<String>,
}

impl From<&Row> for Token {
    fn from(row: &Row) -> Self {
        Self {
            id: row.sha256.chars().take(16).collect(),
            name: row.name.clone(),
            scopes: row.scopes.clone(),
            created_by: row.created_by.clone(),
            created_at: rfc3339(row.created_at_ms),
            expires_at: row.expires_at_ms.map(rfc3339),
            revoked_at: row.revoked_at_ms.map(rfc3339),
        }
    }
}

/// A token to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewToken {
    /// Who uses it; what the audit log calls the actor.
    name: String,
    /// Some of `read`, `tenants:write`, `domains:write`, `collections:write`, `rules:write`, `purges:write`,
    /// `tokens:write`, or `*`.
    scopes: Vec<String>,
    /// How long it may be used, in seconds; for ever where it is not given.
    expires_in_s: Option<u32>,
}

/// A token that was just made. It is shown this once.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MadeToken {
    /// To be sent as `Authorization: Bearer TOKEN`.
    token: String,
    #[serde(flatten)]
    about: Token,
}

/// All tokens but the first, which stands in the configuration.
#[utoipa::path(
    get,
    path = "/control/v1/tokens",
    tag = "control",
    responses((status = 200, description = "{\"tokens\": […]}, newest first", body = Object)),
    security(("token" = []))
)]
pub(super) async fn list(
    State(origin): State<Arc<Origin>>,
    operator: Operator,
) -> Result<Json<Value>, Problem> {
    operator.may(Scope::Tokens)?;
    let mut transaction = origin.store.begin(Access::Control).await?;
    let rows = token::list(&mut transaction, PAGE_ROWS_MAX).await?;
    let tokens: Vec<_> = rows.iter().map(Token::from).collect();
    Ok(Json(json!({"tokens": tokens})))
}

/// Makes a token. Nobody can give more than they have.
#[utoipa::path(
    post,
    path = "/control/v1/tokens",
    tag = "control",
    request_body = NewToken,
    responses(
        (status = 201, description = "The token, shown this once", body = MadeToken),
        (status = 403, description = "A scope that you don't have"),
        (status = 422, description = "A member is not right"),
    ),
    security(("token" = []))
)]
pub(super) async fn create(
    State(origin): State<Arc<Origin>>,
    operator: Operator,
    Body(new): Body<NewToken>,
) -> Result<(StatusCode, Json<MadeToken>), Problem> {
    operator.may(Scope::Tokens)?;
    text("name", &new.name)?;
    if new.scopes.is_empty() {
        return Err(invalid("scopes", "[]", "at least one scope"));
    }
    for scope in &new.scopes {
        if !Scope::known(scope) {
            let known: Vec<_> = Scope::ALL.into_iter().map(Scope::as_str).collect();
            return Err(invalid("scopes", scope, &format!("some of {}, or *", known.join(", "))));
        }
        if !operator.scopes.iter().any(|have| have == "*" || have == scope) {
            return Err(Problem::scope(scope));
        }
    }
    // Two version 4 UUIDs hold 244 random bits from the system's generator.
    let secret = [*Uuid::new_v4().as_bytes(), *Uuid::new_v4().as_bytes()].concat();
    let token = format!("mct_{}", base64url(&secret));
    let now_ms = now_ms_i64();
    let row = Row {
        sha256: sha256_hex(token.as_bytes()),
        name: new.name,
        scopes: new.scopes,
        created_by: operator.name.clone(),
        created_at_ms: now_ms,
        // Nobody gives a longer life than their own token has left.
        expires_at_ms: match (new.expires_in_s.map(|s| now_ms + i64::from(s) * 1000), operator.expires_at_ms)
        {
            (Some(asked), Some(own)) => Some(asked.min(own)),
            (asked, own) => asked.or(own),
        },
        revoked_at_ms: None,
    };
    let about = Token::from(&row);
    let mut transaction = origin.store.begin(Access::Control).await?;
    token::create(&mut transaction, &row).await?;
    let after = serde_json::to_value(&about).unwrap_or_default();
    let change = Change {
        action: "token.create",
        subject: &about.id,
        tenant: None,
        before: None,
        after: Some(&after),
        detail: json!({"name": about.name, "scopes": about.scopes}),
    };
    audit::write(&mut transaction, &operator, change).await?;
    transaction.commit().await?;
    Ok((StatusCode::CREATED, Json(MadeToken { token, about })))
}

/// Revokes a token, here at once and in the other regions as soon as the change has arrived.
#[utoipa::path(
    delete,
    path = "/control/v1/tokens/{id}",
    tag = "control",
    params(("id" = String, Path, description = "First 16 characters of its SHA-256")),
    responses(
        (status = 204, description = "It can't be used any more"),
        (status = 404, description = "There is no such token"),
    ),
    security(("token" = []))
)]
pub(super) async fn revoke(
    State(origin): State<Arc<Origin>>,
    operator: Operator,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    operator.may(Scope::Tokens)?;
    if id.len() != 16 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Fault::NotFound { what: "token" }.into());
    }
    let mut transaction = origin.store.begin(Access::Control).await?;
    token::revoke(&mut transaction, &id, now_ms_i64()).await?;
    let change = Change {
        action: "token.revoke",
        subject: &id,
        tenant: None,
        before: None,
        after: None,
        detail: json!({}),
    };
    audit::write(&mut transaction, &operator, change).await?;
    transaction.commit().await?;
    origin.operators.forget();
    Ok(StatusCode::NO_CONTENT)
}
