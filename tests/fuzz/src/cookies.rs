//! Cookies, the fields that proxies add, and what a client has seen.

use std::net::IpAddr;

use ipnet::IpNet;
use meridian_engine::facts::{client_address, cookie, parse_networks};
use meridian_engine::headers::Headers;
use meridian_wire::session::{from_seen_text, seen_text};

use crate::input::text;

/// Names that are looked for, as the edge's own cookies are.
const NAMES: [&str; 4] = ["meridian_session", "meridian_unit", "meridian_region", "a"];

/// Lines are `Cookie` fields, then one of `X-Forwarded-For` after a line of its own that is empty.
pub fn cookies(data: &[u8]) {
    let text = text(data);
    let (cookies, forwarded) = text.split_once("\n\n").unwrap_or((&text, ""));
    let headers: Headers = cookies.split('\n').map(|line| ("cookie", line)).collect();
    for name in NAMES {
        let Some(value) = cookie(&headers, name) else { continue };
        assert!(!value.contains([';', '\n']), "{value:?} is of several cookies");
        assert!(cookies.contains(name));
    }
    let peers = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([203, 0, 113, 9])];
    let trusted: Vec<IpNet> = parse_networks("127.0.0.0/8, 10.0.0.0/8, ::1").unwrap_or_default();
    assert_eq!(client_address(peers[1], Some(forwarded), &trusted), peers[1], "nobody else is believed");
    let client = client_address(peers[0], Some(forwarded), &trusted);
    let right_of_it = forwarded.rsplit(',').next().unwrap_or_default();
    // What a trusted proxy added last is never skipped for something that stands before it.
    if let Ok(last) = right_of_it.trim().parse::<IpAddr>()
        && !trusted.iter().any(|net| net.contains(&last.to_canonical()))
    {
        assert_eq!(client, last.to_canonical());
    }
    if let Ok(networks) = parse_networks(forwarded) {
        let shown: Vec<String> = networks.iter().map(IpNet::to_string).collect();
        assert_eq!(parse_networks(&shown.join(", ")), Ok(networks));
    }
    let seen = from_seen_text(forwarded);
    assert_eq!(from_seen_text(&seen_text(&seen)), seen);
}
