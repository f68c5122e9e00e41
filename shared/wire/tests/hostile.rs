//! Bundles, contexts, tokens and documents as nobody should send them: each is refused in clear words, none of them
//! panics, and none of them is taken for what was signed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use meridian_engine::ruleset::Target;
use meridian_wire::bundle::{Bundle, InvalidBundle};
use meridian_wire::context::Context;
use meridian_wire::encoding::base64url;
use meridian_wire::keyring::{MacKeyring, PublicKeyring};
use meridian_wire::limits::{BUNDLE_BYTES_MAX, DOCUMENTS_MAX};
use meridian_wire::session::Session;
use meridian_wire::signature::{Ticket, accept};
use proptest::prelude::*;
use serde_json::{Value, json};

const ACME: &[u8] = include_bytes!("stored/bundle-acme-1.json");

fn acme() -> Target {
    Target::Tenant("acme".to_owned())
}

/// A change to the JSON of a bundle.
type Change = Box<dyn FnOnce(&mut Value)>;

/// The stored bundle after a change to its JSON.
fn changed(change: impl FnOnce(&mut Value)) -> String {
    let mut bundle: Value = serde_json::from_slice(ACME).unwrap();
    change(&mut bundle);
    match Bundle::parse(bundle.to_string().as_bytes(), &acme(), 1) {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn spec<'a>(bundle: &'a mut Value, kind: &str) -> &'a mut Value {
    let documents = bundle["documents"].as_array_mut().unwrap();
    &mut documents.iter_mut().find(|document| document["kind"] == kind).unwrap()["spec"]
}

#[test]
fn a_release_goes_on_with_a_salt_that_a_push_may_not_share() {
    let shared = changed(|it| {
        let documents = it["documents"].as_array_mut().unwrap();
        let place = documents.iter().position(|document| document["kind"] == "Experiment").unwrap();
        let mut other = documents[place].clone();
        other["metadata"]["name"] = json!("other");
        documents.insert(place + 1, other);
    });
    assert_eq!(shared, "accepted");
}

#[test]
fn a_release_goes_on_with_a_burst_that_takes_too_long_to_come_back() {
    let wide = changed(|it| {
        let limit = spec(it, "RateLimit");
        limit["algorithm"] = json!("gcra");
        limit["quota"] = json!(10);
        limit["window"] = json!("30d");
        limit["burst"] = json!(100_000);
    });
    assert_eq!(wide, "accepted");
}

#[test]
fn bad_bundles_are_refused_in_clear_words() {
    assert_eq!(changed(|_| {}), "accepted");
    let cases: [(&str, Change); 14] = [
        ("the bundle has format 2, expected 1", Box::new(|it| it["format"] = json!(2))),
        ("the bundle is for \"tenant:globex\"", Box::new(|it| it["target"] = json!("tenant:globex"))),
        ("missing field `documents`", Box::new(|it| _ = it.as_object_mut().unwrap().remove("documents"))),
        ("unknown field `more`", Box::new(|it| it["more"] = json!(1))),
        ("unknown variant `Rout`", Box::new(|it| it["documents"][0]["kind"] = json!("Rout"))),
        (
            "no Tenant",
            Box::new(|it| it["documents"].as_array_mut().unwrap().retain(|one| one["kind"] != "Tenant")),
        ),
        ("a blank text", Box::new(|it| spec(it, "Issuer")["requiredClaims"] = json!([" "]))),
        (
            "the name of a document of kind RateLimit",
            Box::new(|it| spec(it, "Route")["limits"] = json!(["gone"])),
        ),
        (
            "a condition in a bundle must carry its checked tree",
            Box::new(|it| spec(it, "CachePolicy")["bypass"] = json!("true")),
        ),
        ("unknown field `quotas`", Box::new(|it| spec(it, "RateLimit")["quotas"] = json!(1))),
        ("found 0, expected 1 or more", Box::new(|it| spec(it, "RateLimit")["quota"] = json!(0))),
        (
            "a name that no other Route has",
            Box::new(|it| {
                let documents = it["documents"].as_array_mut().unwrap();
                let twin = documents.iter().find(|one| one["kind"] == "Route").unwrap().clone();
                documents.push(twin);
            }),
        ),
        ("one of the allowed regions", Box::new(|it| spec(it, "Tenant")["homeRegion"] = json!("mars-1"))),
        (
            "Region",
            Box::new(|it| {
                let region = json!({"ordinal": 1, "coordinates": {"latitude": 0, "longitude": 0}, "origins": ["http://a.example"]});
                let region = json!({"kind": "Region", "metadata": {"name": "a"}, "spec": region, "source": {"file": "", "line": 1}});
                it["documents"].as_array_mut().unwrap().push(region);
            }),
        ),
    ];
    for (words, change) in cases {
        let said = changed(change);
        assert!(said.contains(words), "expected {words:?} in: {said}");
    }
}

#[test]
fn the_limits_of_a_bundle_hold() {
    let large = vec![b' '; BUNDLE_BYTES_MAX + 1];
    let refused = Bundle::parse(&large, &acme(), 1).expect_err("too large");
    assert_eq!(refused, InvalidBundle::TooLarge { found: BUNDLE_BYTES_MAX + 1 });
    let document = json!({"kind": "Domain", "metadata": {"name": "a"}, "spec": {"tenant": "acme"}, "source": {"file": "", "line": 1}});
    let many = json!({"format": 1, "target": "tenant:acme", "documents": vec![document; DOCUMENTS_MAX + 1]});
    let refused = Bundle::parse(many.to_string().as_bytes(), &acme(), 1).expect_err("too many");
    assert_eq!(refused, InvalidBundle::TooManyDocuments { found: DOCUMENTS_MAX + 1 });
    let many = changed(|it| {
        let documents = it["documents"].as_array_mut().unwrap();
        let domain = |at| json!({"kind": "Domain", "metadata": {"name": format!("d{at}.example")}, "spec": {"tenant": "acme"}, "source": {"file": "", "line": 1}});
        documents.extend((0..1_001).map(domain));
    });
    assert!(many.contains("more than 1000 documents of kind Domain"), "{many}");
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(matches!(Bundle::parse(deep.as_bytes(), &acme(), 1), Err(InvalidBundle::Unreadable(_))));
    let deep = changed(|it| {
        let tree = (0..40).fold(json!({"bool": true}), |tree, _| json!({ "not": tree }));
        spec(it, "CachePolicy")["bypass"] = json!({"cel": "…", "tree": tree});
    });
    assert!(deep.contains("nested more than"), "{deep}");
}

fn keys() -> MacKeyring {
    MacKeyring::parse(&format!("k1:{}", base64url(&[9; 32]))).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_broken_bundle_never_panics_nor_passes_its_ticket(at in 0..ACME.len(), byte: u8, cut in 0..ACME.len()) {
        let target = acme();
        let bytes = ACME.trim_ascii_end();
        let key = meridian_wire::keyring::SigningKey::parse(SIGNING_KEY).unwrap();
        let ticket = Ticket::of(&target, 1, bytes, None, 0).sign(&key);
        let trusted = PublicKeyring::of(&key);
        let mut broken = bytes.to_vec();
        if let Some(place) = broken.get_mut(at) {
            *place = byte;
        }
        if broken != bytes {
            prop_assert_eq!(accept(&ticket, &broken, &target, &trusted, None).unwrap_err(), InvalidBundle::Hash);
        }
        let _ = Bundle::parse(&broken, &target, 1);
        let _ = Bundle::parse(&bytes[..cut.min(bytes.len())], &target, 1);
    }

    #[test]
    fn nothing_but_what_was_signed_is_read(text in "[ -~]{0,200}", kid in "[a-z0-9]{1,3}", json in "[A-Za-z0-9_-]{0,80}", tag in "[A-Za-z0-9_-]{0,44}") {
        for forged in [text, format!("v1.{kid}.{json}.{tag}"), format!("s1.{kid}.{json}.{tag}"), format!("v1.k1.{json}.{tag}"), format!("s1.k1.{json}.{tag}")] {
            prop_assert!(Context::verify(Some(&forged), &keys(), "GET", "a", "/", 0).is_err());
            prop_assert!(Session::verify(&forged, &keys(), "acme").is_err());
        }
    }
}

/// A key of tests: the pair of the seed of 32 ones.
const SIGNING_KEY: &str =
    "b1:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQGKiOPddAnxlf1S2y08ul1yymcJvx2UEhvzdIgBtA9vXA";
