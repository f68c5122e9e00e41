//! Encodings and bodies that no honest client makes, and line breaks that would begin a header field.

use super::rules::{At, Class, Rule, View, anywhere, near, row};

/// A body that is not what its type says: who reads it next may read something else. No text is searched for it.
pub(super) const BODY_MALFORMED: Rule =
    row("protocol-body-malformed", Class::Protocol, (1, 5), View::Raw, &[], anywhere);

pub(super) const RULES: [Rule; 7] = [
    row("header-split", Class::Header, (1, 5), View::Decoded, &["\r", "\n"], begins_field),
    row("header-break", Class::Header, (3, 3), View::Decoded, &["\r", "\n"], anywhere),
    row("protocol-null", Class::Protocol, (1, 5), View::Raw, &["%00", "%2500"], anywhere),
    row(
        "protocol-overlong",
        Class::Protocol,
        (1, 5),
        View::Raw,
        &["%c0%ae", "%c0%af", "%c1%9c", "%e0%80%ae", "%e0%80%af", "%c0%bc", "%c0%a7"],
        anywhere,
    ),
    row("protocol-unicode", Class::Protocol, (1, 5), View::Raw, &["%u"], |at| hexadecimal(at, 4)),
    row("protocol-double", Class::Protocol, (2, 3), View::Raw, &["%25"], |at| hexadecimal(at, 2)),
    BODY_MALFORMED,
];

/// A header field, status line or blank line behind a line break (RFC 9112, sections 2.1 and 5).
fn begins_field(at: At<'_>) -> bool {
    const FIELDS: [&str; 9] = [
        "set-cookie:",
        "content-type:",
        "content-length:",
        "transfer-encoding:",
        "location: http",
        "location:http",
        "x-forwarded-",
        "access-control-allow-",
        "http/1.",
    ];
    let line = near(at.after, 40).trim_start_matches(['\r', '\n', ' ', '\t']);
    FIELDS.iter().any(|field| line.starts_with(field))
}

fn hexadecimal(at: At<'_>, digits: usize) -> bool {
    let digits = at.after.get(..digits);
    digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}
