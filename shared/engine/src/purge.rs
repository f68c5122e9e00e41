//! The purge journal as an edge remembers it: what went stale, and since which position of which region.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};

use crate::bounded::Keyed;
use crate::limits::{PURGE_REACH_MS, PURGE_SOURCES_MAX, PURGES_MAX};
use crate::ruleset::RegionId;
use crate::step::{Purge, SyncNews};

/// Positions of the regions that an answer reflects, or that were purged, by ordinal.
type Positions = Vec<(u16, u64)>;

/// What went stale, bounded in memory: entries are kept by a hash of tenant and tag (a collision makes more stale,
/// never less), and when there are too many, the older ones become one mark that stands for all of them.
#[derive(Debug)]
pub struct PurgeJournal {
    keyed: Keyed,
    young: HashMap<u64, Mark, Keyed>,
    old: HashMap<u64, Mark, Keyed>,
    /// Stands for everything that was dropped.
    dropped: Mark,
    /// Whether an origin's journal was read yet.
    heard: bool,
    /// How far each region's journal has been read.
    cursor: Vec<(RegionId, u64)>,
}

/// What is known to be stale for one tag.
#[derive(Clone, Debug, Default)]
struct Mark {
    /// Answers that reflect less than these positions are stale.
    positions: Positions,
    /// Answers stored at this time or before are stale.
    stored_ms: u64,
    /// When the newest of the changes behind `positions` was written down: decides for answers that name no positions,
    /// as those of upstreams do.
    changed_ms: u64,
}

impl Mark {
    fn add(&mut self, source: u16, position: u64, at_ms: u64) {
        if source == 0 {
            self.stored_ms = self.stored_ms.max(at_ms);
            return;
        }
        self.changed_ms = self.changed_ms.max(at_ms);
        if let Some((_, have)) = self.positions.iter_mut().find(|(ordinal, _)| *ordinal == source) {
            *have = position.max(*have);
        } else if self.positions.len() < PURGE_SOURCES_MAX {
            self.positions.push((source, position));
        } else {
            self.stored_ms = self.stored_ms.max(at_ms);
        }
    }

    fn merge(&mut self, other: &Self) {
        for (source, position) in &other.positions {
            self.add(*source, *position, other.changed_ms);
        }
        self.stored_ms = self.stored_ms.max(other.stored_ms);
    }

    fn hits(&self, seen: &[(u16, u64)], stored_ms: u64) -> bool {
        if seen.is_empty() {
            return stored_ms <= self.stored_ms.max(self.changed_ms);
        }
        stored_ms <= self.stored_ms
            || self.positions.iter().any(|(source, position)| {
                seen.iter().find(|(ordinal, _)| ordinal == source).map_or(0, |(_, seen)| *seen) < *position
            })
    }
}

impl PurgeJournal {
    /// An empty journal: nothing was read yet, so everything stored before the first news counts as stale.
    #[must_use]
    pub fn new(keyed: Keyed) -> Self {
        Self {
            keyed,
            young: HashMap::with_hasher(keyed),
            old: HashMap::with_hasher(keyed),
            dropped: Mark::default(),
            heard: false,
            cursor: Vec::new(),
        }
    }

    /// How far each region's journal has been read.
    #[must_use]
    pub fn cursor(&self) -> &[(RegionId, u64)] {
        &self.cursor
    }

    /// Takes what an origin's journal says. A region that is read for the first time answers for the last
    /// [`PURGE_REACH_MS`] only: what was stored before that is stale.
    pub fn read(&mut self, news: &SyncNews) {
        self.heard = true;
        if news.reset {
            self.dropped.stored_ms = self.dropped.stored_ms.max(news.now_ms);
        }
        for purge in &news.purges {
            self.mark(purge);
        }
        for (region, sequence) in &news.purge_cursor {
            if let Some((_, have)) = self.cursor.iter_mut().find(|(id, _)| id == region) {
                *have = if news.reset { *sequence } else { (*have).max(*sequence) };
            } else {
                let reach = news.now_ms.saturating_sub(PURGE_REACH_MS);
                self.dropped.stored_ms = self.dropped.stored_ms.max(reach);
                self.cursor.push((region.clone(), *sequence));
            }
        }
    }

    /// Takes one entry.
    pub fn mark(&mut self, purge: &Purge) {
        let key = self.key(&purge.tenant, &purge.tag);
        if let Some(mark) = self.young.get_mut(&key) {
            mark.add(purge.source, purge.position, purge.at_ms);
            return;
        }
        let mut mark = self.old.remove(&key).unwrap_or_default();
        mark.add(purge.source, purge.position, purge.at_ms);
        if self.young.len() >= PURGES_MAX / 2 {
            let dropped = std::mem::replace(
                &mut self.old,
                std::mem::replace(&mut self.young, HashMap::with_hasher(self.keyed)),
            );
            for mark in dropped.values() {
                self.dropped.merge(mark);
            }
        }
        self.young.insert(key, mark);
    }

    /// Whether an entry is stale: one of its tags, or everything of its tenant, was purged after what it reflects.
    /// `seen` are the positions that its response reflects, by the region's ordinal (a missing one counts as 0; where
    /// there are none at all, the time decides);
    /// `stored_ms` is when it was stored.
    pub fn is_stale<'a>(
        &self,
        tenant: &str,
        tags: impl IntoIterator<Item = &'a str>,
        seen: &[(u16, u64)],
        stored_ms: u64,
    ) -> bool {
        !self.heard
            || self.dropped.hits(seen, stored_ms)
            || std::iter::once("*").chain(tags).any(|tag| {
                let key = self.key(tenant, tag);
                self.young
                    .get(&key)
                    .or_else(|| self.old.get(&key))
                    .is_some_and(|mark| mark.hits(seen, stored_ms))
            })
    }

    fn key(&self, tenant: &str, tag: &str) -> u64 {
        let mut hasher = self.keyed.build_hasher();
        tenant.hash(&mut hasher);
        tag.hash(&mut hasher);
        hasher.finish()
    }

    /// How many tags are remembered one by one.
    #[must_use]
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Whether no tag is remembered by itself.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn purge(tag: &str, source: u16, position: u64, at_ms: u64) -> Purge {
        Purge { tenant: "acme".to_owned(), tag: tag.to_owned(), source, position, at_ms }
    }

    fn journal(purges: Vec<Purge>) -> PurgeJournal {
        let mut journal = PurgeJournal::new(Keyed::default());
        journal.read(&SyncNews {
            purges,
            purge_cursor: vec![("us-east-1".into(), 9)],
            now_ms: NOW,
            ..SyncNews::default()
        });
        journal
    }

    #[test]
    fn an_entry_is_stale_when_it_reflects_less_than_what_was_purged() {
        let journal = journal(vec![purge("orders", 2, 100, NOW), purge("orders", 0, 0, NOW - 50)]);
        let check = |tags: &[&str], seen: &[(u16, u64)], stored_ms, expect| {
            let got = journal.is_stale("acme", tags.iter().copied(), seen, stored_ms);
            assert_eq!(got, expect, "{tags:?} {seen:?} {stored_ms}");
        };
        check(&["orders"], &[(2, 100)], NOW, false);
        check(&["orders"], &[(2, 99)], NOW, true);
        check(&["orders"], &[(1, 500)], NOW, true);
        check(&["orders"], &[], NOW, true);
        check(&["orders"], &[], NOW + 1, false);
        check(&["orders"], &[(2, 100)], NOW - 50, true);
        check(&["orders"], &[(2, 100)], NOW - 49, false);
        check(&["orders/1"], &[], NOW, false);
        check(&[], &[], NOW, false);
    }

    #[test]
    fn a_purge_is_scoped_to_its_tenant() {
        let journal = journal(vec![purge("*", 0, 0, NOW)]);
        assert!(journal.is_stale("acme", [], &[], NOW));
        assert!(!journal.is_stale("globex", [], &[], NOW));
    }

    #[test]
    fn what_was_stored_before_the_first_news_reach_is_stale() {
        assert!(PurgeJournal::new(Keyed::default()).is_stale("acme", [], &[], NOW));
        let journal = journal(vec![]);
        assert!(journal.is_stale("acme", [], &[], NOW - PURGE_REACH_MS));
        assert!(!journal.is_stale("acme", [], &[], NOW - PURGE_REACH_MS + 1));
    }

    #[test]
    fn a_reset_makes_everything_before_it_stale_and_moves_the_cursor_back() {
        let mut journal = journal(vec![]);
        journal.read(&SyncNews {
            reset: true,
            purge_cursor: vec![("us-east-1".into(), 3)],
            now_ms: NOW + 10,
            ..SyncNews::default()
        });
        assert!(journal.is_stale("acme", [], &[(1, u64::MAX)], NOW + 10));
        assert!(!journal.is_stale("acme", [], &[], NOW + 11));
        assert_eq!(journal.cursor(), [("us-east-1".into(), 3)]);
    }

    #[test]
    fn memory_is_bounded_and_what_is_dropped_still_counts() {
        let purges = (0..PURGES_MAX * 2).map(|i| purge(&format!("t/{i}"), 1, i as u64 + 1, NOW)).collect();
        let journal = journal(purges);
        assert!(journal.len() <= PURGES_MAX);
        assert!(journal.is_stale("acme", ["t/0"], &[(1, 1)], NOW + 1), "dropped one by one, kept as a whole");
        assert!(journal.is_stale("acme", ["t/0"], &[], NOW));
        assert!(!journal.is_stale("acme", ["t/0"], &[], NOW + 1));
        assert!(!journal.is_stale("acme", ["t/0"], &[(1, u64::MAX)], NOW + 1));
    }
}
