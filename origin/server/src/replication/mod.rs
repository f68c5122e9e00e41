//! What the other regions ask of this one: the stream of its changes.

mod stream;

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::state::Origin;

/// The routes between regions.
pub(crate) fn routes() -> OpenApiRouter<Arc<Origin>> {
    OpenApiRouter::new().routes(routes!(stream::stream))
}
