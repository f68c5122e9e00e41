//! The edge API: what edges ask of an origin for themselves. Every call carries a signed context without a subject, but for
//! what the server in front of an edge asks.

mod bundles;
mod events;
mod functions;
pub(crate) mod hosts;
mod leases;
mod sync;
mod tls;
mod unhealthy;

pub mod authority;
pub mod journal;
pub mod names;
pub mod peers;
pub mod regions;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use meridian_wire::limits::EVENTS_BYTES_MAX;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::state::Origin;

/// The routes of the edge API.
pub(crate) fn routes() -> OpenApiRouter<Arc<Origin>> {
    OpenApiRouter::new()
        .routes(routes!(sync::sync))
        .routes(routes!(hosts::host))
        .routes(routes!(bundles::bundle))
        .routes(routes!(functions::function))
        .routes(routes!(leases::lease))
        .routes(routes!(events::events))
        .layer(DefaultBodyLimit::max(EVENTS_BYTES_MAX))
}

/// The routes for what stands in front of an edge.
pub(crate) fn front() -> OpenApiRouter<Arc<Origin>> {
    OpenApiRouter::new().routes(routes!(tls::ask))
}
