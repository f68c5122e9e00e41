//! Files outside of what is served.

use super::rules::{At, Class, Rule, View, anywhere, begins_word, row};

pub(super) const RULES: [Rule; 6] = [
    row("traversal-climb", Class::Traversal, (1, 5), View::Folded, &["../", "..\\", "..;/"], climbs),
    row(
        "traversal-file",
        Class::Traversal,
        (1, 5),
        View::Folded,
        &[
            "/etc/passwd",
            "/etc/shadow",
            "/etc/hosts",
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
        anywhere,
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
        &["file:///", "php://", "phar://", "expect://", "gopher://", "dict://", "netdoc://", "jar:http"],
        begins_word,
    ),
    row("traversal-relative", Class::Traversal, (2, 5), View::Folded, &["../", "..\\"], |at| {
        at.before.is_empty() || at.before.ends_with(['/', '\\'])
    }),
    row("traversal-dots", Class::Traversal, (4, 3), View::Folded, &[".."], anywhere),
];

/// Two steps up at once: `../../x`, `..\..\x`, or a step that only some servers see, `..;/`.
fn climbs(at: At<'_>) -> bool {
    at.found == "..;/" || ["../", "..\\", "/../", "./"].iter().any(|again| at.after.starts_with(again))
}

/// Whether the name of a file ends here.
fn ends_segment(at: At<'_>) -> bool {
    at.after.is_empty() || at.after.starts_with(['/', '?', '#', '.'])
}
