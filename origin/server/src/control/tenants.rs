//! `/control/v1/tenants`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use meridian_engine::policy::rate_limit::burst_max;
use meridian_engine::ruleset::Target;
use meridian_store::record::rfc3339;
use meridian_store::tenant::{self, Tenant as Row};
use meridian_store::{Access, Fault, Scope as Transaction};
use meridian_wire::document::PlanSpec;
use meridian_wire::sync::is_slug;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::audit::{self, Change};
use super::auth::{Operator, Scope};
use super::home::{self, Asked};
use super::{Page, Where, invalid, lineage, next, one_of, publish, text};
use crate::context::now_ms_i64;
use crate::problem::Problem;
use crate::request::{Body, Path, Query};
use crate::state::Origin;

/// A customer organisation.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Tenant {
    slug: String,
    name: String,
    /// `active` or `suspended`, as far as it is up to itself.
    state: String,
    /// Slug of the tenant above it.
    parent: Option<String>,
    /// Slug of the nearest tenant above it that is suspended: while there is one, it is not served either.
    suspended_by: Option<String>,
    home_region: String,
    /// Regions that may hold its data.
    allowed_regions: Vec<String>,
    /// What its contract lets it have, as the `plan` of a `Tenant` document; empty where it says nothing.
    #[schema(value_type = Object)]
    plan: Value,
    created_at: String,
    updated_at: String,
}

impl From<&Row> for Tenant {
    fn from(row: &Row) -> Self {
        Self {
            slug: row.slug.clone(),
            name: row.name.clone(),
            state: row.state.clone(),
            parent: row.parent.clone(),
            suspended_by: row.suspended_by.clone(),
            home_region: row.home_region.clone(),
            allowed_regions: row.allowed_regions.clone(),
            plan: row.plan.clone().unwrap_or_else(|| json!({})),
            created_at: rfc3339(row.created_at_ms),
            updated_at: rfc3339(row.updated_at_ms),
        }
    }
}

/// A tenant to be made.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewTenant {
    /// 1 to 63 lower-case letters, digits and inner hyphens; never changes.
    slug: String,
    name: String,
    /// One of the allowed regions.
    home_region: String,
    /// Regions that may hold its data; all that this origin knows where it is not given.
    allowed_regions: Option<Vec<String>>,
    /// `active` where it is not given.
    state: Option<String>,
    /// Slug of the tenant above it: an organisation's partner, a team's organisation. It is served only while all above it
    /// are. Never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    /// What its contract lets it have, as the `plan` of a `Tenant` document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    plan: Option<PlanSpec>,
}

/// What shall change of a tenant.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TenantChange {
    name: Option<String>,
    state: Option<String>,
    /// One of the allowed regions.
    home_region: Option<String>,
    /// What its contract lets it have, whole, as the `plan` of a `Tenant` document; `{}` takes it away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    plan: Option<PlanSpec>,
}

/// Tenants in the order of their slugs.
#[utoipa::path(
    get,
    path = "/control/v1/tenants",
    tag = "control",
    params(Page),
    responses((status = 200, description = "{\"tenants\": […], \"next\": SLUG or null}", body = Object)),
    security(("token" = []))
)]
pub(super) async fn list(
    State(origin): State<Arc<Origin>>,
    operator: Operator,
    Query(page): Query<Page>,
) -> Result<Json<Value>, Problem> {
    operator.may(Scope::Read)?;
    let mut transaction = origin.store.begin(Access::Control).await?;
    let rows = tenant::list(&mut transaction, page.after.as_deref(), page.limit()).await?;
    let next = next(&rows, page.limit(), |row| row.slug.clone());
    let tenants: Vec<_> = rows.iter().map(Tenant::from).collect();
    Ok(Json(json!({"tenants": tenants, "next": next})))
}

/// One tenant.
#[utoipa::path(
    get,
    path = "/control/v1/tenants/{slug}",
    tag = "control",
    params(("slug" = String, Path, description = "Slug")),
    responses(
        (status = 200, description = "The tenant", body = Tenant),
        (status = 404, description = "There is no such tenant"),
    ),
    security(("token" = []))
)]
pub(super) async fn get(
    State(origin): State<Arc<Origin>>,
    operator: Operator,
    Path(slug): Path<String>,
) -> Result<Json<Tenant>, Problem> {
    operator.may(Scope::Read)?;
    let mut transaction = origin.store.begin(Access::Control).await?;
    let row = tenant::get(&mut transaction, &slug).await?;
    Ok(Json(Tenant::from(&row)))
}

/// Makes a tenant, and releases its first bundle.
///
/// The platform's home region decides, so that a slug is given once; any other passes the request on to it.
#[utoipa::path(
    post,
    path = "/control/v1/tenants",
    tag = "control",
    params(Where),
    request_body = NewTenant,
    responses(
        (status = 201, description = "The tenant", body = Tenant),
        (status = 409, description = "The slug is taken"),
        (status = 421, description = "The home region is another, and can't be asked from here: home_region, home_url"),
        (status = 503, description = "The home region does not answer"),
        (status = 422, description = "A member is not right"),
    ),
    security(("token" = []))
)]
pub(super) async fn create(
    State(origin): State<Arc<Origin>>,
    operator: Operator,
    asked: Asked,
    Body(new): Body<NewTenant>,
) -> Result<Response, Problem> {
    operator.may(Scope::Tenants)?;
    if let Some(answer) = home::elsewhere(&origin, &asked, &Target::Platform, &new).await? {
        return Ok(answer);
    }
    let mut row = check(&origin, new)?;
    let mut transaction = origin.store.begin(Access::Control).await?;
    if let Some(parent) = &row.parent {
        row.suspended_by = lineage::below(&mut transaction, parent).await?;
    }
    tenant::create(&mut transaction, &row).await?;
    let made = Tenant::from(&row);
    let after = serde_json::to_value(&made).unwrap_or_default();
    let change = Change {
        action: "tenant.create",
        subject: &row.slug,
        tenant: Some(&row.slug),
        before: None,
        after: Some(&after),
        detail: json!({}),
    };
    audit::write(&mut transaction, &operator, change).await?;
    publish::regenerate(&origin, &mut transaction, &operator, &Target::Tenant(row.slug.clone())).await?;
    transaction.commit().await?;
    origin.residences.invalidate(&row.slug).await;
    Ok((StatusCode::CREATED, Json(made)).into_response())
}

/// Changes name, state, home region or plan of a tenant, and releases its bundle anew.
///
/// A suspended tenant is not served, and none below it: their own home regions see to those within seconds. The allowed
/// regions don't change here: its data would have to move first. The tenant's home region decides, the old one where it
/// moves; any other passes the request on to it.
#[utoipa::path(
    patch,
    path = "/control/v1/tenants/{slug}",
    tag = "control",
    params(("slug" = String, Path, description = "Slug"), Where),
    request_body = TenantChange,
    responses(
        (status = 200, description = "The tenant", body = Tenant),
        (status = 404, description = "There is no such tenant"),
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
    Path(slug): Path<String>,
    Body(wanted): Body<TenantChange>,
) -> Result<Response, Problem> {
    operator.may(Scope::Tenants)?;
    let target = Target::Tenant(slug.clone());
    if let Some(answer) = home::elsewhere(&origin, &asked, &target, &wanted).await? {
        return Ok(answer);
    }
    let mut transaction = origin.store.begin(Access::Control).await?;
    let before = tenant::get_for_update(&mut transaction, &slug).await?;
    home::confirm(&origin, &mut transaction, &target).await?;
    let mut row = before.clone();
    if let Some(name) = wanted.name {
        text("name", &name)?;
        row.name = name;
    }
    if let Some(wanted) = wanted.state {
        row.state = state(wanted)?;
    }
    if let Some(home_region) = wanted.home_region {
        row.home_region = home(home_region, &row.allowed_regions)?;
    }
    if let Some(wanted) = wanted.plan {
        row.plan = plan(wanted)?;
    }
    let changed = save(&origin, &mut transaction, &operator, &before, row).await?;
    transaction.commit().await?;
    origin.residences.invalidate(&slug).await;
    Ok(Json(changed).into_response())
}

/// Writes what changed of a tenant and the line in the audit log, and releases its bundle anew. The caller has locked its row
/// and knows that this is its home.
///
/// # Errors
/// 422 where its rules don't hold together with it.
pub(super) async fn save(
    origin: &Origin,
    transaction: &mut Transaction,
    operator: &Operator,
    before: &Row,
    mut row: Row,
) -> Result<Tenant, Problem> {
    row.updated_at_ms = now_ms_i64();
    tenant::update(transaction, &row).await?;
    let changed = Tenant::from(&row);
    let before = serde_json::to_value(Tenant::from(before)).unwrap_or_default();
    let after = serde_json::to_value(&changed).unwrap_or_default();
    let change = Change {
        action: "tenant.change",
        subject: &row.slug,
        tenant: Some(&row.slug),
        before: Some(&before),
        after: Some(&after),
        detail: json!({"state": row.state, "suspended_by": row.suspended_by}),
    };
    audit::write(transaction, operator, change).await?;
    publish::regenerate(origin, transaction, operator, &Target::Tenant(row.slug.clone())).await?;
    Ok(changed)
}

fn check(origin: &Origin, new: NewTenant) -> Result<Row, Problem> {
    if !is_slug(&new.slug) {
        return Err(invalid("slug", &new.slug, "1 to 63 lower-case letters, digits and inner hyphens"));
    }
    text("name", &new.name)?;
    let known = origin.regions();
    let mut allowed_regions = new.allowed_regions.unwrap_or_else(|| known.clone());
    allowed_regions.sort_unstable();
    allowed_regions.dedup();
    if allowed_regions.is_empty() {
        return Err(invalid("allowed_regions", "[]", "at least one region"));
    }
    if let Some(unknown) = allowed_regions.iter().find(|region| !known.contains(region)) {
        return Err(invalid("allowed_regions", unknown, &format!("some of {}", known.join(", "))));
    }
    let now_ms = now_ms_i64();
    Ok(Row {
        slug: new.slug,
        name: new.name,
        state: state(new.state.unwrap_or_else(|| "active".to_owned()))?,
        parent: new.parent,
        suspended_by: None,
        home_region: home(new.home_region, &allowed_regions)?,
        allowed_regions,
        plan: new.plan.map(plan).transpose()?.flatten(),
        created_at_ms: now_ms,
        updated_at_ms: now_ms,
    })
}

fn state(state: String) -> Result<String, Problem> {
    one_of("state", state, &["active", "suspended"])
}

/// A plan as it is stored: none where it says nothing. What its members may be is checked with the bundle that it goes into, but
/// for what a release may have and a push may not.
fn plan(plan: PlanSpec) -> Result<Option<Value>, Problem> {
    if let Some(name) = &plan.name {
        text("plan.name", name)?;
    }
    for (at, limit) in plan.limits.iter().enumerate().filter(|(_, limit)| limit.quota > 0) {
        let max = burst_max(limit.quota, limit.window.ms);
        if let Some(burst) = limit.burst.filter(|burst| *burst > max) {
            let expected = format!("at most {max}, what comes back in 292 years");
            return Err(invalid(&format!("plan.limits[{at}].burst"), &burst.to_string(), &expected));
        }
    }
    let stored = (!plan.is_empty()).then(|| serde_json::to_value(&plan)).transpose();
    stored.map_err(|error| Problem::internal(&error))
}

fn home(home_region: String, allowed_regions: &[String]) -> Result<String, Problem> {
    if allowed_regions.contains(&home_region) {
        return Ok(home_region);
    }
    Err(invalid("home_region", &home_region, &format!("one of {}", allowed_regions.join(", "))))
}

/// The tenant that a request names in its path or body.
///
/// # Errors
/// 422 where a body names one that is not there.
pub(super) fn unknown(fault: Fault, slug: &str) -> Problem {
    match fault {
        Fault::NotFound { .. } => invalid("tenant", slug, "the slug of a tenant"),
        fault => fault.into(),
    }
}
