//! All routes, each with its description, and the layers that check who asks.

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;

use crate::control::auth;
use crate::problem::Problem;
use crate::state::Origin;
use crate::{context, control, data, edge, health, observe, replication};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Meridian origin",
        description = "Data, control, edge and replication API of a regional origin. Errors are problem details (RFC 9457).",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    tags(
        (name = "data", description = "Records of a tenant, behind an edge"),
        (name = "control", description = "Tenants, hostnames, rules, operations"),
        (name = "edge", description = "What edges ask for themselves"),
        (name = "replication", description = "Between regions"),
        (name = "health", description = "Health and metrics"),
    )
)]
struct Description;

/// The routes of each room, not yet guarded.
fn rooms() -> [OpenApiRouter<Arc<Origin>>; 6] {
    let (control, replication) = (control::routes(), replication::routes());
    [data::routes(), edge::routes(), edge::front(), control, replication, health::routes()]
}

/// The description of the whole HTTP interface (OpenAPI 3.1).
#[must_use]
pub fn describe() -> OpenApi {
    let mut all = OpenApiRouter::with_openapi(Description::openapi());
    for room in rooms() {
        all = all.merge(room);
    }
    let mut described = all.into_openapi();
    let header = |name: &str, text: &str| {
        SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(name, text)))
    };
    let bearer =
        HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("A control token")).build();
    let components = described.components.get_or_insert_default();
    components.add_security_scheme("context", header("Meridian-Context", "The signed context of an edge"));
    components.add_security_scheme("peer", header("Meridian-Peer", "The proof of another region's origin"));
    components.add_security_scheme("token", SecurityScheme::Http(bearer));
    let metrics = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
    let metrics = metrics.description(Some("The token of MERIDIAN_METRICS_TOKEN")).build();
    components.add_security_scheme("metrics", SecurityScheme::Http(metrics));
    described
}

/// Everything that an origin serves.
///
/// # Errors
/// Where the description can't be written.
pub fn router(origin: Arc<Origin>) -> serde_json::Result<Router> {
    let description: Arc<str> = describe().to_pretty_json()?.into();
    let wrong_method =
        async || Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Not with this method");
    // Before the layers: who may not know of a path does not learn its methods either.
    let [data, edge, front, control, replication, health] =
        rooms().map(|room| room.split_for_parts().0.method_not_allowed_fallback(wrong_method));
    let signed = from_fn_with_state(origin.clone(), context::verify);
    let operator = from_fn_with_state(origin.clone(), auth::verify);
    let document = move || async move { ([(CONTENT_TYPE, "application/json")], description.to_string()) };
    let forwarded = Router::new()
        .merge(data.layer(signed.clone()))
        .merge(edge.layer(from_fn(context::of_an_edge)).layer(signed));
    let direct = Router::new()
        .merge(front)
        .merge(control.layer(operator))
        .merge(replication)
        .merge(health)
        .route("/openapi.json", get(document).fallback(wrong_method))
        .layer(from_fn(context::of_no_edge));
    let router = forwarded
        .merge(direct)
        .fallback(async || Problem::nowhere())
        .layer(from_fn_with_state(origin.clone(), observe::observe));
    Ok(router.with_state(origin))
}
