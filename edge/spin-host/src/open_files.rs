//! Files that the process may have open: each connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::limits;

/// Has the operating system allow as many open files as it ever will to this process; how many of so many connections there is
/// room for then.
pub fn raise(connections_max: usize) -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, "no more files can be opened than before: {current:?}");
        return room(connections_max, current);
    }
    room(connections_max, maximum)
}

fn room(connections_max: usize, files_max: Option<u64>) -> usize {
    let files_max = files_max.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
    // Where there is room for little, half of it is for what a request needs beside its connection.
    let beside = limits::FILES_BESIDE_CONNECTIONS.min(files_max / 2);
    let room = connections_max.min(files_max - beside);
    if room < connections_max {
        tracing::warn!(
            "{room} connections are accepted, and not {connections_max}: {files_max} files may be open"
        );
    }
    room
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_other_files() {
        assert_eq!(room(16_000, None), 16_000);
        assert_eq!(room(16_000, Some(1 << 20)), 16_000);
        assert_eq!(room(16_000, Some(4_096)), 2_048);
        assert_eq!(room(16_000, Some(1_024)), 512);
        assert_eq!(room(100, Some(1_024)), 100);
    }

    #[test]
    fn the_limit_is_raised_to_what_is_allowed() {
        raise(1);
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current, maximum);
    }
}
