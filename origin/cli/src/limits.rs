//! Every limit of the command line, in one place.

use std::time::Duration;

/// How long an answer of the control API may take.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of an answer.
pub const ANSWER_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Pages of a list that are asked for.
pub const PAGES_MAX: usize = 500;
/// Folders below one another in a set of rules.
pub const FOLDER_DEPTH_MAX: usize = 8;
/// Bytes of a token that is read from standard input.
pub const TOKEN_BYTES_MAX: u64 = 4096;
/// Columns of a source line that are shown with an error.
pub const SOURCE_COLUMNS_MAX: usize = 120;
/// How far back decisions are counted, in milliseconds.
pub const WINDOW_MS_MAX: u64 = 24 * 60 * 60 * 1000;
/// Pause between two looks at what has arrived.
pub const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);
/// How often in a row a server that is followed may be away.
pub const FOLLOW_FAULTS_MAX: usize = 10;
