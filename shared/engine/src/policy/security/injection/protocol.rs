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
        &["%c0%", "%c1%", "%e0%80%", "%e0%81%", "%f0%80%80%", "%f0%80%81%"],
        continued,
    ),
    row("protocol-unicode", Class::Protocol, (1, 5), View::Raw, &["%u"], |at| hexadecimal(at, 4)),
    row("protocol-double", Class::Protocol, (2, 3), View::Raw, &["%25"], |at| hexadecimal(at, 2)),
    BODY_MALFORMED,
];

/// A header field, status line or request line behind a line break (RFC 9112, sections 2.1, 3 and 5). Of fields that people write
/// of as well, what stands in them tells.
fn begins_field(at: At<'_>) -> bool {
    const FIELDS: [&str; 8] = [
        "set-cookie",
        "content-type",
        "content-length",
        "content-security-policy",
        "transfer-encoding",
        "x-xss-protection",
        "x-forwarded-",
        "access-control-allow-",
    ];
    const METHODS: [&str; 7] = ["get ", "post ", "put ", "patch ", "delete ", "head ", "options "];
    let line = at.after.trim_start_matches(['\r', '\n', ' ', '\t']);
    let line = near(line.split(['\r', '\n']).next().unwrap_or_default(), 400);
    let is_request = || METHODS.iter().any(|method| line.starts_with(method)) && line.contains(" http/1.");
    let Some((name, value)) = line.split_once(':') else {
        return line.starts_with("http/1.") || is_request();
    };
    let (name, value) = (name.trim_end(), value.trim_start());
    FIELDS.iter().any(|field| if field.ends_with('-') { name.starts_with(field) } else { name == *field })
        || name == "location" && ["http", "/", "\\", "javascript:"].iter().any(|to| value.starts_with(to))
        || name == "refresh"
            && value.starts_with(|first: char| first.is_ascii_digit())
            && value.contains("url")
        || line.starts_with("http/1.")
        || is_request()
}

/// The last byte of a sequence of UTF-8 that is longer than its letter needs (RFC 3629, section 3), where attacks need that
/// letter. The same bytes are letters in older character sets, as 括 in GBK and 을 in EUC-KR: what stands in a word of those is
/// one, unless it leads out of a folder.
fn continued(at: At<'_>) -> bool {
    let Some(last) = byte(at.after).filter(|last| (0x80..0xc0).contains(last)) else { return false };
    let is_upper_half = at.found == "%c1%" || at.found.ends_with("81%");
    let letter = last & 0x3f | if is_upper_half { 0x40 } else { 0 };
    match letter {
        b'.' | b'/' | b'\\' => true,
        b'\'' | b'"' | b'<' | b'>' | b'(' | b')' | b';' | b'%' | ..=0x1f | 0x7f => !is_in_a_word(at),
        _ => false,
    }
}

/// Whether a letter of two bytes stands beside this one, which is no sequence of the same kind.
fn is_in_a_word(at: At<'_>) -> bool {
    let before = at.before.len().checked_sub(6).and_then(|start| at.before.get(start..));
    [before, at.after.get(2..)].into_iter().flatten().any(|beside| {
        let first = beside.strip_prefix('%').and_then(byte);
        let second = beside.get(3..).and_then(|rest| byte(rest.strip_prefix('%')?));
        first.zip(second).is_some_and(|(first, second)| {
            let is_overlong =
                matches!((first, second), (0xc0 | 0xc1, 0x80..0xc0) | (0xe0, 0x80 | 0x81) | (0xf0, 0x80));
            first >= 0xa1 && second >= 0x80 && !is_overlong
        })
    })
}

/// The byte that a text begins with, in hexadecimal.
fn byte(text: &str) -> Option<u8> {
    let digits = text.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok()
}

fn hexadecimal(at: At<'_>, digits: usize) -> bool {
    let digits = at.after.get(..digits);
    digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}
