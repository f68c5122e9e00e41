//! Programs, templates and expression languages of the server.

use super::rules::{At, Class, Rule, View, anywhere, begins_word, first_word, is_of_word, near, row};

pub(super) const RULES: [Rule; 7] = [
    row("command-chain", Class::Command, (1, 5), View::Folded, &[";", "|", "&"], chained),
    row(
        "command-substitution",
        Class::Command,
        (1, 5),
        View::Folded,
        &["$(", "`", "<(", "${ifs"],
        substituted,
    ),
    row(
        "command-program",
        Class::Command,
        (1, 5),
        View::Folded,
        &[
            "/bin/sh",
            "/bin/bash",
            "/bin/cat",
            "/usr/bin/",
            "/dev/tcp/",
            "cmd.exe",
            "cmd /c",
            "powershell -",
            "powershell.exe",
        ],
        program,
    ),
    row("command-shellshock", Class::Command, (1, 5), View::Folded, &["() {", "(){"], |at| {
        near(at.after, 12).contains(':') && near(at.after, 12).contains(';')
    }),
    row("command-lookup", Class::Command, (1, 5), View::Folded, &["${"], lookup),
    row(
        "command-expression",
        Class::Command,
        (1, 5),
        View::Folded,
        &[
            "java.lang.runtime",
            "getruntime(",
            "processbuilder",
            "__globals__",
            "__subclasses__",
            "__import__(",
            "#_memberaccess",
            "<?php",
            "<!--#exec",
            "<!--#include",
            "require('child_process",
        ],
        anywhere,
    ),
    row("command-template", Class::Command, (2, 5), View::Folded, &["{{", "${", "<%=", "#{"], template),
];

/// Programs that attacks begin with. The first ones need no argument.
const ALONE: [&str; 8] = ["id", "whoami", "uname", "ls", "pwd", "ifconfig", "netstat", "dir"];
const WITH_ARGUMENT: [&str; 22] = [
    "cat",
    "wget",
    "curl",
    "nc",
    "ncat",
    "bash",
    "sh",
    "ping",
    "nslookup",
    "dig",
    "rm",
    "chmod",
    "python",
    "python3",
    "perl",
    "php",
    "ruby",
    "powershell",
    "cmd",
    "tftp",
    "telnet",
    "sleep",
];

/// A separator, then a program with what belongs to it: `; cat /etc/…`, `| id`, `&& ping -c 1`.
fn chained(at: At<'_>) -> bool {
    program_call(at.after)
}

/// A program in a substitution: `$(id)`, `` `whoami` ``, or white space spelled as a variable.
fn substituted(at: At<'_>) -> bool {
    if at.found == "${ifs" {
        return true;
    }
    let (name, rest) = first_word(at.after);
    let closes = rest.starts_with(')') || rest.starts_with('`');
    ALONE.contains(&name) && closes || program_call(at.after)
}

fn program_call(text: &str) -> bool {
    let text = text.trim_start();
    let path = ["/bin/", "/usr/bin/", "/sbin/"].iter().find_map(|folder| text.strip_prefix(folder));
    let (name, rest) = first_word(path.unwrap_or(text));
    let argument = rest.trim_start();
    if path.is_some() {
        return !name.is_empty();
    }
    let ends = argument.is_empty() || argument.starts_with([';', '|', '&', '>', '#', '`']);
    // `ls` may well be a parameter after a separator: only an argument or a further separator tells.
    let takes = rest.starts_with([' ', '$', '<'])
        && argument.starts_with(['/', '-', '$', '<', '>', '~', '*', '.', '\'', '"', '%'])
        || rest.starts_with(' ')
            && (argument.starts_with("http") || argument.starts_with(|first: char| first.is_ascii_digit()));
    ALONE.contains(&name) && (ends || takes) || WITH_ARGUMENT.contains(&name) && takes
}

fn program(at: At<'_>) -> bool {
    !at.before.ends_with(is_of_word) && (at.found != "/usr/bin/" || at.after.starts_with(is_of_word))
}

/// `${jndi:…}`, also spelled with lookups in lookups: `${${lower:j}ndi:…}`.
fn lookup(at: At<'_>) -> bool {
    let inside = near(at.after, 200).trim_start();
    ["jndi:", "${", "lower:", "upper:", "env:", "sys:", "::-", "script:", "dns:", "url:", "base64:"]
        .iter()
        .any(|name| inside.starts_with(name))
        && (inside.contains('}') || inside.starts_with("jndi:"))
}

/// A calculation or a call in the brackets of a template.
fn template(at: At<'_>) -> bool {
    let inside = near(at.after, 80);
    let inside = inside.split(['}', '%']).next().unwrap_or_default().trim();
    let calculates = inside
        .split_once(['*', '+', '-', '/'])
        .is_some_and(|(left, right)| [left, right].iter().all(|side| is_constant(side)));
    begins_word(at) && (calculates || inside.contains('(') && inside.contains(['.', '_']))
}

fn is_constant(text: &str) -> bool {
    let text = text.trim().trim_matches('\'');
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}
