//! One target of meridian-fuzz under libFuzzer: the one that `MERIDIAN_FUZZ_TARGET` names.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use meridian_fuzz::{TARGETS, Target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("MERIDIAN_FUZZ_TARGET").unwrap_or_default();
    let target = TARGETS.into_iter().find(|target| target.name == name);
    target.unwrap_or_else(|| panic!("MERIDIAN_FUZZ_TARGET is {name:?}, expected the name of a target"))
});

fuzz_target!(|data: &[u8]| (TARGET.run)(data));
