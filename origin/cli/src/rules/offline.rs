//! What can be told of rules without a server.

use std::path::{Path, PathBuf};

use meridian_engine::ruleset::{Platform, Ruleset, Target};
use meridian_wire::authored::{TestReport, run_tests};
use meridian_wire::bundle::Rules;
use serde_json::json;

use super::{Checked, Regions, Set, checked, show};
use crate::failure::Failure;
use crate::files;
use crate::print;

/// `rules validate`
pub fn validate(set: &Set, json: bool) -> Result<(), Failure> {
    let Checked { target, compiled } = set.compile()?;
    if json {
        print::json(&json!({
            "valid": true,
            "target": target.to_string(),
            "version": compiled.version,
            "documents": compiled.documents.len(),
            "tests": compiled.tests.len(),
            "bytes": compiled.bytes.len(),
            "warnings": compiled.warnings,
        }));
    } else {
        show::warnings(&compiled.warnings);
        let (documents, tests, bytes) =
            (compiled.documents.len(), compiled.tests.len(), compiled.bytes.len());
        let (documents, tests) = (print::count(documents, "document"), print::count(tests, "test"));
        print::line(&format!("{target}: {documents} and {tests}, all valid; {bytes} bytes"));
    }
    Ok(())
}

/// `rules test`
pub fn test(set: &Set, regions: &Regions, json: bool) -> Result<(), Failure> {
    let Checked { target, compiled } = set.compile()?;
    let Rules::Tenant(ruleset) = &compiled.rules else {
        return Err(Failure::Usage("tests are for a tenant's rules".to_owned()));
    };
    let platform = regions.read(&set.path)?;
    let reports = run_tests(ruleset, &platform, &compiled.tests);
    let failed = reports.iter().filter(|report| !report.passed()).count();
    let value = json!({ "target": target.to_string(), "passed": reports.len() - failed, "failed": failed, "tests": reports });
    if failed > 0 {
        let what = format!("{failed} of {} failed", print::count(reports.len(), "test"));
        if !json {
            reports.iter().for_each(show_report);
        }
        return Err(Failure::Failed { what, json: value });
    }
    if json {
        print::json(&value);
    } else {
        reports.iter().for_each(show_report);
        print::line(&format!("{} passed", print::count(reports.len(), "test")));
    }
    Ok(())
}

fn show_report(report: &TestReport) {
    let word = if report.passed() { "ok    " } else { "FAILED" };
    print::line(&format!("{word} {} ({}:{})", report.name, report.file, report.line));
    for failure in &report.failures {
        print::line(&format!(
            "         {}: found {}, expected {}",
            failure.path, failure.found, failure.expected
        ));
    }
}

/// `rules diff --against`
pub fn diff(set: &Set, against: &Path, json: bool) -> Result<(), Failure> {
    let Checked { target, compiled } = set.compile()?;
    let files = files::read(against)?;
    let before = checked(&target, &files, None)?;
    let diff = meridian_wire::authored::diff(&before.documents, &compiled.documents);
    if json {
        print::json(&json!({ "target": target.to_string(), "diff": diff }));
    } else {
        show::diff(&diff);
    }
    Ok(())
}

impl Regions {
    /// The platform that rules at this path are tried on.
    pub fn read(&self, rules: &Path) -> Result<Platform, Failure> {
        let beside = || -> Option<PathBuf> {
            let folder = rules.canonicalize().ok()?;
            let folder = if folder.is_dir() { folder } else { folder.parent()?.to_owned() };
            Some(folder.parent()?.join("platform")).filter(|path| path.is_dir())
        };
        let path = self.platform.clone().or_else(beside).ok_or_else(|| {
            Failure::Usage(
                "there is no folder `platform` beside the rules: give the regions by --platform".to_owned(),
            )
        })?;
        let files = files::read(&path)?;
        match checked(&Target::Platform, &files, None)?.rules {
            Rules::Platform(platform) => Ok(platform),
            Rules::Tenant(_) => Err(Failure::Usage(format!("{} holds no regions", path.display()))),
        }
    }
}

/// A tenant's rules and the platform that they are tried on.
pub fn for_trial(set: &Set, regions: &Regions) -> Result<(Ruleset, Platform), Failure> {
    let Checked { compiled, .. } = set.compile()?;
    match compiled.rules {
        Rules::Tenant(ruleset) => Ok((*ruleset, regions.read(&set.path)?)),
        Rules::Platform(_) => Err(Failure::Usage("requests are explained by a tenant's rules".to_owned())),
    }
}
