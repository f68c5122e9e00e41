//! Whatever a client sends and a host answers, an exchange is total.

use proptest::prelude::*;

use super::functions::function;
use super::*;
use crate::ruleset::Fail;
use crate::step::{FunctionFailure, FunctionFault};

fn any_facts() -> impl Strategy<Value = Facts> {
    let method = prop_oneof![Just("GET"), Just("HEAD"), Just("POST"), Just("DELETE"), Just("P\0T")];
    let host = prop_oneof![4 => Just("acme.example"), 1 => Just("other.example"), 1 => Just("a b")];
    let path = prop_oneof![
        Just("/open/a".to_owned()),
        Just("/closed".to_owned()),
        Just("/denied".to_owned()),
        "/[a-z/%.]{0,12}",
        ".{0,8}"
    ];
    let name = prop_oneof![
        Just("authorization"),
        Just("content-type"),
        Just("cookie"),
        Just("if-none-match"),
        Just("cache-control"),
        Just("connection"),
        Just("content-length"),
        Just("transfer-encoding"),
        Just("traceparent"),
        Just("meridian-session"),
        Just("x-a")
    ];
    let value = prop_oneof![
        Just("application/json".to_owned()),
        Just("Bearer eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJhIn0.c2ln".to_owned()),
        Just("chunked".to_owned()),
        "[0-9]{1,3}",
        ".{0,20}"
    ];
    let headers = proptest::collection::vec((name, value), 0..6);
    (method, host, path, headers, any::<[u8; 16]>(), 0u64..100_000).prop_map(
        |(method, host, path, headers, random, later_ms)| {
            let mut facts = request(method, host, &path);
            facts.headers = headers.into_iter().collect();
            (facts.random, facts.now_ms) = (random, NOW + later_ms);
            facts
        },
    )
}

fn any_answer() -> impl Strategy<Value = Answer> {
    let rules = Arc::new(guarded());
    let entry = Entry {
        status: 200,
        headers: Headers::from_iter([("etag", "\"1\"")]),
        meta: "odd".to_owned(),
        body_bytes: 1,
    };
    let loaded = prop_oneof![
        Just(Loaded::Host(Some("acme".to_owned()))),
        Just(Loaded::Host(None)),
        Just(Loaded::Platform(Arc::new(platform()))),
        Just(Loaded::Ruleset(rules)),
        Just(Loaded::Missing),
        Just(Loaded::Unavailable("away".to_owned()))
    ];
    let head = (0u16..700, "[a-z=0-9-]{0,12}").prop_map(|(status, value)| {
        ok(status, &[("cache-control", &value), ("meridian-behind", &value), ("vary", &value)])
    });
    prop_oneof![
        any::<bool>().prop_map(|any| Answer::Synced(any.then(SyncNews::default))),
        proptest::collection::vec(loaded, 0..3).prop_map(Answer::Loaded),
        Just(Answer::Keys(Err(FetchFault::Timeout).into())),
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(|keys| Answer::Keys(Ok(keys).into())),
        any::<bool>().prop_map(Answer::Verified),
        Just(Answer::Taken(vec![None])),
        any::<bool>().prop_map(move |any| Answer::Found(any.then(|| entry.clone()))),
        (0u32..3, head).prop_map(|(attempt, result)| Answer::Forwarded { attempt, result }),
        (proptest::collection::vec(any::<u8>(), 0..40), any::<bool>())
            .prop_map(|(bytes, whole)| Answer::Peeked(Some(Peeked { bytes, whole }))),
        Just(Answer::Slow),
        Just(Answer::Paused),
        Just(Answer::Forwarded { attempt: 0, result: Err(ForwardFault::Connect) }),
        Just(Answer::Forwarded { attempt: 0, result: Err(ForwardFault::Client(ClientFault::BrokeOff)) }),
        any::<bool>().prop_map(|sent_on| {
            let fault = FunctionFault { why: FunctionFailure::Trap, sent_on };
            Answer::Forwarded { attempt: 0, result: Err(ForwardFault::Function(fault)) }
        })
    ]
}

/// `/open/**` may be forwarded, where neither the tenant's nor the route's policy finds anything in the body; `/closed` needs a token that nobody can have, `/denied` refuses every address.
fn guarded() -> Ruleset {
    let (open, mut closed, mut denied) = (route("/open/**"), route("/closed"), route("/denied"));
    closed.auth = Auth::Required { scopes: vec![], when: None };
    denied.security.push(0);
    let mut rules = cached(ruleset(vec![open, closed, denied]));
    let deny = AddressSet::new(&["0.0.0.0/0".parse().unwrap()]);
    rules.security.push(Security { deny, ..Security::new(rule("Security"), Mode::Block) });
    rules.security.extend([looks_into(8), looks_into(16)]);
    rules.tenant.security.push(1);
    rules.routes[0].security.push(2);
    rules.functions.push(function(Fail::Open));
    rules.routes[0].function = Some(0);
    rules
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever a client sends and a host answers, an exchange ends, and it forwards only what has passed.
    #[test]
    fn an_exchange_is_total_and_forwards_only_what_has_passed(
        requests in proptest::collection::vec((any_facts(), any::<bool>()), 1..4),
        answers in proptest::collection::vec(any_answer(), 1..12),
    ) {
        let mut host = Host::new(guarded());
        let mut answers = answers.into_iter().cycle();
        for (facts, odd) in requests {
            host.now_ms = facts.now_ms;
            let path = facts.path.clone();
            let (mut exchange, mut step) = Exchange::begin(&mut host.node, facts);
            let mut forwarded = false;
            for count in 0.. {
                prop_assert!(count < STEPS_MAX, "no end");
                match &step {
                    Step::LookUp(CacheKey(key)) => prop_assert!(key.contains("acme"), "{}", key),
                    Step::Forward(forward) => {
                        prop_assert!(path.starts_with("/open"), "{}", path);
                        prop_assert!(forward.url.starts_with("http://"));
                        forwarded = true;
                    }
                    Step::Reply(reply) => {
                        let stages: Vec<_> = reply.decision.explanation.stages().map(|s| s.stage).collect();
                        let has = |stage| stages.contains(&stage);
                        prop_assert!(!forwarded || has("host") && has("route") && has("auth") && has("steering"));
                        prop_assert!((200..600).contains(&reply.status));
                        for name in ["meridian-decision", "meridian-region", "meridian-bundle", "traceparent"] {
                            prop_assert_eq!(reply.headers.get_all(name).count(), 1, "{}", name);
                        }
                        break;
                    }
                    _ => {}
                }
                let answer = if odd { answers.next().unwrap() } else { host.answer(step) };
                step = exchange.resume(&mut host.node, answer, host.now_ms);
            }
        }
    }
}
