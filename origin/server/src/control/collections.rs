//! `/control/v1/tenants/{slug}/collections`

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use meridian_store::{Access, Declaration, tenant};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::audit::{self, Change};
use super::auth::{Operator, Scope};
use crate::problem::Problem;
use crate::request::{Body, Path};
use crate::state::Origin;

/// A collection of a tenant's records; the shape that the description shows of [`Declaration`].
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct Collection {
    /// Lower-case letters, digits, `_` and `-`, starting with a letter.
    name: String,
    /// JSON Schema of a record's fields.
    #[schema(value_type = Object)]
    json_schema: Value,
    /// How concurrent changes of a field come together: `lww`, `counter`, `set` or `map`.
    merge: BTreeMap<String, String>,
}

/// All collections of a tenant.
#[utoipa::path(
    get,
    path = "/control/v1/tenants/{slug}/collections",
    tag = "control",
    params(("slug" = String, Path, description = "Slug of the tenant")),
    responses(
        (status = 200, description = "{\"collections\": […]}", body = Object),
        (status = 404, description = "There is no such tenant"),
    ),
    security(("token" = []))
)]
pub(super) async fn list(
    State(origin): State<Arc<Origin>>,
    operator: Operator,
    Path(slug): Path<String>,
) -> Result<Json<Value>, Problem> {
    operator.may(Scope::Read)?;
    let mut transaction = origin.store.begin(Access::Control).await?;
    tenant::get(&mut transaction, &slug).await?;
    drop(transaction);
    let mut transaction = origin.store.begin(Access::Tenant(&slug)).await?;
    let collections = origin.store.collections(&mut transaction).await?;
    Ok(Json(json!({"collections": collections})))
}

/// Makes or changes a collection. Records that are there already are not checked again.
#[utoipa::path(
    post,
    path = "/control/v1/tenants/{slug}/collections",
    tag = "control",
    params(("slug" = String, Path, description = "Slug of the tenant")),
    request_body = Collection,
    responses(
        (status = 201, description = "The collection", body = Collection),
        (status = 404, description = "There is no such tenant"),
        (status = 421, description = "The tenant's data may not be in this region: ask one that it allows"),
        (status = 422, description = "The declaration is not right"),
    ),
    security(("token" = []))
)]
pub(super) async fn declare(
    State(origin): State<Arc<Origin>>,
    operator: Operator,
    Path(slug): Path<String>,
    Body(declaration): Body<Declaration>,
) -> Result<(StatusCode, Json<Declaration>), Problem> {
    operator.may(Scope::Collections)?;
    let mut transaction = origin.store.begin(Access::Control).await?;
    let owner = tenant::get_for_update(&mut transaction, &slug).await?;
    if !owner.allowed_regions.contains(&origin.config.identity.region) {
        let title = "The tenant does not allow its data in this region";
        return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "region-not-allowed", title)
            .member("allowed_regions", owner.allowed_regions));
    }
    origin.store.declare_collection(&mut transaction, &slug, &declaration).await?;
    let after = serde_json::to_value(&declaration).unwrap_or_default();
    let subject = format!("{slug}/{}", declaration.name);
    let change = Change {
        action: "collection.declare",
        subject: &subject,
        tenant: Some(&slug),
        before: None,
        after: Some(&after),
        detail: json!({}),
    };
    audit::write(&mut transaction, &operator, change).await?;
    transaction.commit().await?;
    Ok((StatusCode::CREATED, Json(declaration)))
}
