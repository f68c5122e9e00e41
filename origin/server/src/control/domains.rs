//! `/control/v1/domains`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use meridian_engine::ruleset::Target;
use meridian_store::domain::{self, Domain as Row};
use meridian_store::record::rfc3339;
use meridian_store::{Access, tenant};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::audit::{self, Change};
use super::auth::{Operator, Scope};
use super::home::{self, Asked};
use super::{Where, invalid, next, one_of, publish, rows, tenants};
use crate::context::now_ms_i64;
use crate::limits::HOSTNAME_BYTES_MAX;
use crate::problem::Problem;
use crate::request::{Body, Path, Query};
use crate::state::Origin;

/// A hostname of a tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Domain {
    hostname: String,
    tenant: String,
    /// Whether it is known to be the tenant's: `pending`, `verified` or `failed`. It is served only when it is verified.
    verification: String,
    /// How far its certificate is: `none`, `issuing`, `active`, `renewing` or `failed`.
    tls: String,
    created_at: String,
}

impl From<&Row> for Domain {
    fn from(row: &Row) -> Self {
        Self {
            hostname: row.hostname.clone(),
            tenant: row.tenant.clone(),
            verification: row.verification.clone(),
            tls: row.tls.clone(),
            created_at: rfc3339(row.created_at_ms),
        }
    }
}

/// A hostname to be added.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewDomain {
    /// Exact, or with a leading `*.`.
    hostname: String,
    /// Slug of the tenant.
    tenant: String,
    /// `verified` where it is not given: whoever may add hostnames vouches for them. `pending` where somebody has yet to show
    /// that it is theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    verification: Option<String>,
}

/// How far a hostname is.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DomainChange {
    /// `pending`, `verified` or `failed`.
    verification: Option<String>,
    /// `none`, `issuing`, `active`, `renewing` or `failed`.
    tls: Option<String>,
}

/// Which hostnames.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// Only those of this tenant.
    tenant: Option<String>,
    /// The `next` of the page before.
    after: Option<String>,
    /// How many, 50 where it is not given, at most 200.
    limit: Option<i64>,
}

/// Hostnames in alphabetical order.
#[utoipa::path(
    get,
    path = "/control/v1/domains",
    tag = "control",
    params(Filter),
    responses((status = 200, description = "{\"domains\": […], \"next\": HOSTNAME or null}", body = Object)),
    security(("token" = []))
)]
pub(super) async fn list(
    State(origin): State<Arc<Origin>>,
    operator: Operator,
    Query(filter): Query<Filter>,
) -> Result<Json<Value>, Problem> {
    operator.may(Scope::Read)?;
    let limit = rows(filter.limit);
    let mut transaction = origin.store.begin(Access::Control).await?;
    let rows =
        domain::list(&mut transaction, filter.tenant.as_deref(), filter.after.as_deref(), limit).await?;
    let next = next(&rows, limit, |row| row.hostname.clone());
    let domains: Vec<_> = rows.iter().map(Domain::from).collect();
    Ok(Json(json!({"domains": domains, "next": next})))
}

/// Adds a hostname to a tenant, and releases the tenant's bundle anew.
///
/// The tenant's home region decides; any other passes the request on to it.
#[utoipa::path(
    post,
    path = "/control/v1/domains",
    tag = "control",
    params(Where),
    request_body = NewDomain,
    responses(
        (status = 201, description = "The hostname", body = Domain),
        (status = 409, description = "Somebody has it already"),
        (status = 421, description = "The home region is another, and can't be asked from here: home_region, home_url"),
        (status = 503, description = "The home region does not answer"),
        (status = 422, description = "It can't be a hostname, or there is no such tenant"),
    ),
    security(("token" = []))
)]
pub(super) async fn create(
    State(origin): State<Arc<Origin>>,
    operator: Operator,
    asked: Asked,
    Body(new): Body<NewDomain>,
) -> Result<Response, Problem> {
    operator.may(Scope::Domains)?;
    let hostname = new.hostname.to_ascii_lowercase();
    if !is_hostname(&hostname) {
        return Err(invalid("hostname", &hostname, "a hostname, or one with a leading *."));
    }
    let verification = verification(new.verification.clone().unwrap_or_else(|| "verified".to_owned()))?;
    let target = Target::Tenant(new.tenant.clone());
    if let Some(answer) = home::elsewhere(&origin, &asked, &target, &new).await? {
        return Ok(answer);
    }
    let mut transaction = origin.store.begin(Access::Control).await?;
    let owner = tenant::get_for_update(&mut transaction, &new.tenant).await;
    owner.map_err(|fault| tenants::unknown(fault, &new.tenant))?;
    home::confirm(&origin, &mut transaction, &target).await?;
    let (tls, created_at_ms) = ("none".to_owned(), now_ms_i64());
    let row = Row { hostname, tenant: new.tenant, verification, tls, created_at_ms };
    domain::create(&mut transaction, &row).await?;
    let made = Domain::from(&row);
    let after = serde_json::to_value(&made).unwrap_or_default();
    let change = Change {
        action: "domain.create",
        subject: &row.hostname,
        tenant: Some(&row.tenant),
        before: None,
        after: Some(&after),
        detail: json!({}),
    };
    audit::write(&mut transaction, &operator, change).await?;
    publish::regenerate(&origin, &mut transaction, &operator, &target).await?;
    transaction.commit().await?;
    Ok((StatusCode::CREATED, Json(made)).into_response())
}

/// Says how far a hostname is, and releases its tenant's bundle anew.
///
/// The tenant's home region decides; any other passes the request on to it.
#[utoipa::path(
    patch,
    path = "/control/v1/domains/{hostname}",
    tag = "control",
    params(("hostname" = String, Path, description = "As it was added"), Where),
    request_body = DomainChange,
    responses(
        (status = 200, description = "The hostname", body = Domain),
        (status = 404, description = "There is no such hostname"),
        (status = 421, description = "The home region is another, and can't be asked from here: home_region, home_url"),
        (status = 503, description = "The home region does not answer"),
        (status = 422, description = "A member is not right"),
    ),
    security(("token" = []))
)]
pub(super) async fn change(
    State(origin): State<Arc<Origin>>,
    operator: Operator,
    asked: Asked,
    Path(hostname): Path<String>,
    Body(wanted): Body<DomainChange>,
) -> Result<Response, Problem> {
    operator.may(Scope::Domains)?;
    let hostname = hostname.to_ascii_lowercase();
    let mut transaction = origin.store.begin(Access::Control).await?;
    let slug = domain::get(&mut transaction, &hostname).await?.tenant;
    transaction.commit().await?;
    let target = Target::Tenant(slug.clone());
    if let Some(answer) = home::elsewhere(&origin, &asked, &target, &wanted).await? {
        return Ok(answer);
    }
    let mut transaction = origin.store.begin(Access::Control).await?;
    tenant::get_for_update(&mut transaction, &slug).await?;
    home::confirm(&origin, &mut transaction, &target).await?;
    let mut row = domain::get(&mut transaction, &hostname).await?;
    let before = serde_json::to_value(Domain::from(&row)).unwrap_or_default();
    if let Some(wanted) = wanted.verification {
        row.verification = verification(wanted)?;
    }
    if let Some(wanted) = wanted.tls {
        row.tls = one_of("tls", wanted, &["none", "issuing", "active", "renewing", "failed"])?;
    }
    domain::update(&mut transaction, &row).await?;
    let changed = Domain::from(&row);
    let after = serde_json::to_value(&changed).unwrap_or_default();
    let change = Change {
        action: "domain.change",
        subject: &hostname,
        tenant: Some(&slug),
        before: Some(&before),
        after: Some(&after),
        detail: json!({"verification": row.verification, "tls": row.tls}),
    };
    audit::write(&mut transaction, &operator, change).await?;
    publish::regenerate(&origin, &mut transaction, &operator, &target).await?;
    transaction.commit().await?;
    Ok(Json(changed).into_response())
}

fn verification(verification: String) -> Result<String, Problem> {
    one_of("verification", verification, &["pending", "verified", "failed"])
}

/// Letters, digits and inner hyphens in labels of 1 to 63 (RFC 1123, section 2.1), not an address; a wildcard stands for
/// the first label and leaves at least two, so that nobody claims a whole top-level domain.
fn is_hostname(text: &str) -> bool {
    let (rest, least) = text.strip_prefix("*.").map_or((text, 1), |rest| (rest, 2));
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    let numeric = rest.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    text.len() <= HOSTNAME_BYTES_MAX
        && !numeric
        && rest.split('.').count() >= least
        && rest.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostnames_are_told_from_other_texts() {
        for right in
            ["acme.localhost", "shop.acme.example", "*.acme.example", "xn--bcher-kva.example", "localhost"]
        {
            assert!(is_hostname(right), "{right}");
        }
        let long = format!("{}.example", "a.".repeat(130));
        for wrong in
            ["", "a b", "-a.example", "a..b", "*.example", "a.*.example", "192.0.2.1", "A.example", &long]
        {
            assert!(!is_hostname(wrong), "{wrong}");
        }
    }
}
