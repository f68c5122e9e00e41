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

/// The whole report: counts, what is missed and why, and each test.
///
/// # Errors
/// When `checkout` is none of git.
pub(super) fn render(
    judged: &[Vec<Judged>],
    explained: &BTreeMap<String, String>,
    checkout: Option<&Path>,
) -> Result<String> {
    let tests = judged.first().map_or(&[][..], Vec::as_slice);
    let (command, version) = match checkout {
        None => ("cargo xtask conformance cache", "http-cache-tests 0.4.5".to_owned()),
        Some(folder) => {
            ("cargo xtask conformance cache --suite …", format!("http-cache-tests at {}", commit(folder)?))
        }
    };
    let mut text = report::heading("The cache, judged by http-cache-tests", command, &version);
    let of = if checkout.is_some() { "as its repository has it" } else { "as npm carries it" };
    _ = writeln!(
        text,
        "\nThe suite of https://cache-tests.fyi/, {of}, against both edges with the rules in `rules/`; the others as its \
         authors published them with it. *Required* is what RFC 9111 and its kin demand, *optimal* what they allow and a \
         cache is better for; tests of {DRAFT}, a draft that RFC 9213 took the place of, stand apart. A test counts only \
         where those that it builds on passed.\n"
    );
    let others: Vec<&String> = tests.first().into_iter().flat_map(|one| one.others.keys()).collect();
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
    let mut rows = Vec::new();
    for ((_, title), edge) in EDGES.iter().zip(judged) {
        let passed = |at: usize, _: &Judged| edge.get(at).is_some_and(|one| one.outcome == Outcome::Passed);
        rows.push([vec![format!("Meridian, {title}")], counts(&passed)].concat());
    }
    for other in &others {
        let passed = |_: usize, one: &Judged| one.others.get(*other) == Some(&Outcome::Passed);
        rows.push([vec![(*other).clone()], counts(&passed)].concat());
    }
    let columns = ["cache", "required", "optimal", DRAFT];
    text.push_str(&report::table(columns.get(..if drafts > 0 { 4 } else { 3 }).unwrap_or(&columns), &rows));
    text.push_str("\n## Missed, and why\n\n");
    for id in missed(judged) {
        let why = explained.get(id).map_or("Not explained.", String::as_str).trim();
        let said = judged.iter().flatten().find_map(|one| one.detail.as_deref().filter(|_| one.id == id));
        _ = writeln!(text, "- `{id}` ({}): {why}", said.unwrap_or_default());
    }
    text.push_str("\n## Each test\n");
    let mut suite = "";
    for (at, one) in tests.iter().enumerate() {
        if suite != one.suite {
            suite = &one.suite;
            let names: Vec<_> = EDGES
                .iter()
                .map(|(_, title)| *title)
                .chain(others.iter().map(|name| name.as_str()))
                .collect();
            _ = writeln!(
                text,
                "\n### {suite}\n\n| test | | {} |\n|---|---|{}",
                names.join(" | "),
                "---|".repeat(names.len())
            );
        }
        let own = judged.iter().filter_map(|edge| edge.get(at)).map(|one| one.outcome.text());
        let cells: Vec<_> = own.chain(one.others.values().map(|outcome| outcome.text())).collect();
        let kind = match one.kind {
            Kind::Required => "required",
            Kind::Optimal => "optimal",
            Kind::Check => "check",
        };
        _ = writeln!(
            text,
            "| {} `{}` | {kind} | {} |",
            one.name.replace('|', "\\|"),
            one.id,
            cells.join(" | ")
        );
    }
    Ok(text)
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
        let text = render(&both, &explained, None).unwrap();
        assert!(text.contains("| Meridian, Spin host | 1 of 1 | 0 of 1 |"), "{text}");
        assert!(text.contains("| Other 1 | 1 of 1 | 1 of 1 |"), "{text}");
        assert!(text.contains("- `b` (Response 2 comes from cache): Because."), "{text}");
        assert!(text.contains("| about b `b` | optimal | yes | **no** | yes |"), "{text}");
    }
}
