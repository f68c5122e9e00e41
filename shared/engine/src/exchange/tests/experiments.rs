//! Variants, whom they are forced on, and what is counted of them.

use super::*;
use crate::decision::{Conversion, Participation};
use crate::expr::{Comparison, Expr, Fact, Value};
use crate::policy::experiment::{GIVEN_COOKIE, UNIT_COOKIE};
use crate::ruleset::{Experiment, Force, Goal, Newcomers, Unit, Variant};

fn is(fact: Fact, text: &str) -> Expr {
    let text = Expr::Literal(Value::Text(text.to_owned()));
    Expr::Compare(Comparison::Equal, Box::new(Expr::Fact(fact)), Box::new(text))
}

fn experiment() -> Experiment {
    Experiment {
        rule: rule("Experiment"),
        layer: None,
        salt: "s".to_owned(),
        audience: None,
        unit: Unit::Cookie,
        newcomers: Newcomers::OnReturn,
        ramp: 10_000,
        variants: [("a", 1), ("b", 1), ("c", 0)]
            .map(|(name, weight)| Variant { name: name.into(), weight })
            .to_vec(),
        version: "1".into(),
        force: None,
        goals: vec![],
    }
}

/// The experiment is on `/shop`; orders go elsewhere.
fn host(experiment: Experiment) -> Host {
    let mut rules = ruleset(vec![route("/shop"), route("/orders")]);
    rules.experiments.push(experiment);
    rules.routes[0].experiments.push(0);
    Host::new(rules)
}

/// The cookie of the unit.
fn cookie_of(reply: &Reply) -> String {
    cookies_of(reply).into_iter().find(|cookie| cookie.starts_with(UNIT_COOKIE)).unwrap()
}

/// The cookie of what the unit was given.
fn given_of(reply: &Reply) -> String {
    cookies_of(reply).into_iter().find(|cookie| cookie.starts_with(GIVEN_COOKIE)).unwrap()
}

/// All cookies that the client is to keep.
fn cookies_of(reply: &Reply) -> Vec<String> {
    let cookies = reply.headers.get_all("set-cookie").filter(|cookie| !cookie.contains("Max-Age=0;"));
    cookies.map(|cookie| cookie.split(';').next().unwrap().to_owned()).collect()
}

fn sent(method: &str, path: &str, fields: &[(&str, &str)]) -> Facts {
    let mut facts = request(method, "acme.example", path);
    for (name, value) in fields {
        facts.headers.append(name, *value);
    }
    facts
}

#[test]
fn a_variant_sticks_to_the_cookie_and_reaches_the_origin() {
    let mut host = host(experiment());
    let reply = host.get("/shop");
    let variant = reply.decision.variants[0].clone();
    assert_eq!(host.forwards[0].sign.as_ref().unwrap().variants, std::slice::from_ref(&variant));
    assert_eq!(reply.headers.get("meridian-variant"), Some(format!("r={}", variant.1).as_str()));
    let cookie = cookie_of(&reply);
    assert!(cookie.starts_with(UNIT_COOKIE));
    for random in 0..20 {
        let mut facts = sent("GET", "/shop", &[("cookie", &cookie)]);
        facts.random = [random; 16];
        let reply = host.send(facts);
        assert_eq!(reply.decision.variants, std::slice::from_ref(&variant));
        assert_eq!(reply.headers.get("set-cookie"), None);
        assert_eq!(host.forwards.last().unwrap().headers.get("cookie"), None);
    }
}

#[test]
fn a_unit_outlives_the_key_of_its_cookie_where_it_comes_back_in_time() {
    let goal = Goal { name: "ordered".to_owned(), when: is(Fact::Method, "POST"), statuses: vec![200..=299] };
    let secrets = |signing| Secrets::new(&[7; 32], &[signing; 32]);
    let mut host = host(Experiment { goals: vec![goal], ..experiment() });
    let old = cookie_of(&host.get("/shop"));
    let before = host.send(sent("GET", "/shop", &[("cookie", &old)]));

    host.node = Node::new("test-1", secrets(8).with_older([[7; 32]]));
    let rotated = host.send(sent("GET", "/shop", &[("cookie", &old)]));
    assert_eq!(rotated.decision.variants, before.decision.variants);
    assert_eq!(rotated.decision.participation, before.decision.participation);
    assert_eq!(rotated.headers.get_all("set-cookie").count(), 1);
    let new = cookie_of(&rotated);
    assert_eq!(new.split('.').nth(1), old.split('.').nth(1), "the unit");
    assert_ne!(new, old);
    let ordered = host.send(sent("POST", "/orders", &[("cookie", &old)]));
    assert_eq!(cookie_of(&ordered), new, "whatever asks for the unit");
    let again = host.send(sent("GET", "/shop", &[("cookie", &new)]));
    assert_eq!(again.headers.get("set-cookie"), None);
    assert_eq!(again.decision.participation, before.decision.participation);

    host.node = Node::new("test-1", secrets(8));
    let dropped = host.send(sent("GET", "/shop", &[("cookie", &new)]));
    assert_eq!(dropped.decision.participation, before.decision.participation);
    let late = Facts { random: [9; 16], ..sent("GET", "/shop", &[("cookie", &old)]) };
    let late = cookie_of(&host.send(late));
    assert_ne!(late.split('.').nth(1), old.split('.').nth(1), "who comes back too late is somebody else");
}

#[test]
fn a_unit_is_exposed_under_one_hash_that_does_not_name_it() {
    let mut host = host(experiment());
    let cookie = cookie_of(&host.get("/shop"));
    let first = host.send(sent("GET", "/shop", &[("cookie", &cookie)]));
    let again = host.send(sent("GET", "/shop", &[("cookie", &cookie)]));
    let [exposure] = &first.decision.participation.exposures[..] else { panic!("{:?}", first.decision) };
    assert_eq!((&*exposure.experiment, &*exposure.version), ("r", "1"));
    assert_eq!(exposure.variant, first.decision.variants[0].1);
    assert_eq!(again.decision.participation, first.decision.participation);
    let named = cookie.split('.').nth(1).unwrap();
    assert!(exposure.unit.len() == 32 && !exposure.unit.contains(named), "{exposure:?}");
    let other = cookie_of(&host.send(Facts { random: [9; 16], ..sent("GET", "/shop", &[]) }));
    let other = host.send(sent("GET", "/shop", &[("cookie", &other)]));
    assert_ne!(other.decision.participation.exposures[0].unit, exposure.unit);
}

#[test]
fn a_new_unit_counts_once_its_cookie_has_come_back_on_whatever_route() {
    let goal = Goal { name: "ordered".to_owned(), when: is(Fact::Method, "POST"), statuses: vec![200..=299] };
    let mut host = host(Experiment { goals: vec![goal], ..experiment() });
    let first = host.send(sent("POST", "/shop", &[]));
    assert_eq!(first.decision.participation, Participation::default(), "nobody yet, nor what they reach");
    assert_eq!(first.decision.variants.len(), 1, "who has a variant already");
    let cookies = cookies_of(&first).join("; ");
    assert!(cookies.contains(&format!("; {GIVEN_COOKIE}=g1.r:1.")), "{cookies}");

    let back = host.send(sent("POST", "/orders", &[("cookie", &cookies)]));
    let [exposure] = &back.decision.participation.exposures[..] else { panic!("{:?}", back.decision) };
    let [conversion] = &back.decision.participation.conversions[..] else { panic!("{:?}", back.decision) };
    assert_eq!((&exposure.variant, &exposure.unit), (&first.decision.variants[0].1, &conversion.unit));
    let forgotten = back.headers.get("set-cookie").unwrap();
    assert!(forgotten.starts_with("meridian_given=; ") && forgotten.contains("; Max-Age=0;"), "{forgotten}");
    assert_eq!(host.forwards.last().unwrap().headers.get("cookie"), None);
    let again = host.send(sent("GET", "/shop", &[("cookie", &cookies)]));
    assert_eq!(again.decision.participation.exposures, std::slice::from_ref(exposure), "once a request");

    let nobody = host.send(sent("POST", "/orders", &[("cookie", &given_of(&first))]));
    assert_eq!(nobody.decision.participation, Participation::default());
}

#[test]
fn a_new_unit_counts_at_once_where_the_experiment_says_so() {
    let goal = Goal { name: "seen".to_owned(), when: is(Fact::Method, "GET"), statuses: vec![200..=299] };
    let at_once = Experiment { newcomers: Newcomers::AtOnce, goals: vec![goal], ..experiment() };
    let mut host = host(at_once);
    let first = host.get("/shop");
    let [exposure] = &first.decision.participation.exposures[..] else { panic!("{:?}", first.decision) };
    let [conversion] = &first.decision.participation.conversions[..] else { panic!("{:?}", first.decision) };
    assert_eq!(conversion.unit, exposure.unit);
    let unit = cookie_of(&first);
    assert_eq!(cookies_of(&first), [unit.as_str()], "nothing is left to count");
    let back = host.send(sent("GET", "/shop", &[("cookie", &unit)]));
    assert_eq!(back.decision.participation, first.decision.participation, "the same unit");
    let elsewhere = host.get("/orders");
    assert_eq!(elsewhere.decision.participation, Participation::default());
    assert_eq!(elsewhere.headers.get("set-cookie"), None, "nobody becomes a unit by reaching a goal");
}

#[test]
fn each_experiment_of_a_route_counts_newcomers_in_its_own_way() {
    let mut rules = ruleset(vec![route("/shop")]);
    for (name, newcomers) in [("later", Newcomers::OnReturn), ("now", Newcomers::AtOnce)] {
        let mut experiment = Experiment { newcomers, ..experiment() };
        experiment.rule.name = name.into();
        rules.routes[0].experiments.push(rules.experiments.len());
        rules.experiments.push(experiment);
    }
    let mut host = Host::new(rules);
    let first = host.get("/shop");
    let counted = |reply: &Reply| -> Vec<String> {
        let exposures = reply.decision.participation.exposures.iter();
        exposures.map(|exposure| exposure.experiment.to_string()).collect()
    };
    assert_eq!(counted(&first), ["now"]);
    assert!(given_of(&first).starts_with(&format!("{GIVEN_COOKIE}=g1.later:1.")), "{:?}", cookies_of(&first));
    let back = host.send(sent("GET", "/shop", &[("cookie", &cookies_of(&first).join("; "))]));
    assert_eq!(counted(&back), ["later", "now"]);
}

#[test]
fn nobody_gets_in_by_saying_what_they_were_given() {
    let mut host = host(experiment());
    let first = host.get("/shop");
    let (unit, given) = (cookie_of(&first), given_of(&first));
    let other = cookie_of(&host.send(Facts { random: [9; 16], ..sent("GET", "/shop", &[]) }));
    let forged = |list: &str| format!("{GIVEN_COOKIE}=g1.{list}.{}", given.rsplit('.').next().unwrap());
    let plain = format!("{GIVEN_COOKIE}=r:1");
    for (unit, given) in [
        (&other, &given),
        (&unit, &forged("r:2")),
        (&unit, &forged("")),
        (&unit, &plain),
        (&unit, &String::new()),
    ] {
        let cookies = format!("{unit}; {given}");
        let reply = host.send(sent("GET", "/orders", &[("cookie", &cookies)]));
        assert_eq!(reply.decision.participation, Participation::default(), "{cookies}");
        let forgotten = reply.headers.get("set-cookie").is_some_and(|cookie| cookie.contains("; Max-Age=0;"));
        assert_eq!(forgotten, !given.is_empty(), "{cookies}");
    }
    host.rules.iter_mut().for_each(|rules| Arc::make_mut(rules).experiments[0].version = "2".into());
    host.node = Node::new("test-1", Secrets::new(&[7; 32], &[8; 32]).with_older([[7; 32]]));
    let cookies = format!("{unit}; {given}");
    let later = host.send(sent("GET", "/orders", &[("cookie", &cookies)]));
    assert_eq!(later.decision.participation, Participation::default(), "what was given is another version");
    host.rules.iter_mut().for_each(|rules| Arc::make_mut(rules).experiments[0].version = "1".into());
    host.node = Node::new("test-1", Secrets::new(&[7; 32], &[8; 32]).with_older([[7; 32]]));
    let rotated = host.send(sent("GET", "/orders", &[("cookie", &cookies)]));
    assert_eq!(rotated.decision.participation.exposures.len(), 1, "by an older key");
}

#[test]
fn testers_force_a_variant_and_are_not_counted() {
    let force = Force {
        header: Some("x-variant".to_owned()),
        query: Some("variant".to_owned()),
        cookie: Some("variant".to_owned()),
        when: is(Fact::Header("x-tester".to_owned()), "yes"),
    };
    let goal = Goal { name: "seen".to_owned(), when: is(Fact::Path, "/shop"), statuses: vec![200..=299] };
    let mut host = host(Experiment { force: Some(force), goals: vec![goal], ..experiment() });
    let tester = ("x-tester", "yes");
    let unit = cookie_of(&host.get("/shop"));
    let mut check = |query: Option<&str>, fields: &[(&str, &str)], expect: &str| {
        let fields = [fields, &[("cookie", unit.as_str())]].concat();
        let reply = host.send(Facts { query: query.map(str::to_owned), ..sent("GET", "/shop", &fields) });
        let forced = stages(&reply).contains("variant c, forced");
        assert!(stages(&reply).contains(expect), "{}", stages(&reply));
        assert_eq!(&*reply.decision.variants[0].1 == "c", forced);
        let counted = reply.decision.participation.exposures.len();
        assert_eq!(
            (counted, reply.decision.participation.conversions.len()),
            if forced { (0, 0) } else { (1, 1) }
        );
    };
    check(None, &[tester, ("x-variant", "c")], "variant c, forced");
    check(Some("variant=c"), &[tester], "variant c, forced");
    check(None, &[tester, ("cookie", "variant=c")], "variant c, forced");
    check(Some("variant=a"), &[tester, ("x-variant", "c")], "variant c, forced");
    check(None, &[("x-variant", "c")], "not forced: who asked may not");
    check(None, &[tester, ("x-variant", "d")], "not forced: there is no such variant");
    check(None, &[tester], "variant ");
}

#[test]
fn a_goal_is_reached_on_any_route_by_a_known_unit_with_the_right_status() {
    let goal = Goal { name: "ordered".to_owned(), when: is(Fact::Method, "POST"), statuses: vec![200..=299] };
    let mut host = host(Experiment { goals: vec![goal], ..experiment() });
    let cookie = cookie_of(&host.get("/shop"));
    let shop = host.send(sent("GET", "/shop", &[("cookie", &cookie)]));
    assert_eq!(shop.decision.participation.conversions, []);
    let unit = shop.decision.participation.exposures[0].unit.clone();

    let ordered = host.send(sent("POST", "/orders", &[("cookie", &cookie)]));
    let expect = Conversion { experiment: "r".into(), version: "1".into(), unit, goal: "ordered".to_owned() };
    assert_eq!(ordered.decision.participation.conversions, [expect]);
    assert_eq!(ordered.decision.participation.exposures, []);

    let unknown = host.send(sent("POST", "/orders", &[]));
    assert_eq!(unknown.decision.participation.conversions, []);
    assert_eq!(unknown.headers.get("set-cookie"), None, "nobody becomes a unit by reaching a goal");

    host.says(
        "us-east-1",
        Ok(ResponseHead { status: 409, headers: Headers::default(), elapsed_ms: 1, ran: None }),
    );
    let failed = host.send(sent("POST", "/orders", &[("cookie", &cookie)]));
    assert_eq!((failed.status, failed.decision.participation.conversions), (409, vec![]));
}
