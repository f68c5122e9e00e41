//! Programs, templates and expression languages of the server.

use std::net::Ipv4Addr;

use super::rules::{At, Class, Rule, View, anywhere, begins_word, first_word, is_of_word, near, row};

pub(super) const RULES: [Rule; 8] = [
    row("command-chain", Class::Command, (1, 5), View::Folded, &[";", "|", "&&", "&"], chained),
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
    row("command-alone", Class::Command, (2, 4), View::Folded, &[";", "|", "&&"], |at| {
        program_call(at.after, |name| ALONE.contains(&name))
    }),
    row("command-template", Class::Command, (2, 5), View::Folded, &["{{", "${", "<%=", "#{"], template),
];

/// Programs that attacks begin with and that need no argument, those that are hardly anything else first.
const ALONE: [&str; 8] = ["whoami", "uname", "ifconfig", "netstat", "id", "ls", "pwd", "dir"];
const UNMISTAKABLE: [&str; 4] = ["whoami", "uname", "ifconfig", "netstat"];
/// Programs that need one.
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
/// Those of them whose argument may begin with a digit, where that of others would be a version.
const WITH_NUMBER: [&str; 9] = ["curl", "wget", "nc", "ncat", "ping", "nslookup", "telnet", "sleep", "dig"];

/// A separator, then a program with what belongs to it: `; cat /etc/…`, `| id`, `&& ping -c 1`, `127.0.0.1;id`. Lists such as
/// `name|id` and queries such as `a=1&dir` are none.
fn chained(at: At<'_>) -> bool {
    let is_spaced = at.after.starts_with(' ') && matches!(at.found, "|" | "&&");
    program_call(at.after, |name| {
        let is_alone = || ALONE.contains(&name) && (is_spaced || behind_an_address(at.before));
        at.found != "&" && (UNMISTAKABLE.contains(&name) || is_alone())
    })
}

/// Whether an IPv4 address ends here, as it does in forms that hand it to a program.
fn behind_an_address(text: &str) -> bool {
    let text = text.trim_end_matches([' ', ';', '|', '&']);
    let last = text.rsplit(|letter: char| !letter.is_ascii_digit() && letter != '.').next();
    last.is_some_and(|last| last.parse::<Ipv4Addr>().is_ok())
}

/// A program in a substitution: `$(id)`, `` `whoami` ``, or white space spelled as a variable.
fn substituted(at: At<'_>) -> bool {
    let (name, rest) = first_word(at.after);
    let closes = rest.starts_with([')', '`']);
    at.found == "${ifs" || (ALONE.contains(&name) && closes) || program_call(at.after, |_| false)
}

/// Whether a text begins with a program and what belongs to it; `stands_alone` says of which programs nothing has to.
fn program_call(text: &str, stands_alone: impl Fn(&str) -> bool) -> bool {
    let text = text.trim_start();
    let path = ["/bin/", "/usr/bin/", "/sbin/"].iter().find_map(|folder| text.strip_prefix(folder));
    let (name, rest) = first_word(path.unwrap_or(text));
    if path.is_some() {
        return !name.is_empty();
    }
    let argument = rest.trim_start();
    let mut letters = argument.chars();
    let takes = match letters.next() {
        Some('/' | '$' | '<' | '>' | '~' | '*' | '.' | '\'' | '"' | '%') => true,
        Some('-') => letters.next().is_some_and(|letter| letter.is_ascii_alphanumeric() || letter == '-'),
        Some('h') => argument.starts_with("http"),
        Some(letter) => letter.is_ascii_digit() && WITH_NUMBER.contains(&name),
        None => false,
    };
    let takes = takes && rest.starts_with([' ', '$', '<']);
    let ends = argument.is_empty() || (rest.starts_with(' ') && argument.starts_with(['|', '&', '>', '#']));
    (ends && stands_alone(name)) || (takes && (ALONE.contains(&name) || WITH_ARGUMENT.contains(&name)))
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
