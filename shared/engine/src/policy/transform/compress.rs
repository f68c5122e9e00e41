//! Which content coding a reply gets (RFC 9110, sections 8.4 and 12.5.3).

use super::{forget_bytes, is_coded, is_not_to_be_transformed, media_type, weaken};
use crate::headers::Headers;
use crate::ruleset::{Coding, Compress};

/// What a rule means for one reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The coding.
    pub coding: Option<Coding>,
    /// Whether another `Accept-Encoding` could have brought another answer.
    pub varies: bool,
    /// Why there is none, or its name.
    pub outcome: &'static str,
}

/// Judges a reply. `accept` is what the client said in `Accept-Encoding`, `length` that of the body where it is known.
///
/// A 304 has no content to code; its verdict tells what the 200 in its place would have got, so that both name the same
/// entity tag. Where the 304 does not say what that would be, the client does: content under a strong tag came to it as it is.
#[must_use]
pub fn judge(
    rule: &Compress,
    request: &Headers,
    accept: &str,
    status: u16,
    headers: &Headers,
    length: Option<u64>,
) -> Verdict {
    let unknown = status == 304 && headers.get("content-type").is_none();
    let unfit = if matches!(status, 100..=199 | 204..=206) {
        Some("no whole content")
    } else if unknown && has_as_it_is(request, headers) {
        Some("the client has it as it is")
    } else if is_coded(headers) {
        Some("coded already")
    } else if is_not_to_be_transformed(headers) || is_not_to_be_transformed(request) {
        Some("no-transform")
    } else {
        let type_fits = |found: String| {
            // Events would wait for each other in the coder (HTML standard, section 9.2).
            found != "text/event-stream" && rule.types.iter().any(|one| one.holds(&found))
        };
        let is_short = status != 304 && length.is_some_and(|length| length < rule.bytes_min.max(1));
        match media_type(headers).is_some_and(type_fits) || unknown {
            false => Some("another media type"),
            true => is_short.then_some("too short"),
        }
    };
    if let Some(outcome) = unfit {
        return Verdict { coding: None, varies: false, outcome };
    }
    let coding = choose(&rule.codings, accept);
    Verdict { coding, varies: true, outcome: coding.map_or("none is accepted", Coding::token) }
}

impl Verdict {
    /// Makes the head of a reply fit: `Vary`, and where it is coded its name, a weak entity tag (RFC 9110, section 8.8.3),
    /// and nothing about the bytes that were.
    pub fn apply(&self, status: u16, headers: &mut Headers) {
        if self.varies && !varies_by_coding(headers) {
            headers.append("vary", "Accept-Encoding");
        }
        let Some(coding) = self.coding else { return };
        weaken(headers);
        if status != 304 {
            forget_bytes(headers);
            headers.set("content-encoding", coding.token());
        }
    }
}

/// Whether a client names the strong entity tag of a response, and not the weak one that it has in a coding.
fn has_as_it_is(request: &Headers, response: &Headers) -> bool {
    let Some(etag) = response.get("etag").map(str::trim).filter(|etag| etag.starts_with('"')) else {
        return false;
    };
    let list = request.joined("if-none-match").unwrap_or_default();
    let (mut strong, mut weak) = (false, false);
    let mut rest = list.as_str();
    while let Some((before, after)) = rest.split_once('"') {
        let Some((tag, behind)) = after.split_once('"') else { break };
        if etag.strip_prefix('"').and_then(|etag| etag.strip_suffix('"')) == Some(tag) {
            let is_weak = before.ends_with("W/");
            (strong, weak) = (strong || !is_weak, weak || is_weak);
        }
        rest = behind;
    }
    strong && !weak
}

fn varies_by_coding(headers: &Headers) -> bool {
    let mut names = headers.get_all("vary").flat_map(|list| list.split(',')).map(str::trim);
    names.any(|name| name == "*" || name.eq_ignore_ascii_case("accept-encoding"))
}

/// The coding that a client likes best, of those offered; among equals the first. `None`: the content as it is, also
/// where the client refuses even that, since there is nothing else to give.
#[must_use]
pub(in crate::policy) fn choose(offered: &[Coding], accept: &str) -> Option<Coding> {
    let weight = |names: &[&str]| {
        let mut members = accept.split(',').filter_map(member);
        members.find(|(name, _)| names.iter().any(|one| name.eq_ignore_ascii_case(one))).map(|it| it.1)
    };
    let of_others = weight(&["*"]).unwrap_or(0);
    let as_it_is = weight(&["identity"]).unwrap_or(0);
    let mut best: Option<(Coding, u16)> = None;
    for coding in offered {
        let names: &[&str] = match coding {
            Coding::Gzip => &["gzip", "x-gzip"],
            Coding::Brotli => &["br"],
            Coding::Zstd => &["zstd"],
        };
        let weight = weight(names).unwrap_or(of_others);
        if weight > 0 && weight >= as_it_is && best.is_none_or(|(_, than)| weight > than) {
            best = Some((*coding, weight));
        }
    }
    best.map(|(coding, _)| coding)
}

/// A coding with its weight in thousandths (RFC 9110, section 12.4.2); `None` where that can't be read.
pub(in crate::policy) fn member(text: &str) -> Option<(&str, u16)> {
    let (name, parameters) = text.split_once(';').unwrap_or((text, ""));
    let weight = match parameters.trim() {
        "" => 1_000,
        parameters => {
            let (key, value) = parameters.split_once('=')?;
            key.trim().eq_ignore_ascii_case("q").then(|| thousandths(value.trim()))??
        }
    };
    Some((name.trim(), weight))
}

fn thousandths(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let fraction: u16 = format!("{fraction:0<3}").parse().ok()?;
    match whole {
        "0" => Some(fraction),
        "1" if fraction == 0 => Some(1_000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::MediaType;

    #[test]
    fn codings_are_negotiated_by_the_rule() {
        use Coding::{Brotli, Gzip, Zstd};
        let check = |rule: &str, accept: &str, expect: Option<Coding>| {
            assert_eq!(choose(&Coding::ALL, accept), expect, "RFC 9110 {rule}: {accept:?}");
        };
        check("12.5.3, empty", "", None);
        check("12.5.3", "gzip", Some(Gzip));
        check("8.4.1.3, another name", "x-gzip", Some(Gzip));
        check("8.4.1, in any case", "GZip", Some(Gzip));
        check("12.5.3, ties as the rule has it", "gzip, deflate, br, zstd", Some(Zstd));
        check("12.5.3, ties as the rule has it", "gzip, deflate, br", Some(Brotli));
        check("12.4.2, weights", "gzip;q=1.0, br;q=0.9, zstd;q=0.8", Some(Gzip));
        check("12.4.2, weights", "zstd;q=0.001, br;q=0.002", Some(Brotli));
        check("12.4.2, spaces", " br ; q = 0.5 , gzip ; Q=0.4 ", Some(Brotli));
        check("12.4.2, not acceptable", "gzip;q=0", None);
        check("12.4.2, not acceptable", "gzip;q=0.000, br", Some(Brotli));
        check("12.5.3, any", "*", Some(Zstd));
        check("12.5.3, any but", "*, zstd;q=0", Some(Brotli));
        check("12.5.3, nothing else", "gzip;q=0.5, *;q=0", Some(Gzip));
        check("12.5.3, none at all", "*;q=0", None);
        check("12.5.3, identity", "identity", None);
        check("12.5.3, rather identity", "identity, gzip;q=0.5", None);
        check("12.5.3, identity not at all", "identity;q=0, gzip;q=0.1", Some(Gzip));
        check("12.5.3, as gladly", "identity, gzip", Some(Gzip));
        check("12.5.3, unknown", "deflate, compress, exi", None);
        for broken in
            ["gzip;q=2", "gzip;q=-1", "gzip;q=1.001", "gzip;q=0.0001", "gzip;level=9", "gzip;q", "gz ip"]
        {
            check("12.4.2, unreadable", broken, None);
        }
        assert_eq!(choose(&[Gzip, Zstd], "zstd, gzip, br"), Some(Gzip), "the rule's own order");
        assert_eq!(choose(&[Gzip], "br"), None, "not offered");
    }

    fn rule() -> Compress {
        let types = vec![
            MediaType::Top("text".to_owned()),
            MediaType::Exact("application/json".to_owned()),
            MediaType::Suffix("json".to_owned()),
        ];
        Compress { codings: Coding::ALL.to_vec(), bytes_min: 100, types }
    }

    #[test]
    fn what_may_be_coded_is_judged_by_the_rule() {
        let check = |why: &str, status: u16, headers: &[(&str, &str)], length: Option<u64>, expect: &str| {
            let headers = headers.iter().copied().collect();
            let verdict = judge(&rule(), &Headers::default(), "gzip", status, &headers, length);
            assert_eq!(verdict.outcome, expect, "{why}");
            assert_eq!(verdict.varies, expect == "gzip", "{why}");
        };
        let json = ("content-type", "Application/JSON; charset=utf-8");
        check("a fit one", 200, &[json], Some(100), "gzip");
        check("of unknown length", 200, &[json], None, "gzip");
        check("too short", 200, &[json], Some(99), "too short");
        check("errors too", 404, &[("content-type", "application/problem+json")], None, "gzip");
        check("pictures", 200, &[("content-type", "image/png")], None, "another media type");
        check("no type", 200, &[], None, "another media type");
        check("events", 200, &[("content-type", "text/event-stream")], None, "another media type");
        check("coded", 200, &[json, ("content-encoding", "br")], None, "coded already");
        check("named as it is", 200, &[json, ("content-encoding", "identity")], None, "gzip");
        check("RFC 9110 7.7", 200, &[json, ("cache-control", "public, No-Transform")], None, "no-transform");
        check("a part", 206, &[json], None, "no whole content");
        check("nothing", 204, &[json], None, "no whole content");
        check("RFC 9110 15.4.5", 304, &[("etag", "\"a\"")], None, "gzip");
        check("its type is said", 304, &[("content-type", "image/png")], None, "another media type");
        let asked = Headers::from_iter([("cache-control", "no-transform")]);
        let verdict = judge(&rule(), &asked, "gzip", 200, &Headers::from_iter([json]), None);
        assert_eq!(verdict.outcome, "no-transform", "RFC 9111 5.2.1.6");
    }

    #[test]
    fn a_304_that_says_nothing_of_its_content_is_judged_by_what_the_client_has() {
        let check = |tags: &str, expect: &str| {
            let request = Headers::from_iter([("if-none-match", tags)]);
            let headers = Headers::from_iter([("etag", "\"a\"")]);
            let verdict = judge(&rule(), &request, "gzip", 304, &headers, None);
            assert_eq!(verdict.outcome, expect, "RFC 9110 15.4.5: {tags}");
        };
        check("\"a\"", "the client has it as it is");
        check("\"b\", \"a\"", "the client has it as it is");
        check("W/\"b\",\"a\"", "the client has it as it is");
        check("W/\"a\"", "gzip");
        check("\"a\", W/\"a\"", "gzip");
        check("\"xa\"", "gzip");
        check("*", "gzip");
    }

    #[test]
    fn the_head_of_a_coded_reply_fits_it() {
        let applied = |accept: &str, status: u16, headers: &[(&str, &str)]| {
            let mut headers: Headers = headers.iter().copied().collect();
            let verdict = judge(&rule(), &Headers::default(), accept, status, &headers, None);
            verdict.apply(status, &mut headers);
            headers
        };
        let came = [
            ("content-type", "text/html"),
            ("content-length", "2000"),
            ("etag", "\"a\""),
            ("accept-ranges", "bytes"),
            ("repr-digest", "sha-256=:AA==:"),
            ("vary", "Origin"),
        ];
        let expect = [
            ("content-type", "text/html"),
            ("vary", "Origin"),
            ("vary", "Accept-Encoding"),
            ("etag", "W/\"a\""),
            ("content-encoding", "br"),
        ];
        assert_eq!(applied("br", 200, &came), Headers::from_iter(expect));
        let mut expect = came.to_vec();
        expect.push(("vary", "Accept-Encoding"));
        assert_eq!(applied("", 200, &came), Headers::from_iter(expect), "as it is, but it could be coded");
        assert_eq!(
            applied("br", 304, &[("etag", "\"a\""), ("vary", "accept-encoding")]),
            Headers::from_iter([("vary", "accept-encoding"), ("etag", "W/\"a\"")]),
            "RFC 9110 15.4.5"
        );
        let weak = applied("br", 200, &[("content-type", "text/html"), ("etag", "W/\"a\"")]);
        assert_eq!(weak.get("etag"), Some("W/\"a\""));
    }
}
