//! All rules in one pass over a text: the triggers stand in a table by their first byte.

use std::borrow::Cow;
use std::sync::LazyLock;

use super::fold::fold;
use super::rules::{At, RULES, Rule, View};
use crate::facts::percent_decode;

/// Triggers of one view by their first byte.
type Table = Vec<Vec<(&'static str, &'static Rule)>>;

static RAW: LazyLock<Table> = LazyLock::new(|| table(View::Raw));
static DECODED: LazyLock<Table> = LazyLock::new(|| table(View::Decoded));
static FOLDED: LazyLock<Table> = LazyLock::new(|| table(View::Folded));

fn table(view: View) -> Table {
    let mut table = vec![Vec::new(); 256];
    for rule in RULES.into_iter().flatten().filter(|rule| rule.view == view) {
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
    for view in [Some(&once), Some(&twice).filter(|twice| ***twice != *once)].into_iter().flatten() {
        if view.contains(['\r', '\n', '\0']) {
            search(&view.to_ascii_lowercase(), &DECODED, paranoia, &mut hits);
        }
        search(&fold(view), &FOLDED, paranoia, &mut hits);
    }
    hits
}

fn search(text: &str, table: &Table, paranoia: u8, hits: &mut Vec<&'static Rule>) {
    for (at, byte) in text.bytes().enumerate() {
        for (trigger, rule) in table.get(usize::from(byte)).into_iter().flatten() {
            let after = || text.get(at..).and_then(|rest| rest.strip_prefix(trigger));
            let is_new = |hits: &Vec<&Rule>| hits.iter().all(|hit| hit.id != rule.id);
            let Some(after) = after().filter(|_| rule.paranoia <= paranoia && is_new(hits)) else { continue };
            if (rule.is_hit)(At { found: trigger, before: text.get(..at).unwrap_or_default(), after }) {
                hits.push(rule);
            }
        }
    }
}
