//! Paths, hosts, queries and percent-encoding.

use meridian_engine::facts::{normalise_host, normalise_path, percent_decode, query_parameter};

use crate::input::text;

/// A path that is taken has one form, stays as it is, means what it meant, and has no way up.
pub fn paths(data: &[u8]) {
    let text = text(data);
    let (path, query) = text.split_once('?').unwrap_or((&text, ""));
    path_has_one_form(path);
    if let Ok(host) = normalise_host(path) {
        assert_eq!(normalise_host(&host).as_ref(), Ok(&host), "a normal host stays as it is");
        assert!(
            !host.bytes().any(|byte| byte.is_ascii_uppercase() || byte <= b' ' || b"/@?#\\".contains(&byte))
        );
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let name = percent_decode(pair.split('=').next().unwrap_or_default(), true);
        assert!(query_parameter(Some(query), &name).is_some(), "{name:?} is in {query:?}");
    }
}

fn path_has_one_form(path: &str) {
    let Ok(normal) = normalise_path(path) else { return };
    assert!(normal.starts_with('/') && normal.is_ascii(), "{normal:?}");
    assert_eq!(normalise_path(&normal).as_deref(), Ok(&*normal), "a normal path stays as it is: {path:?}");
    let decoded = percent_decode(&normal, false);
    assert_eq!(decoded, percent_decode(path, false), "it means what it meant");
    assert_eq!(decoded.split('/').count(), normal.split('/').count(), "no separator is hidden: {path:?}");
    assert!(!decoded.split('/').any(|segment| matches!(segment, "." | "..")), "no way up: {path:?}");
    assert!(!decoded.contains(|c: char| c.is_ascii_control() || c == '\\'), "{path:?}");
    // Nobody behind us sees another path by decoding once more.
    let twice = percent_decode(&decoded, false);
    assert!(!twice.split('/').any(|segment| segment == "..") || twice == decoded, "decoded twice: {path:?}");
}
