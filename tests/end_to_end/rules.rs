//! The rule path: documents pushed, seen by both edges, explained, rolled back.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use meridian_tests::stack::{Stack, eventually};
use meridian_wire::limits::{FILE_DOCUMENTS_MAX, ROUTES_MAX};
use serde_json::Value;

use crate::bad_bundles::roll_back;
use crate::{EDGES, StackTest, upstream};

pub const TESTS: &[(&str, StackTest)] = &[
    ("a_push_is_seen_by_both_edges_and_rolled_back", a_push_is_seen_by_both_edges_and_rolled_back),
    ("a_push_on_an_old_parent_is_refused", a_push_on_an_old_parent_is_refused),
    ("a_wrong_document_is_refused_with_its_place", a_wrong_document_is_refused_with_its_place),
    ("a_decision_is_explained_by_its_id", a_decision_is_explained_by_its_id),
    ("a_new_tenant_is_served_at_once", a_new_tenant_is_served_at_once),
    ("a_list_of_a_million_networks_is_for_both_edges", a_list_of_a_million_networks_is_for_both_edges),
    ("as_many_routes_as_may_be_are_for_both_edges", as_many_routes_as_may_be_are_for_both_edges),
    ("a_wide_route_reaches_nothing_but_data", a_wide_route_reaches_nothing_but_data),
    ("an_upstream_of_the_platform_is_for_those_it_names", an_upstream_of_the_platform_is_for_those_it_names),
];

/// How long both edges may take to see a push or a rollback.
const SEEN_MAX: Duration = Duration::from_secs(2);
/// Requests at once that meet every instance of an edge, and how often all of them have to be decided by new rules.
const CROWD: usize = 48;
const CROWDS: usize = 3;
/// How long the push of as many routes as may be may take, both checks of the command line and of the origin in it.
const MANY_PUSHED_MAX: Duration = Duration::from_secs(20);
/// How long every instance of an edge may take to load rules of some megabytes.
const LOADED_MAX: Duration = Duration::from_secs(10);

pub fn head(stack: &Stack) -> Result<String> {
    head_of(stack, "tenant:acme")
}

fn head_of(stack: &Stack, target: &str) -> Result<String> {
    let output = stack.meridian(&["rules", "list", "--target", target, "--json"])?;
    ensure!(output.code == 0, "{}", output.stderr);
    let releases: Value = serde_json::from_str(&output.stdout)?;
    let newest = releases["releases"].as_array().and_then(|all| all.first()).context("a release")?;
    Ok(newest["version"].as_str().context("a release has a version")?.to_owned())
}

/// Pushes the demo's regions, their document changed like this, and takes that back after the test.
pub fn with_platform(
    stack: &Stack,
    change: impl FnOnce(String) -> String,
    test: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let before = head_of(stack, "platform")?;
    let folder = stack.data().join("test-rules").join("platform");
    std::fs::create_dir_all(&folder)?;
    let rules = std::fs::read_to_string(stack.data().join("demo").join("platform").join("regions.yaml"))?;
    std::fs::write(folder.join("regions.yaml"), change(rules))?;
    let folder = folder.to_str().context("a UTF-8 path")?;
    let pushed = stack.meridian(&["rules", "push", "--target", "platform", folder])?;
    ensure!(pushed.code == 0, "{}{}", pushed.stdout, pushed.stderr);
    let outcome = test();
    let back = stack.meridian(&["rules", "rollback", "--target", "platform", "--to", &before])?;
    ensure!(back.code == 0, "{}{}", back.stdout, back.stderr);
    outcome
}

/// The demo rules as they were pushed, in a folder of this test's own.
pub fn demo_rules(stack: &Stack, name: &str) -> Result<PathBuf> {
    let folder = stack.data().join("test-rules").join(name);
    std::fs::create_dir_all(&folder)?;
    for entry in std::fs::read_dir(stack.data().join("demo").join("acme"))? {
        let entry = entry?;
        std::fs::copy(entry.path(), folder.join(entry.file_name()))?;
    }
    Ok(folder)
}

pub fn push(stack: &Stack, folder: &Path, extra: &[&str]) -> Result<meridian_tests::stack::Output> {
    let folder = folder.to_str().context("a UTF-8 path")?;
    let mut arguments = vec!["rules", "push", "--target", "tenant:acme", folder];
    arguments.extend(extra);
    stack.meridian(&arguments)
}

/// Pushes a folder of rules that is right, and waits until every instance of both edges decides by them: while one of its
/// requests asks what is new, those beside it are decided by what the instance has.
pub fn push_for_all(stack: &Stack, folder: &Path) -> Result<()> {
    let output = push(stack, folder, &[])?;
    ensure!(output.code == 0, "{}{}", output.stdout, output.stderr);
    let version = head(stack)?;
    for edge in EDGES {
        let client = stack.edge(edge, "acme")?;
        for _ in 0..CROWDS {
            eventually(LOADED_MAX, || {
                let ask =
                    || -> Result<String> { Ok(client.get("/nowhere")?.header("meridian-bundle").to_owned()) };
                std::thread::scope(|scope| {
                    let crowd: Vec<_> = (0..CROWD).map(|_| scope.spawn(ask)).collect();
                    crowd.into_iter().try_for_each(|one| {
                        let seen = one.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
                        ensure!(seen == version, "{edge} decides by {seen}, pushed was {version}");
                        Ok(())
                    })
                })
            })?;
        }
    }
    Ok(())
}

fn seen(stack: &Stack, edge: &str) -> Result<String> {
    let up = stack.up()?;
    let reply = stack
        .edge(edge, "acme")?
        .bearer(&up.tenant("acme")?.tokens["reader"])
        .get("/v1/whoami")?
        .expect(200)?;
    Ok(reply.header("x-pushed").to_owned())
}

fn a_push_is_seen_by_both_edges_and_rolled_back(stack: &Stack) -> Result<()> {
    let before = head(stack)?;
    let folder = demo_rules(stack, "push")?;
    let transform = "apiVersion: meridian/v1\nkind: Transform\nmetadata:\n  name: pushed\nspec:\n  response:\n    set:\n      x-pushed: \"yes\"\n";
    std::fs::write(folder.join("pushed.yaml"), transform)?;
    let routes = std::fs::read_to_string(folder.join("routes.yaml"))?;
    let routes = routes.replace("transforms: [", "transforms: [pushed, ");
    ensure!(routes.contains("pushed"), "the demo's routes have transforms to add to");
    std::fs::write(folder.join("routes.yaml"), routes)?;

    let output = push(stack, &folder, &["--json"])?;
    ensure!(output.code == 0, "{}{}", output.stdout, output.stderr);
    let pushed: Value = serde_json::from_str(&output.stdout)?;
    for edge in EDGES {
        let took = eventually(SEEN_MAX, || {
            ensure!(seen(stack, edge)? == "yes", "not seen by {edge}");
            Ok(())
        })?;
        println!("{edge} saw the push after {took:?}");
    }
    ensure!(head(stack)? == pushed["release"]["version"].as_str().unwrap_or_default(), "{pushed}");

    let output =
        stack.meridian(&["rules", "rollback", "--target", "tenant:acme", "--to", &before, "--json"])?;
    ensure!(output.code == 0, "{}{}", output.stdout, output.stderr);
    for edge in EDGES {
        eventually(SEEN_MAX, || {
            ensure!(seen(stack, edge)?.is_empty(), "{edge} still serves what was rolled back");
            Ok(())
        })?;
    }
    Ok(())
}

fn a_push_on_an_old_parent_is_refused(stack: &Stack) -> Result<()> {
    let folder = demo_rules(stack, "old-parent")?;
    let output = push(stack, &folder, &["--parent", "0123456789abcdef"])?;
    ensure!(output.code != 0, "a push on a parent that is not the head was taken: {}", output.stdout);
    ensure!(
        output.stderr.contains("0123456789abcdef") && output.stderr.contains(&head(stack)?),
        "{}",
        output.stderr
    );
    Ok(())
}

fn a_wrong_document_is_refused_with_its_place(stack: &Stack) -> Result<()> {
    let before = head(stack)?;
    let folder = demo_rules(stack, "wrong")?;
    std::fs::write(
        folder.join("wrong.yaml"),
        "apiVersion: meridian/v1\nkind: RateLimit\nmetadata:\n  name: wrong\nspec:\n  key: [subject]\n  qouta: 5\n  window: 1m\n",
    )?;
    let output = push(stack, &folder, &[])?;
    ensure!(output.code == 1, "exit code {}", output.code);
    for expected in ["wrong.yaml:7", "qouta", "quota"] {
        ensure!(output.stderr.contains(expected), "no {expected} in: {}", output.stderr);
    }
    ensure!(head(stack)? == before, "a refused push moved the target");
    Ok(())
}

fn a_decision_is_explained_by_its_id(stack: &Stack) -> Result<()> {
    for edge in EDGES {
        let reply = stack.edge(edge, "acme")?.get("/v1/whoami")?.expect(401)?;
        let decision = reply.header("meridian-decision").to_owned();
        eventually(Duration::from_secs(10), || {
            let output = stack.meridian(&["rules", "explain", &decision])?;
            ensure!(output.code == 0, "{}{}", output.stdout, output.stderr);
            ensure!(
                output.stdout.contains("auth") && output.stdout.contains("routes.yaml:"),
                "{}",
                output.stdout
            );
            Ok(())
        })
        .with_context(|| format!("decision of {edge}"))?;
    }
    Ok(())
}

fn a_new_tenant_is_served_at_once(stack: &Stack) -> Result<()> {
    let create = ["tenant", "create", "initech", "--name", "Initech", "--home-region", "eu-west-1", "--json"];
    let output = stack.meridian(&create)?;
    ensure!(output.code == 0, "{}{}", output.stdout, output.stderr);
    let output = stack.meridian(&["domain", "add", "initech.localhost", "--tenant", "initech", "--json"])?;
    ensure!(output.code == 0, "{}{}", output.stdout, output.stderr);
    let listed = stack.meridian(&["tenant", "list", "--json"])?;
    ensure!(listed.stdout.contains("initech") && listed.stdout.contains("acme"), "{}", listed.stdout);
    let up = stack.up()?;
    for edge in EDGES {
        let client = meridian_tests::client::Client::new(&up.edges[edge], "initech.localhost");
        // It has no route yet, but its host is known: 404, no longer 421.
        eventually(Duration::from_secs(5), || client.get("/")?.expect(404).map(drop))?;
    }
    Ok(())
}

/// Rules that let everything through still give a client nothing that is meant for edges and operators.
fn a_wide_route_reaches_nothing_but_data(stack: &Stack) -> Result<()> {
    let before = head(stack)?;
    let folder = demo_rules(stack, "wide")?;
    let route = "apiVersion: meridian/v1\nkind: Route\nmetadata:\n  name: wide\nspec:\n  match: {path: \"/**\"}\n  auth: {mode: anonymous}\n  transforms: [wide]\n---\napiVersion: meridian/v1\nkind: Transform\nmetadata:\n  name: wide\nspec:\n  response: {set: {x-wide: \"yes\"}}\n";
    std::fs::write(folder.join("wide.yaml"), route)?;
    std::fs::remove_file(folder.join("tests.yaml"))?;
    let output = push(stack, &folder, &[])?;
    ensure!(output.code == 0, "{}{}", output.stdout, output.stderr);
    for edge in EDGES {
        let client = stack.edge(edge, "acme")?;
        eventually(SEEN_MAX, || {
            let wide = client.get("/nowhere")?;
            ensure!(wide.header("x-wide") == "yes", "{} {:?}", wide.status, wide.headers);
            Ok(())
        })?;
        for path in ["/edge/v1/bundles/tenant:globex", "/edge/v1/hosts/globex.localhost"] {
            let refused = client.get(path)?;
            ensure!(refused.status == 404, "{path}: {} {}", refused.status, refused.text());
        }
        for path in ["/control/v1/tenants", "/replication/v1/stream"] {
            let refused = client.get(path)?;
            ensure!((400..500).contains(&refused.status), "{path}: {} {}", refused.status, refused.text());
        }
    }
    roll_back(stack, &before)
}

fn an_upstream_of_the_platform_is_for_those_it_names(stack: &Stack) -> Result<()> {
    let (lent, before) = (upstream::start()?, head(stack)?);
    let folder = demo_rules(stack, "lent")?;
    let route = "apiVersion: meridian/v1\nkind: Route\nmetadata: {name: lent}\n\
                 spec: {match: {path: /lent}, auth: {mode: anonymous}, upstream: \"platform:lent\"}\n";
    std::fs::write(folder.join("lent.yaml"), route)?;
    let is_refused = || -> Result<()> {
        let refused = push(stack, &folder, &[])?;
        let why = "an upstream that the platform has for this tenant";
        ensure!(refused.code != 0 && refused.stderr.contains(why), "{}{}", refused.stdout, refused.stderr);
        Ok(())
    };
    let lend = |rules: String, tenants: &str| {
        rules
            + &format!(
                "---\napiVersion: meridian/v1\nkind: Upstream\nmetadata: {{name: lent}}\n\
                 spec: {{regions: {{us-east-1: \"{lent}\"}}, tenants: {tenants}}}\n"
            )
    };
    let answers = |status: u16| {
        EDGES.into_iter().try_for_each(|edge| -> Result<()> {
            let client = stack.edge(edge, "acme")?;
            eventually(LOADED_MAX, || client.get("/lent")?.expect(status).map(drop)).map(drop)
        })
    };
    is_refused()?;
    with_platform(stack, |rules| lend(rules, "[globex]"), is_refused)?;
    let served = with_platform(
        stack,
        |rules| lend(rules, "all"),
        || {
            let output = push(stack, &folder, &[])?;
            ensure!(output.code == 0, "{}{}", output.stdout, output.stderr);
            answers(200)
        },
    );
    let outcome = served.and_then(|()| answers(503));
    let named = head(stack)?;
    roll_back(stack, &before)?;
    outcome?;
    // Going back to rules that name it goes through, and says what is missing.
    let back = stack.meridian(&["rules", "rollback", "--target", "tenant:acme", "--to", &named])?;
    roll_back(stack, &before)?;
    let why = "an upstream that the platform has for this tenant";
    ensure!(back.code == 0 && back.stderr.contains(why), "{}{}", back.stdout, back.stderr);
    Ok(())
}

fn a_list_of_a_million_networks_is_for_both_edges(stack: &Stack) -> Result<()> {
    let before = head(stack)?;
    let folder = demo_rules(stack, "million")?;
    // Every other /24 of 10.0.0.0/8 and what follows it, addresses of no other test.
    let network = |number: u32| Ipv4Addr::from_bits((10 << 24) + (number << 8));
    let list: Vec<String> = (0..1_000_000).map(|number| format!("{}/25\n", network(number))).collect();
    std::fs::write(folder.join("million.netset"), list.concat())?;
    let rules = "apiVersion: meridian/v1\nkind: Security\nmetadata: {name: million}\n\
                 spec: {denyFrom: [million.netset], everyRequest: true}\n";
    std::fs::write(folder.join("million.yaml"), rules)?;
    let output = push(stack, &folder, &[])?;
    ensure!(output.code == 0, "{}{}", output.stdout, output.stderr);
    let up = stack.up()?;
    for edge in EDGES {
        let client = stack.edge(edge, "acme")?.bearer(&up.tenant("acme")?.tokens["reader"]);
        let status = |address: Ipv4Addr| -> Result<u16> {
            Ok(client.from(&address.to_string()).get("/v1/whoami")?.status)
        };
        for number in [0, 77_777, 999_999] {
            let address = network(number).to_bits();
            eventually(LOADED_MAX, || {
                let (within, beside) =
                    (status(Ipv4Addr::from_bits(address + 7))?, status(Ipv4Addr::from_bits(address + 200))?);
                ensure!((within, beside) == (403, 200), "{edge} {number}: {within} within, {beside} beside");
                Ok(())
            })?;
        }
    }
    roll_back(stack, &before)
}

/// Ten thousand routes, those of the demo among them. None of them is open, so that 401 tells those that there are from 404.
fn as_many_routes_as_may_be_are_for_both_edges(stack: &Stack) -> Result<()> {
    let before = head(stack)?;
    let folder = demo_rules(stack, "many-routes")?;
    let demo = std::fs::read_to_string(folder.join("routes.yaml"))?;
    let count = ROUTES_MAX - demo.matches("kind: Route\n").count();
    let numbers: Vec<usize> = (0..count).collect();
    for (part, numbers) in numbers.chunks(FILE_DOCUMENTS_MAX).enumerate() {
        let route = |number: &usize| {
            format!(
                "---\napiVersion: meridian/v1\nkind: Route\nmetadata: {{name: many-{number}}}\n\
                 spec: {{match: {{path: \"/many/{number}/{{id}}\", methods: [GET]}}}}\n"
            )
        };
        std::fs::write(
            folder.join(format!("many-{part}.yaml")),
            numbers.iter().map(route).collect::<String>(),
        )?;
    }
    let started = Instant::now();
    let output = push(stack, &folder, &[])?;
    ensure!(output.code == 0, "{}{}", output.stdout, output.stderr);
    println!("a push of {ROUTES_MAX} routes took {:?}", started.elapsed());
    ensure!(started.elapsed() < MANY_PUSHED_MAX, "the push took {:?}", started.elapsed());
    for edge in EDGES {
        let client = stack.edge(edge, "acme")?;
        for (number, expected) in [(0, 401), (count - 1, 401), (count, 404)] {
            eventually(LOADED_MAX, || {
                let status = client.get(&format!("/many/{number}/x"))?.status;
                ensure!(status == expected, "{edge}: {status} for route {number}, expected {expected}");
                Ok(())
            })?;
        }
    }
    std::fs::write(
        folder.join("one-more.yaml"),
        "apiVersion: meridian/v1\nkind: Route\nmetadata: {name: one-more}\nspec: {match: {path: /one-more}}\n",
    )?;
    let output = push(stack, &folder, &[])?;
    ensure!(output.code == 1, "one route too many was taken: {}", output.stdout);
    ensure!(output.stderr.contains("more than 10000 documents of kind Route"), "{}", output.stderr);
    roll_back(stack, &before)
}
