//! The purge journal as an edge remembers it: what went stale, and since which position of which region.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use crate::bounded::Keyed;
use crate::fair::Fair;
use crate::limits::{PURGE_AHEAD_MS_MAX, PURGE_REACH_MS, PURGE_SOURCES_MAX, PURGED_TENANTS_MAX, PURGES_MAX};
use crate::ruleset::RegionId;
use crate::step::{Purge, SyncNews};

/// Tenant of a purge that is for all tenants; no slug is written so.
pub const EVERYBODY: &str = "*";
/// Tag of everything of a tenant.
pub const EVERYTHING: &str = "*";

/// Positions of the regions that an answer reflects, or that were purged, by ordinal.
type Positions = Vec<(u16, u64)>;

/// What went stale, bounded in memory: entries are kept by a hash of their tag (a collision makes more stale, never less), and
/// when there are too many, the oldest ones of tenants that have more than an even share become one mark of their tenant that
/// stands for all of them.
#[derive(Debug)]
pub struct PurgeJournal {
    keyed: Keyed,
    marks: Fair<u64, Mark>,
    /// What stands for the marks of a tenant that were dropped.
    dropped: HashMap<Arc<str>, Mark, Keyed>,
    /// What went stale for everybody.
    everything: Mark,
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
    /// Answers stored at this time or before are stale since then, but may be of use while they are fetched anew.
    soft_ms: u64,
}

/// What a purge makes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purged {
    /// It must not be served before it was validated.
    Hard,
    /// It is stale since this time, as if its lifetime had ended then.
    Soft {
        /// Milliseconds since the Unix epoch.
        at_ms: u64,
    },
}

impl Mark {
    fn take(&mut self, purge: &Purge, at_ms: u64) {
        if purge.soft {
            self.soft_ms = self.soft_ms.max(at_ms);
        } else {
            self.add(purge.source, purge.position, at_ms);
        }
    }

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
        self.soft_ms = self.soft_ms.max(other.soft_ms);
    }

    fn newest_ms(&self) -> u64 {
        self.stored_ms.max(self.changed_ms).max(self.soft_ms)
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
            marks: Fair::new(PURGES_MAX, keyed),
            dropped: HashMap::with_hasher(keyed),
            everything: Mark::default(),
            heard: false,
            cursor: Vec::new(),
        }
    }

    /// How far each region's journal has been read.
    #[must_use]
    pub fn cursor(&self) -> &[(RegionId, u64)] {
        &self.cursor
    }

    /// Takes what an origin's journal says, heard at `now_ms` by this edge's clock. A region that is read for the first time
    /// answers for the last [`PURGE_REACH_MS`] only: what was stored before that is stale.
    ///
    /// The journal's times are those of the origin's clock, and answers are stored by the edge's. Where that is ahead, times of
    /// the journal are moved by as much, and by as long as the news took, up to [`PURGE_AHEAD_MS_MAX`]: what was stored while
    /// they came is fetched once more, and nothing from before a purge stays. Where it is behind, purges reach further as it is.
    pub fn read(&mut self, news: &SyncNews, now_ms: u64) {
        self.heard = true;
        let ahead_ms = now_ms.saturating_sub(news.now_ms).min(PURGE_AHEAD_MS_MAX);
        let here_ms = |at_ms: u64| at_ms.saturating_add(ahead_ms);
        if news.reset {
            self.everything.stored_ms = self.everything.stored_ms.max(here_ms(news.now_ms));
        }
        for purge in &news.purges {
            self.mark_at(purge, here_ms(purge.at_ms));
        }
        for (region, sequence) in &news.purge_cursor {
            if let Some((_, have)) = self.cursor.iter_mut().find(|(id, _)| id == region) {
                *have = if news.reset { *sequence } else { (*have).max(*sequence) };
            } else {
                let reach = here_ms(news.now_ms).saturating_sub(PURGE_REACH_MS);
                self.everything.stored_ms = self.everything.stored_ms.max(reach);
                self.cursor.push((region.clone(), *sequence));
            }
        }
    }

    /// Makes everything of a tenant stale that is stored by now.
    pub fn mark_all(&mut self, tenant: &str, at_ms: u64) {
        let (tenant, tag) = (tenant.to_owned(), EVERYTHING.to_owned());
        self.mark(&Purge { tenant, tag, source: 0, position: 0, at_ms, soft: false });
    }

    /// Takes one entry, its time by the edge's clock.
    pub fn mark(&mut self, purge: &Purge) {
        self.mark_at(purge, purge.at_ms);
    }

    fn mark_at(&mut self, purge: &Purge, at_ms: u64) {
        if purge.tenant == EVERYBODY {
            self.everything.take(purge, at_ms);
            return;
        }
        let key = self.key(&purge.tag);
        if self.marks.is_full_for(&purge.tenant, &key) {
            self.make_room();
        }
        let tenant = Arc::from(purge.tenant.as_str());
        self.marks.get_or_insert_with(&tenant, key, Mark::default).take(purge, at_ms);
    }

    fn make_room(&mut self) {
        let dropped = &mut self.dropped;
        self.marks.make_room(Mark::newest_ms, |tenant, mark| {
            dropped.entry(Arc::clone(tenant)).or_default().merge(&mark);
        });
        if self.dropped.len() > PURGED_TENANTS_MAX {
            for (_, mark) in self.dropped.drain() {
                self.everything.merge(&mark);
            }
        }
    }

    /// What was purged of an entry: one of its tags, or everything of its tenant, after what it reflects. A hard purge
    /// counts before a soft one.
    /// `seen` are the positions that its response reflects, by the region's ordinal (a missing one counts as 0; where
    /// there are none at all, the time decides);
    /// `stored_ms` is when it was stored.
    pub fn purged<'a>(
        &self,
        tenant: &str,
        tags: impl IntoIterator<Item = &'a str>,
        seen: &[(u16, u64)],
        stored_ms: u64,
    ) -> Option<Purged> {
        if !self.heard {
            return Some(Purged::Hard);
        }
        let tags = std::iter::once(EVERYTHING).chain(tags);
        let tagged = tags.filter_map(|tag| self.marks.get(tenant, &self.key(tag)));
        let whole = std::iter::once(&self.everything).chain(self.dropped.get(tenant));
        let mut soft_ms = None;
        for mark in whole.chain(tagged) {
            if mark.hits(seen, stored_ms) {
                return Some(Purged::Hard);
            }
            soft_ms = soft_ms.max(Some(mark.soft_ms).filter(|soft_ms| stored_ms <= *soft_ms));
        }
        soft_ms.map(|at_ms| Purged::Soft { at_ms })
    }

    fn key(&self, tag: &str) -> u64 {
        self.keyed.hash_one(tag)
    }

    /// How many tags are remembered one by one.
    #[must_use]
    pub fn len(&self) -> usize {
        self.marks.len()
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
        Purge { tenant: "acme".to_owned(), tag: tag.to_owned(), source, position, at_ms, soft: false }
    }

    fn journal(purges: Vec<Purge>) -> PurgeJournal {
        let mut journal = PurgeJournal::new(Keyed::default());
        journal.read(&news(purges), NOW);
        journal
    }

    fn news(purges: Vec<Purge>) -> SyncNews {
        let purge_cursor = vec![("us-east-1".into(), 9)];
        SyncNews { purges, purge_cursor, now_ms: NOW, ..SyncNews::default() }
    }

    #[test]
    fn an_entry_is_stale_when_it_reflects_less_than_what_was_purged() {
        let journal = journal(vec![purge("orders", 2, 100, NOW), purge("orders", 0, 0, NOW - 50)]);
        let check = |tags: &[&str], seen: &[(u16, u64)], stored_ms, expect| {
            let got = journal.purged("acme", tags.iter().copied(), seen, stored_ms);
            assert_eq!(got == Some(Purged::Hard), expect, "{tags:?} {seen:?} {stored_ms}");
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
    fn a_purge_reaches_what_an_edge_stored_whose_clock_is_another() {
        let check = |ahead_ms: i64, stored_ms: u64, expect: Option<Purged>| {
            let now_ms = NOW.checked_add_signed(ahead_ms).unwrap();
            let soft = Purge { soft: true, ..purge("soft", 0, 0, NOW - 1_000) };
            let mut journal = PurgeJournal::new(Keyed::default());
            journal.read(&news(vec![purge("orders", 0, 0, NOW - 1_000), soft]), now_ms);
            let got = journal.purged("acme", ["orders"], &[], stored_ms);
            assert_eq!(got, expect, "{ahead_ms} {}", stored_ms as i64 - NOW as i64);
            let soft = journal.purged("acme", ["soft"], &[], stored_ms);
            assert_eq!(soft.is_some(), expect.is_some(), "{ahead_ms} {}", stored_ms as i64 - NOW as i64);
        };
        check(0, NOW - 1_000, Some(Purged::Hard));
        check(0, NOW - 999, None);
        check(3_000, NOW + 2_000, Some(Purged::Hard));
        check(3_000, NOW + 2_001, None);
        check(-3_000, NOW - 4_000, Some(Purged::Hard));
        check(-3_000, NOW - 1_000, Some(Purged::Hard));
        let most = i64::try_from(PURGE_AHEAD_MS_MAX).unwrap();
        check(100 * most, NOW - 1_000 + PURGE_AHEAD_MS_MAX, Some(Purged::Hard));
        check(100 * most, NOW - 1_000 + PURGE_AHEAD_MS_MAX + 1, None);
    }

    #[test]
    fn a_purge_is_scoped_to_its_tenant() {
        let journal = journal(vec![purge("*", 0, 0, NOW)]);
        assert_eq!(journal.purged("acme", [], &[], NOW), Some(Purged::Hard));
        assert_eq!(journal.purged("globex", [], &[], NOW), None);
    }

    #[test]
    fn what_was_stored_before_the_first_news_reach_is_stale() {
        assert_eq!(PurgeJournal::new(Keyed::default()).purged("acme", [], &[], NOW), Some(Purged::Hard));
        let journal = journal(vec![]);
        assert_eq!(journal.purged("acme", [], &[], NOW - PURGE_REACH_MS), Some(Purged::Hard));
        assert_eq!(journal.purged("acme", [], &[], NOW - PURGE_REACH_MS + 1), None);
    }

    #[test]
    fn a_reset_makes_everything_before_it_stale_and_moves_the_cursor_back() {
        let mut journal = journal(vec![]);
        let reset = SyncNews {
            reset: true,
            purge_cursor: vec![("us-east-1".into(), 3)],
            now_ms: NOW + 10,
            ..SyncNews::default()
        };
        journal.read(&reset, NOW + 10);
        assert_eq!(journal.purged("acme", [], &[(1, u64::MAX)], NOW + 10), Some(Purged::Hard));
        assert_eq!(journal.purged("acme", [], &[], NOW + 11), None);
        assert_eq!(journal.cursor(), [("us-east-1".into(), 3)]);
    }

    #[test]
    fn memory_is_bounded_and_what_is_dropped_still_counts() {
        let purges = (0..PURGES_MAX * 2).map(|i| purge(&format!("t/{i}"), 1, i as u64 + 1, NOW)).collect();
        let journal = journal(purges);
        assert!(journal.len() <= PURGES_MAX);
        assert_eq!(
            journal.purged("acme", ["t/0"], &[(1, 1)], NOW + 1),
            Some(Purged::Hard),
            "dropped one by one, kept as a whole"
        );
        assert_eq!(journal.purged("acme", ["t/0"], &[], NOW), Some(Purged::Hard));
        assert_eq!(journal.purged("acme", ["t/0"], &[], NOW + 1), None);
        assert_eq!(journal.purged("acme", ["t/0"], &[(1, u64::MAX)], NOW + 1), None);
    }

    #[test]
    fn what_is_dropped_of_one_tenant_makes_nothing_stale_for_another() {
        let mut purges = vec![Purge { tenant: "globex".to_owned(), ..purge("orders", 0, 0, NOW) }];
        purges.extend((0..PURGES_MAX * 2).map(|i| purge(&format!("t/{i}"), 0, 0, NOW + 5)));
        let journal = journal(purges);
        assert_eq!(journal.purged("acme", ["other"], &[], NOW + 5), Some(Purged::Hard));
        assert_eq!(journal.purged("globex", ["other"], &[], NOW), None);
        assert_eq!(journal.purged("globex", ["orders"], &[], NOW), Some(Purged::Hard));
    }

    #[test]
    fn tenants_without_number_become_one_mark_for_all() {
        let of = |i: usize| Purge { tenant: format!("t{i}"), ..purge("orders", 0, 0, NOW) };
        let journal = journal((0..PURGES_MAX + 2 * PURGED_TENANTS_MAX).map(of).collect());
        assert!(journal.len() <= PURGES_MAX && journal.dropped.len() <= PURGED_TENANTS_MAX);
        assert_eq!(journal.purged("never-purged", [], &[], NOW), Some(Purged::Hard));
        assert_eq!(journal.purged("never-purged", [], &[], NOW + 1), None);
    }

    #[test]
    fn a_soft_purge_makes_stale_from_then_on_and_a_hard_one_wins() {
        let soft = |tag: &str, at_ms| Purge { soft: true, ..purge(tag, 0, 0, at_ms) };
        let check = |purges: Vec<Purge>, seen: &[(u16, u64)], stored_ms, expect| {
            let got = journal(purges.clone()).purged("acme", ["a", "b"], seen, stored_ms);
            assert_eq!(got, expect, "{purges:?} {seen:?} {stored_ms}");
        };
        let at = |at_ms| Some(Purged::Soft { at_ms });
        check(vec![soft("a", NOW)], &[], NOW, at(NOW));
        check(vec![soft("a", NOW)], &[(1, u64::MAX)], NOW, at(NOW));
        check(vec![soft("a", NOW)], &[], NOW + 1, None);
        check(vec![soft("*", NOW)], &[], NOW, at(NOW));
        check(vec![soft("c", NOW)], &[], NOW, None);
        check(vec![soft("a", NOW), soft("b", NOW + 5)], &[], NOW, at(NOW + 5));
        check(vec![soft("a", NOW + 5), purge("b", 0, 0, NOW)], &[], NOW, Some(Purged::Hard));
        check(vec![soft("a", NOW + 5), purge("b", 0, 0, NOW)], &[], NOW + 1, at(NOW + 5));
        check(vec![purge("a", 0, 0, NOW), soft("a", NOW + 5)], &[], NOW, Some(Purged::Hard));
    }

    #[test]
    fn everything_of_everybody_is_purged_at_once() {
        let all = Purge { tenant: EVERYBODY.to_owned(), ..purge(EVERYTHING, 0, 0, NOW) };
        let journal = journal(vec![all]);
        for tenant in ["acme", "globex"] {
            assert_eq!(journal.purged(tenant, [], &[(1, u64::MAX)], NOW), Some(Purged::Hard));
            assert_eq!(journal.purged(tenant, [], &[], NOW + 1), None);
        }
        assert!(journal.is_empty(), "it is one mark");
    }
}
