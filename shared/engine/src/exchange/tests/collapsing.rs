//! Equal requests at once, in virtual time: one goes forward, the others wait for what it stores, and nobody for ever.

use proptest::prelude::*;

use super::*;
use crate::limits::{COLLAPSE_RANGE_WAIT_MS, COLLAPSE_WAIT_MS};
use crate::node::{Patience, Turn};

/// Requests that run at once on one node. What happens next is the earliest event.
struct Crowd {
    host: Host,
    events: BTreeMap<(u64, u64), Event>,
    scheduled: u64,
    exchanges: Vec<(Exchange, u64)>,
    replies: BTreeMap<usize, (u64, Reply)>,
    fetch: Fetch,
    /// The target answers conditions by 304.
    confirms: bool,
    /// The conditions that it saw.
    conditions: Vec<Option<String>>,
    forwarded: u32,
    forwarded_at_once: u32,
    forwarded_at_once_max: u32,
}

/// How a target answers, and what becomes of the answer.
#[derive(Clone, Debug)]
struct Fetch {
    takes_ms: u64,
    answer: Result<ResponseHead, ForwardFault>,
    storing_ms: u64,
    storing: Storing,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Storing {
    Stores,
    CannotBeKept,
    Breaks,
    BreaksOnce,
    /// The host never says how it ended.
    IsLost,
}

enum Event {
    Begin(Box<Facts>),
    Resume(usize, Step),
    Stored(String, CacheKey, Entry),
}

impl Crowd {
    fn new(fetch: Fetch) -> Self {
        let mut host = Host::new(cached(ruleset(vec![route("/**")])));
        // Rules and news are at hand from here on.
        host.get("/before");
        host.forwards.clear();
        Self {
            host,
            events: BTreeMap::new(),
            scheduled: 0,
            exchanges: Vec::new(),
            replies: BTreeMap::new(),
            fetch,
            confirms: false,
            conditions: Vec::new(),
            forwarded: 0,
            forwarded_at_once: 0,
            forwarded_at_once_max: 0,
        }
    }

    fn asks(&mut self, path: &str, after_ms: u64, headers: &[(&str, &str)]) {
        let mut facts = request("GET", "acme.example", path);
        facts.headers = headers.iter().copied().collect();
        facts.random = u128::from(self.scheduled + 1).to_be_bytes();
        self.at(NOW + after_ms, Event::Begin(Box::new(facts)));
    }

    fn at(&mut self, at_ms: u64, event: Event) {
        self.scheduled += 1;
        self.events.insert((at_ms, self.scheduled), event);
    }

    /// Lets everything happen.
    fn run(mut self) -> Self {
        while let Some(((now_ms, _), event)) = self.events.pop_first() {
            self.host.now_ms = now_ms;
            match event {
                Event::Begin(mut facts) => {
                    facts.now_ms = now_ms;
                    let (exchange, step) = Exchange::begin(&mut self.host.node, *facts);
                    self.exchanges.push((exchange, now_ms));
                    self.perform(self.exchanges.len() - 1, step);
                }
                Event::Resume(number, step) => {
                    let answer = match step {
                        Step::Pause { .. } => Answer::Paused,
                        Step::Forward(forward) => {
                            self.forwarded_at_once -= 1;
                            let result = match forward.headers.get("if-none-match") {
                                Some(tag) if self.confirms => ok(304, &[("etag", tag)]),
                                _ => self.fetch.answer.clone(),
                            };
                            Answer::Forwarded { attempt: forward.attempt, result }
                        }
                        step => self.host.answer(step),
                    };
                    let step = self.exchanges[number].0.resume(&mut self.host.node, answer, now_ms);
                    self.perform(number, step);
                }
                Event::Stored(of, key, entry) => {
                    let fetched = match self.fetch.storing {
                        Storing::Stores => Fetched::Stored,
                        Storing::CannotBeKept => Fetched::NotForOthers,
                        Storing::Breaks | Storing::BreaksOnce | Storing::IsLost => Fetched::Lost,
                    };
                    if self.fetch.storing == Storing::BreaksOnce {
                        self.fetch.storing = Storing::Stores;
                    }
                    self.host.node.fetched(&key, &of, fetched, now_ms);
                    if fetched == Fetched::Stored {
                        self.host.store.insert(key, Entry { body_bytes: 10, ..entry });
                    }
                }
            }
        }
        self
    }

    fn perform(&mut self, number: usize, step: Step) {
        let now_ms = self.host.now_ms;
        let takes_ms = match &step {
            Step::Reply(_) => 0,
            Step::Pause { ms } => u64::from(*ms),
            Step::Forward(forward) => {
                self.conditions.push(forward.headers.get("if-none-match").map(str::to_owned));
                self.forwarded += 1;
                self.forwarded_at_once += 1;
                self.forwarded_at_once_max = self.forwarded_at_once_max.max(self.forwarded_at_once);
                self.fetch.takes_ms
            }
            _ => 1,
        };
        let Step::Reply(mut reply) = step else {
            return self.at(now_ms + takes_ms, Event::Resume(number, step));
        };
        for after in std::mem::take(&mut reply.after) {
            match after {
                After::Store { .. } if self.fetch.storing == Storing::IsLost => {}
                After::Store { key, entry, .. } => {
                    let stored = Event::Stored(reply.decision.id.clone(), key, entry);
                    self.at(now_ms + self.fetch.storing_ms, stored);
                }
                After::Sync(_) => self.host.node.synced(self.host.news.clone(), now_ms),
                _ => {}
            }
        }
        let waited_ms = now_ms - self.exchanges[number].1;
        self.replies.insert(number, (waited_ms, *reply));
    }

    fn statuses(&self) -> BTreeMap<String, u32> {
        let mut counts = BTreeMap::new();
        for (_, reply) in self.replies.values() {
            let status = reply.headers.get("cache-status").unwrap_or("none");
            *counts.entry(status.split("; ttl").next().unwrap().to_owned()).or_insert(0) += 1;
        }
        counts
    }
}

fn storable() -> Fetch {
    let headers = [("cache-control", "public, s-maxage=60"), ("vary", "accept-language")];
    Fetch { takes_ms: 900, answer: ok(200, &headers), storing_ms: 40, storing: Storing::Stores }
}

#[test]
fn of_equal_misses_one_goes_forward() {
    let mut crowd = Crowd::new(storable());
    for number in 0..50 {
        crowd.asks("/a", number * 10, &[]);
        crowd.asks("/b", number * 10, &[]);
    }
    let crowd = crowd.run();
    assert_eq!((crowd.forwarded, crowd.replies.len()), (2, 100));
    let (waited_ms, reply) = &crowd.replies[&20];
    assert_eq!((reply.status, reply.decision.outcome), (200, Outcome::Cached));
    assert_eq!(reply.body, ReplyBody::Cached);
    assert_eq!(reply.headers.get("cache-status"), Some("meridian; fwd=uri-miss; ttl=58; collapsed"));
    let leader = &crowd.replies[&0].1.decision.id;
    assert!(stages(reply).contains("waited for the fetch of another request"), "{}", stages(reply));
    assert!(stages(reply).contains(leader.as_str()), "{}", stages(reply));
    assert!((800..=1_100).contains(waited_ms), "about as long as the fetch took: {waited_ms}");
}

#[test]
fn each_variant_is_fetched_once() {
    let mut crowd = Crowd::new(storable());
    for number in 0..40 {
        let language = ["de", "en", "fr", "it"][number as usize % 4];
        crowd.asks("/a", number, &[("accept-language", language)]);
    }
    let crowd = crowd.run();
    assert_eq!(crowd.forwarded, 4, "{:?}", crowd.statuses());
    assert!(crowd.replies.values().all(|(_, reply)| reply.status == 200));
}

#[test]
fn what_is_for_one_alone_is_waited_for_once_and_then_by_nobody() {
    let mut crowd = Crowd::new(Fetch { answer: ok(200, &[("cache-control", "private")]), ..storable() });
    for number in 0..10 {
        crowd.asks("/a", number, &[]);
        crowd.asks("/a", 1_000 + number, &[]);
    }
    let crowd = crowd.run();
    assert_eq!(crowd.forwarded, 20);
    let waited = |from: usize, to: usize| (from..to).map(|number| crowd.replies[&number].0).max();
    assert!(waited(0, 10).unwrap() <= 2 * 900 + 250, "{:?}", waited(0, 10));
    assert!(waited(10, 20).unwrap() <= 910, "{:?}", waited(10, 20));
    assert_eq!(
        crowd.replies[&3].1.headers.get("cache-status").unwrap(),
        "meridian; fwd=uri-miss; collapsed=?0; detail=private"
    );
}

#[test]
fn whoever_waits_too_long_goes_alone_and_a_lost_fetch_is_led_anew() {
    let mut crowd = Crowd::new(Fetch { storing: Storing::IsLost, ..storable() });
    for number in 0..10 {
        crowd.asks("/a", number, &[]);
        crowd.asks("/a", 20_000 + number, &[]);
    }
    let crowd = crowd.run();
    assert_eq!(crowd.replies.len(), 20);
    for number in 1..10 {
        let waited_ms = crowd.replies[&number].0;
        let too_long_ms = u64::from(COLLAPSE_WAIT_MS) + 900;
        assert!((too_long_ms..too_long_ms + 300).contains(&waited_ms), "{waited_ms}");
    }
    let leaders = (10..20).filter(|number| crowd.replies[number].0 <= 910).count();
    assert_eq!(leaders, 1);
}

#[test]
fn a_fetch_that_breaks_off_is_led_anew_and_waited_for() {
    let mut crowd = Crowd::new(Fetch { storing: Storing::BreaksOnce, ..storable() });
    for number in 0..20 {
        crowd.asks("/a", number, &[]);
    }
    crowd.asks("/a", 1_500, &[]);
    let crowd = crowd.run();
    assert_eq!(crowd.forwarded, 2, "{:?}", crowd.statuses());
    assert!(crowd.replies.values().all(|(waited_ms, _)| *waited_ms < 2 * 940 + 600));
}

#[test]
fn an_entry_that_must_be_validated_is_validated_once() {
    let headers = [("cache-control", "public, s-maxage=60, must-revalidate"), ("etag", "\"1\"")];
    let mut crowd = Crowd::new(Fetch { answer: ok(304, &headers), ..storable() });
    crowd.host.says("us-east-1", ok(200, &headers));
    crowd.host.get("/a");
    for number in 0..20 {
        crowd.asks("/a", 100_000 + number, &[]);
    }
    let crowd = crowd.run();
    assert_eq!(crowd.forwarded, 1);
    assert_eq!(crowd.statuses()["meridian; fwd=stale"], 19, "{:?}", crowd.statuses());
}

#[test]
fn an_entry_that_each_request_must_validate_is_not_waited_for() {
    for control in ["public, no-cache, s-maxage=60", "public, max-age=0"] {
        let headers = [("cache-control", control), ("etag", "\"1\"")];
        let mut crowd = Crowd::new(Fetch { answer: ok(304, &headers), ..storable() });
        crowd.host.says("us-east-1", ok(200, &headers));
        crowd.host.get("/a");
        for number in 0..10 {
            crowd.asks("/a", 1_000 + number, &[]);
        }
        let crowd = crowd.run();
        assert_eq!(crowd.forwarded, 10, "{control}");
        let waited_ms = crowd.replies.values().map(|(waited_ms, _)| *waited_ms).max();
        assert!(waited_ms <= Some(910), "{control}: {waited_ms:?}");
    }
}

#[test]
fn a_range_waits_for_a_fetch_of_the_whole_and_begins_none() {
    let range = [("range", "bytes=0-1")];
    let mut crowd = Crowd::new(Fetch { takes_ms: 100, ..storable() });
    crowd.asks("/a", 0, &range);
    crowd.asks("/a", 1, &[]);
    for number in 2..20 {
        crowd.asks("/a", number, &range);
    }
    let crowd = crowd.run();
    assert_eq!(crowd.forwarded, 2, "{:?}", crowd.statuses());
    for number in 2..20 {
        let (waited_ms, reply) = &crowd.replies[&number];
        assert_eq!((reply.status, reply.decision.outcome), (206, Outcome::Cached), "{}", stages(reply));
        assert!(*waited_ms <= 300, "{waited_ms}");
    }
    // Who looks for a part of what takes long to come is not kept from it.
    let mut crowd = Crowd::new(storable());
    crowd.asks("/a", 0, &[]);
    for number in 1..5 {
        crowd.asks("/a", number, &range);
    }
    let crowd = crowd.run();
    assert_eq!(crowd.forwarded, 5, "{:?}", crowd.statuses());
    let waited_ms = crowd.replies.values().map(|(waited_ms, _)| *waited_ms).max();
    assert!(waited_ms <= Some(910 + u64::from(COLLAPSE_RANGE_WAIT_MS) * 2), "{waited_ms:?}");
    let mut crowd = Crowd::new(storable());
    for number in 0..5 {
        crowd.asks("/a", number, &range);
    }
    let crowd = crowd.run();
    assert_eq!(crowd.forwarded, 5, "nobody asks for the whole");
    assert!(crowd.replies.values().all(|(waited_ms, _)| *waited_ms <= 910));
}

#[test]
fn of_equal_conditions_the_second_brings_what_answers_the_others() {
    let headers = [("cache-control", "public, s-maxage=60"), ("etag", "\"1\"")];
    let mut crowd = Crowd::new(Fetch { answer: ok(200, &headers), ..storable() });
    crowd.confirms = true;
    for number in 0..50 {
        crowd.asks("/a", number * 10, &[("if-none-match", if number % 2 == 0 { "\"1\"" } else { "\"0\"" })]);
    }
    let crowd = crowd.run();
    assert_eq!(crowd.conditions, [Some("\"1\"".to_owned()), None], "{:?}", crowd.statuses());
    for (number, (_, reply)) in &crowd.replies {
        let is_current = number % 2 == 0;
        let outcome = if *number < 2 { Outcome::Forwarded } else { Outcome::Cached };
        let expect = (if is_current { 304 } else { 200 }, outcome);
        assert_eq!((reply.status, reply.decision.outcome), expect, "{number}: {}", stages(reply));
    }
    assert!(stages(&crowd.replies[&1].1).contains("without its condition"));
}

#[test]
fn a_condition_that_nobody_else_waits_beside_stays_the_clients_own() {
    let condition = [("if-none-match", "\"1\"")];
    let mut crowd = Crowd::new(storable());
    crowd.confirms = true;
    for number in 0..5 {
        crowd.asks("/a", number * 1_000, &condition);
    }
    let crowd = crowd.run();
    assert_eq!(crowd.conditions, vec![Some("\"1\"".to_owned()); 5]);
    assert!(crowd.replies.values().all(|(waited_ms, reply)| *waited_ms <= 910 && reply.status == 304));
    let key = crowd.exchanges[0].0.lookup.as_ref().unwrap().place().clone();
    let mut node = crowd.host.node;
    let turn = node.fetches.begin(&key, "next", Patience::Any, NOW + 5_000);
    assert_eq!(turn, Turn::Lead, "a 304 to a client says nothing of what others get");

    // What is for one alone is asked for whole once, and then by each with its own condition.
    let mut crowd = Crowd::new(Fetch { answer: ok(200, &[("cache-control", "private")]), ..storable() });
    crowd.confirms = true;
    for number in 0..20 {
        crowd.asks("/a", number, &condition);
    }
    let crowd = crowd.run();
    let without = crowd.conditions.iter().filter(|condition| condition.is_none()).count();
    assert_eq!((crowd.forwarded, without), (20, 1));
    assert!(crowd.replies.values().all(|(waited_ms, _)| *waited_ms <= 2 * 910 + 300));
}

#[test]
fn a_condition_of_a_client_leads_where_the_entry_can_be_validated() {
    let headers = [("cache-control", "public, s-maxage=60, must-revalidate"), ("etag", "\"1\"")];
    let mut crowd = Crowd::new(Fetch { answer: ok(304, &headers), ..storable() });
    crowd.host.says("us-east-1", ok(200, &headers));
    crowd.host.get("/a");
    for number in 0..5 {
        crowd.asks("/a", 100_000 + number, &[("if-none-match", "\"1\"")]);
    }
    assert_eq!(crowd.run().forwarded, 1);
}

fn any_fetch() -> impl Strategy<Value = Fetch> {
    let answer = prop_oneof![
        4 => Just(storable().answer),
        1 => Just(ok(200, &[("cache-control", "private")])),
        1 => Just(ok(500, &[])),
        1 => Just(Err(ForwardFault::Timeout)),
    ];
    let storing = prop_oneof![
        4 => Just(Storing::Stores),
        1 => Just(Storing::CannotBeKept),
        1 => Just(Storing::Breaks),
        1 => Just(Storing::BreaksOnce),
        1 => Just(Storing::IsLost),
    ];
    (0u64..4_000, answer, 0u64..900, storing).prop_map(|(takes_ms, answer, storing_ms, storing)| Fetch {
        takes_ms,
        answer,
        storing_ms,
        storing,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn never_more_than_one_fetch_a_key_and_nobody_waits_for_ever(
        fetch in any_fetch(),
        asks in proptest::collection::vec((0u8..3, 0u64..8_000), 1..60),
    ) {
        let mut crowd = Crowd::new(fetch.clone());
        for (path, after_ms) in &asks {
            crowd.asks(&format!("/{path}"), *after_ms, &[]);
        }
        let crowd = crowd.run();
        prop_assert_eq!(crowd.replies.len(), asks.len());
        // Three attempts where regions fail.
        let longest = u64::from(COLLAPSE_WAIT_MS) + 300 + 3 * fetch.takes_ms + 10;
        for (waited_ms, reply) in crowd.replies.values() {
            prop_assert!(*waited_ms <= longest, "{} ms: {}", waited_ms, stages(reply));
            prop_assert_ne!(reply.status, 500 + u16::from(fetch.answer == ok(500, &[])) * 100);
        }
        if fetch.answer == storable().answer && fetch.storing == Storing::Stores {
            let mut paths: Vec<_> = asks.iter().map(|(path, _)| path).collect();
            paths.sort_unstable();
            paths.dedup();
            prop_assert_eq!(crowd.forwarded as usize, paths.len());
            prop_assert!(crowd.forwarded_at_once_max as usize <= paths.len());
        }
    }
}
