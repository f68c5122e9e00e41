//! What one client can do to the next one through the cache: the cases of `poison.yaml`, and what is of one client alone, by a
//! token or by a session, though the upstream says that it may be kept.

use anyhow::{Context, Result, ensure};
use meridian_tests::client::{Client, Response};
use meridian_tests::stack::Stack;
use serde::Deserialize;

use crate::EdgeTest;
use crate::recorder::Recorder;
use crate::surface::{exchange, with_recorder, with_recorder_and};

pub const TESTS: &[(&str, EdgeTest)] = &[
    ("keeps_nothing_poisoned", keeps_nothing_poisoned),
    ("takes_a_path_in_one_spelling", takes_a_path_in_one_spelling),
    ("keeps_nothing_of_a_token", keeps_nothing_of_a_token),
    ("keeps_a_session_apart_where_the_policy_says_so", keeps_a_session_apart_where_the_policy_says_so),
];

/// Bytes of a field that no edge takes.
const LONG_BYTES: usize = 70_000;

/// Policies whose key has less or more than the URL, and one that passes sessions by.
const POLICIES: &str = "---\n\
    apiVersion: meridian/v1\nkind: CachePolicy\nmetadata: {name: few}\nspec: {key: {query: [page]}}\n---\n\
    apiVersion: meridian/v1\nkind: CachePolicy\nmetadata: {name: none}\nspec: {key: {query: none}}\n---\n\
    apiVersion: meridian/v1\nkind: CachePolicy\nmetadata: {name: session}\nspec: {key: {cookies: [session]}}\n---\n\
    apiVersion: meridian/v1\nkind: CachePolicy\nmetadata: {name: past}\n\
    spec: {bypass: 'request.cookies[\"session\"] != null'}\n";

/// An account in spellings by which caches have taken it for a file of style, and whether one server alone can read them.
const ACCOUNTS: &[(&str, bool)] = &[
    ("/account/me.css", true),
    ("/account/me/x.css", true),
    ("/account/me;x.css", true),
    ("/account/me%3bx.css", true),
    ("/account/me;/x.css", true),
    ("/account/me?x.css", true),
    ("/account/me%3fx.css", true),
    ("/account/me%23x.css", true),
    ("/account/me%2fx.css", false),
    ("/account/me%5cx.css", false),
    ("/account/me%252fx.css", false),
    ("/account/me%0ax.css", false),
    ("/account/me%00x.css", false),
    ("/account/me/..;/x.css", false),
];

/// One case of `poison.yaml`, which says what each member means.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    about: String,
    path: String,
    #[serde(default)]
    query: String,
    #[serde(default)]
    fields: Vec<(String, String)>,
    #[serde(default)]
    provoke: bool,
    #[serde(default = "success")]
    status: Vec<u16>,
    #[serde(default)]
    next: String,
    #[serde(default)]
    kept: bool,
}

fn success() -> Vec<u16> {
    vec![200]
}

/// The rules: a route to the recorder below `/kept` for each policy, and `/mute`, through the cache all of them.
fn rules() -> String {
    let routes = [
        ("few", "/kept/few/**", "few"),
        ("none", "/kept/none/**", "none"),
        ("session", "/kept/session/**", "session"),
        ("past", "/kept/past/**", "past"),
        ("mute", "/mute/**", "kept"),
    ];
    let route = |(name, path, policy)| {
        format!(
            "---\napiVersion: meridian/v1\nkind: Route\nmetadata: {{name: {name}}}\n\
             spec: {{match: {{path: \"{path}\"}}, auth: {{mode: anonymous}}, cache: {policy}, upstream: recorder}}\n"
        )
    };
    POLICIES.to_owned() + &routes.map(route).concat()
}

fn keeps_nothing_poisoned(stack: &Stack, edge: &str) -> Result<()> {
    let cases: Vec<Case> = serde_saphyr::from_str(include_str!("poison.yaml")).context("in poison.yaml")?;
    ensure!(cases.len() > 20, "only {} cases", cases.len());
    with_recorder_and(stack, edge, &rules(), |url, _| {
        let mut wrong = Vec::new();
        for (number, case) in cases.iter().enumerate() {
            for status in &case.status {
                let path = format!("{}/{edge}-{number}-{status}", case.path);
                if let Err(error) = case.run(url, &path, *status) {
                    wrong.push(format!("{}, {status}: {error:#}", case.about));
                }
            }
        }
        ensure!(wrong.is_empty(), "{} cases are wrong:\n{}", wrong.len(), wrong.join("\n"));
        Ok(())
    })
}

impl Case {
    fn run(&self, url: &str, path: &str, status: u16) -> Result<()> {
        let long = "a".repeat(LONG_BYTES);
        let provoked = self.provoke.then(|| ("x-provoke".to_owned(), status.to_string()));
        let fields = self.fields.iter().chain(&provoked);
        let fields: String =
            fields.map(|(name, value)| format!("{name}: {}\r\n", value.replace("{long}", &long))).collect();
        let line = format!("GET {path}{} HTTP/1.1\r\n", self.query);
        let head = format!("{line}Host: acme.localhost\r\nConnection: close\r\n{fields}\r\n");
        let (statuses, _) = exchange(url, head.as_bytes())?;
        ensure!(statuses == [status], "the first one is answered {statuses:?}");
        let next = Client::new(url, "acme.localhost").get(&format!("{path}{}", self.next))?.expect(200)?;
        ensure!(!next.text().to_lowercase().contains("evil"), "the next one gets {}", next.text());
        ensure!(is_hit(&next) == self.kept, "the next one gets {:?}", next.headers);
        Ok(())
    }
}

fn is_hit(response: &Response) -> bool {
    response.header("cache-status").contains("hit")
}

/// A GET with a body, whose answer nobody else gets, and the other spellings of a path.
fn takes_a_path_in_one_spelling(stack: &Stack, edge: &str) -> Result<()> {
    with_recorder(stack, edge, |url, _| {
        let client = Client::new(url, "acme.localhost");
        let fat = format!("/kept/{edge}-fat");
        client.request("GET", &fat, Some(b"id=evil".to_vec()))?.expect(200)?;
        let (first, second) = (client.get(&fat)?, client.get(&fat)?);
        ensure!(first.text().contains("body of 0 bytes"), "{}", first.text());
        ensure!(is_hit(&second), "{:?}", second.headers);
        let spelt = client.get(&format!("/kept/%{:x}{}-fat", edge.as_bytes()[0], &edge[1..]))?;
        ensure!(spelt.text() == second.text(), "one path, two answers");
        for odd in ["%0d%0a", "%00", "..%2f", "%2e%2e/"] {
            let refused = client.get(&format!("/kept/{odd}{edge}-fat"))?;
            ensure!((400..500).contains(&refused.status), "{odd}: {}", refused.status);
        }
        Ok(())
    })
}

fn keeps_nothing_of_a_token(stack: &Stack, edge: &str) -> Result<()> {
    with_recorder(stack, edge, |url, recorder| {
        let client = Client::new(url, "acme.localhost");
        let alice = client.bearer(&stack.token("acme", "alice", "orders:read")?);
        for (path, passes) in ACCOUNTS {
            is_an_account((&alice, &client), recorder, path, *passes).with_context(|| (*path).to_owned())?;
        }
        Ok(())
    })
}

/// Whoever asks for it has it from the upstream, or nobody has: what is hers was not kept for a stranger.
fn is_an_account(
    (alice, stranger): (&Client, &Client),
    recorder: &Recorder,
    path: &str,
    passes: bool,
) -> Result<()> {
    recorder.take();
    let (hers, again, a_strangers) = (alice.get(path)?, alice.get(path)?, stranger.get(path)?);
    let reached = recorder.take().len();
    if !passes {
        for answer in [&hers, &again, &a_strangers] {
            ensure!((400..500).contains(&answer.status), "{} {}", answer.status, answer.text());
        }
        ensure!(reached == 0, "{reached} of what is refused reached the upstream");
        return Ok(());
    }
    for answer in [&hers, &again, &a_strangers] {
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    }
    ensure!(hers.text() != a_strangers.text() && again.text() != a_strangers.text(), "a stranger gets hers");
    ensure!(reached == 3, "{reached} of three requests reached the upstream");
    // Not because nothing of it may be kept: the stranger's was.
    ensure!(is_hit(&stranger.get(path)?), "the stranger's is not kept");
    Ok(())
}

/// The upstream gives what a session says a lifetime. Where the session is in the key each has its own, and where it goes past the
/// cache nothing of it is kept; what is for strangers is for all of them.
fn keeps_a_session_apart_where_the_policy_says_so(stack: &Stack, edge: &str) -> Result<()> {
    with_recorder_and(stack, edge, &rules(), |url, recorder| {
        let stranger = Client::new(url, "acme.localhost");
        let of = |session: &str| stranger.with("cookie", &format!("theme=dark; session={session}"));
        let (alice, eve) = (of("alice"), of("eve"));
        for (below, is_own, expected) in [("/kept/session", "hit", 3), ("/kept/past", "bypass", 4)] {
            for (path, _) in ACCOUNTS.iter().filter(|(_, passes)| *passes) {
                let path = path.replacen("/account", below, 1);
                recorder.take();
                let get = |client: &Client| client.get(&path)?.expect(200);
                let (hers, again) = (get(&alice)?, get(&alice)?);
                let (a_strangers, eves, anothers) = (get(&stranger)?, get(&eve)?, get(&stranger)?);
                let reached = recorder.take().len();
                let own = again.header("cache-status");
                ensure!(own.contains(is_own), "{path}: {own}");
                let is_hers = |other: &Response| [hers.text(), again.text()].contains(&other.text());
                ensure!(!is_hers(&a_strangers) && !is_hers(&eves), "{path}: somebody gets hers");
                ensure!(is_hit(&anothers) && anothers.text() == a_strangers.text(), "{path}: {anothers:?}");
                ensure!(reached == expected, "{path}: {reached} of five requests reached the upstream");
            }
        }
        Ok(())
    })
}
