//! Header fields on their way into JavaScript. Making `Headers` of text costs more than all else at the boundary, and most
//! fields of a message were in others before it. What recurs is therefore kept as `Headers`, which the runtime copies by
//! itself, and the rest alone crosses as text.

use std::rc::Rc;

use meridian_engine::bounded::{Bounded, Keyed};
use meridian_engine::headers::Headers;
use worker::wasm_bindgen::JsValue;

use crate::host;
use crate::limits::{FIELDS_KEPT_BYTES_MAX, FIELDS_KEPT_MAX};

/// Fields as `host.js` takes them.
pub struct Fields {
    /// `Headers` of those that recur, `undefined` where all are in the lines.
    pub kept: Rc<JsValue>,
    /// The others, a line for every name and every value in turn.
    pub lines: String,
}

/// Sets of fields that recur, by their lines. A set is kept from the second time on.
pub struct Recurring(Bounded<String, Option<Rc<JsValue>>>);

impl Recurring {
    /// Nothing recurred so far.
    pub fn new(keyed: Keyed) -> Self {
        Self(Bounded::new(FIELDS_KEPT_MAX, keyed))
    }

    /// The fields of a message.
    pub fn fields(&mut self, headers: &Headers) -> Fields {
        let (recurring, mut lines) = divide(headers);
        if let Some(kept) = self.0.get(&recurring) {
            let kept = kept.get_or_insert_with(|| Rc::new(host::keep(&recurring)));
            return Fields { kept: Rc::clone(kept), lines };
        }
        if !(recurring.is_empty() || lines.is_empty()) {
            lines.push('\n');
        }
        lines.push_str(&recurring);
        if recurring.len() <= FIELDS_KEPT_BYTES_MAX {
            self.0.insert(recurring, None);
        }
        Fields { kept: Rc::new(JsValue::UNDEFINED), lines }
    }
}

/// The lines of the fields that recur, and of those that do not.
fn divide(headers: &Headers) -> (String, String) {
    let mut recurring = String::with_capacity(headers.len() * 48);
    let mut others = String::with_capacity(256);
    for (name, value) in headers.iter() {
        host::line(if is_unlike(name) { &mut others } else { &mut recurring }, name, value);
    }
    (recurring, others)
}

/// Whether a field is another one in nearly every message.
fn is_unlike(name: &str) -> bool {
    matches!(
        name,
        "age"
            | "content-length"
            | "content-range"
            | "cookie"
            | "date"
            | "etag"
            | "expires"
            | "forwarded"
            | "last-modified"
            | "meridian-context"
            | "meridian-decision"
            | "meridian-session"
            | "ratelimit"
            | "server-timing"
            | "set-cookie"
            | "traceparent"
            | "tracestate"
            | "x-forwarded-for"
            | "x-request-id"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_another_one_every_time_is_divided_from_what_recurs() {
        let headers = Headers::from_iter([
            ("date", "Mon"),
            ("content-type", "text/plain"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("x-odd", "a\nb"),
            ("vary", "accept"),
        ]);
        let (recurring, others) = divide(&headers);
        assert_eq!(recurring, "content-type\ntext/plain\nvary\naccept");
        assert_eq!(others, "date\nMon\nset-cookie\na=1\nset-cookie\nb=2");
    }

    #[test]
    fn what_came_once_crosses_whole_and_is_remembered() {
        let mut fields = Recurring::new(Keyed::default());
        let headers = Headers::from_iter([("vary", "accept"), ("age", "1")]);
        let first = fields.fields(&headers);
        assert_eq!(first.lines, "age\n1\nvary\naccept");
        assert!(fields.0.peek("vary\naccept").is_some_and(Option::is_none));
        let long = "v".repeat(FIELDS_KEPT_BYTES_MAX);
        let first = fields.fields(&Headers::from_iter([("vary", long.as_str())]));
        assert_eq!(first.lines, format!("vary\n{long}"));
        assert!(fields.0.peek(first.lines.as_str()).is_none());
        assert_eq!(fields.fields(&Headers::default()).lines, "");
    }
}
