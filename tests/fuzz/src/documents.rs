//! Rule documents as people write them, conditions and lists of networks in them.

use std::net::IpAddr;

use meridian_engine::expr::Inputs;
use meridian_engine::facts::{BodySize, Facts, Place, Scheme};
use meridian_engine::headers::Headers;
use meridian_engine::ruleset::Target;
use meridian_wire::authored::{Compiled, File, Invalid, compile, target_of};
use meridian_wire::bundle::{Bundle, Rules};
use meridian_wire::document::Body;
use meridian_wire::limits::INVALID_MAX;

use crate::edge::START_MS;
use crate::input::text;

/// What every tenant's rules need besides those of the input.
const TENANT: &str = "apiVersion: meridian/v1\nkind: Tenant\nmetadata: { name: acme }\n\
                      spec: { homeRegion: us-east-1, allowedRegions: [us-east-1, eu-west-1] }\n";

/// What is accepted makes the same bundle each time, and every edge takes that bundle; what is not is told in its place.
pub fn documents(data: &[u8]) {
    let text = text(data);
    let mut files = vec![file("a.yaml", &text)];
    let target = target_of(&files).unwrap_or(Target::Tenant("acme".to_owned()));
    if !text.contains("Tenant") && matches!(target, Target::Tenant(_)) {
        files.push(file("tenant.yaml", TENANT));
    }
    let first = compile(&target, &files, None);
    match (&first, compile(&target, &files, None)) {
        (Ok(compiled), Ok(again)) => {
            assert_eq!(compiled.bytes, again.bytes, "the same files make the same bundle");
            assert_eq!(compiled.warnings, again.warnings);
            is_taken(compiled, &target);
        }
        (Err(invalid), Err(again)) => {
            assert_eq!(*invalid, again);
            are_in_their_places(invalid, &files);
        }
        (first, again) => panic!("first {first:?}, then {again:?}"),
    }
}

fn file(path: &str, content: &str) -> File {
    File { path: path.to_owned(), content: content.to_owned() }
}

/// An edge takes a bundle that was made, and reads from it what was written into it.
fn is_taken(compiled: &Compiled, target: &Target) {
    let bundle = Bundle::read(&compiled.bytes, target).expect("a bundle that was made can be read");
    assert_eq!(bundle.documents, compiled.documents);
    assert_eq!(Bundle::new(target, bundle.documents).to_bytes(), compiled.bytes, "its order is its own");
    Bundle::parse(&compiled.bytes, target, 0).expect("a bundle that was made is taken");
}

fn are_in_their_places(invalid: &[Invalid], files: &[File]) {
    assert!(!invalid.is_empty() && invalid.len() <= INVALID_MAX);
    for error in invalid {
        let of = files.iter().find(|file| file.path == error.file);
        // CR alone ends a line as well (YAML 1.2, section 5.4).
        let lines = of.map_or(0, |file| file.content.split(['\n', '\r']).count());
        let inside = error.line >= 1 && usize::try_from(error.line).is_ok_and(|line| line <= lines + 1);
        assert!(inside && error.column >= 1, "{error} is not in its file");
        assert!(!error.expected.is_empty());
    }
}

/// A condition that is accepted is the same after a journey through a bundle, and is evaluated within its cost.
pub fn conditions(data: &[u8]) {
    let cel = text(data);
    let quoted = serde_json::Value::from(cel.as_ref()).to_string();
    let policy = format!(
        "apiVersion: meridian/v1\nkind: CachePolicy\nmetadata: {{ name: a }}\nspec: {{ bypass: {quoted} }}\n"
    );
    let files = [file("a.yaml", &policy), file("tenant.yaml", TENANT)];
    let target = Target::Tenant("acme".to_owned());
    let compiled = match compile(&target, &files, None) {
        Ok(compiled) => compiled,
        Err(invalid) => return are_in_their_places(&invalid, &files),
    };
    is_taken(&compiled, &target);
    let policy = compiled.documents.iter().find_map(|document| match &document.body {
        Body::CachePolicy(policy) => policy.bypass.as_ref(),
        _ => None,
    });
    let expr = policy.expect("the policy has its condition").expr().expect("it carries a checked tree");
    let facts = facts(&cel);
    let inputs = Inputs::anonymous(&facts, "acme");
    assert_eq!(expr.holds(&inputs), expr.holds(&inputs), "the same facts, the same answer");
}

/// A request whose parts are made of the condition itself, so that comparisons may hold.
fn facts(text: &str) -> Facts {
    let words: Vec<&str> = text.split(['"', '\'']).collect();
    let word = |at: usize| words.get(at).copied().unwrap_or_default().to_owned();
    Facts {
        method: "GET".to_owned(),
        scheme: Scheme::Https,
        host: "acme.example".to_owned(),
        path: word(1),
        query: Some(word(3)),
        headers: Headers::from_iter([
            (word(1), word(3)),
            ("cookie".to_owned(), format!("{}={}", word(1), word(3))),
        ]),
        client: IpAddr::from([198, 51, 100, 7]),
        place: Place { country: Some(word(3)), asn: Some(64_500), ..Place::default() },
        body: BodySize::Empty,
        now_ms: START_MS,
        random: [7; 16],
    }
}

/// A list of networks that is accepted has all of its networks and nothing before or behind them.
pub fn networks(data: &[u8]) {
    let list = text(data);
    let policy = "apiVersion: meridian/v1\nkind: Security\nmetadata: { name: a }\n\
                  spec: { denyFrom: [a.netset] }\n";
    let files = [file("a.yaml", policy), file("a.netset", &list), file("tenant.yaml", TENANT)];
    let target = Target::Tenant("acme".to_owned());
    let compiled = match compile(&target, &files, None) {
        Ok(compiled) => compiled,
        Err(invalid) => return are_in_their_places(&invalid, &files),
    };
    is_taken(&compiled, &target);
    let Rules::Tenant(rules) = compiled.rules else { panic!("a tenant's documents make a tenant's rules") };
    let denied = &rules.security.first().expect("the policy is there").deny;
    let entries = list.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    for entry in entries.filter(|entry| !entry.is_empty()) {
        let network =
            entry.parse::<ipnet::IpNet>().ok().or_else(|| entry.parse::<IpAddr>().ok().map(Into::into));
        let network = network.expect("an entry of an accepted list is a network");
        assert!(denied.contains(network.network()), "{network}: its first address");
        assert!(denied.contains(network.broadcast()), "{network}: its last address");
    }
}
