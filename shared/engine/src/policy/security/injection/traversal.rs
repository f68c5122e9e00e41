//! Files outside of what is served.

use super::rules::{At, Class, Rule, View, anywhere, begins_word, row};

pub(super) const RULES: [Rule; 6] = [
    row("traversal-climb", Class::Traversal, (1, 5), View::Folded, &["../", "..\\", "..;/", "..;\\"], climbs),
    row(
        "traversal-file",
        Class::Traversal,
        (1, 5),
        View::Folded,
        &[
            "etc/",
            "etc\\",
            "/proc/self/",
            "c:\\windows",
            "c:/windows",
            "\\win.ini",
            "/win.ini",
            "/boot.ini",
            "/web-inf/",
            "/.git/config",
            "/.ssh/",
            "/.aws/credentials",
            "/wp-config.php",
        ],
        file,
    ),
    row(
        "traversal-dotfile",
        Class::Traversal,
        (1, 5),
        View::Folded,
        &["/.env", "/.htaccess", "/.htpasswd", "/.git"],
        ends_segment,
    ),
    row(
        "traversal-scheme",
        Class::Traversal,
        (1, 5),
        View::Folded,
        &[
            "file:///",
            "php://",
            "phar://",
            "expect://",
            "glob://",
            "zip://",
            "compress.zlib://",
            "gopher://",
            "dict://",
            "netdoc://",
            "jar:http",
            "jar:file",
        ],
        begins_word,
    ),
    row("traversal-relative", Class::Traversal, (2, 5), View::Folded, &["../", "..\\"], |at| {
        at.before.is_empty() || at.before.ends_with(['/', '\\'])
    }),
    row("traversal-dots", Class::Traversal, (4, 3), View::Folded, &[".."], anywhere),
];

const SLASHES: [char; 2] = ['/', '\\'];

/// Two steps up at once, with either slash and however many: `../../x`, `..\/..\x`; one that only some servers see, `..;/`; or
/// one that is left of `....//` where `../` is taken out once.
fn climbs(at: At<'_>) -> bool {
    if at.found.starts_with("..;") {
        return true;
    }
    let behind = at.after.trim_start_matches(SLASHES);
    let steps_again = ["../", "..\\", "./"].iter().any(|again| behind.starts_with(again));
    let is_doubled = at.before.ends_with("..")
        && at.after.starts_with(SLASHES)
        && (behind.starts_with("....") || at.before.trim_end_matches('.').ends_with(SLASHES));
    steps_again || is_doubled
}

/// A file that attacks ask for, those of `/etc` with any slashes and dots between.
fn file(at: At<'_>) -> bool {
    if !at.found.starts_with("etc") {
        return true;
    }
    let name = at.after.trim_start_matches(['/', '\\', '.']);
    at.before.ends_with(SLASHES) && ["passwd", "shadow", "hosts"].iter().any(|file| name.starts_with(file))
}

/// Whether the name of a file ends here.
fn ends_segment(at: At<'_>) -> bool {
    at.after.is_empty() || at.after.starts_with(['/', '?', '#', '.'])
}
