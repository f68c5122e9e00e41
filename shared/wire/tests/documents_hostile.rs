//! Files of documents as nobody should write them: whatever they are, the answer is a bundle or errors in their places.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::Path;

use meridian_engine::ruleset::Target;
use meridian_wire::authored::{File, compile, target_of};
use meridian_wire::limits::{FILE_BYTES_MAX, FILES_MAX, INVALID_MAX};
use proptest::prelude::*;

fn whole(content: String) -> Vec<meridian_wire::authored::Invalid> {
    let files = [File { path: "a.yaml".to_owned(), content }];
    let _ = target_of(&files);
    compile(&Target::Tenant("acme".to_owned()), &files, None).err().unwrap_or_default()
}

fn demo() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/demo/acme");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let texts: Vec<String> = files.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    texts.join("\n---\n").replace("${ACME_ISSUER_X}", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE")
}

#[test]
fn the_limits_of_a_push_hold() {
    let files = vec![File { path: "a.yaml".to_owned(), content: String::new() }; FILES_MAX + 1];
    let refused = compile(&Target::Platform, &files, None).expect_err("too many files");
    assert!(refused[0].found.starts_with("501 files"), "{refused:?}");
    assert!(whole("#".repeat(FILE_BYTES_MAX + 1))[0].expected.contains("at most"));
    let many = "apiVersion: meridian/v1\nkind: Rout\n---\n".repeat(INVALID_MAX * 2);
    let refused = whole(many);
    assert_eq!(refused.len(), INVALID_MAX);
    assert!(refused.last().unwrap().expected.contains("more are not shown"), "{refused:?}");
}

#[test]
fn the_demo_is_accepted_as_it_is() {
    assert_eq!(whole(demo()), []);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_broken_file_never_panics_and_its_errors_are_inside_it(at: prop::sample::Index, cut in 0..40_usize, put in "[ -~\\n\\t]{0,12}") {
        let mut text = demo();
        let start = at.index(text.len());
        let start = (0..=start).rev().find(|place| text.is_char_boundary(*place)).unwrap_or(0);
        let end = (start + cut).min(text.len());
        let end = (end..=text.len()).find(|place| text.is_char_boundary(*place)).unwrap_or(text.len());
        text.replace_range(start..end, &put);
        let lines = u32::try_from(text.lines().count()).unwrap() + 1;
        for error in whole(text) {
            prop_assert!(error.line >= 1 && error.line <= lines && error.column >= 1, "{}", error);
        }
    }

    #[test]
    fn any_condition_is_a_tree_or_an_error_inside_it(condition in "([a-z.]{1,12}|[()!&|=<>?:\\[\\]'\"+-]|[0-9]{1,4}| ){0,24}") {
        let quoted = serde_json::to_string(&condition).unwrap();
        let text = format!("apiVersion: meridian/v1\nkind: CachePolicy\nmetadata: {{name: a}}\nspec: {{bypass: {quoted}}}\n");
        let _ = whole(text);
    }
}
