//! Nodes that share what they fetch.

use super::*;

/// Nodes of one edge, what they share, and how often the issuer was asked.
struct Edge {
    nodes: Vec<JwtMemory>,
    shared: SharedKeys,
    fetches: u32,
}

impl Edge {
    fn new(nodes: usize) -> Self {
        let nodes = (0..nodes).map(|_| memory()).collect();
        Self { nodes, shared: SharedKeys::default(), fetches: 0 }
    }

    /// What a node says to a token with a key of this name, while the issuer answers with `set`.
    fn shows(&mut self, node: usize, kid: &str, set: Option<&[u8]>, now_ms: u64) -> String {
        let rules = ruleset(vec![with_url()]);
        let memory = &mut self.nodes[node];
        let mut claims = claims();
        claims["exp"] = json!(NOW_MS / 1000 + 86_400);
        let token = token(json!({"alg": "EdDSA", "kid": kid}), claims, &[9; 64]);
        loop {
            match memory.poll(&rules, &token, false, now_ms) {
                Verdict::NeedSignature(_, pending) => _ = memory.verified(*pending, true, now_ms),
                Verdict::Valid(_) => return "valid".to_owned(),
                Verdict::Refused(refusal) => return refusal.reason,
                Verdict::Wait => return "waits".to_owned(),
                Verdict::NeedKeys(ask) => match self.shared.turn(&ask, now_ms) {
                    SharedTurn::Take => {
                        memory.keys_fetched(&ask, FetchedKeys::Shared(self.shared.clone()), now_ms);
                    }
                    SharedTurn::Wait => return "waits for another node".to_owned(),
                    SharedTurn::Fetch => {
                        self.fetches += 1;
                        let answer = set.map(<[u8]>::to_vec).ok_or(FetchFault::Unreachable);
                        let shared = std::mem::take(&mut self.shared).asked(&ask, now_ms);
                        self.shared = shared.answered(&ask, &answer, now_ms);
                        memory.keys_fetched(&ask, answer, now_ms);
                    }
                },
            }
        }
    }

    fn new_node(&mut self) -> usize {
        self.nodes.push(memory());
        self.nodes.len() - 1
    }
}

const GONE: &str = "the issuer's keys can't be had";
const STRANGE: &str = "the issuer has no such key";

#[test]
fn one_node_fetches_and_the_others_take_it() {
    let (mut edge, set) = (Edge::new(20), key_set(&["k1"]));
    for node in 0..20 {
        assert_eq!(edge.shows(node, "k1", Some(&set), NOW_MS + node as u64), "valid");
    }
    assert_eq!(edge.fetches, 1);
}

#[test]
fn keys_that_nobody_knows_are_asked_for_once_an_interval_by_the_edge() {
    let (mut edge, old, new) = (Edge::new(10), key_set(&["k1"]), key_set(&["k1", "k2"]));
    assert_eq!(edge.shows(0, "k1", Some(&old), NOW_MS), "valid");
    for now_ms in NOW_MS..NOW_MS + 100 {
        assert_eq!(edge.shows((now_ms % 10) as usize, "evil", Some(&old), now_ms), STRANGE);
    }
    assert_eq!(edge.fetches, 1);
    for node in 0..10 {
        assert_eq!(edge.shows(node, "k2", Some(&new), NOW_MS + INTERVAL_MS), "valid", "rotated");
    }
    assert_eq!(edge.fetches, 2);
}

#[test]
fn a_new_node_serves_while_the_issuer_is_down_until_the_set_is_stale() {
    let (mut edge, set) = (Edge::new(1), key_set(&["k1"]));
    assert_eq!(edge.shows(0, "k1", Some(&set), NOW_MS), "valid");
    let down_ms = NOW_MS + INTERVAL_MS;
    assert_eq!(edge.shows(0, "evil", None, down_ms), STRANGE);
    assert_eq!(edge.fetches, 2);
    for _ in 0..10 {
        let node = edge.new_node();
        assert_eq!(edge.shows(node, "k1", None, down_ms + 1), "valid");
        assert_eq!(edge.shows(node, "evil", None, down_ms + 1), STRANGE);
    }
    assert_eq!(edge.fetches, 2, "the pause is the edge's");
    let node = edge.new_node();
    assert_eq!(edge.shows(node, "k1", None, NOW_MS + STALE_MS - 1), "valid");
    for _ in 0..10 {
        let node = edge.new_node();
        assert_eq!(edge.shows(node, "k1", None, NOW_MS + STALE_MS), GONE);
    }
    assert_eq!(edge.fetches, 3, "asked anew, and once");
}

#[test]
fn failures_of_one_node_keep_the_others_from_asking() {
    let mut edge = Edge::new(1);
    assert_eq!(edge.shows(0, "k1", None, NOW_MS), GONE);
    for late_ms in 0..KEY_FETCH_RETRY_MS {
        let node = edge.new_node();
        assert_eq!(edge.shows(node, "k1", None, NOW_MS + late_ms), GONE);
    }
    assert_eq!(edge.fetches, 1);
    let node = edge.new_node();
    let set = key_set(&["k1"]);
    assert_eq!(edge.shows(node, "k1", Some(&set), NOW_MS + KEY_FETCH_RETRY_MS), "valid");
}

#[test]
fn a_key_that_another_node_saw_withdrawn_takes_its_tokens_with_it() {
    let mut edge = Edge::new(2);
    let (both, one) = (key_set(&["k1", "k2"]), key_set(&["k2"]));
    for node in [0, 1] {
        assert_eq!(edge.shows(node, "k1", Some(&both), NOW_MS), "valid");
    }
    let later_ms = NOW_MS + INTERVAL_MS;
    assert_eq!(edge.shows(0, "evil", Some(&one), later_ms), STRANGE);
    assert_eq!(edge.shows(1, "evil", None, later_ms), STRANGE);
    assert_eq!(edge.shows(1, "k1", None, later_ms), STRANGE);
    assert_eq!(edge.fetches, 2);
}

#[test]
fn a_fetch_of_another_node_is_waited_for_until_it_is_lost() {
    let mut edge = Edge::new(1);
    let ask = ask_for("https://issuer.example/jwks");
    edge.shared = SharedKeys::default().asked(&ask, NOW_MS);
    assert_eq!(edge.shared.turn(&ask, NOW_MS + KEY_FETCH_LOST_MS - 1), SharedTurn::Wait);
    assert_eq!(edge.shared.turn(&ask, NOW_MS + KEY_FETCH_LOST_MS), SharedTurn::Fetch);
    assert_eq!(edge.shared.turn(&ask, NOW_MS - 1), SharedTurn::Fetch, "asked in the future");
    assert_eq!(edge.shared.turn(&ask_for("https://issuer.example/new"), NOW_MS), SharedTurn::Fetch);
}

#[test]
fn what_is_shared_is_trusted_no_more_than_an_answer() {
    let set = key_set(&["k1"]);
    let url = "https://issuer.example/jwks";
    let check = |what: &str, shared: SharedKeys| {
        let mut edge = Edge { shared, ..Edge::new(1) };
        assert_eq!(edge.shows(0, "k1", Some(&set), NOW_MS), "valid", "{what}");
        assert_eq!(edge.fetches, 1, "{what}");
    };
    let good = SharedKeys {
        url: url.to_owned(),
        answered_ms: NOW_MS - 1,
        content_ms: NOW_MS - 1,
        content: key_set(&["k1"]),
        ..SharedKeys::default()
    };
    let mut edge = Edge { shared: good.clone(), ..Edge::new(1) };
    assert_eq!((edge.shows(0, "k1", None, NOW_MS).as_str(), edge.fetches), ("valid", 0));
    check("garbage", SharedKeys { content: b"oops".to_vec(), ..good.clone() });
    check("another URL's", SharedKeys { url: "https://evil.example/".to_owned(), ..good.clone() });
    check("from the future", SharedKeys { answered_ms: NOW_MS + 1, content_ms: NOW_MS + 1, ..good.clone() });
    check("keys from the future", SharedKeys { content_ms: u64::MAX, ..good.clone() });
    check("stale", SharedKeys { content_ms: NOW_MS - STALE_MS, ..good });
}
