//! The worker as Cloudflare's own command would deploy it. Nothing is sent: that takes an account.

use std::path::Path;
use std::process::Command;

use meridian_tests::stack::tool;

/// Bindings of the worker, as wrangler lists them, and what they are.
const BINDINGS: [[&str; 2]; 4] = [
    ["env.BUNDLES", "KV Namespace"],
    ["env.LIMITS", "Durable Object"],
    ["env.MERIDIAN_ORIGINS", "Environment Variable"],
    ["env.MERIDIAN_BUNDLE_KEYS", "Environment Variable"],
];

#[test]
fn wrangler_would_deploy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wrangler");
    std::fs::remove_dir_all(&output).ok();
    let answer = Command::new(tool("MERIDIAN_NODE").unwrap())
        .arg(tool("MERIDIAN_WRANGLER").unwrap())
        .args(["deploy", "--dry-run", "--config", "wrangler.toml", "--outdir"])
        .arg(output.join("out"))
        .current_dir(root)
        .env("XDG_CONFIG_HOME", &output)
        .env("WRANGLER_LOG_PATH", output.join("log"))
        .env("WRANGLER_SEND_METRICS", "false")
        .env("CI", "true")
        .output()
        .unwrap();
    let (said, faults) = (String::from_utf8_lossy(&answer.stdout), String::from_utf8_lossy(&answer.stderr));
    assert!(answer.status.success(), "{said}\n{faults}");
    for [name, what] in BINDINGS {
        assert!(said.lines().any(|line| line.contains(name) && line.contains(what)), "no {name}: {said}");
    }
    assert!(!faults.contains("[WARNING]") && !said.contains("[WARNING]"), "{said}\n{faults}");
    let made = std::fs::read_dir(output.join("out")).unwrap();
    let made: Vec<String> =
        made.map(|file| file.unwrap().file_name().to_string_lossy().into_owned()).collect();
    for end in [".js", ".wasm"] {
        assert!(made.iter().any(|name| name.ends_with(end)), "no {end} in {made:?}");
    }
}
