//! What handlers take of a request: its body, path and query. What is not of the known shape is a problem that says where.

use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::request::Parts;
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::limits::{BODY_BYTES_MAX, BODY_READ_TIMEOUT, FORGOTTEN_BYTES_MAX};
use crate::problem::Problem;

/// A JSON body of this shape.
#[derive(Debug)]
pub struct Body<T>(pub T);

/// A body as it came.
#[derive(Debug)]
pub struct Raw(pub Bytes);

/// The parameters of a path.
#[derive(Debug)]
pub struct Path<T>(pub T);

/// The parameters of a query.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match in_time(axum::Json::<T>::from_request(request, state)).await? {
            Ok(axum::Json(body)) => Ok(Self(body)),
            Err(JsonRejection::JsonDataError(error)) => {
                Err(Problem::invalid(vec![json!({"found": error.body_text()})]))
            }
            Err(JsonRejection::MissingJsonContentType(_)) => Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "not-json",
                "The body must be application/json",
            )),
            Err(rejection) => Err(refused(rejection.status(), rejection.body_text())),
        }
    }
}

impl<S: Send + Sync> FromRequest<S> for Raw {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        in_time(read(request.into_body())).await?.map(Self)
    }
}

/// A body of at most [`BODY_BYTES_MAX`]. Of a larger one some more is read and forgotten, since whoever is still sending
/// when the connection closes may never see the answer (RFC 9112, section 9.6).
async fn read(mut body: axum::body::Body) -> Result<Bytes, Problem> {
    let (mut whole, mut forgotten) = (BytesMut::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Problem::bad_request(error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        if forgotten > 0 || whole.len() + data.len() > BODY_BYTES_MAX {
            forgotten += data.len().max(1);
        } else {
            whole.extend_from_slice(&data);
        }
        if forgotten > FORGOTTEN_BYTES_MAX {
            break;
        }
    }
    if forgotten > 0 { Err(Problem::too_large()) } else { Ok(whole.freeze()) }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = axum::extract::Path::from_request_parts(parts, state).await;
        path.map(|path| Self(path.0)).map_err(|rejection| refused(rejection.status(), rejection.body_text()))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = axum::extract::Query::try_from_uri(&parts.uri);
        query
            .map(|query| Self(query.0))
            .map_err(|rejection| refused(rejection.status(), rejection.body_text()))
    }
}

/// A body that trickles in holds a connection: for a bounded time.
async fn in_time<T>(reading: impl Future<Output = T>) -> Result<T, Problem> {
    tokio::time::timeout(BODY_READ_TIMEOUT, reading).await.map_err(|_| {
        Problem::new(StatusCode::REQUEST_TIMEOUT, "slow-body", "The body did not arrive in time")
            .header(http::header::CONNECTION, "close")
    })
}

fn refused(status: StatusCode, why: String) -> Problem {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::too_large(),
        status if status.is_server_error() => Problem::internal(&std::io::Error::other(why)),
        _ => Problem::bad_request(why),
    }
}
