//! All rules in one pass over a text: the triggers stand in a table by their first byte.

use std::borrow::Cow;
use std::sync::LazyLock;

use super::fold::{Folded, fold};
use super::rules::{At, RULES, Rule, View};
use crate::facts::percent_decode;

/// Triggers of one view by their first byte.
type Table = Vec<Vec<(&'static str, &'static Rule)>>;

static RAW: LazyLock<Table> = LazyLock::new(|| table(&[View::Raw]));
static DECODED: LazyLock<Table> = LazyLock::new(|| table(&[View::Decoded]));
static FOLDED: LazyLock<Table> = LazyLock::new(|| table(&[View::Folded, View::Url]));
static URL: LazyLock<Table> = LazyLock::new(|| table(&[View::Url]));

fn table(views: &[View]) -> Table {
    let mut table = vec![Vec::new(); 256];
    for rule in RULES.into_iter().flatten().filter(|rule| views.contains(&rule.view)) {
        for trigger in rule.triggers {
            let first = trigger.bytes().next().and_then(|first| table.get_mut(usize::from(first)));
            first.into_iter().for_each(|triggers| triggers.push((*trigger, rule)));
        }
    }
    table
}

/// The rules that hit a text as it came, each once.
pub(super) fn hits(text: &str, plus: bool, paranoia: u8) -> Vec<&'static Rule> {
    let mut hits = Vec::new();
    // No rule is about a single word.
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return hits;
    }
    let once = percent_decode(text, plus);
    let twice = percent_decode(&once, false);
    if matches!(once, Cow::Owned(_)) {
        search(&text.to_ascii_lowercase(), &RAW, paranoia, &mut hits);
    }
    if matches!(twice, Cow::Owned(_)) {
        search(&once.to_ascii_lowercase(), &RAW, paranoia, &mut hits);
    }
    for view in [Some(&once), Some(&twice).filter(|twice| ***twice != *once)].into_iter().flatten() {
        if view.contains(['\r', '\n', '\0']) {
            search(&view.to_ascii_lowercase(), &DECODED, paranoia, &mut hits);
        }
        let Folded { text, uncommented, url } = fold(view);
        search(&text, &FOLDED, paranoia, &mut hits);
        if let Some(text) = uncommented {
            search(&text, &FOLDED, paranoia, &mut hits);
        }
        if let Some(text) = url {
            search(&text, &URL, paranoia, &mut hits);
        }
    }
    hits
}

fn search(text: &str, table: &Table, paranoia: u8, hits: &mut Vec<&'static Rule>) {
    for (start, byte) in text.bytes().enumerate() {
        for (trigger, rule) in table.get(usize::from(byte)).into_iter().flatten() {
            let is_new = |hits: &Vec<&Rule>| hits.iter().all(|hit| hit.id != rule.id);
            let Some(at) =
                At::new(text, start, trigger).filter(|_| rule.paranoia <= paranoia && is_new(hits))
            else {
                continue;
            };
            if (rule.is_hit)(at) {
                hits.push(rule);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::rules::{Class, row};
    use super::*;
    use crate::limits::INJECTION_WINDOW_BYTES;

    static READ: AtomicUsize = AtomicUsize::new(0);

    /// Reads all it is given and never hits.
    static GREEDY: Rule = row("greedy", Class::Sqli, (1, 5), View::Folded, &["'"], |at| {
        READ.fetch_add(at.before.len() + at.after.len(), Ordering::Relaxed);
        false
    });

    #[test]
    fn what_rules_read_grows_with_the_text_and_not_with_its_square() {
        let mut table = vec![Vec::new(); 256];
        table[usize::from(b'\'')] = vec![("'", &GREEDY)];
        let read = |quotes: usize, tail: usize| {
            READ.store(0, Ordering::Relaxed);
            let text = format!("x{}é{}", "'--a".repeat(quotes), "-".repeat(tail));
            search(&text, &table, 4, &mut Vec::new());
            READ.load(Ordering::Relaxed)
        };
        assert!(read(8_000, 32_000) <= 8_000 * 2 * INJECTION_WINDOW_BYTES);
        assert_eq!(read(1, 10), 1 + "--aé".len() + 10, "what is short is read whole");
        for tail in INJECTION_WINDOW_BYTES - 8..INJECTION_WINDOW_BYTES + 8 {
            assert!(read(1, tail) <= 1 + INJECTION_WINDOW_BYTES, "cut between characters, {tail}");
        }
    }

    #[test]
    fn a_comment_that_is_none_to_the_end_is_no_hit_however_long() {
        let ids = |text: &str| hits(text, false, 1).iter().map(|rule| rule.id).collect::<Vec<_>>();
        let quotes = "'--a".repeat(8_000);
        assert_eq!(ids(&format!("x{quotes}{}", "-".repeat(32_000))), Vec::<&str>::new());
        assert_eq!(ids(&format!("x{quotes}'{}", "-".repeat(32_000))), ["sqli-quote-comment"]);
    }
}
