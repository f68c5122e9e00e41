//! Changes to the HTML of a reply: whether it may be changed, and what is put where. The parsing is the host's.

use super::{forget_bytes, is_coded, is_not_to_be_transformed, media_type, text};
use crate::expr::Inputs;
use crate::headers::Headers;
use crate::limits::HTML_VALUE_BYTES_MAX;
use crate::policy::cache::split;
use crate::ruleset::{HeaderValue, HtmlChange, HtmlEdit, HtmlRule};

/// Why the HTML of a reply is left as it is, if it is. Pages of errors are changed like any other; a part of a page, and
/// a page in another encoding than UTF-8 or in a content coding, is not.
#[must_use]
pub fn unfit(request: &Headers, status: u16, headers: &Headers) -> Option<&'static str> {
    if !matches!(status, 200..=203 | 207..=299 | 400..=599) {
        return Some("no whole page");
    }
    if media_type(headers).as_deref() != Some("text/html") {
        return Some("another media type");
    }
    if is_coded(headers) {
        return Some("coded already");
    }
    if is_not_to_be_transformed(headers) || is_not_to_be_transformed(request) {
        return Some("no-transform");
    }
    (!is_utf_8(headers.get("content-type").unwrap_or_default())).then_some("another encoding than UTF-8")
}

/// Whether a content type names no other character encoding than UTF-8 or its part ASCII.
fn is_utf_8(content_type: &str) -> bool {
    let charset = content_type.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    });
    charset.is_none_or(|charset| {
        ["utf-8", "utf8", "us-ascii"].iter().any(|one| charset.eq_ignore_ascii_case(one))
    })
}

/// What is put where. The second list tells what was left out: values that are no text or too long.
#[must_use]
pub fn edits(rules: &[HtmlRule<HeaderValue>], inputs: &Inputs<'_>) -> (Vec<HtmlEdit>, Vec<String>) {
    let (mut edits, mut left_out) = (Vec::with_capacity(rules.len()), Vec::new());
    for rule in rules {
        let value = |value: &HeaderValue| match text(value, inputs) {
            Ok(text) if text.len() <= HTML_VALUE_BYTES_MAX => Ok(text.into_owned()),
            Ok(text) => Err(format!("{} bytes, at most {HTML_VALUE_BYTES_MAX} are put", text.len())),
            Err(fault) => Err(fault),
        };
        let change = match &rule.change {
            HtmlChange::SetAttribute(name, set) => {
                value(set).map(|value| HtmlChange::SetAttribute(name.clone(), value))
            }
            HtmlChange::RemoveAttribute(name) => Ok(HtmlChange::RemoveAttribute(name.clone())),
            HtmlChange::Put(spot, markup, put) => {
                value(put).map(|value| HtmlChange::Put(*spot, *markup, value))
            }
            HtmlChange::Remove => Ok(HtmlChange::Remove),
        };
        match change {
            Ok(change) => edits.push(HtmlEdit { select: rule.select.clone(), change }),
            Err(fault) => left_out.push(format!("{}: {fault}", rule.select)),
        }
    }
    (edits, left_out)
}

/// Takes away what described the page before it was changed: it is another one for each request that its rules look at,
/// so that it has neither validators nor parts.
pub fn detach(headers: &mut Headers) {
    forget_bytes(headers);
    headers.remove("etag");
    headers.remove("last-modified");
}

/// Makes a page that expressions have changed one of its client alone: no shared cache on its way may keep it for others
/// (RFC 9111, section 5.2.2.7). What `Cache-Control` says to the client stays; what is for shared caches alone goes.
pub fn make_private(headers: &mut Headers) {
    let is_for_client = |directive: &&str| {
        let name = directive.split('=').next().unwrap_or_default().trim();
        !["public", "private", "s-maxage", "proxy-revalidate"]
            .iter()
            .any(|shared| name.eq_ignore_ascii_case(shared))
    };
    let kept = headers.get_all("cache-control").flat_map(split).filter(is_for_client);
    let control: Vec<&str> = std::iter::once("private").chain(kept).collect();
    let control = control.join(", ");
    // RFC 9213, section 2: targeted fields are called so.
    headers.retain(|name, _| !name.ends_with("-cache-control") && name != "surrogate-control");
    headers.set("cache-control", control);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::{Expr, Fact, Value};
    use crate::fixtures::request;
    use crate::ruleset::{Markup, Spot};

    #[test]
    fn only_whole_pages_in_utf_8_are_changed() {
        let check = |status: u16, headers: &[(&str, &str)], expect: Option<&str>| {
            let headers = headers.iter().copied().collect();
            assert_eq!(unfit(&Headers::default(), status, &headers), expect, "{status} {headers:?}");
        };
        let html = ("content-type", "text/html; charset=UTF-8");
        check(200, &[html], None);
        check(404, &[("content-type", "Text/HTML;charset=\"utf-8\"")], None);
        check(500, &[("content-type", "text/html")], None);
        for status in [204, 205, 206, 301, 304] {
            check(status, &[html], Some("no whole page"));
        }
        check(200, &[("content-type", "application/xhtml+xml")], Some("another media type"));
        check(200, &[html, html], Some("another media type"));
        check(200, &[html, ("content-encoding", "gzip")], Some("coded already"));
        check(200, &[html, ("cache-control", "no-transform")], Some("no-transform"));
        check(200, &[("content-type", "text/html; charset=iso-8859-1")], Some("another encoding than UTF-8"));
    }

    #[test]
    fn a_page_of_one_client_is_for_no_shared_cache() {
        let check = |control: &[&str], expect: &str| {
            let mut headers: Headers = control.iter().map(|control| ("cache-control", *control)).collect();
            for name in ["cdn-cache-control", "meridian-cdn-cache-control", "surrogate-control"] {
                headers.append(name, "max-age=60");
            }
            make_private(&mut headers);
            assert_eq!(headers, Headers::from_iter([("cache-control", expect)]), "{control:?}");
        };
        check(&[], "private");
        check(&["public, max-age=60, s-maxage=600"], "private, max-age=60");
        check(&["Public", "S-MaxAge = 600, No-Store"], "private, No-Store");
        check(
            &["private=\"set-cookie, x\", no-cache=\"a, public\", proxy-revalidate"],
            "private, no-cache=\"a, public\"",
        );
    }

    #[test]
    fn values_are_texts_of_this_request() {
        let put = |value| HtmlRule {
            select: "p".to_owned(),
            change: HtmlChange::Put(Spot::Inner, Markup::Text, value),
        };
        let rules = [
            put(HeaderValue::Expr(Expr::Fact(Fact::Path))),
            put(HeaderValue::Expr(Expr::Fact(Fact::Country))),
            put(HeaderValue::Expr(Expr::Literal(Value::Text("x".repeat(HTML_VALUE_BYTES_MAX + 1))))),
            HtmlRule { select: "b".to_owned(), change: HtmlChange::Remove },
        ];
        let facts = request("GET", "acme.example", "/a");
        let (edits, left_out) = edits(&rules, &Inputs::anonymous(&facts, "acme"));
        let text = |text: &str| HtmlChange::Put(Spot::Inner, Markup::Text, text.to_owned());
        assert_eq!(
            edits,
            [
                HtmlEdit { select: "p".to_owned(), change: text("/a") },
                HtmlEdit { select: "b".to_owned(), change: HtmlChange::Remove }
            ]
        );
        assert_eq!(left_out, ["p: not a text", "p: 16385 bytes, at most 16384 are put"]);
    }
}
