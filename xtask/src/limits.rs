//! Every limit of these commands, in one place.

use std::time::Duration;

/// The oldest Node that they are tried with, as the README says. Only wasm-opt and test suites run on it.
pub const NODE_MAJOR_MIN: u32 = 20;
/// The oldest PostgreSQL that the origins work with, as the README says.
pub const POSTGRES_MAJOR_MIN: u32 = 15;

/// How often a condition is looked at again.
pub const POLL: Duration = Duration::from_millis(50);

/// A step that takes longer than this is announced.
pub const STEP_QUIET: Duration = Duration::from_secs(2);
/// Without a terminal, a running step says so this often.
pub const STEP_HEARTBEAT: Duration = Duration::from_secs(15);
/// The detail beside a step is cut at this many characters.
pub const STEP_DETAIL_CHARS_MAX: usize = 90;
/// As much of a failed command's log is shown.
pub const COMMAND_LOG_LINES_MAX: usize = 80;
/// As much of a log is shown when its process does not start.
pub const PROCESS_LOG_LINES_MAX: usize = 30;
/// As much of a log's end is read to find its last lines.
pub const LOG_TAIL_BYTES_MAX: u64 = 64 * 1024;
/// A log longer than this when its process starts is put aside as `NAME.log.1`.
pub const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// `rustup target add` downloads some 30 MB; where its server can't be reached it may hang instead of failing.
pub const RUSTUP_TIMEOUT: Duration = Duration::from_secs(150);

/// PostgreSQL serves within this time; recovery after a crash is part of it.
pub const POSTGRES_START_TIMEOUT: Duration = Duration::from_secs(60);
/// An origin serves within this time; migrations of a fresh database are part of it.
pub const ORIGIN_START_TIMEOUT: Duration = Duration::from_secs(60);
/// An edge serves within this time; the compilation of its Wasm is part of it.
pub const EDGE_START_TIMEOUT: Duration = Duration::from_secs(120);
/// A request to the local stack takes no longer; what does hangs.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// A process that can get stuck is asked this often whether it still answers.
pub const QUESTION_EVERY: Duration = Duration::from_secs(2);
/// One that has not answered for this long is ended and started again.
pub const SILENCE_MAX: Duration = Duration::from_secs(10);
/// A process that is asked to end gets this long.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// A stack ends within this time: three tiers, one after the other.
pub const DOWN_TIMEOUT: Duration = Duration::from_secs(90);
/// Wait before the first restart of a process that died; doubles with each further one.
pub const BACK_OFF_MIN: Duration = Duration::from_millis(250);
/// Longest wait before a restart.
pub const BACK_OFF_MAX: Duration = Duration::from_secs(10);
/// A process that ran this long is well again: its next restart is quick.
pub const WELL_AFTER: Duration = Duration::from_secs(60);

/// A stack that is started to be measured or judged is ready within this time, builds included.
pub const SCRATCH_READY_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// Rules reach an edge within this time after the push.
pub const RULES_TIMEOUT: Duration = Duration::from_secs(30);
/// What is measured or judged beside ours serves within this time.
pub const PEER_START_TIMEOUT: Duration = Duration::from_secs(30);

/// An input that a fuzzed target works on for longer is a finding.
pub const FUZZ_INPUT_SECONDS_MAX: u32 = 10;
/// Memory that a fuzzed target may take.
pub const FUZZ_MEMORY_MB_MAX: u32 = 2048;
/// Bytes of the inputs that are kept of one target.
pub const FUZZ_CORPUS_BYTES_MAX: u64 = 128 * 1024;

/// Pause between two requests of one thread of a soak.
pub const SOAK_REQUEST_PAUSE: Duration = Duration::from_millis(30);
/// The same between two uploads.
pub const SOAK_UPLOAD_PAUSE: Duration = Duration::from_millis(300);
/// How often a soak looks what is due.
pub const SOAK_EVENT_PAUSE: Duration = Duration::from_millis(200);
/// How often a soak looks at the processes.
pub const SOAK_LOOK_PAUSE: Duration = Duration::from_secs(5);
/// How often rules are pushed in a soak.
pub const SOAK_PUSH_EVERY: Duration = Duration::from_secs(20);
/// An edge decides by what was pushed within this time.
pub const SOAK_PUSH_SEEN_MAX: Duration = Duration::from_secs(10);
/// How often tags are purged in a soak.
pub const SOAK_PURGE_EVERY: Duration = Duration::from_secs(7);
/// How often an origin or a PostgreSQL is killed in a soak.
pub const SOAK_KILL_EVERY: Duration = Duration::from_secs(45);
/// What was killed in a soak serves again within this time.
pub const SOAK_BACK_MAX: Duration = Duration::from_secs(30);
/// As many parts of a soak's time have their own memory in the report.
pub const SOAK_PARTS_MAX: u64 = 60;
/// As many failed requests of one thread are kept in words.
pub const SOAK_FAULTS_MAX: usize = 1_000;
/// A process that has more than so many times the memory that it had grows, if that are also more than
/// [`SOAK_GROWTH_MB_MAX`] more.
pub const SOAK_GROWTH_SHARE_MAX: f64 = 1.25;
/// As much memory may come and go, in megabytes.
pub const SOAK_GROWTH_MB_MAX: f64 = 24.0;
/// As many files may be open beside those that were.
pub const SOAK_GROWTH_FILES_MAX: f64 = 64.0;
/// As many connections may there be beside those that were.
pub const SOAK_GROWTH_CONNECTIONS_MAX: f64 = 32.0;
/// An edge whose clients are gone has closed what it had within this time, idle connections to origins among them.
pub const SOAK_REST_TIMEOUT: Duration = Duration::from_secs(60);
/// As many connections it may still have then: it is asked all the time whether it answers.
pub const SOAK_REST_CONNECTIONS_MAX: f64 = 4.0;

/// How often `bench rollout` looks whether something has happened.
pub const ROLLOUT_POLL: Duration = Duration::from_millis(2);
/// Pause of each that asks an edge in `bench rollout`, between an answer and the next question.
pub const ROLLOUT_ASK_PAUSE: Duration = Duration::from_millis(20);
/// As above while a large bundle is swapped in.
pub const ROLLOUT_SWAP_PAUSE: Duration = Duration::from_millis(5);
/// As many ask an edge at once.
pub const ROLLOUT_ASKERS: usize = 4;
/// A change that is not seen within this time is lost.
pub const ROLLOUT_SEEN_MAX: Duration = Duration::from_secs(30);
/// How long traffic is looked at after a bundle was swapped in.
pub const ROLLOUT_AFTER_SWAP: Duration = Duration::from_secs(1);
/// The longest pause before a change: edges ask for news twice a second, and changes shall come at any time between.
pub const ROLLOUT_PAUSE_MS_MAX: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_says_what_is_needed() {
        let readme = std::fs::read_to_string(crate::paths::root().join("README.md")).unwrap();
        for needed in
            [format!("Node {NODE_MAJOR_MIN} or newer"), format!("PostgreSQL {POSTGRES_MAJOR_MIN} or newer")]
        {
            assert!(readme.contains(&needed), "no {needed:?}");
        }
    }
}
