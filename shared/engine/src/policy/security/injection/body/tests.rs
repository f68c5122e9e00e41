use proptest::prelude::*;

use super::*;
use crate::fixtures::request;
use crate::headers::Headers;
use crate::limits::INJECTION_BODY_DEPTH_MAX;

fn kind(fields: &[(&str, &str)]) -> Kind {
    let headers = fields.iter().copied().collect::<Headers>();
    let facts = Facts { headers, body: BodySize::Unknown, ..request("POST", "acme.example", "/") };
    Kind::of(&facts).unwrap()
}

/// What is looked at of a body, and how its reading ended.
fn looked_at(kind: &Kind, bytes: &[u8], whole: bool) -> (Vec<String>, Result<(), End>) {
    let mut texts = Vec::new();
    let mut look = |spot: &Spot<'_>, text: &str, plus: bool| {
        texts.push(format!("{spot}{} {text}", if plus { "+" } else { "" }));
    };
    let end = kind.read(bytes, whole, Values::new(&mut look));
    (texts, end)
}

#[test]
fn header_fields_say_how_a_body_is_read() {
    let check = |field: &str, expect: Kind| assert_eq!(kind(&[("content-type", field)]), expect, "{field}");
    check("application/json", Kind::Json);
    check("Application/Problem+JSON ; Charset=\"UTF-8\";", Kind::Json);
    check("text/plain;charset=iso-8859-1", Kind::Text);
    check("application/x-www-form-urlencoded", Kind::Form);
    check("multipart/form-data; boundary=\"a \\\"b\"", Kind::Multipart("a \"b".to_owned()));
    check("multipart/form-data", Kind::Ambiguous);
    check("multipart/form-data; boundary=a; boundary=b", Kind::Ambiguous);
    check("application/json; charset=utf-16", Kind::Ambiguous);
    check("application/json; charset=\"utf-8", Kind::Ambiguous);
    check("application/pdf, application/json", Kind::Ambiguous);
    assert!(matches!(kind(&[("content-type", "application/pdf; x")]), Kind::Unread(_)));
    assert!(matches!(kind(&[]), Kind::Unread(_)));
    let coded = [("content-type", "application/json"), ("content-encoding", "gzip")];
    assert!(matches!(kind(&coded), Kind::Unread(_)));
    let twice = [("content-type", "application/pdf"), ("content-type", "application/json")];
    assert_eq!(kind(&twice), Kind::Ambiguous);
}

#[test]
fn texts_of_json_have_their_path() {
    let check = |text: &str, whole: bool, texts: &[&str], end: Result<(), End>| {
        let (found, ended) = looked_at(&Kind::Json, text.as_bytes(), whole);
        let values = found.iter().filter(|text| !text.starts_with("a name")).map(String::as_str);
        assert_eq!((values.collect::<Vec<_>>().as_slice(), ended), (texts, end), "{text}");
    };
    let nested = r#"{"a":{"b":["x",{"c":"y"},3]},"d":null,"a":"z"}"#;
    check(nested, true, &["body:a.b x", "body:a.b.c y", "body:a z"], Ok(()));
    check("\"x\"", true, &["body x"], Ok(()));
    check(" \n", true, &[], Ok(()));
    for (cut, texts) in
        [(r#"{"a":"x","b":"y"#, 1), (r#"{"a":"x","b":"\u00"#, 1), (r#"{"a":"x","b":tr"#, 1), ("[", 0)]
    {
        check(cut, false, &["body:a x"][..texts], Ok(()));
        check(cut, true, &["body:a x"][..texts], Err(End::Malformed));
    }
    check(r#"{"a":"x"}}"#, true, &["body:a x"], Err(End::Malformed));
    check(r#"{"a":"x",}"#, false, &["body:a x"], Err(End::Malformed));
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    check(&deep(INJECTION_BODY_DEPTH_MAX), true, &[], Ok(()));
    check(&deep(INJECTION_BODY_DEPTH_MAX + 1), true, &[], Err(End::Malformed));
    check(&"[".repeat(100_000), false, &[], Err(End::Malformed));
    let many = |values: usize| {
        looked_at(&Kind::Json, format!("[{}\"\"]", "\"\",".repeat(values - 1)).as_bytes(), true)
    };
    assert_eq!(many(INJECTION_BODY_VALUES_MAX).1, Ok(()));
    assert_eq!(many(INJECTION_BODY_VALUES_MAX + 1).1, Err(End::Full));
}

#[test]
fn fields_of_forms_have_their_names() {
    let check = |text: &str, whole: bool, texts: &[&str], end: Result<(), End>| {
        let (found, ended) = looked_at(&Kind::Form, text.as_bytes(), whole);
        assert_eq!(
            (found.iter().map(String::as_str).collect::<Vec<_>>().as_slice(), ended),
            (texts, end),
            "{text}"
        );
    };
    let both = ["a name in the body+ a%62", "body:ab+ 1+2", "a name in the body+ c", "body:c+ "];
    check("a%62=1+2&&c\r\n", true, &[both[0], both[1], "a name in the body+ c\r\n", "body:c\r\n+ "], Ok(()));
    check("a%62=1+2&c", true, &both, Ok(()));
    check("a=%4", false, &["a name in the body+ a", "body:a+ %4"], Ok(()));
    check("a=%4", true, &["a name in the body+ a", "body:a+ %4"], Err(End::Malformed));
    check("%=1", false, &["a name in the body+ %", "body:%+ 1"], Err(End::Malformed));
    check("a=\0", true, &["a name in the body+ a", "body:a+ \0"], Err(End::Malformed));
}

#[test]
fn fields_of_parts_have_their_names() {
    let check = |text: &str, whole: bool, texts: &[&str], end: Result<(), End>| {
        let (found, ended) = looked_at(&Kind::Multipart("b".to_owned()), text.as_bytes(), whole);
        let values = found.iter().filter(|text| !text.starts_with("a name")).map(String::as_str);
        assert_eq!((values.collect::<Vec<_>>().as_slice(), ended), (texts, end), "{text}");
    };
    let form = "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nx\r\n--b\r\nContent-Type: image/png\r\n\
        content-disposition: form-data; name=f; filename=\"../i\\\"p.png\"\r\n\r\n\x01\x02\r\n--b--\r\n";
    check(form, true, &["body:a x", "body:f ../i\"p.png"], Ok(()));
    for at in 0..form.find("\r\n--b--").unwrap() {
        let (_, ended) = looked_at(&Kind::Multipart("b".to_owned()), &form.as_bytes()[..at], false);
        assert_eq!(ended, Ok(()), "cut at {at}");
        let (_, ended) = looked_at(&Kind::Multipart("b".to_owned()), &form.as_bytes()[..at], true);
        assert_eq!(ended, Err(End::Malformed), "ends at {at}");
    }
    let head = |head: &str| format!("--b\r\n{head}\r\n\r\nx\r\n--b--");
    check(&head("content-disposition: form-data; name=a; name=b"), true, &[], Err(End::Malformed));
    check(&head("content-disposition: form-data"), true, &[], Err(End::Malformed));
    check(&head("content-type: text/plain"), true, &[], Err(End::Malformed));
    let coded = "content-disposition: form-data; name=a\r\ncontent-transfer-encoding: base64";
    check(&head(coded), true, &[], Err(End::Malformed));
    check("--c\r\n", false, &[], Err(End::Malformed));
}

proptest! {
    /// Whatever the bytes, every kind comes to an end, and what is cut is as fine as its beginning.
    #[test]
    fn any_body_is_read(
        bytes in proptest::collection::vec(any::<u8>(), 0..60),
        parts in proptest::collection::vec(prop::sample::select(vec![
            "{", "}", "[", "]", "\"a\"", ":", ",", "1", "--b", "\r\n", "content-disposition: form-data; name=a", "%", "41", "&", "=",
        ]), 0..24),
    ) {
        let body = [parts.concat().into_bytes(), bytes].concat();
        for kind in [Kind::Form, Kind::Json, Kind::Multipart("b".to_owned()), Kind::Text, Kind::Ambiguous] {
            let (texts, end) = looked_at(&kind, &body, true);
            if end == Ok(()) {
                for at in 0..body.len() {
                    let (fewer, end) = looked_at(&kind, &body[..at], false);
                    prop_assert_eq!(end, Ok(()), "{:?} cut at {}", kind, at);
                    prop_assert!(fewer.len() <= texts.len());
                }
            }
        }
    }
}
