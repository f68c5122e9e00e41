//! Changes on the way in and out: header fields, where a request goes, what other origins' pages may read.

mod compress;
mod cors;
mod hardening;
mod html;
mod template;

use std::borrow::Cow;

#[cfg(test)]
pub(in crate::policy) use self::compress::choose as choose_coding;
pub(in crate::policy) use self::compress::member as accepted_coding;
pub use self::compress::{Verdict, judge};
pub use self::cors::{announced_fields, preflight_method};
pub use self::hardening::harden;
pub use self::html::{detach, edits, make_private, unfit};

use crate::expr::{Inputs, Seen};
use crate::headers::{Headers, is_field_name, is_field_value, is_one_variable};
use crate::ruleset::{HeaderChange, HeaderValue};

/// Fields with digests of bytes as they are coded (RFC 9530; RFC 1864).
const DIGESTS: [&str; 4] = ["content-digest", "repr-digest", "digest", "content-md5"];

/// Makes changes in order. Gives back what was left out, for the explanation: fields that are the platform's own or
/// frame the message, values that are no text, and values that can't be in a header field. With a field that is set or removed
/// goes what some targets take for it, unless a change names that itself.
pub fn apply(changes: &[HeaderChange], inputs: &Inputs<'_>, headers: &mut Headers) -> Vec<String> {
    let mut left_out = Vec::new();
    for change in changes {
        let (name, value) = (change.name(), change.value());
        if is_reserved(name) || !is_field_name(name) {
            left_out.push(format!("{name}: reserved"));
            continue;
        }
        let is_gone = |other: &str| {
            let is_named = || changes.iter().any(|change| change.name() == other);
            other == name || is_one_variable(other, name) && !is_named()
        };
        let Some(value) = value else {
            headers.retain(|other, _| !is_gone(other));
            continue;
        };
        match text(value, inputs) {
            Ok(text) if is_field_value(&text) => {
                if matches!(change, HeaderChange::Set(..)) {
                    headers.retain(|other, _| !is_gone(other));
                }
                headers.append(name, text);
            }
            Ok(_) => left_out.push(format!("{name}: not a field value")),
            Err(fault) => left_out.push(format!("{name}: {fault}")),
        }
    }
    left_out
}

/// The text that a rule's value comes to.
fn text<'a>(value: &'a HeaderValue, inputs: &Inputs<'a>) -> Result<Cow<'a, str>, String> {
    match value {
        HeaderValue::Text(text) => Ok(Cow::Borrowed(text)),
        HeaderValue::Expr(expr) => match expr.evaluate(inputs).map_err(|fault| fault.to_string())? {
            Seen::Text(text) => Ok(text),
            _ => Err("not a text".to_owned()),
        },
    }
}

/// Takes away what describes the bytes of a representation that becomes another one: its length, parts and digests
/// (RFC 9110, sections 8.6 and 14.3; RFC 9530).
fn forget_bytes(headers: &mut Headers) {
    for name in ["content-length", "accept-ranges"].into_iter().chain(DIGESTS) {
        headers.remove(name);
    }
}

/// Makes a strong entity tag a weak one: the bytes are others, what they mean is not (RFC 9110, section 8.8.3).
fn weaken(headers: &mut Headers) {
    if let Some(etag) = headers.get("etag").map(str::trim).filter(|etag| etag.starts_with('"')) {
        let weak = format!("W/{etag}");
        headers.set("etag", weak);
    }
}

/// Makes a head fit content that the host decodes, and codes again in the same coding with a coder of its own.
pub fn recode(headers: &mut Headers) {
    weaken(headers);
    forget_bytes(headers);
}

/// Whether a message says that nobody on its way may change its content (RFC 9110, section 7.7; RFC 9111, section
/// 5.2.2.6).
fn is_not_to_be_transformed(headers: &Headers) -> bool {
    let directives = headers.get_all("cache-control").flat_map(|list| list.split(','));
    directives.map(str::trim).any(|directive| directive.eq_ignore_ascii_case("no-transform"))
}

/// The media type in lower case, without parameters; `None` where there is not exactly one.
fn media_type(headers: &Headers) -> Option<String> {
    let mut fields = headers.get_all("content-type");
    let (Some(field), None) = (fields.next(), fields.next()) else { return None };
    Some(field.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// Whether content is coded already.
#[must_use]
pub fn is_coded(headers: &Headers) -> bool {
    headers.get_all("content-encoding").any(|coding| {
        let coding = coding.trim();
        !coding.is_empty() && !coding.eq_ignore_ascii_case("identity")
    })
}

/// Whether content is in a coding that runtimes take out by themselves: `gzip` or `br`, and no other.
#[must_use]
pub fn is_in_coding_of_runtimes(headers: &Headers) -> bool {
    let mut codings = headers.get_all("content-encoding").map(str::trim);
    let (Some(coding), None) = (codings.next(), codings.next()) else { return false };
    ["gzip", "br"].iter().any(|known| coding.eq_ignore_ascii_case(known))
}

/// Fields that no rule may touch: those that frame a message or belong to one connection (RFC 9110, section 7.6.1),
/// and the platform's own.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    matches!(
        name,
        "host"
            | "cdn-loop"
            | "content-length"
            | "transfer-encoding"
            | "connection"
            | "date"
            | "http2-settings"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "server-timing"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "upgrade"
            | "forwarded"
            | "traceparent"
            | "tracestate"
            | "via"
    ) || name.starts_with("meridian-")
        || name.starts_with("x-forwarded-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::{Expr, Fact};
    use crate::fixtures::request;

    #[test]
    fn with_a_field_goes_what_some_targets_take_for_it() {
        let set =
            |name: &str, value: &str| HeaderChange::Set(name.to_owned(), HeaderValue::Text(value.to_owned()));
        let changes = [
            set("x-user", "ours"),
            HeaderChange::Remove("x-secret".to_owned()),
            set("both-of", "1"),
            set("both_of", "2"),
            HeaderChange::Append("x-more".to_owned(), HeaderValue::Text("b".to_owned())),
        ];
        let facts = request("GET", "acme.example", "/");
        let came =
            [("x_user", "evil"), ("x.user", "evil"), ("x_secret", "s"), ("x_more", "a"), ("api_key", "k")];
        let mut headers = Headers::from_iter(came);
        assert!(apply(&changes, &Inputs::anonymous(&facts, "acme"), &mut headers).is_empty());
        let expect = [
            ("x_more", "a"),
            ("api_key", "k"),
            ("x-user", "ours"),
            ("both-of", "1"),
            ("both_of", "2"),
            ("x-more", "b"),
        ];
        assert_eq!(headers, Headers::from_iter(expect), "RFC 3875, section 4.1.18");
    }

    #[test]
    fn changes_are_made_in_order_and_the_rest_is_told() {
        let fact = |fact| HeaderValue::Expr(Expr::Fact(fact));
        let text = |text: &str| HeaderValue::Text(text.to_owned());
        let changes = [
            HeaderChange::Set("x-country".to_owned(), fact(Fact::Country)),
            HeaderChange::Set("x-path".to_owned(), fact(Fact::Path)),
            HeaderChange::Append("vary".to_owned(), text("x-path")),
            HeaderChange::Remove("server".to_owned()),
            HeaderChange::Set("x-evil".to_owned(), text("a\r\nset-cookie: b")),
            HeaderChange::Set("meridian-context".to_owned(), text("forged")),
            HeaderChange::Remove("content-length".to_owned()),
        ];
        let facts = request("GET", "acme.example", "/a");
        let mut headers = Headers::from_iter([("vary", "accept"), ("server", "x"), ("content-length", "3")]);
        let left_out = apply(&changes, &Inputs::anonymous(&facts, "acme"), &mut headers);
        let expect = [("vary", "accept"), ("content-length", "3"), ("x-path", "/a"), ("vary", "x-path")];
        assert_eq!(headers, Headers::from_iter(expect));
        let expect = [
            "x-country: not a text",
            "x-evil: not a field value",
            "meridian-context: reserved",
            "content-length: reserved",
        ];
        assert_eq!(left_out, expect);
    }
}
