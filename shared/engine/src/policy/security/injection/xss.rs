//! Script in a page.

use super::rules::{At, Class, Rule, View, anywhere, begins_word, call, is_of_word, near, row};

pub(super) const RULES: [Rule; 9] = [
    row("xss-script", Class::Xss, (1, 5), View::Folded, &["<script", "</script"], ends_name),
    row("xss-handler", Class::Xss, (1, 5), View::Folded, &["<"], tag_with_handler),
    row("xss-attribute", Class::Xss, (1, 5), View::Folded, &["on"], |at| quoted_before(at) && handler(at)),
    row(
        "xss-element",
        Class::Xss,
        (1, 5),
        View::Folded,
        &["<iframe", "<object", "<embed", "<applet", "<base", "<frameset", "<meta http-equiv", "<link rel"],
        tag_with_attribute,
    ),
    row("xss-scheme", Class::Xss, (1, 5), View::Folded, &["javascript:", "vbscript:", "livescript:"], scheme),
    row(
        "xss-data",
        Class::Xss,
        (1, 5),
        View::Folded,
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

/// A tag with any attribute: `<object data=…`, but not the `<object>` of `List<object>`.
fn tag_with_attribute(at: At<'_>) -> bool {
    ends_name(at) && at.after.split(['<', '>']).next().is_some_and(|tag| tag.contains('='))
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

/// `onload=` where an attribute can begin.
fn handler(at: At<'_>) -> bool {
    at.before.ends_with([' ', '/', '"', '\'', '`']) && handler_name(at.after)
}

/// Whether a quote that could end the attribute of the page stands shortly before.
fn quoted_before(at: At<'_>) -> bool {
    at.before.chars().rev().take(40).any(|letter| matches!(letter, '"' | '\'' | '`' | '>'))
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
