use proptest::prelude::*;

use super::*;
use crate::bounded::Keyed;
use crate::facts::BodySize;
use crate::fixtures::{request, rule};
use crate::headers::Headers;
use crate::ruleset::Fail;

/// A policy that everything hits.
fn strict(mode: Mode) -> Security {
    Security {
        deny: AddressSet::new(&["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()]),
        countries: Some(Listing::allow(mode, vec![], true)),
        asns: Some(Listing::allow(mode, vec![], true)),
        sizes: Some(Sizes {
            mode,
            path_bytes_max: Some(0),
            query_bytes_max: None,
            headers_max: None,
            header_bytes_max: None,
            body_bytes_max: None,
        }),
        bots: Some(bots(mode, 100)),
        injection: Some(injection(mode)),
        ..Security::new(rule("Security"), mode)
    }
}

fn bots(mode: Mode, below: u8) -> Bots {
    Bots {
        mode,
        below,
        crawlers: vec![],
        own: vec![],
        false_claims: mode,
        unverified: Unverified::Allow,
        is_unlimited: false,
    }
}

fn inspect(policy: &Security, facts: &Facts) -> Inspection {
    policy.inspect(facts, &Sample::Missing, &mut Names::new(Keyed::default()), facts.now_ms)
}

fn injection(mode: Mode) -> Injection {
    Injection {
        mode,
        paranoia: 4,
        threshold: 1,
        headers: vec!["x-text".to_owned()],
        body_bytes_max: Some(64),
        fail: Fail::Open,
        exclude: vec![],
    }
}

fn attack() -> Facts {
    Facts {
        query: Some("q=1+union+select+2".to_owned()),
        headers: Headers::default(),
        ..request("GET", "acme.example", "/a")
    }
}

fn whats(policy: &Security, facts: &Facts) -> Vec<String> {
    inspect(policy, facts).hits.iter().map(|hit| hit.what.to_string()).collect()
}

#[test]
fn checks_are_made_from_cheap_to_dear() {
    let expect = [
        "path too long",
        "in the deny list",
        "country unknown",
        "asn unknown",
        "looks like a bot",
        "looks like an injection",
    ];
    assert_eq!(whats(&strict(Mode::Log), &attack()), expect);
    assert_eq!(whats(&strict(Mode::Block), &attack()), expect[..1]);
    let late = Security { sizes: None, bots: Some(bots(Mode::Block, 100)), ..strict(Mode::Log) };
    assert_eq!(whats(&late, &attack()), expect[1..5]);
}

#[test]
fn every_list_of_places_has_a_mode_of_its_own() {
    let check = |countries: Mode, asns: Mode, expect: &[(&str, bool)]| {
        let policy = Security {
            countries: Some(Listing::allow(countries, vec![], true)),
            asns: Some(Listing::allow(asns, vec![], true)),
            ..Security::new(rule("Security"), Mode::Block)
        };
        let hits = inspect(&policy, &attack()).hits;
        let got: Vec<_> = hits.iter().map(|hit| (&*hit.what, hit.blocks)).collect();
        assert_eq!(got, expect, "{countries:?} {asns:?}");
        assert_eq!(policy.is_off(), countries == Mode::Off && asns == Mode::Off);
    };
    check(Mode::Log, Mode::Block, &[("country unknown", false), ("asn unknown", true)]);
    check(Mode::Block, Mode::Log, &[("country unknown", true)]);
    check(Mode::Off, Mode::Log, &[("asn unknown", false)]);
    check(Mode::Off, Mode::Off, &[]);
}

#[test]
fn what_is_off_is_not_checked() {
    let off = strict(Mode::Off);
    assert!(off.is_off() && inspect(&off, &attack()) == Inspection::default());
    assert!(!Security { bots: Some(bots(Mode::Log, 1)), ..off }.is_off());
    assert!(Security::new(rule("Security"), Mode::Block).is_off());
}

#[test]
fn a_body_of_unknown_length_needs_to_tell_it() {
    let sizes =
        Sizes { body_bytes_max: Some(10), path_bytes_max: None, ..strict(Mode::Block).sizes.unwrap() };
    let check = |body, expect: Option<u16>| {
        let facts = Facts { body, ..request("POST", "acme.example", "/a") };
        assert_eq!(sizes.exceeded(&facts).map(|(.., refusal)| refusal.status), expect, "{body:?}");
    };
    check(BodySize::Empty, None);
    check(BodySize::Bytes(10), None);
    check(BodySize::Bytes(11), Some(413));
    check(BodySize::Unknown, Some(411));
}

#[test]
fn every_rule_has_an_id_of_its_own_and_triggers_in_lower_case() {
    let rules: Vec<&Rule> = RULES.into_iter().flatten().collect();
    for (at, rule) in rules.iter().enumerate() {
        assert!(rules.iter().take(at).all(|earlier| earlier.id != rule.id), "{}", rule.id);
        assert!((1..=4).contains(&rule.paranoia) && (1..=5).contains(&rule.score), "{}", rule.id);
        assert!(rule.is_well_formed(), "{}", rule.id);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever a request carries, it is judged, the same twice, and no value of it is told.
    #[test]
    fn any_request_is_judged(
        raw in proptest::collection::vec(any::<u8>(), 0..80),
        parts in proptest::collection::vec(prop::sample::select(vec![
            "'", "\"", "%27", "%25", "union", " select ", "or", "1=1", "<", "svg", "/on", "load=", "../", "%2e%2e", "$(", "`",
            "/*", "/*!", "*/", "--", ";", "|", "{{", "}}", "${", "%c0%ae", "%u0027", "\r\n", "%0d%0a", "&#x", "&#60;", "ﬀ",
            "＜", "\0", "(", ")", "drop", " table ", "sleep(", "on", "é", "🎉", "java", "script:", "%", "+",
        ]), 0..24),
    ) {
        let text = format!("{}{}", parts.concat(), String::from_utf8_lossy(&raw));
        let facts = Facts {
            path: format!("/{text}"),
            query: Some(format!("{text}=secret-{text}&x={text}")),
            headers: Headers::from_iter([("cookie", format!("a={text}; {text}")), ("x-text", text.clone())]),
            ..request("GET", "acme.example", "/")
        };
        let policy = strict(Mode::Log);
        let inspection = inspect(&policy, &facts);
        prop_assert_eq!(&inspection, &inspect(&policy, &facts));
        for hit in &inspection.hits {
            prop_assert!(hit.inputs.iter().all(|(_, value)| !value.contains("secret-")));
        }
    }

    /// What is more careful finds at least as much.
    #[test]
    fn more_paranoia_never_finds_less(text in "[ -~]{0,60}", paranoia in 1u8..4) {
        let score = |paranoia| {
            let facts = Facts { query: Some(format!("q={text}")), ..request("GET", "acme.example", "/") };
            Injection { paranoia, ..injection(Mode::Log) }.judge(&facts, &Sample::Unread).0
        };
        prop_assert!(score(paranoia) <= score(paranoia + 1));
    }
}
