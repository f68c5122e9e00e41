//! `cargo xtask fuzz`: coverage-guided fuzzing of what reads from outside, and the report of it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use serde::Deserialize;

use crate::limits::{FUZZ_CORPUS_BYTES_MAX, FUZZ_INPUT_SECONDS_MAX, FUZZ_MEMORY_MB_MAX};
use crate::progress::{Step, say};
use crate::run::run;
use crate::setup::cargo_tools;
use crate::{paths, report};

/// Where everything about it is kept.
const FOLDER: &str = "tests/fuzz";
/// What came of each target.
const REPORT: &str = "tests/fuzz/report.md";
/// The compiler that can count coverage.
const TOOLCHAIN: &str = "nightly";

/// Arguments of `cargo xtask fuzz`.
#[derive(Args, Clone, Debug)]
pub struct Fuzz {
    /// Targets; all without any.
    targets: Vec<String>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Targets at the same time.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: u16,
    /// Keep the inputs that add coverage in tests/fuzz/corpus, and write tests/fuzz/report.md, where the rows of targets that were
    /// not named stay as they are.
    #[arg(long)]
    keep: bool,
}

/// What fuzzing one target came to.
#[derive(Clone, Debug, Default, PartialEq)]
struct Outcome {
    row: Row,
    /// Files that hold an input which fails.
    failing: Vec<PathBuf>,
}

/// What the report says of a target, and reads of it again when others are run.
#[derive(Clone, Debug, Default, PartialEq)]
struct Row {
    target: String,
    seconds: u64,
    executions: u64,
    edges: u64,
    features: u64,
    /// Inputs that are kept.
    kept: usize,
    /// Inputs that failed.
    failing: usize,
    /// When it ran.
    day: String,
    /// Targets that ran at the same time.
    at_once: usize,
}

/// Something that was found, and what became of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Finding {
    target: String,
    found: String,
    became: String,
}

impl Fuzz {
    /// Fuzzes, prints what came of it, and with `--keep` writes it down.
    ///
    /// # Errors
    /// When the nightly compiler is missing, the program can't be built, or an input fails.
    pub fn run(&self) -> Result<()> {
        let compiler = nightly()?;
        let work = paths::target()?.join("fuzz");
        let seeds = work.join("seeds");
        let mut write = paths::cargo();
        write.args(["run", "--package", "meridian-fuzz", "--"]).arg(&seeds);
        run("what each target begins with", &mut write)?;
        let all = names(&seeds)?;
        let targets = self.choose(&all)?;
        let at_once = targets.len().min(self.jobs.into());
        let program = build(&work)?;
        let queue = Mutex::new(targets.iter());
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work_off = || -> Result<Vec<Outcome>> {
            let mut outcomes = Vec::new();
            while let Some(target) = next() {
                let bench = Bench { program: &program, work: &work, target, at_once };
                outcomes.push(bench.run(self.seconds, self.keep)?);
            }
            Ok(outcomes)
        };
        let outcomes = thread::scope(|scope| {
            let jobs: Vec<_> = (0..self.jobs).map(|_| scope.spawn(work_off)).collect();
            let ended = jobs.into_iter().map(|job| job.join().unwrap_or_else(|_| bail!("a job panicked")));
            ended.collect::<Result<Vec<_>>>()
        })?
        .concat();
        let before = fs::read_to_string(paths::root().join(REPORT)).ok().filter(|_| self.keep);
        let rows =
            together(outcomes.iter().map(|one| one.row.clone()).collect(), &before.unwrap_or_default(), &all);
        let text = render(&rows, &findings()?, &compiler, &self.shown());
        println!("{text}");
        if self.keep {
            say(&format!("Written to {}", report::write(REPORT, &text)?.display()));
        }
        let failing: Vec<String> =
            outcomes.iter().flat_map(|one| &one.failing).map(|path| path.display().to_string()).collect();
        ensure!(failing.is_empty(), "inputs that fail:\n{}", failing.join("\n"));
        Ok(())
    }
}

impl Fuzz {
    /// The command as it was typed.
    fn shown(&self) -> String {
        let keep = if self.keep { " --keep" } else { "" };
        let targets: String = self.targets.iter().map(|target| format!(" {target}")).collect();
        format!("cargo xtask fuzz{keep} --seconds {} --jobs {}{targets}", self.seconds, self.jobs)
    }

    /// The targets that are named, or all.
    fn choose(&self, all: &[String]) -> Result<Vec<String>> {
        for target in &self.targets {
            ensure!(all.contains(target), "no target {target}; there are {}", all.join(", "));
        }
        Ok(if self.targets.is_empty() { all.to_vec() } else { self.targets.clone() })
    }
}

/// All targets: each has a folder of what it begins with.
fn names(seeds: &Path) -> Result<Vec<String>> {
    let folders = files(seeds)?;
    let names = folders.iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()));
    let mut all: Vec<String> = names.collect();
    all.sort();
    Ok(all)
}

/// The version of the nightly compiler.
fn nightly() -> Result<String> {
    let version = report::first_line(on_nightly(&mut Command::new("rustc")).arg("--version"));
    if !version.contains("nightly") {
        bail!(
            "coverage-guided fuzzing needs the nightly compiler: `rustup toolchain install {TOOLCHAIN}` brings it \
             (the kept inputs run with any compiler: `cargo test --package meridian-fuzz`)"
        );
    }
    Ok(version)
}

fn on_nightly(command: &mut Command) -> &mut Command {
    paths::forget_outer_cargo(command);
    command.env("RUSTUP_TOOLCHAIN", TOOLCHAIN).env_remove("RUSTC").current_dir(paths::root())
}

/// Builds the program and returns its path. It links the very versions that the workspace does.
fn build(work: &Path) -> Result<PathBuf> {
    let folder = paths::root().join(FOLDER).join("libfuzzer");
    fs::copy(paths::root().join("Cargo.lock"), folder.join("Cargo.lock"))
        .context("could not copy Cargo.lock")?;
    let mut build = Command::new(cargo_tools::cargo_fuzz()?);
    build.arg("build").arg("--fuzz-dir").arg(&folder).arg("--target-dir").arg(work);
    run("cargo fuzz build", on_nightly(&mut build))?;
    Ok(work.join(paths::rustc()?.host).join("release/fuzz"))
}

fn kept(target: &str) -> PathBuf {
    paths::root().join(FOLDER).join("corpus").join(target)
}

/// The files of a folder; none where there is no folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("could not list {}", folder.display())),
    }
}

fn findings() -> Result<Vec<Finding>> {
    let file = paths::root().join(FOLDER).join("findings.yaml");
    let text = fs::read_to_string(&file).with_context(|| format!("could not read {}", file.display()))?;
    serde_saphyr::from_str(&text).with_context(|| format!("in {}", file.display()))
}

/// One target at work.
struct Bench<'a> {
    program: &'a Path,
    work: &'a Path,
    target: &'a str,
    /// Targets that run at the same time.
    at_once: usize,
}

impl Bench<'_> {
    fn place(&self, name: &str) -> Result<PathBuf> {
        let folder = self.work.join(name).join(self.target);
        fs::create_dir_all(&folder).with_context(|| format!("could not create {}", folder.display()))?;
        Ok(folder)
    }

    /// The program with the limits that hold whatever it does.
    fn command(&self) -> Result<Command> {
        let mut command = Command::new(self.program);
        command.env("MERIDIAN_FUZZ_TARGET", self.target);
        command.arg(format!("-rss_limit_mb={FUZZ_MEMORY_MB_MAX}"));
        command.arg(format!("-timeout={FUZZ_INPUT_SECONDS_MAX}"));
        command.arg(format!("-artifact_prefix={}/", self.place("failing")?.display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Ok(command)
    }

    fn run(&self, seconds: u64, keep: bool) -> Result<Outcome> {
        let mut outcome = self.fuzz(seconds)?;
        if keep {
            self.keep()?;
        }
        outcome.row.kept = files(&kept(self.target))?.len();
        Ok(outcome)
    }

    /// New inputs go to the work folder; those that are kept and the seeds are where it begins.
    fn fuzz(&self, seconds: u64) -> Result<Outcome> {
        let failing = self.place("failing")?;
        let before = files(&failing)?;
        let kept = kept(self.target);
        fs::create_dir_all(&kept)?;
        let mut command = self.command()?;
        command.arg(format!("-max_total_time={seconds}")).arg("-print_final_stats=1");
        command.args([self.place("corpus")?, kept, self.place("seeds")?]);
        let mut step = Step::start(format!("fuzz {}", self.target));
        let started = Instant::now();
        let mut child = command.spawn().context("could not start the program of libfuzzer")?;
        let lines = child.stderr.take().context("its output is piped")?;
        let mut outcome = Outcome::default();
        let mut last = Vec::new();
        for line in BufReader::new(lines).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            outcome.line(&line);
            step.tick(&line);
            last.push(line);
            let old = last.len().saturating_sub(40);
            last.drain(..old);
        }
        let status = child.wait()?;
        outcome.failing = files(&failing)?.into_iter().filter(|path| !before.contains(path)).collect();
        outcome.row = Row {
            target: self.target.to_owned(),
            seconds: started.elapsed().as_secs(),
            failing: outcome.failing.len(),
            day: report::utc("%Y-%m-%d"),
            at_once: self.at_once,
            ..outcome.row
        };
        if outcome.failing.is_empty() && !status.success() {
            bail!("{} ended with {status}:\n{}", self.target, last.join("\n"));
        }
        if outcome.failing.is_empty() {
            step.done(&format!("{} executions, {} edges", outcome.row.executions, outcome.row.edges));
        } else {
            drop(step);
            say(&last.join("\n"));
        }
        Ok(outcome)
    }

    /// The smallest inputs that reach all that was reached become those that are kept.
    fn keep(&self) -> Result<()> {
        let merged = self.place("merged")?;
        fs::remove_dir_all(&merged)?;
        fs::create_dir_all(&merged)?;
        let mut command = self.command()?;
        command.arg("-set_cover_merge=1").arg(&merged);
        command.args([self.place("corpus")?, kept(self.target), self.place("seeds")?]);
        let output = command.output().context("could not start the program of libfuzzer")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut inputs: Vec<(u64, PathBuf)> = Vec::new();
        for path in files(&merged)? {
            inputs.push((fs::metadata(&path)?.len(), path));
        }
        inputs.sort();
        let kept = kept(self.target);
        fs::remove_dir_all(&kept)?;
        fs::create_dir_all(&kept)?;
        let mut bytes = 0;
        for (length, path) in inputs {
            bytes += length;
            if bytes > FUZZ_CORPUS_BYTES_MAX {
                break;
            }
            fs::copy(&path, kept.join(path.file_name().context("an input has a name")?))?;
        }
        Ok(())
    }
}

impl Outcome {
    /// Reads a line that libFuzzer prints.
    fn line(&mut self, line: &str) {
        let number = |word: &str| {
            let mut words = line.split_whitespace().skip_while(|have| *have != word);
            words.nth(1).and_then(|number| number.parse().ok())
        };
        let row = &mut self.row;
        row.executions = number("stat::number_of_executed_units:").unwrap_or(row.executions);
        if line.starts_with('#') {
            row.edges = number("cov:").unwrap_or(row.edges);
            row.features = number("ft:").unwrap_or(row.features);
        }
    }
}

impl Row {
    const HEAD: [&str; 9] =
        ["target", "seconds", "executions", "edges", "features", "kept", "failing", "day", "at a time"];

    fn cells(&self) -> Vec<String> {
        let Self { target, seconds, executions, edges, features, kept, failing, day, at_once } = self;
        let counts = [*seconds, *executions, *edges, *features].map(|count| count.to_string());
        let counts = counts.into_iter().chain([kept, failing].map(usize::to_string));
        let last = [day.clone(), at_once.to_string()];
        std::iter::once(format!("`{target}`")).chain(counts).chain(last).collect()
    }

    /// What a line of a report says, where it is a row.
    fn read(line: &str) -> Option<Self> {
        let cells: Vec<&str> = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect();
        let [target, seconds, executions, edges, features, kept, failing, day, at_once] = cells[..] else {
            return None;
        };
        Some(Self {
            target: target.strip_prefix('`')?.strip_suffix('`')?.to_owned(),
            seconds: seconds.parse().ok()?,
            executions: executions.parse().ok()?,
            edges: edges.parse().ok()?,
            features: features.parse().ok()?,
            kept: kept.parse().ok()?,
            failing: failing.parse().ok()?,
            day: day.to_owned(),
            at_once: at_once.parse().ok()?,
        })
    }
}

/// The rows of a run, and those that the report had before of other targets that there are.
fn together(run: Vec<Row>, before: &str, all: &[String]) -> Vec<Row> {
    let is_other = |row: &Row| all.contains(&row.target) && run.iter().all(|own| own.target != row.target);
    let others: Vec<Row> = before.lines().filter_map(Row::read).filter(is_other).collect();
    let mut rows = [run, others].concat();
    rows.sort_by(|a, b| a.target.cmp(&b.target));
    rows
}

fn render(rows: &[Row], findings: &[Finding], compiler: &str, command: &str) -> String {
    let mut text = report::heading("Fuzzing", command, &format!("{compiler}, libFuzzer, AddressSanitizer"));
    let seconds: u64 = rows.iter().map(|row| row.seconds).sum();
    let executions: u64 = rows.iter().map(|row| row.executions).sum();
    let at_once = || rows.iter().map(|row| row.at_once);
    let at_once = match (at_once().min().unwrap_or(0), at_once().max().unwrap_or(0)) {
        (least, most) if least == most => most.to_string(),
        (least, most) => format!("{least} to {most}"),
    };
    text.push_str(&format!(
        "\nWhat each target asserts stands in `src/`. A row is of the last run of its target, the line above of the last run of \
         any. *Edges* and *features* are libFuzzer's counts of the code that was reached; *kept* are the inputs in `corpus/`, \
         which every test run replays. {seconds} seconds and {executions} executions summed over targets, {at_once} at a \
         time.\n\n"
    ));
    let cells: Vec<Vec<String>> = rows.iter().map(Row::cells).collect();
    text.push_str(&report::table(&Row::HEAD, &cells));
    text.push_str("\n## Found, and what became of it\n\n");
    if findings.is_empty() {
        text.push_str("Nothing.\n");
    }
    for Finding { target, found, became } in findings {
        text.push_str(&format!("- `{target}`: {} {}\n", found.trim(), became.trim()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_read_from_what_libfuzzer_prints() {
        let mut outcome = Outcome::default();
        for line in [
            "INFO: Seed: 1",
            "#2\tINITED cov: 12 ft: 13 corp: 1/1b exec/s: 0 rss: 40Mb",
            "#4096\tNEW    cov: 120 ft: 340 corp: 9/80b lim: 4 exec/s: 4096 rss: 41Mb L: 4/4 MS: 1 -",
            "Done 5000 runs in 2 second(s)",
            "stat::number_of_executed_units: 5000",
            "stat::average_exec_per_sec:     2500",
        ] {
            outcome.line(line);
        }
        let row = Row { executions: 5_000, edges: 120, features: 340, ..Row::default() };
        assert_eq!(outcome, Outcome { row, failing: Vec::new() });
    }

    fn row(target: &str, seconds: u64) -> Row {
        let (target, day) = (target.to_owned(), "2026-12-01".to_owned());
        Row { target, seconds, executions: 7, kept: 5, day, at_once: 2, ..Row::default() }
    }

    #[test]
    fn the_report_has_a_line_for_each_target_and_finding() {
        let finding = Finding { target: "paths".into(), found: "A hole.".into(), became: "Mended.".into() };
        let rows = [row("paths", 60), Row { at_once: 3, ..row("places", 30) }];
        let text = render(&rows, &[finding], "rustc 1-nightly", "cargo xtask fuzz");
        assert!(text.contains("| `paths` | 60 | 7 | 0 | 0 | 5 | 0 | 2026-12-01 | 2 |"), "{text}");
        assert!(
            text.contains("90 seconds and 14 executions summed over targets, 2 to 3 at a time."),
            "{text}"
        );
        assert!(text.contains("- `paths`: A hole. Mended."), "{text}");
    }

    #[test]
    fn targets_that_were_not_run_keep_their_rows() {
        let all = ["jwt", "paths", "places"].map(str::to_owned);
        let before =
            render(&[row("gone", 1), row("jwt", 2), row("places", 3)], &[], "rustc", "cargo xtask fuzz");
        let rows = together(vec![row("places", 4), row("paths", 5)], &before, &all);
        assert_eq!(rows, [row("jwt", 2), row("paths", 5), row("places", 4)]);
    }

    #[test]
    fn a_target_that_is_none_is_named_with_those_that_are() {
        let fuzz = Fuzz { targets: vec!["path".to_owned()], seconds: 1, jobs: 1, keep: false };
        let all = names(&paths::root().join(FOLDER).join("corpus")).unwrap();
        let error = fuzz.choose(&all).unwrap_err().to_string();
        assert!(error.contains("no target path;") && error.contains(", paths, "), "{error}");
    }
}
