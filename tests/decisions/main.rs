//! The decision corpus, natively: every case comes out as its file says.

use meridian_tests::corpus::{self, expect, native};

/// Least number of cases: fewer means that files were lost.
const CASES_MIN: usize = 150;

#[test]
fn every_case_comes_out_as_its_file_says() {
    let cases = corpus::prepare().unwrap_or_else(|error| panic!("{error:#}"));
    assert!(cases.len() >= CASES_MIN, "only {} cases", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let differences = expect::differences(&case.expect, &native::decide(&case.input));
        if !differences.is_empty() {
            wrong.push(format!("{}: {}\n  {}", case.name, case.about, differences.join("\n  ")));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases are wrong:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    println!("{} cases", cases.len());
}
