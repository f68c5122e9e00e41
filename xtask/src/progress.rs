//! Progress that a person can follow: a spinner on a terminal, plain lines with a heartbeat elsewhere.
//!
//! All of it goes to standard error; standard output carries results only.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::limits::{STEP_DETAIL_CHARS_MAX, STEP_HEARTBEAT, STEP_QUIET};

/// One running step. Ends with [`Step::done`]; dropped before that, it counts as failed.
pub struct Step {
    label: String,
    started: Instant,
    beat: Option<Instant>,
    bar: Option<ProgressBar>,
    ended: bool,
}

impl Step {
    /// Starts a step; `label` says what it does.
    pub fn start(label: impl Into<String>) -> Self {
        let label = label.into();
        let bar = std::io::stderr().is_terminal().then(|| spinner(&label));
        Self { label, started: Instant::now(), beat: None, bar, ended: false }
    }

    /// Says that the step still runs, and what it does now. Cheap; call it often.
    pub fn tick(&mut self, detail: &str) {
        let detail: String = detail.trim().chars().take(STEP_DETAIL_CHARS_MAX).collect();
        if let Some(bar) = &self.bar {
            bar.set_message(detail);
            return;
        }
        let due = match self.beat {
            None => self.started.elapsed() >= STEP_QUIET,
            Some(beat) => beat.elapsed() >= STEP_HEARTBEAT,
        };
        if due {
            let first = self.beat.is_none();
            self.beat = Some(Instant::now());
            let seconds = self.started.elapsed().as_secs();
            if first {
                say(&format!("  … {}", self.label));
            } else if detail.is_empty() {
                say(&format!("  … {} ({seconds} s)", self.label));
            } else {
                say(&format!("  … {} ({seconds} s): {detail}", self.label));
            }
        }
    }

    /// Ends the step well.
    pub fn done(mut self, note: &str) {
        self.end("✓", note);
    }

    fn end(&mut self, mark: &str, note: &str) {
        self.ended = true;
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        let seconds = self.started.elapsed().as_secs_f64();
        let time = if seconds >= 0.95 { format!(" ({seconds:.0} s)") } else { String::new() };
        let note = if note.is_empty() { String::new() } else { format!(": {note}") };
        say(&format!("  {mark} {}{note}{time}", self.label));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.ended {
            self.end("✗", "");
        }
    }
}

/// Prints a line for the person who watches; nobody watching is no reason to fail.
pub fn say(line: &str) {
    let mut stderr = std::io::stderr().lock();
    let _nobody_reads = writeln!(stderr, "{line}");
}

fn spinner(label: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("  {spinner} {prefix} ({elapsed}) {wide_msg:.dim}") {
        bar.set_style(style);
    }
    bar.set_prefix(label.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}
