//! `Accept-Encoding` in one form for all that say the same (RFC 9110, section 12.5.3; RFC 9111, section 4.1): the order of
//! codings says nothing, weights are numbers, and `x-gzip` is `gzip`.
//!
//! What a client says of codings that this edge does not know counts only where a response has such a coding: one that comes
//! as it is or in a coding known here was chosen by what the client says of these.

use std::fmt::Write;

use crate::headers::Headers;
use crate::policy::transform::accepted_coding;
use crate::ruleset::Coding;

/// Another name of `gzip` (RFC 9110, section 8.4.1.3).
const OLD_GZIP: &str = "x-gzip";

/// The whole field: codings by name, with their weights in thousandths. `None` where there is no such field.
pub(super) fn whole(request: &Headers) -> Option<String> {
    request.get("accept-encoding")?;
    let Some(codings) = codings(request) else { return Some(as_it_came(request)) };
    let mut text = String::from("all");
    for (name, weight) in codings {
        let _ = write!(text, " {name};{weight}");
    }
    Some(text)
}

/// What the field says of the codings known here and of content as it is. `None` where there is no such field.
pub(super) fn known(request: &Headers) -> Option<String> {
    request.get("accept-encoding")?;
    let Some(codings) = codings(request) else { return Some(as_it_came(request)) };
    let weight = |name: &str| codings.iter().find(|(of, _)| of == name).map(|(_, weight)| *weight);
    let of_others = weight("*");
    let mut text = String::from("known");
    let mut is_coded = false;
    for coding in Coding::ALL {
        let weight = weight(coding.token()).or(of_others).unwrap_or(0);
        is_coded |= weight > 0;
        let _ = write!(text, " {weight}");
    }
    // Unless it is refused, content as it is will do; how gladly it is taken tells something beside others only.
    match weight("identity").or(of_others.filter(|weight| *weight == 0)) {
        Some(0) => text.push_str(" 0"),
        Some(weight) if is_coded => {
            let _ = write!(text, " {weight}");
        }
        _ => text.push_str(" -"),
    }
    Some(text)
}

/// The form that decides whether a response is for a request.
pub(super) fn chosen(response: &Headers, request: &Headers) -> Option<String> {
    if is_known(response) { known(request) } else { whole(request) }
}

/// Whether content comes as it is, or in one coding that is known here.
fn is_known(response: &Headers) -> bool {
    let Some(coding) = response.joined("content-encoding") else { return true };
    let coding = coding.trim();
    let is = |name: &str| coding.eq_ignore_ascii_case(name);
    coding.is_empty()
        || is("identity")
        || is(OLD_GZIP)
        || Coding::ALL.into_iter().any(|coding| is(coding.token()))
}

/// Codings in lower case with their weights, by name. Of one that is named twice the first counts. `None` where something
/// can't be read: who knows what an origin makes of it.
fn codings(request: &Headers) -> Option<Vec<(String, u16)>> {
    let mut codings: Vec<(String, u16)> = Vec::new();
    for element in request.get_all("accept-encoding").flat_map(|list| list.split(',')).map(str::trim) {
        if element.is_empty() {
            continue;
        }
        let (name, weight) = accepted_coding(element)?;
        let mut name = name.to_ascii_lowercase();
        if name == OLD_GZIP {
            "gzip".clone_into(&mut name);
        }
        if !codings.iter().any(|(of, _)| *of == name) {
            codings.push((name, weight));
        }
    }
    codings.sort();
    Some(codings)
}

fn as_it_came(request: &Headers) -> String {
    let mut text = String::from("?");
    for value in request.get_all("accept-encoding") {
        text.push(',');
        text.push_str(value);
    }
    text.make_ascii_lowercase();
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::transform::choose_coding;

    fn asks(text: &str) -> Headers {
        Headers::from_iter([("accept-encoding", text)])
    }

    #[test]
    fn equal_wishes_have_one_form() {
        let check = |expect: bool, a: &str, b: &str| {
            assert_eq!(known(&asks(a)) == known(&asks(b)), expect, "RFC 9110 12.5.3: {a:?} | {b:?}");
        };
        check(true, "gzip, br", "br, gzip");
        check(true, "gzip, br", "gzip;q=1,BR ; q=1.000");
        check(true, "gzip, br", "gzip,, br,");
        check(true, "gzip", "x-gzip");
        check(true, "gzip, br", "gzip, deflate, br, zstd;q=0");
        check(true, "gzip, br, zstd", "*");
        check(true, "gzip, *;q=0.5", "br;q=0.5, gzip, zstd;q=0.5");
        check(true, "gzip;q=0, gzip", "gzip;q=0");
        check(true, "", "identity");
        check(true, "", "deflate;q=0.5, identity;q=0.1");
        check(false, "gzip", "gzip, br");
        check(false, "gzip, br", "gzip, br;q=0.5");
        check(false, "gzip", "gzip, identity;q=0.5");
        check(false, "gzip", "gzip, identity;q=0");
        check(false, "gzip", "gzip, *;q=0");
        check(true, "gzip, identity;q=0", "gzip, *;q=0");
        check(false, "", "identity;q=0");
        check(true, "identity, *;q=0", "");
        check(true, "gzip;q=2", "GZIP;Q=2");
        check(false, "gzip;q=2", "gzip");
        check(false, "gzip;q=2", "");
        assert_eq!(known(&Headers::default()), None, "anything will do");
        assert_ne!(known(&asks("")), None, "nothing but the content as it is");
    }

    #[test]
    fn what_a_coding_of_others_was_chosen_by_is_the_whole_field() {
        let check = |coding: &str, a: &str, b: &str, expect: bool| {
            let response = Headers::from_iter([("content-encoding", coding)]);
            let is_equal = chosen(&response, &asks(a)) == chosen(&response, &asks(b));
            assert_eq!(is_equal, expect, "RFC 9111 4.1: {coding}: {a} | {b}");
        };
        for coding in ["", "identity", "GZIP", "x-gzip", "br", "zstd"] {
            check(coding, "gzip, deflate", "compress, gzip", true);
        }
        for coding in ["deflate", "gzip, br", "dcb"] {
            check(coding, "gzip, deflate", "compress, gzip", false);
            check(coding, "gzip, deflate", "deflate;q=1.0, x-gzip", true);
            check(coding, "deflate", "identity", false);
        }
        let as_it_is = Headers::default();
        assert_eq!(chosen(&as_it_is, &asks("deflate")), chosen(&as_it_is, &asks("identity")));
    }

    proptest! {
        #[test]
        fn wishes_of_one_form_choose_alike(
            a in "(gzip|br|zstd|x-gzip|identity|[*]|deflate)(;q=(0|0[.]5|1))?(, (gzip|br|zstd|identity|[*]|deflate)(;q=(0|0[.]5))?){0,3}",
            b in "(gzip|br|zstd|x-gzip|identity|[*]|deflate)(;q=(0|0[.]5|1))?(, (gzip|br|zstd|identity|[*]|deflate)(;q=(0|0[.]5))?){0,3}",
        ) {
            if known(&asks(&a)) == known(&asks(&b)) {
                let mut codings = Coding::ALL;
                for turn in 0..codings.len() {
                    codings.rotate_left(turn);
                    for offered in [&codings[..], &codings[..2], &codings[..1]] {
                        prop_assert_eq!(choose_coding(offered, &a), choose_coding(offered, &b));
                    }
                }
            }
            if whole(&asks(&a)) == whole(&asks(&b)) {
                prop_assert_eq!(known(&asks(&a)), known(&asks(&b)));
            }
        }
    }
}
