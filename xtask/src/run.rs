//! Runs a command as a visible step: its output goes to a log, which is shown when it fails.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::limits::{COMMAND_LOG_LINES_MAX, LOG_TAIL_BYTES_MAX, POLL};
use crate::paths;
use crate::progress::Step;

/// Runs `command` to its end under `label`, and returns its log.
///
/// # Errors
/// When the command can't be started or fails; the error holds the command and the end of its log.
pub fn run(label: &str, command: &mut Command) -> Result<String> {
    run_within(label, command, None)
}

/// As [`run`], and ends the command when it takes longer than `limit`.
///
/// # Errors
/// As [`run`], and when the time is over.
pub fn run_within(label: &str, command: &mut Command, limit: Option<Duration>) -> Result<String> {
    let log = log_file(label)?;
    let output = File::create(&log).with_context(|| format!("could not create {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let mut step = Step::start(label);
    let started = Instant::now();
    let mut child = command.spawn().with_context(|| format!("could not start {}", shown(command)))?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if limit.is_some_and(|limit| started.elapsed() > limit) {
            child.kill()?;
            child.wait()?;
            bail!("{} took longer than {} s", shown(command), started.elapsed().as_secs());
        }
        std::thread::sleep(POLL);
        step.tick(tail(&log, 1).last().map_or("", String::as_str));
    };
    finish(step, command, status, &log)
}

fn finish(step: Step, command: &Command, status: ExitStatus, log: &Path) -> Result<String> {
    if !status.success() {
        drop(step);
        let end = tail(log, COMMAND_LOG_LINES_MAX).join("\n");
        bail!("{}\nended with {status}; the end of {}:\n{end}", shown(command), log.display());
    }
    step.done("");
    Ok(fs::read_to_string(log).unwrap_or_default())
}

/// The last `count` lines of a file that may still be written to; none if it can't be read.
pub fn tail(file: &Path, count: usize) -> Vec<String> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(file)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES_MAX)))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.split(['\n', '\r']).filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].iter().map(|line| (*line).to_owned()).collect()
}

/// The command as a person would type it, without its environment (which may hold secrets).
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn log_file(label: &str) -> Result<PathBuf> {
    let folder = paths::cache()?.join("log");
    fs::create_dir_all(&folder).with_context(|| format!("could not create {}", folder.display()))?;
    let name: String =
        label.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect();
    Ok(folder.join(format!("{name}.{}.log", std::process::id())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_the_command_and_its_output() {
        let error =
            run("a test", Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("sh -c"), "{text}");
        assert!(text.contains("out\nerr"), "{text}");
        assert!(text.contains("exit status: 3"), "{text}");
    }

    #[test]
    fn a_command_that_hangs_is_ended() {
        let limit = Some(Duration::from_millis(100));
        let error = run_within("a sleep", Command::new("sleep").arg("30"), limit).unwrap_err();
        assert!(error.to_string().contains("took longer"));
    }
}
