//! Reports: what was measured where, in Markdown.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::paths;

/// The middle of some numbers, and the least and the greatest of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Median.
    pub median: f64,
    /// Least.
    pub min: f64,
    /// Greatest.
    pub max: f64,
}

impl Spread {
    /// Of `values`; none if there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Self { median: f64::midpoint(low, high), min, max })
    }

    /// `12.3 (11.9–13.0)`.
    pub fn text(&self, digits: usize) -> String {
        let Self { median, min, max } = self;
        format!("{median:.digits$} ({min:.digits$}–{max:.digits$})")
    }
}

/// The least of `values` that this share of them does not exceed; none if there are none.
pub fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    values.get((last as f64 * share).round() as usize).copied()
}

/// A table in Markdown: the first column to the left, numbers to the right.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("| {} |\n", head.join(" | "));
    text.push_str("|---|");
    text.push_str(&"---:|".repeat(head.len().saturating_sub(1)));
    text.push('\n');
    for row in rows {
        text.push_str(&format!("| {} |\n", row.join(" | ")));
    }
    text
}

/// Where and when: the first lines of every report.
pub fn heading(title: &str, command: &str, programs: &str) -> String {
    let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = file("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("an unknown processor", |(_, model)| model.trim());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = memory_gb(&file("/proc/meminfo"));
    let memory = memory.map_or("memory of an unknown size".to_owned(), |gb| format!("{gb:.1} GB of memory"));
    let kernel = file("/proc/sys/kernel/osrelease");
    let date = utc("%Y-%m-%d %H:%M UTC");
    format!(
        "# {title}\n\nWritten by `{command}` on {date}: {cores} cores of {model}, {memory}, Linux {}; {programs}.\n",
        kernel.trim()
    )
}

/// Now, as `date` formats it.
pub fn utc(format: &str) -> String {
    first_line(Command::new("date").args(["-u", &format!("+{format}")]))
}

/// All memory of the machine, as the kernel lists it.
fn memory_gb(meminfo: &str) -> Option<f64> {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: f64 = total.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1_024.0 / 1e9)
}

/// How busy the machine is now, as a sentence.
pub fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "Load of the machine at the end, over one minute: {}.",
        load.split(' ').next().unwrap_or_default()
    )
}

/// The first line that a command prints, such as its version, on standard error if there is nothing on standard output;
/// empty if it can't be run.
pub fn first_line(command: &mut Command) -> String {
    let Ok(output) = command.output() else { return String::new() };
    let printed = if output.stdout.trim_ascii().is_empty() { output.stderr } else { output.stdout };
    String::from_utf8_lossy(&printed).trim_start().lines().next().unwrap_or_default().trim().to_owned()
}

/// Writes the file at `place`, from the top of the repository.
///
/// # Errors
/// When it can't be written.
pub fn write(place: &str, text: &str) -> Result<PathBuf> {
    let path = paths::root().join(place);
    fs::write(&path, text).with_context(|| format!("could not write {}", path.display()))?;
    Ok(path)
}

/// Bytes of a file as it is, and as gzip makes it.
///
/// # Errors
/// When it can't be read.
pub fn sizes(path: &Path) -> Result<(u64, u64)> {
    let raw = fs::metadata(path).with_context(|| format!("could not read {}", path.display()))?.len();
    let output = Command::new("gzip").args(["-9", "-c"]).arg(path).output().context("could not run gzip")?;
    Ok((raw, output.stdout.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_an_even_number_lies_between() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(spread, Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert_eq!(spread.text(1), "2.5 (1.0–4.0)");
        assert_eq!(Spread::of([7.0]).unwrap().median, 7.0);
        assert!(Spread::of([]).is_none());
    }

    #[test]
    fn quantiles_are_values_that_were_measured() {
        assert_eq!(quantile(&[3.0, 1.0, 2.0], 0.5), Some(2.0));
        assert_eq!(quantile(&[3.0, 1.0, 2.0], 0.99), Some(3.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn the_memory_of_the_machine_is_found() {
        let meminfo = "MemTotal:        8000000 kB\nMemFree:          123456 kB\n";
        assert_eq!(memory_gb(meminfo).map(|gb| format!("{gb:.1}")), Some("8.2".to_owned()));
        assert_eq!(memory_gb("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn a_version_is_read_wherever_it_is_printed() {
        let line = |script: &str| first_line(Command::new("sh").args(["-c", script]));
        assert_eq!(line("echo one; echo two; echo three >&2"), "one");
        assert_eq!(line("echo; printf ' version 3\nmore\n' >&2"), "version 3");
        assert_eq!(first_line(&mut Command::new("/nowhere")), "");
    }

    #[test]
    fn a_table_has_a_line_for_each_row() {
        let rows = [vec!["x".to_owned(), "1".to_owned()]];
        assert_eq!(table(&["what", "µs"], &rows), "| what | µs |\n|---|---:|\n| x | 1 |\n");
    }
}
