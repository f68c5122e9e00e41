//! Parts of a stored body (RFC 9110, section 14).

use meridian_engine::headers::Headers;

use crate::edge::{Edge, Origin};
use crate::input::{Head, text};

/// Lines: `Range`, `If-Range`, `ETag`, `Last-Modified`, `Date`; what is left is the body. It is stored, then asked for in part.
pub fn ranges(data: &[u8]) {
    let text = text(data);
    let mut lines = text.splitn(6, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (range, if_range, etag, modified, date, body) = (line(), line(), line(), line(), line(), line());
    let stored = [
        ("cache-control", "max-age=60"),
        ("content-type", "application/octet-stream"),
        ("etag", etag),
        ("last-modified", modified),
        ("date", date),
    ];
    let mut edge = Edge::new();
    let headers = stored.into_iter().filter(|(_, value)| !value.is_empty()).collect::<Headers>();
    edge.origin = Origin { status: 200, headers, body: body.to_owned() };
    let page =
        |fields| Head { method: "GET", host: "shop.test", path: "/pages/a", query: None, fields, body: "" };
    edge.answer(&page(Vec::new()));
    let mut fields = vec![("range", range)];
    if !if_range.is_empty() {
        fields.push(("if-range", if_range));
    }
    let replied = edge.answer(&page(fields));
    if !replied.forwards.is_empty() {
        return;
    }
    let whole = body.as_bytes();
    let content_range = replied.reply.headers.get("content-range");
    match replied.reply.status {
        200 => assert!(replied.body == whole && content_range.is_none(), "all of it"),
        206 => {
            let (first, last, size) = content_range.and_then(part).expect("a part says which it is");
            assert!(
                first <= last && last < size && size == whole.len(),
                "{content_range:?} of {}",
                whole.len()
            );
            assert_eq!(replied.body, whole[first..=last], "{range:?}");
            let digits: Vec<&str> = range.split(['=', '-']).map(str::trim).collect();
            if let [_, from, _] = digits[..]
                && let Ok(from) = from.parse::<usize>()
            {
                assert_eq!(first, from, "{range:?}");
            }
        }
        416 => assert_eq!(content_range, Some(&*format!("bytes */{}", whole.len()))),
        400 => assert!(text.contains(|c: char| c.is_control()), "a head that is none: {text:?}"),
        other => panic!("{other} for {range:?}"),
    }
}

/// `bytes FIRST-LAST/SIZE`.
fn part(field: &str) -> Option<(usize, usize, usize)> {
    let (range, size) = field.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?, size.parse().ok()?))
}
