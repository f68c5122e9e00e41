//! `/control/v1/targets/{target}/…`: releases of rules.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use meridian_engine::ruleset::Target;
use meridian_store::record::rfc3339;
use meridian_store::release::{self, Release as Row};
use meridian_store::{Access, Fault};
use meridian_wire::sync::parse_target;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::auth::{Operator, Scope};
use super::home::{self, Asked};
use super::publish::{self, File, Published};
use super::{Where, next, rows, text};
use crate::problem::Problem;
use crate::request::{Body, Path, Query};
use crate::state::Origin;

/// An immutable release of a target's rules.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Release {
    /// `platform` or `tenant:SLUG`.
    target: String,
    /// Grows by one with every release of the target.
    sequence: i64,
    /// First 16 hexadecimal characters of the bundle's SHA-256.
    version: String,
    /// Version that it replaced.
    parent: Option<String>,
    /// `push`, `rollback` or `generated` (a tenant or hostname changed).
    kind: String,
    note: Option<String>,
    created_at: String,
    created_by: String,
}

impl From<&Row> for Release {
    fn from(row: &Row) -> Self {
        Self {
            target: row.target.clone(),
            sequence: row.sequence,
            version: row.version.clone(),
            parent: row.parent.clone(),
            kind: row.kind.clone(),
            note: row.note.clone(),
            created_at: rfc3339(row.created_at_ms),
            created_by: row.created_by.clone(),
        }
    }
}

/// A release that was just made, with what is odd in it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Made {
    #[serde(flatten)]
    release: Release,
    /// What is allowed but looks wrong.
    #[schema(value_type = Vec<Object>)]
    warnings: Vec<Value>,
}

/// Documents to be released.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Push {
    /// Version that they were made from; null for the first.
    parent: Option<String>,
    /// All documents of the target.
    files: Vec<File>,
    /// What for.
    note: Option<String>,
}

/// A release to go back to.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rollback {
    /// Version of the head.
    parent: String,
    /// Version to release again.
    to: String,
    /// What for.
    note: Option<String>,
}

/// Which releases.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// The `next` of the page before.
    before: Option<i64>,
    /// How many, 50 where it is not given, at most 200.
    limit: Option<i64>,
}

fn target(text: &str) -> Result<Target, Problem> {
    parse_target(text).map_err(|invalid| Problem::not_found(invalid.to_string()))
}

/// The newest release of a target.
#[utoipa::path(
    get,
    path = "/control/v1/targets/{target}/head",
    tag = "control",
    params(("target" = String, Path, description = "platform or tenant:SLUG")),
    responses(
        (status = 200, description = "The release", body = Release),
        (status = 404, description = "The target has no release"),
    ),
    security(("token" = []))
)]
pub(super) async fn head(
    State(origin): State<Arc<Origin>>,
    operator: Operator,
    Path(name): Path<String>,
) -> Result<Json<Release>, Problem> {
    operator.may(Scope::Read)?;
    let target = target(&name)?;
    let mut transaction = origin.store.begin(Access::Control).await?;
    let head = release::head(&mut transaction, &target.to_string()).await?;
    let (row, _) = head.ok_or(Fault::NotFound { what: "release" })?;
    Ok(Json(Release::from(&row)))
}

/// Releases of a target, the newest first.
#[utoipa::path(
    get,
    path = "/control/v1/targets/{target}/releases",
    tag = "control",
    params(("target" = String, Path, description = "platform or tenant:SLUG"), Filter),
    responses((status = 200, description = "{\"releases\": […], \"next\": SEQUENCE or null}", body = Object)),
    security(("token" = []))
)]
pub(super) async fn list(
    State(origin): State<Arc<Origin>>,
    operator: Operator,
    Path(name): Path<String>,
    Query(filter): Query<Filter>,
) -> Result<Json<Value>, Problem> {
    operator.may(Scope::Read)?;
    let target = target(&name)?;
    let limit = rows(filter.limit);
    let mut transaction = origin.store.begin(Access::Control).await?;
    let rows = release::list(&mut transaction, &target.to_string(), filter.before, limit).await?;
    let next = next(&rows, limit, |row| row.sequence.to_string());
    let releases: Vec<_> = rows.iter().map(Release::from).collect();
    Ok(Json(json!({"releases": releases, "next": next})))
}

/// One release with its documents, as they were pushed and as edges get them.
#[utoipa::path(
    get,
    path = "/control/v1/targets/{target}/releases/{version}",
    tag = "control",
    params(
        ("target" = String, Path, description = "platform or tenant:SLUG"),
        ("version" = String, Path, description = "Version of the bundle"),
    ),
    responses(
        (status = 200, description = "The release with files and bundle", body = Object),
        (status = 404, description = "There is no such release"),
    ),
    security(("token" = []))
)]
pub(super) async fn get(
    State(origin): State<Arc<Origin>>,
    operator: Operator,
    Path((name, version)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    operator.may(Scope::Read)?;
    let target = target(&name)?;
    let mut transaction = origin.store.begin(Access::Control).await?;
    let (row, contents) = release::get(&mut transaction, &target.to_string(), &version).await?;
    let mut release = serde_json::to_value(Release::from(&row)).unwrap_or_default();
    release["files"] = contents.files;
    release["bundle"] = serde_json::from_str(&contents.bundle).unwrap_or_default();
    Ok(Json(release))
}

/// Releases documents: compare-and-set on the parent, refused when a document or a test of them is wrong.
///
/// Documents that make the very bundle that is the head are answered with 200 and the head: there is nothing to release.
/// The target's home region decides; any other passes the request on to it.
#[utoipa::path(
    post,
    path = "/control/v1/targets/{target}/releases",
    tag = "control",
    params(("target" = String, Path, description = "platform or tenant:SLUG"), Where),
    request_body = Push,
    responses(
        (status = 201, description = "The release", body = Made),
        (status = 200, description = "The head, which is the same already", body = Made),
        (status = 404, description = "There is no such tenant"),
        (status = 409, description = "The parent is not the head; both are said"),
        (status = 421, description = "The home region is another, and can't be asked from here: home_region, home_url"),
        (status = 503, description = "The home region does not answer"),
        (status = 422, description = "errors: [{file, line, column, path, found, expected, suggestion}]"),
    ),
    security(("token" = []))
)]
pub(super) async fn push(
    State(origin): State<Arc<Origin>>,
    operator: Operator,
    asked: Asked,
    Path(name): Path<String>,
    Body(push): Body<Push>,
) -> Result<Response, Problem> {
    operator.may(Scope::Rules)?;
    let target = target(&name)?;
    if let Some(note) = &push.note {
        text("note", note)?;
    }
    if let Some(answer) = home::elsewhere(&origin, &asked, &target, &push).await? {
        return Ok(answer);
    }
    let mut transaction = origin.store.begin(Access::Control).await?;
    let published =
        publish::push(&origin, &mut transaction, &operator, &target, push.parent, push.files, push.note)
            .await?;
    transaction.commit().await?;
    Ok(made(published))
}

/// Releases the content of an earlier release again. The target's home region decides, as with a push.
#[utoipa::path(
    post,
    path = "/control/v1/targets/{target}/rollback",
    tag = "control",
    params(("target" = String, Path, description = "platform or tenant:SLUG"), Where),
    request_body = Rollback,
    responses(
        (status = 201, description = "The release, with a new sequence", body = Made),
        (status = 200, description = "The head, which is the same already", body = Made),
        (status = 404, description = "There is no such release"),
        (status = 409, description = "The parent is not the head; both are said"),
        (status = 421, description = "The home region is another, and can't be asked from here: home_region, home_url"),
        (status = 503, description = "The home region does not answer"),
    ),
    security(("token" = []))
)]
pub(super) async fn rollback(
    State(origin): State<Arc<Origin>>,
    operator: Operator,
    asked: Asked,
    Path(name): Path<String>,
    Body(rollback): Body<Rollback>,
) -> Result<Response, Problem> {
    operator.may(Scope::Rules)?;
    let target = target(&name)?;
    if let Some(note) = &rollback.note {
        text("note", note)?;
    }
    if let Some(answer) = home::elsewhere(&origin, &asked, &target, &rollback).await? {
        return Ok(answer);
    }
    let mut transaction = origin.store.begin(Access::Control).await?;
    let Rollback { parent, to, note } = rollback;
    let published =
        publish::rollback(&origin, &mut transaction, &operator, &target, parent, &to, note).await?;
    transaction.commit().await?;
    Ok(made(published))
}

fn made(published: Published) -> Response {
    let status = if published.new { StatusCode::CREATED } else { StatusCode::OK };
    let made = Made { release: Release::from(&published.release), warnings: published.warnings };
    (status, Json(made)).into_response()
}
