//! `GET /control/v1/audit`, and the line that every change writes.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use meridian_store::audit::{self, Entry};
use meridian_store::record::rfc3339;
use meridian_store::{Access, Fault, Scope as Transaction};
use meridian_wire::encoding::sha256_hex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::auth::{Operator, Scope};
use super::rows;
use crate::context::now_ms_i64;
use crate::problem::Problem;
use crate::request::Query;
use crate::state::Origin;

/// A change, for the audit log.
pub(super) struct Change<'a> {
    /// `tenant.create`, `release.push` …
    pub action: &'a str,
    /// What was changed.
    pub subject: &'a str,
    /// Tenant concerned.
    pub tenant: Option<&'a str>,
    /// What was there before.
    pub before: Option<&'a Value>,
    /// What is there now.
    pub after: Option<&'a Value>,
    /// What else helps to understand it; never a secret.
    pub detail: Value,
}

/// Writes the line, in the transaction of the change.
pub(super) async fn write(
    transaction: &mut Transaction,
    operator: &Operator,
    change: Change<'_>,
) -> Result<(), Fault> {
    // Objects keep their names in order, so that equal values have equal hashes.
    let hash = |value: &Value| sha256_hex(value.to_string().as_bytes());
    let entry = Entry {
        at_ms: now_ms_i64(),
        actor: operator.name.clone(),
        action: change.action.to_owned(),
        subject: change.subject.to_owned(),
        tenant: change.tenant.map(str::to_owned),
        before_sha256: change.before.map(hash),
        after_sha256: change.after.map(hash),
        detail: change.detail,
    };
    audit::append(transaction, &entry).await
}

/// Which lines.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// Only those of this tenant.
    tenant: Option<String>,
    /// How many, 50 where it is not given, at most 200.
    limit: Option<i64>,
}

/// One line of the audit log.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Line {
    at: String,
    actor: String,
    action: String,
    subject: String,
    tenant: Option<String>,
    before_sha256: Option<String>,
    after_sha256: Option<String>,
    detail: Value,
}

/// The newest lines of the audit log.
#[utoipa::path(
    get,
    path = "/control/v1/audit",
    tag = "control",
    params(Filter),
    responses((status = 200, description = "{\"audit\": […]}, newest first", body = Object)),
    security(("token" = []))
)]
pub(super) async fn list(
    State(origin): State<Arc<Origin>>,
    operator: Operator,
    Query(filter): Query<Filter>,
) -> Result<Json<Value>, Problem> {
    operator.may(Scope::Read)?;
    let mut transaction = origin.store.begin(Access::Control).await?;
    let entries = audit::list(&mut transaction, filter.tenant.as_deref(), rows(filter.limit)).await?;
    let lines: Vec<_> = entries.into_iter().map(Line::from).collect();
    Ok(Json(json!({"audit": lines})))
}

impl From<Entry> for Line {
    fn from(entry: Entry) -> Self {
        let Entry { at_ms, actor, action, subject, tenant, before_sha256, after_sha256, detail } = entry;
        Self { at: rfc3339(at_ms), actor, action, subject, tenant, before_sha256, after_sha256, detail }
    }
}
