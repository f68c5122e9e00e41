//! The decision corpus, natively: every case comes out as its file says, and to the last field as it did before.
//! `MERIDIAN_BLESS=1` writes the kept outcomes anew; read the difference before it is committed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use meridian_tests::corpus::{self, Prepared, expect, native};

/// Least number of cases: fewer means that files were lost.
const CASES_MIN: usize = 600;
/// The line before an outcome: the case's name follows.
const MARK: &str = "=== ";

#[test]
fn every_case_comes_out_as_its_file_says() {
    let cases = &*DECIDED;
    let mut wrong = Vec::new();
    for (case, outcome) in cases {
        let differences = expect::differences(&case.expect, outcome);
        if !differences.is_empty() {
            wrong.push(format!("{}: {}\n  {}", case.name, case.about, differences.join("\n  ")));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases are wrong:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    println!("{} cases", cases.len());
}

/// What a case does not ask for does not change by itself either: headers, steps and the explanation are kept whole.
#[test]
fn every_outcome_is_the_kept_one() {
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    for (case, outcome) in &*DECIDED {
        let file = case.name.split('.').next().unwrap_or_default();
        let outcome = std::str::from_utf8(outcome).unwrap();
        *texts.entry(format!("{file}.txt")).or_default() += &section(case, outcome);
    }
    let folder = folder();
    if std::env::var_os("MERIDIAN_BLESS").is_some() {
        fs::create_dir_all(&folder).unwrap();
        for (file, text) in &texts {
            fs::write(folder.join(file), text).unwrap();
        }
    }
    for (file, text) in &texts {
        let kept = fs::read_to_string(folder.join(file)).unwrap_or_default();
        if let Some((name, line, kept, now)) = first_difference(&kept, text) {
            panic!(
                "{name} has another outcome, at line {line} of {file}:\n  {kept}\nnow:\n  {now}\nlook, then run with MERIDIAN_BLESS=1"
            );
        }
    }
    for entry in fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(texts.contains_key(&name), "{name} is of no cases");
    }
}

/// Every case with its outcome, decided once for both tests.
static DECIDED: LazyLock<Vec<(Prepared, Vec<u8>)>> = LazyLock::new(|| {
    let cases = corpus::prepare().unwrap_or_else(|error| panic!("{error:#}"));
    assert!(cases.len() >= CASES_MIN, "only {} cases", cases.len());
    let decided = |case: Prepared| {
        let outcome = native::decide(&case.input);
        (case, outcome)
    };
    cases.into_iter().map(decided).collect()
});

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/outcomes")
}

/// The outcome under the case's name. What every change of the rules changes is left out: the bundle's hash, and at which line a
/// rule begins.
fn section(case: &Prepared, outcome: &str) -> String {
    let mut section = format!("{MARK}{}: {}\n", case.name, case.about);
    for line in outcome.lines() {
        let line = without_hash(&without_line(line), "meridian-bundle: ");
        section += &without_hash(&line, ";bundle=");
        section.push('\n');
    }
    section
}

/// `"auth [Route open routes.yaml:12]: anonymous",` without the number.
fn without_line(text: &str) -> String {
    let place = text.split_once("]: ").and_then(|(place, rest)| Some((place.rsplit_once(':')?, rest)));
    match place {
        Some(((place, number), rest)) if number.parse::<u32>().is_ok() => format!("{place}]: {rest}"),
        _ => text.to_owned(),
    }
}

/// The text with the 16 digits behind `name` left out.
fn without_hash(text: &str, name: &str) -> String {
    let is_hash = |hash: &str| hash.bytes().all(|digit| digit.is_ascii_hexdigit());
    match text.split_once(name).and_then(|(before, rest)| Some((before, rest.split_at_checked(16)?))) {
        Some((before, (hash, after))) if is_hash(hash) => format!("{before}{name}…{after}"),
        _ => text.to_owned(),
    }
}

/// The case, the line's number and both lines, where two files differ first.
fn first_difference(kept: &str, now: &str) -> Option<(String, usize, String, String)> {
    let (mut kept, mut case) = (kept.lines(), String::new());
    let mut number = 0;
    for now in now.lines() {
        number += 1;
        if let Some(mark) = now.strip_prefix(MARK) {
            case = mark.to_owned();
        }
        let kept = kept.next().unwrap_or("(nothing)");
        if kept != now {
            return Some((case, number, kept.to_owned(), now.to_owned()));
        }
    }
    let surplus = kept.next()?;
    Some((case, number + 1, surplus.to_owned(), "(nothing)".to_owned()))
}
