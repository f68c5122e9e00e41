//! Script in a page.

use super::rules::{At, Class, Rule, View, anywhere, begins_word, call, is_of_word, near, row};

pub(super) const RULES: [Rule; 9] = [
    row("xss-script", Class::Xss, (1, 5), View::Folded, &["<script", "</script"], ends_name),
    row("xss-handler", Class::Xss, (1, 5), View::Folded, &["<"], tag_with_handler),
    row("xss-attribute", Class::Xss, (1, 5), View::Folded, &["on", "formaction"], attribute),
    row(
        "xss-element",
        Class::Xss,
        (1, 5),
        View::Folded,
        &["<iframe", "<object", "<embed", "<applet", "<base", "<frameset", "<meta", "<link"],
        element,
    ),
    row("xss-scheme", Class::Xss, (1, 5), View::Url, &["javascript:", "vbscript:", "livescript:"], scheme),
    row(
        "xss-data",
        Class::Xss,
        (1, 5),
        View::Url,
        &["data:text/html", "data:image/svg+xml", "data:application/xhtml"],
        begins_word,
    ),
    row(
        "xss-call",
        Class::Xss,
        (1, 5),
        View::Folded,
        &[
            "document.cookie",
            "document.write(",
            "document.domain",
            "document.location=",
            "window.location=",
            "string.fromcharcode(",
            "constructor.constructor",
            ".innerhtml=",
            "srcdoc=",
        ],
        anywhere,
    ),
    row(
        "xss-popup",
        Class::Xss,
        (2, 4),
        View::Folded,
        &["alert", "prompt", "confirm", "eval", "settimeout", "atob", "import"],
        popup,
    ),
    row("xss-tag", Class::Xss, (3, 3), View::Folded, &["<"], |at| {
        at.after.starts_with(|first: char| first.is_ascii_alphabetic() || matches!(first, '/' | '!' | '?'))
    }),
];

fn ends_name(at: At<'_>) -> bool {
    !at.after.starts_with(is_of_word)
}

/// A tag with any attribute: `<object data=…`, but not the `<object>` of `List<object>`. Of those that pages are full of, one
/// that loads something, leads elsewhere or stands for a header field: `<link href=…`, `<meta/http-equiv=…`.
fn element(at: At<'_>) -> bool {
    let names: &[&str] = match at.found {
        "<meta" => &["http-equiv"],
        "<link" => &["href", "rel"],
        _ => return ends_name(at) && at.after.split(['<', '>']).next().is_some_and(|tag| tag.contains('=')),
    };
    at.after.starts_with([' ', '/'])
        && attributes(at.after).any(|(name, value)| names.contains(&name) && !value.is_empty())
}

/// The attributes of a tag, each with its value, as browsers read them: between them stand spaces and slashes, and within quotes
/// anything (HTML, sections 13.2.5.32 to 13.2.5.39).
fn attributes(tag: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = tag;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '/']);
        let first = rest.chars().next().filter(|first| *first != '>')?.len_utf8();
        let end = rest.get(first..)?.find([' ', '/', '>', '=']).map_or(rest.len(), |end| first + end);
        let (name, behind) = rest.split_at_checked(end)?;
        let Some(value) = behind.trim_start().strip_prefix('=').map(str::trim_start) else {
            rest = behind;
            return Some((name, ""));
        };
        let (value, behind) = match value.strip_prefix(['"', '\'']) {
            Some(inside) => {
                let quote = if value.starts_with('"') { '"' } else { '\'' };
                inside.split_once(quote).unwrap_or((inside, ""))
            }
            None => value.split_at_checked(value.find([' ', '>']).unwrap_or(value.len()))?,
        };
        rest = behind;
        Some((name, value))
    })
}

/// A tag with an attribute that runs script: `<img src=x onerror=…`, `<svg/onload=…`.
fn tag_with_handler(at: At<'_>) -> bool {
    let tag = at.after.split(['<', '>']).next().unwrap_or_default();
    at.after.starts_with(|first: char| first.is_ascii_alphabetic())
        && tag.match_indices("on").any(|(start, _)| {
            let (before, rest) = tag.split_at_checked(start).unwrap_or((tag, ""));
            before.ends_with([' ', '/', '"', '\'', '`'])
                && is_event(rest.get(2..).unwrap_or_default(), |_| true)
        })
}

/// `onload=` or `formaction=` where an attribute can begin: in a tag, or behind a quote that could end the attribute of the page.
fn attribute(at: At<'_>) -> bool {
    let can_begin = at.before.ends_with([' ', '/', '"', '\'', '`']);
    let mut before = at.before.chars().rev().take(40);
    let is_quoted = |letter: char| matches!(letter, '"' | '\'' | '`' | '>');
    can_begin
        && match at.found {
            "on" => before.any(is_quoted) && handler_name(at.after),
            _ => {
                before.any(|letter| letter == '<' || is_quoted(letter))
                    && at.after.trim_start().starts_with('=')
            }
        }
}

/// Beginnings of the names of events.
const EVENTS: [&str; 79] = [
    "abort",
    "after",
    "animation",
    "auxclick",
    "before",
    "begin",
    "blur",
    "bounce",
    "cancel",
    "canplay",
    "change",
    "click",
    "close",
    "command",
    "contentvisibility",
    "context",
    "copy",
    "cuechange",
    "cut",
    "dblclick",
    "drag",
    "drop",
    "durationchange",
    "emptied",
    "end",
    "error",
    "finish",
    "focus",
    "formdata",
    "fullscreen",
    "gesture",
    "gotpointer",
    "hashchange",
    "input",
    "invalid",
    "key",
    "languagechange",
    "load",
    "lostpointer",
    "message",
    "mouse",
    "offline",
    "online",
    "page",
    "paste",
    "pause",
    "play",
    "pointer",
    "popstate",
    "progress",
    "ratechange",
    "readystate",
    "rejectionhandled",
    "repeat",
    "reset",
    "resize",
    "scroll",
    "search",
    "securitypolicy",
    "seeked",
    "seeking",
    "select",
    "show",
    "slotchange",
    "stalled",
    "start",
    "storage",
    "submit",
    "suspend",
    "timeupdate",
    "toggle",
    "touch",
    "transition",
    "unhandled",
    "unload",
    "volumechange",
    "waiting",
    "webkit",
    "wheel",
];

/// Whether a text goes on as the name of a handler does behind its `on`, up to the `=`: with the beginning of an event's name, where
/// no tag says that it is one.
fn handler_name(text: &str) -> bool {
    is_event(text, |name| EVENTS.iter().any(|event| name.starts_with(event)))
}

/// Whether a text begins with a name of three letters or more that `is_known`, and an `=`.
fn is_event(text: &str, is_known: impl Fn(&str) -> bool) -> bool {
    let text = near(text, 40);
    let end = text.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(text.len());
    let (name, rest) = text.split_at_checked(end).unwrap_or((text, ""));
    name.len() >= 3 && is_known(name) && rest.trim_start().starts_with('=')
}

/// A scheme with something to run.
fn scheme(at: At<'_>) -> bool {
    begins_word(at) && !at.after.is_empty() && !at.after.starts_with(' ')
        || begins_word(at) && near(at.after, 60).contains('(')
}

/// A call with an argument as attacks have them: `alert(1)`, `alert('x')`, ``alert`1` ``.
fn popup(at: At<'_>) -> bool {
    begins_word(at)
        && (at.after.starts_with('`') || call(at) && near(at.after, 60).contains([')', '\'', '"', '`']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_told_apart_as_browsers_do() {
        let check = |tag: &str, expect: &[(&str, &str)]| {
            assert_eq!(attributes(tag).collect::<Vec<_>>(), expect, "{tag:?}");
        };
        check(" a=1 b = '2' >c=3", &[("a", "1"), ("b", "2")]);
        check("/a=\">\"/b/c=x/y z", &[("a", ">"), ("b", ""), ("c", "x/y"), ("z", "")]);
        check("a='1'b=\"2", &[("a", "1"), ("b", "2")]);
        check(" =a=1 é==", &[("=a", "1"), ("é", "=")]);
        check("> a=1", &[]);
        check(" / ", &[]);
    }
}
