//! Conditional requests: those of clients, answered from an entry, and ours, which validate one (RFC 9110, section 13;
//! RFC 9111, section 4.3).

use super::date::date_ms;
use crate::headers::Headers;

/// What a stored head holds: not what belongs to a connection, to one answer, or to the host; cookies where they are wanted.
pub(super) fn storable_headers(response: &Headers, cookies: bool) -> Headers {
    let mut headers = response.clone();
    headers.strip_hop_by_hop();
    headers.retain(|name, _| {
        !matches!(name, "age" | "content-length" | "server-timing" | "traceparent" | "tracestate")
            && (cookies || name != "set-cookie")
            && (!name.starts_with("meridian-") || name == "meridian-cdn-cache-control")
    });
    headers
}

/// Whether a 304 is about the stored response that was asked about (RFC 9111, section 4.3.4). A strong entity tag is about the
/// response that has it and about no other; one without any says nothing else than that what was asked about is current.
pub(super) fn is_about(stored: &Headers, not_modified: &Headers) -> bool {
    let Some(etag) = not_modified.get("etag") else { return true };
    match stored.get("etag") {
        Some(stored) if etag.starts_with("W/") => opaque(etag) == opaque(stored),
        Some(stored) => etag == stored,
        // Without a tag the date is the validator.
        None => {
            not_modified.get("last-modified").is_some()
                && not_modified.get("last-modified") == stored.get("last-modified")
        }
    }
}

/// An entity tag without its weakness (RFC 9110, section 8.8.3).
fn opaque(etag: &str) -> &str {
    etag.trim_start_matches("W/")
}

/// The stored head as a 304 changes it (RFC 9111, section 3.2): its fields take the place of the stored ones, but for those
/// that describe the stored body.
pub(super) fn updated(stored: &Headers, not_modified: &Headers, cookies: bool) -> Headers {
    let mut fresh = storable_headers(not_modified, cookies);
    fresh.retain(|name, _| !matches!(name, "content-encoding" | "content-type" | "content-range"));
    let mut headers = stored.clone();
    headers.retain(|name, _| fresh.get(name).is_none());
    for (name, value) in fresh.iter() {
        headers.append(name, value);
    }
    headers
}

/// Makes a request conditional on an entry (RFC 9111, section 4.3.1), in the place of the client's own conditions.
pub(super) fn condition(entry: &Headers, request: &mut Headers) {
    remove_conditions(request);
    if let Some(etag) = entry.get("etag") {
        request.set("if-none-match", etag);
    }
    if let Some(modified) = entry.get("last-modified") {
        request.set("if-modified-since", modified);
    }
}

pub(super) fn remove_conditions(request: &mut Headers) {
    request.remove("if-none-match");
    request.remove("if-modified-since");
}

/// Whether a client has the entry already (RFC 9110, sections 13.1.2, 13.1.3 and 13.2.2).
pub(super) fn is_not_modified(request: &Headers, status: u16, entry: &Headers) -> bool {
    if !(200..300).contains(&status) {
        return false;
    }
    if let Some(list) = request.joined("if-none-match") {
        return matches_etag(&list, entry.get("etag"));
    }
    let Some(since_ms) = date_ms(request.get("if-modified-since")) else { return false };
    let modified_ms = date_ms(entry.get("last-modified").or_else(|| entry.get("date")));
    modified_ms.is_some_and(|modified_ms| modified_ms <= since_ms)
}

/// Weak comparison with a list of entity tags (RFC 9110, section 8.8.3.2). Tags may hold commas.
fn matches_etag(list: &str, etag: Option<&str>) -> bool {
    if list.trim() == "*" {
        return true;
    }
    let inside = |etag: &'_ str| {
        etag.trim().trim_start_matches("W/").strip_prefix('"')?.strip_suffix('"').map(str::to_owned)
    };
    let Some(wanted) = etag.and_then(inside) else { return false };
    let mut rest = list;
    while let Some((tag, behind)) = rest.split_once('"').and_then(|(_, after)| after.split_once('"')) {
        if tag == wanted {
            return true;
        }
        rest = behind;
    }
    false
}

/// Takes out of a head what describes a body that does not come (RFC 9110, section 15.4.5), and gives it back.
pub(super) fn take_content(headers: &mut Headers) -> Headers {
    let mut content = Headers::default();
    headers.retain(|name, value| {
        let is_of_content = name.starts_with("content-")
            && name != "content-location"
            && !name.starts_with("content-security-policy");
        if is_of_content {
            content.append(name, value);
        }
        !is_of_content
    });
    content
}

/// The head of a part: without digests of the content, which is the part and not the whole here (RFC 9530, section 2; RFC
/// 1864). `Repr-Digest` and `Digest` are of the whole in a part, too (RFC 9530, section 3).
pub(super) fn of_part(headers: &mut Headers) {
    headers.retain(|name, _| !matches!(name, "content-digest" | "content-md5"));
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Fri, 15 Jan 2027 08:00:00 GMT";
    const LATER: &str = "Fri, 15 Jan 2027 08:00:01 GMT";

    #[test]
    fn clients_are_told_that_they_have_it_by_the_rule() {
        let check = |rule: &str, request: &[(&str, &str)], entry: &[(&str, &str)], expect: bool| {
            let (request, entry) = (request.iter().copied().collect(), entry.iter().copied().collect());
            assert_eq!(
                is_not_modified(&request, 200, &entry),
                expect,
                "RFC 9110 {rule}: {request:?} {entry:?}"
            );
        };
        let etag = [("etag", "\"a\"")];
        check("13.1.2", &[("if-none-match", "\"a\"")], &etag, true);
        check("13.1.2", &[("if-none-match", "\"b\"")], &etag, false);
        check("13.1.2, list", &[("if-none-match", "\"b\", W/\"a\"")], &etag, true);
        check(
            "13.1.2, several fields",
            &[("if-none-match", "\"b\""), ("if-none-match", "\"a\"")],
            &etag,
            true,
        );
        check("8.8.3.2, weak", &[("if-none-match", "\"a\"")], &[("etag", "W/\"a\"")], true);
        check("8.8.3, commas inside", &[("if-none-match", "\"x,y\", \"z\"")], &[("etag", "\"x,y\"")], true);
        check("8.8.3, part of one", &[("if-none-match", "\"xa\"")], &etag, false);
        check("13.1.2, any", &[("if-none-match", "*")], &[], true);
        check("13.1.2, unquoted", &[("if-none-match", "a")], &etag, false);
        check("13.1.2, no etag", &[("if-none-match", "\"a\"")], &[], false);
        check("13.1.3", &[("if-modified-since", DATE)], &[("last-modified", DATE)], true);
        check("13.1.3", &[("if-modified-since", LATER)], &[("last-modified", DATE)], true);
        check("13.1.3", &[("if-modified-since", DATE)], &[("last-modified", LATER)], false);
        check("4.3.2 of 9111, by date", &[("if-modified-since", DATE)], &[("date", DATE)], true);
        check("13.1.3, invalid", &[("if-modified-since", "x")], &[("last-modified", DATE)], false);
        check(
            "13.1.3, ignored beside",
            &[("if-none-match", "\"b\""), ("if-modified-since", LATER)],
            &[("etag", "\"a\""), ("last-modified", DATE)],
            false,
        );
        check("13.1, no condition", &[], &etag, false);
        let request = Headers::from_iter([("if-none-match", "*")]);
        assert!(!is_not_modified(&request, 404, &Headers::default()), "13.2.1: only for a success");
    }

    #[test]
    fn a_304_is_about_what_has_its_validators() {
        let check = |expect: bool, stored: &[(&str, &str)], came: &[(&str, &str)]| {
            let (stored, came) = (stored.iter().copied().collect(), came.iter().copied().collect());
            assert_eq!(is_about(&stored, &came), expect, "RFC 9111 4.3.4: {stored:?} {came:?}");
        };
        let dated = ("last-modified", DATE);
        let (strong, weak) = ([("etag", "\"abcdef\"")], [("etag", "W/\"abcdef\"")]);
        check(true, &strong, &strong);
        check(true, &weak, &weak);
        check(true, &strong, &weak);
        check(false, &weak, &strong);
        check(false, &strong, &[("etag", "\"ghijkl\"")]);
        check(false, &weak, &[("etag", "W/\"ghijkl\"")]);
        check(false, &[("etag", "\"abcdef\""), dated], &[("etag", "\"ghijkl\""), dated]);
        check(true, &strong, &[]);
        check(true, &[dated], &[dated]);
        check(true, &[dated], &[("etag", "\"ghijkl\""), dated]);
        check(false, &[dated], &strong);
    }

    #[test]
    fn a_304_changes_the_stored_head() {
        let stored = Headers::from_iter([
            ("content-type", "text/html"),
            ("cache-control", "max-age=1"),
            ("etag", "\"a\""),
            ("x-list", "1"),
            ("x-list", "2"),
            ("x-kept", "k"),
        ]);
        let fresh = Headers::from_iter([
            ("content-type", "text/plain"),
            ("content-length", "0"),
            ("connection", "close"),
            ("cache-control", "max-age=9"),
            ("x-list", "3"),
            ("meridian-session", "secret"),
            ("age", "7"),
        ]);
        let expect = Headers::from_iter([
            ("content-type", "text/html"),
            ("etag", "\"a\""),
            ("x-kept", "k"),
            ("cache-control", "max-age=9"),
            ("x-list", "3"),
        ]);
        assert_eq!(updated(&stored, &fresh, false), expect, "RFC 9111 3.2");
    }

    #[test]
    fn what_is_of_one_answer_is_not_stored() {
        let response = Headers::from_iter([
            ("Content-Type", "text/html"),
            ("Meridian-Session", "s1"),
            ("Meridian-Seen", "1=2"),
            ("Server-Timing", "db;dur=1"),
            ("Connection", "x-hop"),
            ("X-Hop", "1"),
            ("Age", "5"),
            ("Cache-Tag", "a"),
        ]);
        let expect = Headers::from_iter([("content-type", "text/html"), ("cache-tag", "a")]);
        assert_eq!(storable_headers(&response, false), expect);
    }
}
