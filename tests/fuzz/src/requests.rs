//! Heads of requests: what two servers could read in two ways, and what only the platform may say.

use meridian_engine::facts::normalise_path;
use meridian_engine::headers::{Headers, is_field_name, is_field_value};
use meridian_engine::policy::request::{admit, is_internal};

use crate::edge::{CLIENT, Edge, Origin, Replied, START_MS, facts};
use crate::input::{Answered, Head, text};

/// Requests that one input may have.
const REQUESTS_MAX: usize = 6;

/// Fields that belong to one connection (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "proxy-authorization",
];

/// A head that is admitted has one reading, and none of the fields that are not the client's to send.
pub fn headers(data: &[u8]) {
    let text = text(data);
    let mut once = facts(&Head::of(&text), START_MS);
    let given = once.headers.clone();
    if admit(&mut once).is_err() {
        return;
    }
    let mut twice = once.clone();
    assert_eq!(admit(&mut twice), Ok(()), "what is admitted is admitted again");
    assert_eq!(once, twice, "and stays as it is");
    are_plain(&once.headers);
    let (length, coding) = (given.get("content-length"), given.get("transfer-encoding"));
    assert!(length.is_none() || coding.is_none(), "one of the two says where the body ends");
    if let Some(length) = length {
        assert!(given.get_all("content-length").all(|other| other == length), "and says it once");
        assert!(length.bytes().all(|byte| byte.is_ascii_digit()));
    }
    assert!(coding.is_none_or(|coding| coding.eq_ignore_ascii_case("chunked")));
    assert!(given.get_all("host").count() <= 1);
    assert!(!once.headers.iter().any(|(name, _)| is_internal(name)), "{:?}", once.headers);
    assert!(!once.headers.iter().any(|(name, _)| HOP_BY_HOP.contains(&name)), "{:?}", once.headers);
    let list = once.headers.joined("x-a");
    assert_eq!(list.is_some(), once.headers.get("x-a").is_some());
}

fn are_plain(headers: &Headers) {
    for (name, value) in headers.iter() {
        assert!(is_field_name(name) && is_field_value(value), "{name:?}: {value:?}");
    }
}

/// Whatever a client sends, one after the other, and whatever the target answers, which an input may begin with: a reply that is
/// one, and what is forwarded is one request, to a target of the rules, with what the platform says of it and nothing that
/// pretends to be that.
pub fn requests(data: &[u8]) {
    let text = text(data);
    let mut edge = Edge::new();
    let (answered, rest) = Answered::before(&text);
    edge.origin = origin(answered);
    for head in Head::all(rest).take(REQUESTS_MAX) {
        let replied = edge.answer(&head);
        is_one_reply(&replied);
        for key in &replied.keys {
            let tenant = replied.reply.decision.tenant.as_deref().expect("a cache is of a tenant");
            assert_eq!(key.0.split('|').nth(1), Some(tenant), "{key:?}");
            assert!(key.0.len() <= 512 && key.0.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{key:?}");
        }
        for forward in &replied.forwards {
            is_one_request(&forward.method, &forward.url, &forward.headers);
            let has_token = forward.headers.get("authorization").is_some();
            assert!(forward.sign.is_none() || !has_token, "a token goes no further than here");
            if let Some(claims) = &forward.sign {
                assert_eq!(claims.client, CLIENT.to_string());
                let may_have_token = text.to_ascii_lowercase().contains("bearer");
                assert!(claims.identity.is_none() || may_have_token, "nobody without a token");
            }
        }
        edge.now_ms += 1_000;
    }
}

/// What a target answers, as the client of a host takes it: fields that are some, and a body that is as long as it says.
fn origin(answered: Option<Answered<'_>>) -> Origin {
    let Some(Answered { status, fields, body }) = answered else {
        let fields = [("cache-control", "max-age=60"), ("etag", "\"1\""), ("content-type", "text/html")];
        let body = "<p>page</p>".to_owned();
        return Origin { status: 200, headers: fields.into_iter().collect(), body };
    };
    let mut headers: Headers =
        fields.into_iter().map(|(name, value)| (name, value.trim_matches([' ', '\t']))).collect();
    let length = body.len().to_string();
    headers.retain(|name, value| {
        is_field_name(name) && is_field_value(value) && (name != "content-length" || value == length)
    });
    Origin { status, headers, body: body.to_owned() }
}

/// A final status but for a WebSocket that was asked for, who decided, and nothing of another connection.
fn is_one_reply(replied: &Replied) {
    let (status, headers) = (replied.reply.status, &replied.reply.headers);
    let asked = replied.forwards.iter().any(|forward| forward.headers.get("upgrade").is_some());
    let switches = status == 101 && asked;
    assert!((200..600).contains(&status) || switches, "{status}");
    are_plain(headers);
    assert_eq!(headers.get("meridian-decision"), Some(&*replied.reply.decision.id));
    for once in ["meridian-decision", "meridian-region", "meridian-bundle", "traceparent"] {
        assert_eq!(headers.get_all(once).count(), 1, "{once}: {headers:?}");
    }
    let of_connection = headers.iter().any(|(name, _)| HOP_BY_HOP.contains(&name));
    assert!(!of_connection || switches, "{headers:?}");
}

fn is_one_request(method: &str, url: &str, headers: &Headers) {
    let line = format!("{method} {url}");
    assert_eq!(line.split(|c: char| c.is_ascii_control() || c == ' ').count(), 2, "{line:?}");
    let target = url.strip_prefix("http://").or(url.strip_prefix("https://")).expect("an absolute URL");
    let (authority, path) = target.split_at(target.find('/').expect("with a path"));
    assert!(
        authority.split(':').next().is_some_and(|host| host.ends_with(".test")),
        "{url:?} is none of the targets"
    );
    let path = path.split('?').next().unwrap_or_default();
    assert!(normalise_path(path).is_ok(), "{url:?}");
    are_plain(headers);
    for never in ["host", "content-length", "expect"].iter().chain(&HOP_BY_HOP) {
        // What asks for a WebSocket is made anew.
        let is_own = *never == "upgrade" && headers.get_all(never).eq(["websocket"]);
        assert!(is_own || headers.get(never).is_none(), "{never} is forwarded: {headers:?}");
    }
    for once in ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded", "traceparent"] {
        assert_eq!(headers.get_all(once).count(), 1, "{once}: {headers:?}");
    }
    assert_eq!(headers.get("x-forwarded-for"), Some(&*CLIENT.to_string()));
    let forged = |name: &str| {
        (name.starts_with("meridian-") && name != "meridian-session")
            || matches!(name, "x-real-ip" | "true-client-ip" | "cf-connecting-ip")
    };
    assert!(!headers.iter().any(|(name, _)| forged(name)), "{headers:?}");
}
