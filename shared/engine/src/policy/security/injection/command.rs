//! Programs, templates and expression languages of the server.

use std::borrow::Cow;
use std::net::Ipv4Addr;

use super::rules::{At, Class, Rule, View, anywhere, begins_word, first_word, is_of_word, near, row};

pub(super) const RULES: [Rule; 9] = [
    row("command-chain", Class::Command, (1, 5), View::Folded, &[";", "|", "&&", "&"], chained),
    row("command-line", Class::Command, (1, 5), View::Decoded, &["\n", "\r"], line),
    row(
        "command-substitution",
        Class::Command,
        (1, 5),
        View::Folded,
        &["$(", "`", "<(", "${ifs", "$ifs", "{"],
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
            "<?=",
            "<!--#exec",
            "<!--#include",
            "require('child_process",
        ],
        anywhere,
    ),
    row("command-alone", Class::Command, (2, 4), View::Folded, &[";", "|", "&&"], |at| {
        program_call(at.after, &[], |name| ALONE.contains(&name))
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

/// What may follow the name of a program at once and end its part of the command line.
const ENDS: [char; 7] = [';', '|', '&', '`', ')', '\'', '"'];

/// A separator, then a program with what belongs to it: `; cat /etc/…`, `| id`, `&& ping -c 1`, `127.0.0.1;id;`. Lists such as
/// `name|id` and queries such as `a=1&dir` are none.
fn chained(at: At<'_>) -> bool {
    let is_spaced = at.after.starts_with(' ');
    let ends: &[char] = if is_spaced { &[] } else { &ENDS };
    program_call(&unquoted(at.after), ends, |name| {
        let is_alone = || {
            ALONE.contains(&name)
                && (is_spaced && matches!(at.found, "|" | "&&") || behind_an_address(at.before))
        };
        at.found != "&" && (UNMISTAKABLE.contains(&name) || is_alone())
    })
}

/// A line that is a command: behind an address any, else one that nobody writes by chance, as people begin lines with `ping 3
/// times` as well.
fn line(at: At<'_>) -> bool {
    let is_behind_an_address = behind_an_address(at.before.trim_end());
    let line = at.after.split(['\n', '\r']).next().unwrap_or_default();
    let (name, rest) = first_word(line);
    let is_file = |path: &str| path.starts_with(|first: char| first.is_ascii_alphanumeric());
    let is_unmistakable = UNMISTAKABLE.contains(&name) && rest.trim_end().is_empty();
    let is_on_a_file = WITH_ARGUMENT.contains(&name)
        && (rest.starts_with(['$', '<']) || rest.trim_start().strip_prefix('/').is_some_and(is_file))
        && !rest.starts_with('/');
    is_unmistakable
        || is_on_a_file
        || is_behind_an_address && program_call(&unquoted(line), &ENDS, |name| ALONE.contains(&name))
}

/// The same with the name of the program as a shell reads it: `c'a't /etc/…`, `c\at /etc/…` and `\cat /etc/…` are `cat /etc/…`.
/// Words in quotes as a whole are no commands.
fn unquoted(text: &str) -> Cow<'_, str> {
    const AROUND: [char; 2] = ['\'', '"'];
    const QUOTES: [char; 3] = ['\'', '"', '\\'];
    let text = text.trim_start();
    let (name, rest) = text.split_at_checked(text.find(' ').unwrap_or(text.len())).unwrap_or((text, ""));
    if name.len() > 24 || !name.trim_matches(AROUND).contains(QUOTES) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(name.replace(QUOTES, "") + rest)
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
    let is_in_brackets = at.found != "`";
    let closes = rest.starts_with([')', '`']) || is_in_brackets && rest.trim_start().starts_with(')');
    match at.found {
        "${ifs" | "$ifs" => !at.after.starts_with(is_of_word),
        "{" => {
            // A list of names is none: what follows is an option, a file or an address.
            let takes = ["/", "-", "$", "http", "."]
                .iter()
                .any(|sign| rest.get(1..).unwrap_or_default().starts_with(sign));
            rest.starts_with(',') && takes && (name == "ls" || WITH_ARGUMENT.contains(&name))
        }
        _ => (ALONE.contains(&name) && closes) || program_call(&unquoted(at.after), &[], |_| false),
    }
}

/// Whether a text begins with a program and what belongs to it; `stands_alone` says of which programs nothing has to, where they
/// end with the text, before another part of the command line, or with one of `ends`.
fn program_call(text: &str, ends: &[char], stands_alone: impl Fn(&str) -> bool) -> bool {
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
    let ends = argument.is_empty()
        || rest.starts_with(ends)
        || (rest.starts_with(' ') && argument.starts_with(['|', '&', '>', '#']));
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
