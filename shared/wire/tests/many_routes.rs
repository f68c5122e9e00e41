//! Rules with as many routes as a tenant may have: a push takes them in a time that grows with their number and not with its
//! square, and what edges could not hold, or not search, is refused in clear words.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use meridian_engine::limits::{ROUTE_WORK_MAX, TENANT_ROUTE_BYTES_MAX};
use meridian_engine::ruleset::{Ruleset, Target};
use meridian_wire::authored::{Compiled, File, Invalid, compile};
use meridian_wire::bundle::{Bundle, Rules};
use meridian_wire::limits::{FILE_DOCUMENTS_MAX, ROUTES_MAX, WARNINGS_MAX};
use serde_json::{Value, json};

/// As many as there may be; fewer where the compiler does not optimise, which takes tens of times longer.
const ROUTES: usize = if cfg!(debug_assertions) { 2_000 } else { ROUTES_MAX };
/// So long a push of them may take, beside whatever else the machine does.
const PUSH_MAX: Duration = Duration::from_secs(if cfg!(debug_assertions) { 60 } else { 10 });

const TENANT: &str = "apiVersion: meridian/v1\nkind: Tenant\nmetadata: {name: acme}\n\
                      spec: {homeRegion: us-east-1, allowedRegions: [us-east-1]}\n---\n\
                      apiVersion: meridian/v1\nkind: Domain\nmetadata: {name: acme.example}\nspec: {tenant: acme}\n";

fn acme() -> Target {
    Target::Tenant("acme".to_owned())
}

/// Compiles the tenant with routes whose matches these are.
fn push(matches: impl Iterator<Item = String>, auth: &str) -> Result<Compiled, Vec<Invalid>> {
    let matches: Vec<String> = matches.collect();
    let mut files = vec![File { path: "tenant.yaml".to_owned(), content: TENANT.to_owned() }];
    for (part, matches) in matches.chunks(FILE_DOCUMENTS_MAX).enumerate() {
        let mut content = String::new();
        for (at, matcher) in matches.iter().enumerate() {
            let number = part * FILE_DOCUMENTS_MAX + at;
            write!(
                content,
                "---\napiVersion: meridian/v1\nkind: Route\nmetadata: {{name: r{number}}}\n\
                 spec: {{match: {{{matcher}}}, auth: {{mode: {auth}}}}}\n"
            )
            .unwrap();
        }
        files.push(File { path: format!("routes-{part}.yaml"), content });
    }
    compile(&acme(), &files, None)
}

fn said(refused: &[Invalid]) -> String {
    refused.iter().map(|invalid| format!("{invalid}\n")).collect()
}

fn ruleset(compiled: &Compiled) -> &Ruleset {
    let Rules::Tenant(rules) = &compiled.rules else { panic!("a tenant's rules") };
    rules
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how long it takes is what is tested")]
fn all_routes_of_a_tenant_are_pushed_and_read_in_seconds() {
    let kinds: [fn(usize) -> String; 3] = [
        |number| format!("path: \"/v1/things-{number}/{{id}}\", methods: [GET]"),
        |number| format!("path: \"/v1/orders/{{id}}\", hosts: [h{number}.acme.example]"),
        |number| format!("path: \"/v1/{{kind}}/x{number}/**\", when: 'place.country == \"DE\"'"),
    ];
    for kind in kinds {
        let started = Instant::now();
        let compiled =
            push((0..ROUTES).map(kind), "anonymous").unwrap_or_else(|refused| panic!("{}", said(&refused)));
        assert!(started.elapsed() < PUSH_MAX, "{:?}", started.elapsed());
        assert_eq!(ruleset(&compiled).routes.len(), ROUTES);
        assert!(ruleset(&compiled).route_bytes() < TENANT_ROUTE_BYTES_MAX);
        let started = Instant::now();
        Bundle::parse(&compiled.bytes, &acme(), 1).unwrap();
        assert!(started.elapsed() < PUSH_MAX / 2, "{:?}", started.elapsed());
    }
}

#[test]
fn warnings_that_all_routes_share_are_not_told_of_each() {
    let compiled = push((0..WARNINGS_MAX * 2).map(|number| format!("path: /{number}")), "required").unwrap();
    assert_eq!(compiled.warnings.len(), WARNINGS_MAX);
    let last = &compiled.warnings.last().unwrap().what;
    assert!(last.ends_with("(100 more are not shown)"), "{last}");
}

#[test]
fn what_edges_could_not_hold_or_search_is_refused() {
    let alike = |count: usize| {
        push((0..count).map(|number| format!("path: /v1, headers: {{x-key: k{number}}}")), "anonymous")
    };
    // The beginning and the place of the path are looked at as well.
    assert!(alike(ROUTE_WORK_MAX - 2).is_ok());
    let refused = said(&alike(ROUTE_WORK_MAX - 1).expect_err("too many of one path"));
    assert!(refused.contains("one request for which 1025 routes and places"), "{refused}");
    assert!(refused.contains("(ROUTE_WORK_MAX)") && refused.lines().count() == 1, "{refused}");

    let hosts = |number: usize| -> String {
        let hosts: Vec<String> = (0..900).map(|host| format!("h{host}.r{number}.example")).collect();
        format!("path: /a/b/c/d/e/f/g/h/i/j, hosts: [{}]", hosts.join(", "))
    };
    let refused = said(&push((0..20).map(hosts), "anonymous").expect_err("too many places"));
    assert!(refused.contains("bytes in memory") && refused.contains("(TENANT_ROUTE_BYTES_MAX)"), "{refused}");

    let tenant =
        compile(&acme(), &[File { path: "tenant.yaml".to_owned(), content: TENANT.to_owned() }], None);
    let mut bundle: Value = serde_json::from_slice(&tenant.unwrap().bytes).unwrap();
    let route = |number: usize| {
        json!({
            "kind": "Route",
            "metadata": {"name": format!("r{number}")},
            "spec": {"match": {"path": format!("/{number}")}},
            "source": {"file": "", "line": 1},
        })
    };
    bundle["documents"].as_array_mut().unwrap().extend((0..=ROUTES_MAX).map(route));
    let refused = Bundle::parse(bundle.to_string().as_bytes(), &acme(), 1).expect_err("too many");
    assert!(refused.to_string().contains("more than 10000 documents of kind Route"), "{refused}");
}
