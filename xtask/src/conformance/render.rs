//! The report of what the suite said.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::{EDGES, Judged, Kind, Outcome, missed};
use crate::report;

/// The tests of the draft that RFC 9213 took the place of: the suite's repository has none of them any more.
const DRAFT: &str = "Surrogate-Control";

/// A cache that is judged beside the edges.
pub(super) struct Column {
    /// Its name and version.
    pub(super) title: String,
    /// What each test came to, in the order of the edges' tests.
    pub(super) judged: Vec<Judged>,
}

/// The whole report: counts, what is missed and why, and each test.
///
/// # Errors
/// When `checkout` is none of git.
pub(super) fn render(
    judged: &[Vec<Judged>],
    peer: Option<&Column>,
    explained: &BTreeMap<String, String>,
    checkout: Option<&Path>,
) -> Result<String> {
    let (suite, version, of) = match checkout {
        None => ("", "http-cache-tests 0.4.5".to_owned(), "as npm carries it"),
        Some(folder) => {
            (" --suite …", format!("http-cache-tests at {}", commit(folder)?), "as its repository has it")
        }
    };
    let command =
        format!("cargo xtask conformance cache{suite}{}", if peer.is_some() { " --peer" } else { "" });
    let mut text = report::heading("The cache, judged by http-cache-tests", &command, &version);
    _ = writeln!(
        text,
        "\nThe suite of https://cache-tests.fyi/, {of}, against both edges with the rules in `rules/`; the others as its \
         authors published them with it. *Required* is what RFC 9111 and its kin demand, *optimal* what they allow and a \
         cache is better for; tests of {DRAFT}, a draft that RFC 9213 took the place of, stand apart. A test counts only \
         where those that it builds on passed.\n"
    );
    if let Some(peer) = peer {
        _ = writeln!(
            text,
            "*{}* is the proxy in `semantics/`, which stores, serves and revalidates as that crate says of a shared cache, \
             and does nothing for itself but forget a URL after an unsafe request.\n",
            peer.title
        );
    }
    let tests = judged.first().map_or(&[][..], Vec::as_slice);
    text.push_str(&counts(tests, judged, peer));
    text.push_str("\n## Missed, and why\n\n");
    for id in missed(judged) {
        let why = explained.get(id).map_or("Not explained.", String::as_str).trim();
        let said = judged.iter().flatten().find_map(|one| one.detail.as_deref().filter(|_| one.id == id));
        _ = writeln!(text, "- `{id}` ({}): {why}", said.unwrap_or_default());
    }
    if let Some(peer) = peer {
        text.push_str(&missed_by(peer));
    }
    text.push_str("\n## Each test\n");
    text.push_str(&each(tests, judged, peer));
    Ok(text)
}

/// How many tests each cache passes.
fn counts(tests: &[Judged], judged: &[Vec<Judged>], peer: Option<&Column>) -> String {
    let drafts = tests.iter().filter(|one| one.suite == DRAFT).count();
    // Required, optimal, and of the draft where there is any.
    let counts = |passed: &dyn Fn(usize, &Judged) -> bool| -> Vec<String> {
        let count = |of: &dyn Fn(&Judged) -> bool| {
            let all = || tests.iter().enumerate().filter(|(_, one)| of(one));
            format!("{} of {}", all().filter(|(at, one)| passed(*at, one)).count(), all().count())
        };
        let of_kind = |kind| count(&|one: &Judged| one.kind == kind && one.suite != DRAFT);
        let mut cells = vec![of_kind(Kind::Required), of_kind(Kind::Optimal)];
        if drafts > 0 {
            cells.push(count(&|one: &Judged| one.kind != Kind::Check && one.suite == DRAFT));
        }
        cells
    };
    let edges = EDGES.iter().zip(judged).map(|((_, title), edge)| (format!("Meridian, {title}"), edge));
    let ours = edges.chain(peer.map(|peer| (peer.title.clone(), &peer.judged)));
    let mut rows = Vec::new();
    for (title, column) in ours {
        let passed = |at: usize, _: &Judged| column.get(at).is_some_and(|one| one.outcome == Outcome::Passed);
        rows.push([vec![title], counts(&passed)].concat());
    }
    for other in others(tests) {
        let passed = |_: usize, one: &Judged| one.others.get(other) == Some(&Outcome::Passed);
        rows.push([vec![other.to_owned()], counts(&passed)].concat());
    }
    let columns = ["cache", "required", "optimal", DRAFT];
    report::table(columns.get(..if drafts > 0 { 4 } else { 3 }).unwrap_or(&columns), &rows)
}

/// The required tests that a cache does not pass, and what the suite says of them.
fn missed_by(peer: &Column) -> String {
    let mut text = format!("\n## Required, and missed by {}\n\n", peer.title);
    let required = peer.judged.iter().filter(|one| one.kind == Kind::Required && one.suite != DRAFT);
    for one in required.filter(|one| one.outcome != Outcome::Passed) {
        let said = match one.outcome {
            Outcome::Dependency => "a test that it builds on is missed",
            _ => one.detail.as_deref().unwrap_or_default(),
        };
        _ = writeln!(text, "- `{}`: {} ({said})", one.id, one.name);
    }
    text
}

/// A table for each part of the suite, with what each cache came to.
fn each(tests: &[Judged], judged: &[Vec<Judged>], peer: Option<&Column>) -> String {
    let mut text = String::new();
    let edges = EDGES.iter().map(|(_, title)| *title).take(judged.len());
    let names: Vec<&str> = edges.chain(peer.map(|peer| peer.title.as_str())).chain(others(tests)).collect();
    let mut suite = "";
    for (at, one) in tests.iter().enumerate() {
        if suite != one.suite {
            suite = &one.suite;
            let (head, line) = (names.join(" | "), "---|".repeat(names.len()));
            _ = writeln!(text, "\n### {suite}\n\n| test | | {head} |\n|---|---|{line}");
        }
        let own = judged.iter().chain(peer.map(|peer| &peer.judged)).filter_map(|column| column.get(at));
        let own = own.map(|one| one.outcome.text());
        let cells: Vec<_> = own.chain(one.others.values().map(|outcome| outcome.text())).collect();
        let kind = match one.kind {
            Kind::Required => "required",
            Kind::Optimal => "optimal",
            Kind::Check => "check",
        };
        let name = one.name.replace('|', "\\|");
        _ = writeln!(text, "| {name} `{}` | {kind} | {} |", one.id, cells.join(" | "));
    }
    text
}

/// The caches whose results the suite carries.
fn others(tests: &[Judged]) -> impl Iterator<Item = &str> {
    tests.first().into_iter().flat_map(|one| one.others.keys().map(String::as_str))
}

/// Which commit a checkout is of.
fn commit(folder: &Path) -> Result<String> {
    let output = Command::new("git").arg("-C").arg(folder).args(["log", "-1", "--format=%h of %cs"]).output();
    let output = output.context("could not run git")?;
    ensure!(output.status.success(), "{}: {}", folder.display(), String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(id: &str, kind: Kind, outcome: Outcome) -> Judged {
        let others = BTreeMap::from([("Other 1".to_owned(), Outcome::Passed)]);
        let detail = (outcome != Outcome::Passed).then(|| "Response 2 comes from cache".to_owned());
        Judged {
            id: id.into(),
            suite: "S".into(),
            name: format!("about {id}"),
            kind,
            outcome,
            detail,
            others,
        }
    }

    #[test]
    fn what_one_edge_misses_is_missed_and_told() {
        let workerd = vec![
            judged("a", Kind::Required, Outcome::Passed),
            judged("b", Kind::Optimal, Outcome::Passed),
            judged("c", Kind::Check, Outcome::Failed),
        ];
        let mut spin = workerd.clone();
        spin[1] = judged("b", Kind::Optimal, Outcome::Failed);
        let both = [workerd, spin];
        assert_eq!(missed(&both).collect::<Vec<_>>(), ["b"]);
        let explained = BTreeMap::from([("b".to_owned(), "Because.".to_owned())]);
        let text = render(&both, None, &explained, None).unwrap();
        assert!(text.contains("| Meridian, Spin host | 1 of 1 | 0 of 1 |"), "{text}");
        assert!(text.contains("| Other 1 | 1 of 1 | 1 of 1 |"), "{text}");
        assert!(text.contains("- `b` (Response 2 comes from cache): Because."), "{text}");
        assert!(text.contains("| about b `b` | optimal | yes | **no** | yes |"), "{text}");
    }

    #[test]
    fn what_the_peer_misses_of_what_is_required_is_listed() {
        let edge = ["a", "b"].map(|id| judged(id, Kind::Required, Outcome::Passed)).to_vec();
        let both = [edge.clone(), edge];
        let own = vec![
            judged("a", Kind::Required, Outcome::Failed),
            judged("b", Kind::Required, Outcome::Dependency),
        ];
        let peer = Column { title: "semantics 1.2.3".to_owned(), judged: own };
        let text = render(&both, Some(&peer), &BTreeMap::new(), None).unwrap();
        assert!(text.contains("Written by `cargo xtask conformance cache --peer` on"), "{text}");
        assert!(text.contains("| semantics 1.2.3 | 0 of 2 | 0 of 0 |"), "{text}");
        assert!(text.contains("- `a`: about a (Response 2 comes from cache)"), "{text}");
        assert!(text.contains("- `b`: about b (a test that it builds on is missed)"), "{text}");
        assert!(text.contains("| about a `a` | required | yes | yes | **no** | yes |"), "{text}");
    }
}
