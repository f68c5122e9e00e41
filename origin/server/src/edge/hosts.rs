//! `GET /edge/v1/hosts/{host}`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use meridian_store::{Access, domain};
use meridian_wire::sync::HostReply;

use crate::context::Signed;
use crate::limits::HOSTNAME_BYTES_MAX;
use crate::problem::Problem;
use crate::request::Path;
use crate::state::Origin;

/// Which tenant a hostname belongs to: by the very name first, then by the nearest wildcard above it, and by what is
/// verified before what is not. Whether it is served there the tenant's rules say.
#[utoipa::path(
    get,
    path = "/edge/v1/hosts/{host}",
    tag = "edge",
    params(("host" = String, Path, description = "Hostname without port")),
    responses(
        (status = 200, description = "{host, tenant, matched}", body = Object),
        (status = 404, description = "Nobody has claimed it"),
    ),
    security(("context" = []))
)]
pub(super) async fn host(
    State(origin): State<Arc<Origin>>,
    _signed: Signed,
    Path(host): Path<String>,
) -> Result<Json<HostReply>, Problem> {
    let host = host.to_ascii_lowercase();
    if host.len() > HOSTNAME_BYTES_MAX {
        return Err(Problem::not_found("nobody has claimed this hostname"));
    }
    let mut scope = origin.store.begin(Access::Control).await?;
    let domain = domain::find(&mut scope, &candidates(&host)).await?;
    let domain = domain.ok_or_else(|| Problem::not_found("nobody has claimed this hostname"))?;
    Ok(Json(HostReply { host, tenant: domain.tenant, matched: domain.hostname }))
}

/// The domains that would match a hostname, the most specific first.
pub(crate) fn candidates(host: &str) -> Vec<String> {
    let above = host.match_indices('.').map(|(dot, _)| format!("*{}", &host[dot..]));
    std::iter::once(host.to_owned()).chain(above).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_comes_first() {
        assert_eq!(candidates("a.b.c"), ["a.b.c", "*.b.c", "*.c"]);
        assert_eq!(candidates("localhost"), ["localhost"]);
    }
}
