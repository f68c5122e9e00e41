//! Documents as files: what must be refused and how that is said, the published schemas, the demo's rules.
//! `MERIDIAN_BLESS=1` writes the expected files anew; read the difference before it is committed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use meridian_engine::policy::security::RULES;
use meridian_engine::ruleset::{Platform, Target};
use meridian_wire::authored::{self, Change, File, KINDS, compile, diff, run_tests, schemas};
use meridian_wire::bundle::{Bundle, Rules};
use meridian_wire::document::{Body, Document, VerificationSpec};

#[expect(clippy::disallowed_methods, reason = "whoever runs the tests says whether they may write")]
fn bless() -> bool {
    std::env::var_os("MERIDIAN_BLESS").is_some()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Compares a file with what it should hold, or writes it.
fn golden(path: &Path, content: &str) {
    if bless() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let stored = fs::read_to_string(path).unwrap_or_default();
    let same = stored.lines().zip(content.lines()).take_while(|(stored, content)| stored == content).count();
    let line = same + 1;
    assert!(
        stored == content,
        "{}:{line} is not up to date: look, then run with MERIDIAN_BLESS=1",
        path.display()
    );
}

fn generated() -> Vec<Document> {
    serde_json::from_str(
        r#"[{"kind":"Tenant","spec":{"homeRegion":"us-east-1","allowedRegions":["us-east-1","eu-west-1"]},
             "metadata":{"name":"acme"},"source":{"file":"(control plane)","line":1}},
            {"kind":"Domain","spec":{"tenant":"acme"},"metadata":{"name":"acme.example"},"source":{"file":"(control plane)","line":1}}]"#,
    )
    .unwrap()
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    files
}

#[test]
fn what_must_be_refused_is_refused_in_these_words() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/refused");
    let cases = yaml_files(&folder);
    let mut kinds = BTreeSet::new();
    for case in cases {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let content = fs::read_to_string(&case).unwrap();
        // What the control plane generates stands in the place of a tenant's own `Tenant` and `Domain`.
        let (target, generated) = match name.split_once('-') {
            Some(("platform", _)) => (Target::Platform, Some(Vec::new())),
            Some(("offline", _)) => (Target::Tenant("acme".to_owned()), None),
            _ => (Target::Tenant("acme".to_owned()), Some(generated())),
        };
        kinds.extend(content.lines().filter_map(|line| line.strip_prefix("kind: ")).map(str::to_owned));
        let refused = compile(&target, &[File { path: name.clone(), content }], generated.as_deref())
            .expect_err(&format!("{name} is refused"));
        let text: String = refused.iter().map(|invalid| format!("{invalid}\n")).collect();
        golden(&case.with_extension("txt"), &text);
    }
    for kind in KINDS {
        assert!(kinds.contains(kind), "no {kind} is refused");
    }
}

#[test]
fn what_is_odd_is_accepted_and_told_in_these_words() {
    for case in yaml_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/odd")) {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let content = fs::read_to_string(&case).unwrap();
        let target = Target::Tenant("acme".to_owned());
        let compiled = compile(&target, &[File { path: name.clone(), content }], Some(&generated()))
            .unwrap_or_else(|refused| panic!("{name}: {refused:#?}"));
        let text: String = compiled.warnings.iter().map(|warning| format!("{warning}\n")).collect();
        golden(&case.with_extension("txt"), &text);
    }
}

#[test]
fn the_published_schemas_are_those_of_the_types() {
    let folder = root().join("infra/schema");
    let schemas = schemas();
    for (name, schema) in &schemas {
        golden(&folder.join(name), &(serde_json::to_string_pretty(schema).unwrap() + "\n"));
    }
    let published = fs::read_dir(&folder).unwrap().count();
    assert_eq!(published, schemas.len(), "nothing else is published");
}

#[test]
fn every_injection_rule_is_told_where_it_can_be_excluded() {
    let (_, schema) = schemas().into_iter().find(|(name, _)| name == "security.json").unwrap();
    let told =
        schema["$defs"]["ExclusionSpec"]["properties"]["rule"]["description"].as_str().unwrap().to_owned();
    let levels: Vec<String> = (1..=4)
        .map(|level| {
            let rules = RULES.into_iter().flatten().filter(|rule| rule.paranoia == level);
            let rules: Vec<String> = rules.map(|rule| format!("`{}` {}", rule.id, rule.score)).collect();
            format!("- {level}: {}", rules.join(", "))
        })
        .collect();
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let told = told.split_once("score:").unwrap().1;
    assert_eq!(words(told), words(&levels.join("\n")), "should be\n{}", levels.join("\n"));
}

fn demo(folder: &str) -> Vec<File> {
    let key = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";
    let file = |path: PathBuf| {
        let content = fs::read_to_string(&path)
            .unwrap()
            .replace("${ACME_ISSUER_X}", key)
            .replace("${GLOBEX_ISSUER_X}", key)
            .replace("${ORIGIN_US_EAST_1}", "http://127.0.0.1:17101")
            .replace("${ORIGIN_EU_WEST_1}", "http://127.0.0.1:17102")
            .replace("${ORIGIN_AP_SOUTHEAST_1}", "http://127.0.0.1:17103");
        File { path: path.file_name().unwrap().to_string_lossy().into_owned(), content }
    };
    yaml_files(&root().join("infra/demo").join(folder)).into_iter().map(file).collect()
}

fn accepted(target: &Target, folder: &str) -> authored::Compiled {
    compile(target, &demo(folder), None).unwrap_or_else(|refused| {
        let text: Vec<String> = refused.iter().map(ToString::to_string).collect();
        panic!("{}", text.join("\n"))
    })
}

fn platform() -> Platform {
    match accepted(&Target::Platform, "platform").rules {
        Rules::Platform(platform) => platform,
        Rules::Tenant(_) => panic!("the platform"),
    }
}

#[test]
fn the_rules_of_the_demo_hold_and_pass_their_tests() {
    for slug in ["acme", "globex"] {
        let target = Target::Tenant(slug.to_owned());
        let compiled = accepted(&target, slug);
        assert_eq!(compiled.warnings, []);
        let Rules::Tenant(ruleset) = &compiled.rules else { panic!("a tenant's rules") };
        let reports = run_tests(ruleset, &platform(), &compiled.tests);
        let failed: Vec<_> = reports.iter().filter(|report| !report.passed()).collect();
        assert!(!reports.is_empty() && failed.is_empty(), "{failed:#?}");
        let parsed =
            Bundle::parse(&compiled.bytes, &target, 3).expect("what is pushed is what an edge reads");
        assert_eq!(parsed.version().hash, compiled.version);
    }
}

#[test]
fn tests_of_rules_have_bodies() {
    let rules = r#"
apiVersion: meridian/v1
kind: Security
metadata: {name: bodies}
spec: {injection: {bodyBytes: 1024}}
---
apiVersion: meridian/v1
kind: Route
metadata: {name: posts}
spec: {match: {path: /posts, methods: [POST]}, auth: {mode: anonymous}, security: [bodies]}
---
apiVersion: meridian/v1
kind: RuleTest
metadata: {name: an attack}
spec:
  request:
    method: POST
    path: /posts
    headers: {content-type: application/json}
    body: '{"name": "x'' or 1=1--"}'
  expect: {status: 403}
---
apiVersion: meridian/v1
kind: RuleTest
metadata: {name: an apostrophe}
spec:
  request:
    method: POST
    path: /posts
    headers: {content-type: application/json}
    body: '{"name": "O''Brien"}'
  expect: {status: 200, route: posts}
"#;
    let target = Target::Tenant("acme".to_owned());
    let mut files: Vec<File> = demo("acme").into_iter().filter(|file| file.path == "tenant.yaml").collect();
    files.push(File { path: "bodies.yaml".to_owned(), content: rules.to_owned() });
    let compiled = compile(&target, &files, None).expect("accepted");
    let Rules::Tenant(ruleset) = &compiled.rules else { panic!("a tenant's rules") };
    let reports = run_tests(ruleset, &platform(), &compiled.tests);
    assert_eq!(reports.len(), 2);
    for report in reports {
        assert_eq!(report.failures, [], "{}", report.name);
    }
}

/// Rules are pushed and tried before the first hostname is verified.
#[test]
fn rules_are_tried_at_a_hostname_that_is_not_verified_yet() {
    let rules = "apiVersion: meridian/v1
kind: Route
metadata: {name: open}
spec: {match: {path: /open}, auth: {mode: anonymous}}
---
apiVersion: meridian/v1
kind: RuleTest
metadata: {name: open to all}
spec:
  request: {path: /open}
  expect: {status: 200, route: open}
";
    let mut generated = generated();
    for document in &mut generated {
        if let Body::Domain(spec) = &mut document.body {
            spec.verification = VerificationSpec::Pending;
        }
    }
    let target = Target::Tenant("acme".to_owned());
    let files = [File { path: "rules.yaml".to_owned(), content: rules.to_owned() }];
    let compiled = compile(&target, &files, Some(&generated)).expect("accepted");
    let Rules::Tenant(ruleset) = &compiled.rules else { panic!("a tenant's rules") };
    assert_eq!((ruleset.tenant.domains.len(), ruleset.tenant.unverified.len()), (0, 1));
    let reports = run_tests(ruleset, &platform(), &compiled.tests);
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].failures, []);
}

#[test]
fn a_tenant_that_the_control_plane_has_otherwise_is_warned_of() {
    let target = Target::Tenant("acme".to_owned());
    let warned = |allowed: &str| {
        let content = format!(
            "apiVersion: meridian/v1\nkind: Tenant\nmetadata: {{name: acme}}\nspec: {{homeRegion: us-east-1, allowedRegions: {allowed}}}\n"
        );
        let files = [File { path: "tenant.yaml".to_owned(), content }];
        let warnings = compile(&target, &files, Some(&generated())).expect("accepted").warnings;
        warnings.iter().any(|warning| warning.what.contains("the control plane's counts"))
    };
    assert!(!warned("[us-east-1, eu-west-1]") && !warned("[eu-west-1, us-east-1]"));
    assert!(warned("[us-east-1]"));
}

#[test]
fn the_order_of_files_does_not_matter() {
    let target = Target::Tenant("acme".to_owned());
    let mut files = demo("acme");
    let first = compile(&target, &files, None).expect("accepted").version;
    files.reverse();
    assert_eq!(compile(&target, &files, None).expect("accepted").version, first);
}

#[test]
fn a_diff_says_what_changed_and_who_answers_now() {
    let target = Target::Tenant("acme".to_owned());
    let before = compile(&target, &demo("acme"), None).expect("accepted");
    assert!(diff(&before.documents, &before.documents).is_empty());
    let mut files = demo("acme");
    for file in &mut files {
        file.content = file.content.replace("quota: 300", "quota: 200").replace("name: whoami", "name: who");
    }
    let after = compile(&target, &files, None).expect("accepted");
    let diff = diff(&before.documents, &after.documents);
    assert!(diff.changes.contains(&Change::Added { kind: "Route".into(), name: "who".into() }));
    assert!(diff.changes.contains(&Change::Removed { kind: "Route".into(), name: "whoami".into() }));
    let quota = diff.changes.iter().find_map(|change| match change {
        Change::Changed { kind, fields, .. } if kind == "RateLimit" => fields.first(),
        _ => None,
    });
    assert_eq!(quota.expect("changed").path, "spec.quota");
    assert_eq!(diff.owners.len(), 1);
    assert_eq!(diff.owners[0].before.as_deref(), Some("whoami"));
    assert_eq!(diff.owners[0].after.as_deref(), Some("who"));
}

/// What a push refuses today an edge goes on serving: each case is as an older push released it.
#[test]
fn a_release_that_would_be_refused_today_keeps_serving() {
    let routes = [
        ("tie", r#"{"match":{"path":"/tie","methods":["GET"]}}"#),
        ("tie-of-head", r#"{"match":{"path":"/tie","methods":["HEAD"]}}"#),
        ("never", r#"{"match":{"path":"/a%zz"}}"#),
        (
            "early",
            r#"{"match":{"path":"/early","when":{"cel":"auth.subject == null","tree":{"eq":[{"fact":"auth.subject"},"null"]}}}}"#,
        ),
    ];
    let tenant = serde_json::to_string(&generated()[0]).unwrap();
    let route = |(name, spec): &(&str, &str)| {
        format!(
            r#"{{"kind":"Route","spec":{spec},"metadata":{{"name":"{name}"}},"source":{{"file":"r.yaml","line":1}}}}"#
        )
    };
    let documents: Vec<String> = [tenant].into_iter().chain(routes.iter().map(route)).collect();
    let bundle = format!(r#"{{"format":1,"target":"tenant:acme","documents":[{}]}}"#, documents.join(","));
    match Bundle::parse(bundle.as_bytes(), &Target::Tenant("acme".to_owned()), 1) {
        Ok(Rules::Tenant(ruleset)) => assert_eq!(ruleset.routes.len(), routes.len()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn upstreams_of_the_platform_are_for_those_that_it_says() {
    let rules = "apiVersion: meridian/v1
kind: Upstream
metadata: {name: search}
spec: {regions: {us-east-1: \"https://search.example/\"}, tenants: [acme]}
---
apiVersion: meridian/v1
kind: Upstream
metadata: {name: mail}
spec: {regions: {us-east-1: \"https://mail.example\"}, tenants: all}
";
    let mut files = demo("platform");
    files.push(File { path: "upstreams.yaml".to_owned(), content: rules.to_owned() });
    let compiled = compile(&Target::Platform, &files, None).expect("accepted");
    assert_eq!(compiled.warnings, [], "the platform uses none itself");
    let Ok(Rules::Platform(platform)) = Bundle::parse(&compiled.bytes, &Target::Platform, 1) else {
        panic!("the platform")
    };
    let has = |name: &str, tenant: &str| platform.upstream(name, tenant).is_some();
    assert!(has("platform:search", "acme") && !has("platform:search", "globex"));
    assert!(has("platform:mail", "globex") && !has("mail", "globex") && !has("platform:other", "acme"));
    let search = platform.upstream("platform:search", "acme").expect("there");
    assert_eq!((&*search.service, &*search.rule.name), ("platform:search", "platform:search"));
    assert_eq!(&*search.regions[0].1, "https://search.example");
}

#[test]
fn an_old_bundle_keeps_decoding() {
    let bytes = include_bytes!("stored/bundle-acme-1.json").trim_ascii_end();
    let Rules::Tenant(ruleset) =
        Bundle::parse(bytes, &Target::Tenant("acme".to_owned()), 1).expect("readable")
    else {
        panic!("a tenant's rules")
    };
    assert_eq!(ruleset.routes.len(), 4);
    assert!(ruleset.caches.iter().all(|cache| cache.bypass.is_some()));
    // Its hostname is from before any was verified, its tenant from before there were plans.
    assert_eq!(
        (&*ruleset.tenant.domains, &*ruleset.tenant.unverified),
        (&["acme.localhost".to_owned()][..], &[][..])
    );
    assert_eq!((&ruleset.tenant.parent, &*ruleset.tenant.limits), (&None, &[][..]));
}

/// What says nothing of parents, plans and verification is the same bytes as it was before there were any.
#[test]
fn what_is_not_said_of_parties_is_not_written() {
    let written = |document: &Document| serde_json::to_string(document).unwrap();
    let [tenant, domain]: [Document; 2] = generated().try_into().expect("a tenant and its hostname");
    assert!(
        written(&tenant).starts_with(
            r#"{"kind":"Tenant","spec":{"state":"active","homeRegion":"us-east-1","allowedRegions":["us-east-1","eu-west-1"]},"#
        ),
        "{}",
        written(&tenant)
    );
    assert!(
        written(&domain).starts_with(r#"{"kind":"Domain","spec":{"tenant":"acme"},"#),
        "{}",
        written(&domain)
    );
}

#[test]
fn a_plan_and_the_state_of_a_hostname_are_kept() {
    let documents = r#"[{"kind":"Tenant","spec":{"state":"suspended","homeRegion":"us-east-1","allowedRegions":["us-east-1"],
          "parent":"partner","suspendedBy":"partner","plan":{"name":"small","limits":[
          {"quota":5,"window":"1m"},{"quota":100,"window":"1d","burst":10,"scope":"global","fail":"closed","mode":"log"}]}},
          "metadata":{"name":"acme"},"source":{"file":"control-plane","line":1}},
        {"kind":"Domain","spec":{"tenant":"acme","verification":"pending","tls":"issuing"},
          "metadata":{"name":"*.acme.example"},"source":{"file":"control-plane","line":1}}]"#;
    let documents: Vec<Document> = serde_json::from_str(documents).unwrap();
    let target = Target::Tenant("acme".to_owned());
    let bytes = Bundle::new(&target, documents.clone()).to_bytes();
    let mut read = Bundle::read(&bytes, &target).expect("readable").documents;
    read.reverse();
    assert_eq!(read, documents);
    let Ok(Rules::Tenant(ruleset)) = Bundle::parse(&bytes, &target, 1) else { panic!("a tenant's rules") };
    let tenant = &ruleset.tenant;
    assert_eq!(
        (tenant.parent.as_deref(), tenant.suspended_by.as_deref()),
        (Some("partner"), Some("partner"))
    );
    assert_eq!((tenant.domains.len(), &*tenant.unverified), (0, &["*.acme.example".to_owned()][..]));
    let limits: Vec<_> = tenant.limits.iter().map(|number| &ruleset.limits[*number]).collect();
    let told = |limit: &&meridian_engine::ruleset::RateLimit| {
        (limit.rule.name.to_string(), limit.quota, limit.window_ms, limit.burst)
    };
    assert_eq!(
        limits.iter().map(told).collect::<Vec<_>>(),
        [("plan:1".to_owned(), 5, 60_000, 5), ("plan:2".to_owned(), 100, 86_400_000, 10)]
    );
}
