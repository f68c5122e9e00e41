//! The signed context of an edge: checked for every request of the data and edge API before any handler runs.
//!
//! The check is a layer, so that no route can forget it; handlers take the result as [`Signed`]. A context is used once:
//! its decision and attempt are remembered for longer than it would be accepted.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, StatusCode, Uri, header};
use meridian_engine::policy::request::times_forwarded;
use meridian_wire::context::{Context, HEADER, InvalidContext};
use moka::policy::EvictionPolicy;
use sha2::{Digest, Sha256};

use crate::limits::{REPLAY_WINDOW, REPLAYS_MAX};
use crate::observe::Note;
use crate::problem::Problem;
use crate::state::Origin;

/// Milliseconds since the Unix epoch.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// [`now_ms`] as the database keeps times.
#[must_use]
pub fn now_ms_i64() -> i64 {
    i64::try_from(now_ms()).unwrap_or(i64::MAX)
}

/// Contexts that were used.
pub struct Replays(moka::future::Cache<[u8; 16], ()>);

impl Replays {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        // The oldest go first: an admission by frequency would turn new ones away.
        let used = moka::future::Cache::builder()
            .max_capacity(REPLAYS_MAX)
            .eviction_policy(EvictionPolicy::lru())
            .time_to_live(REPLAY_WINDOW);
        Self(used.build())
    }

    /// Whether this is the first use of the decision and attempt by this edge. Of simultaneous uses one is first.
    pub async fn first(&self, context: &Context) -> bool {
        let mut hash = Sha256::new();
        for part in [context.edge.as_bytes(), b"\n", context.decision.as_bytes(), b"\n"] {
            hash.update(part);
        }
        hash.update(context.attempt.to_be_bytes());
        let mut key = [0; 16];
        key.copy_from_slice(&hash.finalize()[..16]);
        self.0.entry(key).or_insert(()).await.is_fresh()
    }
}

impl Default for Replays {
    fn default() -> Self {
        Self::new()
    }
}

/// What the edge said of the request, verified.
#[derive(Clone, Debug)]
pub struct Signed(pub Arc<Context>);

impl std::ops::Deref for Signed {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.0
    }
}

impl<S: Sync> FromRequestParts<S> for Signed {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| refused(InvalidContext::Missing))
    }
}

/// The layer: refuses what has no valid context, and hands the context to the handler.
pub async fn verify(State(origin): State<Arc<Origin>>, mut request: Request, next: Next) -> Response {
    match check(&origin, request.method().as_str(), request.uri(), request.headers()).await {
        Ok(context) => {
            if let Some(note) = request.extensions().get::<Note>() {
                note.decided(&context.decision);
            }
            request.extensions_mut().insert(Signed(Arc::new(context)));
            next.run(request).await
        }
        Err(problem) => {
            origin.metrics.refused_contexts.inc();
            problem.into_response()
        }
    }
}

/// The layer of the edge API, inside of [`verify`]: for a context that an edge signed for a client's request there is no
/// such API. Whatever path a tenant's rules let through, an edge forwards it with that tenant's name.
pub async fn of_an_edge(signed: Signed, request: Request, next: Next) -> Response {
    if signed.tenant.is_some() || signed.subject.is_some() {
        return Problem::nowhere().into_response();
    }
    next.run(request).await
}

/// The layer of everything that is not for edges: for a request with a context, right or wrong, it does not exist, and neither
/// for one that an edge sends on to an upstream of a tenant, wherever that leads.
pub async fn of_no_edge(request: Request, next: Next) -> Response {
    if request.headers().contains_key(HEADER) || came_by_an_edge(request.headers()) {
        return Problem::nowhere().into_response();
    }
    next.run(request).await
}

/// Whether a request says that it came by an edge, as all that edges forward do (RFC 8586, section 2).
fn came_by_an_edge(headers: &HeaderMap) -> bool {
    // What is no text beside it doesn't hide it.
    let fields = headers.get_all("cdn-loop").iter().map(|field| String::from_utf8_lossy(field.as_bytes()));
    times_forwarded(fields) > 0
}

async fn check(origin: &Origin, method: &str, uri: &Uri, headers: &HeaderMap) -> Result<Context, Problem> {
    let authority = match uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => headers.get(header::HOST).and_then(|host| host.to_str().ok()),
    };
    let authority = origin.config.authority(authority);
    let header = single(headers);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let keys = &origin.config.context_keys;
    let context = Context::verify(header, keys, method, authority, path, now_ms()).map_err(refused)?;
    if origin.replays.first(&context).await {
        Ok(context)
    } else {
        Err(Problem::new(StatusCode::CONFLICT, "context-replayed", "The signed context was used before"))
    }
}

/// The one context of a request; a request with two has none.
fn single(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(HEADER).iter();
    match (all.next(), all.next()) {
        (Some(header), None) => header.to_str().ok(),
        _ => None,
    }
}

fn refused(why: InvalidContext) -> Problem {
    let kind = format!("context-{}", why.slug());
    Problem::new(StatusCode::UNAUTHORIZED, &kind, "The request has no valid signed context")
        .detail(why.to_string())
        .header(header::WWW_AUTHENTICATE, "Meridian-Context")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[tokio::test]
    async fn a_context_is_used_once_even_at_once() {
        let replays = Replays::new();
        let context = Context::of_edge("edge", "01J", 1);
        let uses = futures_util::future::join_all((0..50).map(|_| replays.first(&context))).await;
        assert_eq!(uses.iter().filter(|first| **first).count(), 1);
        assert!(replays.first(&Context { attempt: 1, ..context }).await);
    }

    #[test]
    fn two_contexts_are_none() {
        let mut headers = HeaderMap::new();
        headers.append(HEADER, "a".parse().unwrap());
        assert_eq!(single(&headers), Some("a"));
        headers.append(HEADER, "a".parse().unwrap());
        assert_eq!(single(&headers), None);
    }

    #[test]
    fn what_came_by_an_edge_says_so() {
        let cases: [(&[&[u8]], bool); 5] = [
            (&[], false),
            (&[b"other.example; meridian"], false),
            (&[b"other.example", b"Meridian; a=b"], true),
            (&[b"other.example,meridian"], true),
            (&[b"\xff, meridian"], true),
        ];
        for (fields, expect) in cases {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append("cdn-loop", HeaderValue::from_bytes(field).unwrap());
            }
            assert_eq!(came_by_an_edge(&headers), expect, "{headers:?}");
        }
    }
}
