//! Header fields that belong to one connection (RFC 9110, section 7.6.1). Components see neither `Connection` nor
//! `Transfer-Encoding` and `Upgrade`, so that only the host can tell what they say.

use http::{HeaderMap, HeaderName, Method, header};
use meridian_engine::{
    headers::Headers,
    policy::request::{Malformed, asks_for_web_socket, check_connection, check_handshake},
};

/// Checks what the fields of a request say of its connection as the engine does where it sees them, and removes those that
/// `Connection` names. No component can take a WebSocket: one that is asked for as it should be is refused as well.
pub fn check_request(method: &Method, headers: &mut HeaderMap) -> Result<(), Malformed> {
    let of_connection = [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE];
    let of_handshake = [header::SEC_WEBSOCKET_VERSION, header::SEC_WEBSOCKET_KEY, header::CONTENT_LENGTH];
    if !of_connection.iter().any(|name| headers.contains_key(name)) {
        return Ok(());
    }
    let mut seen = Headers::default();
    for name in of_connection.iter().chain(&of_handshake) {
        for value in headers.get_all(name) {
            seen.append(name, value.to_str().map_err(|_| Malformed::Header)?);
        }
    }
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

/// Removes the fields that `Connection` names.
pub fn remove_nominated(headers: &mut HeaderMap) {
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

#[cfg(test)]
mod tests {
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
