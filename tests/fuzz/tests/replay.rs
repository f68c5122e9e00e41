//! The kept inputs, and those that fuzzing begins with, through every target: what was found once stays mended.

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::PathBuf;

use meridian_fuzz::{TARGETS, corpus};

/// Bytes of all kept inputs together.
const CORPUS_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// Kept inputs that a target has at least: fewer means that files were lost.
const INPUTS_MIN: usize = 100;

fn inputs(target: &str) -> Vec<PathBuf> {
    let folder = corpus(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.expect("a folder can be listed").path()).collect()
}

#[test]
fn every_kept_input_passes() {
    let mut wrong = Vec::new();
    for target in TARGETS {
        let inputs = inputs(target.name);
        assert!(inputs.len() >= INPUTS_MIN, "{}: only {} inputs", target.name, inputs.len());
        for path in inputs {
            let data = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            if catch_unwind(|| (target.run)(&data)).is_err() {
                wrong.push(path);
            }
        }
    }
    assert!(wrong.is_empty(), "what each said stands above: {wrong:#?}");
}

#[test]
fn every_target_takes_what_it_begins_with() {
    let mut wrong = Vec::new();
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{} begins with nothing", target.name);
        let fails = |seed: &Vec<u8>| catch_unwind(|| (target.run)(seed)).is_err();
        let failing = seeds.into_iter().filter(fails);
        wrong.extend(failing.map(|seed| format!("{}: {}", target.name, String::from_utf8_lossy(&seed))));
    }
    assert!(wrong.is_empty(), "what each said stands above: {wrong:#?}");
}

#[test]
fn every_target_has_its_folder_and_no_other_is_there() {
    let names: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    let folders = fs::read_dir(corpus("")).expect("the corpus is there").flatten();
    let folders: BTreeSet<String> =
        folders.filter_map(|entry| entry.file_name().to_str().map(str::to_owned)).collect();
    assert_eq!(folders, names);
    let sizes =
        names.iter().flat_map(|name| inputs(name)).map(|path| fs::metadata(path).map_or(0, |it| it.len()));
    assert!(sizes.sum::<u64>() <= CORPUS_BYTES_MAX, "more than {CORPUS_BYTES_MAX} bytes are kept");
}
