//! What belongs to one connection. Its header fields (RFC 9110, section 7.6.1): components see neither `Connection` nor
//! `Transfer-Encoding` and `Upgrade`, so that only the host can tell what they say. And trailers, which end here.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderName, Method, header};
use hyper::body::{Body, Frame};
use meridian_engine::{
    headers::Headers,
    policy::request::{Malformed, asks_for_web_socket, check_connection, check_handshake, check_length},
};

/// Checks what the fields of a request say of its connection as the engine does where it sees them, and removes those that
/// `Connection` names. No component can take a WebSocket: one that is asked for as it should be is refused as well.
pub fn check_request(method: &Method, headers: &mut HeaderMap) -> Result<(), Malformed> {
    let of_connection = [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE];
    let of_handshake = [header::SEC_WEBSOCKET_VERSION, header::SEC_WEBSOCKET_KEY, header::CONTENT_LENGTH];
    if !of_connection.iter().any(|name| headers.contains_key(name)) {
        return Ok(());
    }
    let mut seen = only(headers, of_connection.iter().chain(&of_handshake))?;
    if asks_for_web_socket(&seen) {
        check_handshake(method.as_str(), &seen)?;
        return Err(Malformed::WebSocket);
    }
    // Where a body ends the server has said already.
    seen.remove(header::CONTENT_LENGTH.as_str());
    check_connection(&seen)?;
    remove_nominated(headers);
    Ok(())
}

/// Checks where the body of a response ends, and removes the fields that `Connection` names. Components see a length alone, and not
/// that a coding stands beside it. A body without a length and without chunks ends with its connection (RFC 9112, section 6.3),
/// whatever coding is named.
pub fn check_response(headers: &mut HeaderMap) -> Result<(), Malformed> {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        let framing = only(headers, [header::TRANSFER_ENCODING, header::CONTENT_LENGTH].iter())?;
        let mut codings = framing.get_all("transfer-encoding");
        let is_chunked = codings.any(|coding| coding.to_ascii_lowercase().contains("chunked"));
        if is_chunked || framing.get("content-length").is_some() {
            check_length(&framing)?;
        }
    }
    remove_nominated(headers);
    Ok(())
}

/// Some fields, as the engine has them.
fn only<'a>(headers: &HeaderMap, names: impl Iterator<Item = &'a HeaderName>) -> Result<Headers, Malformed> {
    let mut fields = Headers::default();
    for name in names {
        for value in headers.get_all(name) {
            fields.append(name, value.to_str().map_err(|_| Malformed::Header)?);
        }
    }
    Ok(fields)
}

/// Removes the fields that `Connection` names.
fn remove_nominated(headers: &mut HeaderMap) {
    let nominated: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|names| names.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // These frame the message, whatever `Connection` says of them.
        .filter(|name| {
            *name != header::CONTENT_LENGTH && *name != header::TRANSFER_ENCODING && *name != header::HOST
        })
        .collect();
    for name in nominated {
        headers.remove(name);
    }
}

/// What reading a body's next frame brings.
pub type ReadFrame<B> = Result<Frame<<B as Body>::Data>, <B as Body>::Error>;

/// The next frame of a body but for trailers, which whoever forwards may discard (RFC 9110, section 6.5.1): nothing of a decision
/// goes by them, no cache keeps them, and HTTP/1.1 takes none that its head has not named.
pub fn poll_content<B: Body + Unpin>(body: &mut B, cx: &mut Context<'_>) -> Poll<Option<ReadFrame<B>>> {
    loop {
        match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::ready, task::Waker};

    use bytes::Bytes;
    use http_body_util::{BodyExt, Full};

    use super::*;

    #[test]
    fn what_only_the_host_sees_is_refused_here() {
        let check = |fields: &[(&'static str, &str)], expect: Result<usize, Malformed>| {
            let mut headers: HeaderMap = fields
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
                .collect();
            assert_eq!(
                check_request(&Method::GET, &mut headers).map(|()| headers.len()),
                expect,
                "{fields:?}"
            );
        };
        check(&[("accept", "*/*")], Ok(1));
        check(&[("connection", "close, X-Hop"), ("x-hop", "1"), ("accept", "*/*")], Ok(2));
        check(&[("connection", "cookie"), ("cookie", "a=1")], Err(Malformed::Connection));
        check(&[("transfer-encoding", "Chunked")], Ok(1));
        check(&[("transfer-encoding", "gzip, chunked")], Err(Malformed::TransferCoding));
        check(&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], Err(Malformed::Length));
        check(&[("connection", "upgrade"), ("upgrade", "websocket")], Err(Malformed::Handshake));
        let handshake = [
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        check(&handshake, Err(Malformed::WebSocket));
        check(&[("connection", "upgrade"), ("upgrade", "h2c")], Ok(1));
    }

    #[test]
    fn a_response_has_one_end() {
        let check = |fields: &[(&'static str, &str)], expect: Result<(), Malformed>| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, value.parse().unwrap());
            }
            assert_eq!(check_response(&mut headers), expect, "{fields:?}");
        };
        check(&[("content-length", "2")], Ok(()));
        check(&[("transfer-encoding", "Chunked")], Ok(()));
        check(&[("transfer-encoding", "chunked"), ("content-length", "2")], Err(Malformed::Length));
        check(&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], Err(Malformed::Length));
        check(&[("transfer-encoding", "gzip, chunked")], Err(Malformed::TransferCoding));
        check(&[("transfer-encoding", "xchunked")], Err(Malformed::TransferCoding));
        check(&[("transfer-encoding", "identity")], Ok(()));
        check(&[("transfer-encoding", "identity"), ("content-length", "2")], Err(Malformed::Length));
    }

    #[test]
    fn a_body_ends_without_its_trailers() {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "7".parse().unwrap());
        let mut body =
            Full::new(Bytes::from("abc")).with_trailers(ready(Some(Ok::<_, Infallible>(trailers))));
        let cx = &mut Context::from_waker(Waker::noop());
        let Poll::Ready(Some(Ok(frame))) = poll_content(&mut body, cx) else { panic!("content") };
        assert_eq!(frame.into_data().unwrap(), "abc");
        assert!(matches!(poll_content(&mut body, cx), Poll::Ready(None)));
    }

    #[test]
    fn only_what_is_named_goes() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "x-hop, Close"),
            ("connection", "x-other , content-length"),
            ("x-hop", "1"),
            ("x-other", "2"),
            ("x-stays", "3"),
            ("content-length", "0"),
        ] {
            headers.append(name, value.parse().unwrap());
        }
        remove_nominated(&mut headers);
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["connection", "content-length", "x-stays"]);
    }
}
