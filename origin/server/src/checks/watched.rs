//! What this process knows of what it checks: when each is due, and how it stands. No clock, no sockets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::checked::Checked;
use super::verdict::Verdict;
use crate::limits::{CHECKED_TENANTS_MAX, CHECKS_MAX, TENANT_CHECKS_AT_ONCE_MAX};

/// Everything that is checked, by tenant.
#[derive(Default)]
pub(super) struct Watched {
    tenants: BTreeMap<String, Tenant>,
    /// Upstreams of all of them.
    checks: usize,
}

struct Tenant {
    /// Of the release that says what is checked.
    sequence: i64,
    upstreams: BTreeMap<String, Upstream>,
    /// How many more that release wants checked.
    left_out: usize,
    /// One for each check that may be under way.
    turns: Arc<Semaphore>,
}

struct Upstream {
    checked: Arc<Checked>,
    verdict: Verdict,
    due: Instant,
}

/// A check that has begun. Dropped, it is over, however it ended.
pub(super) struct Begun {
    /// What is checked.
    pub(super) checked: Arc<Checked>,
    _turn: OwnedSemaphorePermit,
}

impl Tenant {
    fn new() -> Self {
        let turns = Arc::new(Semaphore::new(TENANT_CHECKS_AT_ONCE_MAX));
        Self { sequence: 0, upstreams: BTreeMap::new(), left_out: 0, turns }
    }

    /// Whether it has nothing checked, and wants nothing.
    fn is_idle(&self) -> bool {
        self.upstreams.is_empty() && self.left_out == 0
    }
}

impl Watched {
    /// Whether there is something to take of a tenant: a release that is not known, or what there was no room for before, and
    /// there is now.
    pub(super) fn wants(&self, tenant: &str, sequence: i64) -> bool {
        match self.tenants.get(tenant) {
            Some(known) => known.sequence != sequence || (known.left_out > 0 && self.checks < CHECKS_MAX),
            None => self.tenants.len() < CHECKED_TENANTS_MAX || self.idle().is_some(),
        }
    }

    /// Takes what a tenant's newest release has checked. What is asked as before keeps how it stands; what is new, or asked in
    /// another way, counts as healthy until its checks say otherwise, and is due at once. Returns how many found no room: they
    /// are wanted again as soon as there is some.
    pub(super) fn take(&mut self, tenant: &str, sequence: i64, checked: Vec<Checked>, now: Instant) -> usize {
        if !self.tenants.contains_key(tenant) && self.tenants.len() >= CHECKED_TENANTS_MAX {
            match self.idle() {
                Some(idle) if !checked.is_empty() => self.tenants.remove(&idle),
                _ => return checked.len(),
            };
        }
        let mut before = self.tenants.remove(tenant).unwrap_or_else(Tenant::new);
        self.checks -= before.upstreams.len();
        let room = CHECKS_MAX.saturating_sub(self.checks);
        let left_out = checked.len().saturating_sub(room);
        let upstream = |checked: Checked| {
            let name = checked.name.clone();
            let known = before.upstreams.remove(&name).filter(|known| *known.checked == checked);
            let new = || Upstream { checked: Arc::new(checked), verdict: Verdict::new(true), due: now };
            (name, known.unwrap_or_else(new))
        };
        let upstreams: BTreeMap<_, _> = checked.into_iter().take(room).map(upstream).collect();
        self.checks += upstreams.len();
        let taken = Tenant { sequence, upstreams, left_out, turns: before.turns };
        self.tenants.insert(tenant.to_owned(), taken);
        left_out
    }

    /// What is to be checked now, at most `room` of them, and of a tenant no more than [`TENANT_CHECKS_AT_ONCE_MAX`] with those
    /// that are under way. Tenants take turns: who has the fewest under way comes first, then what has been due for longest. Each
    /// is due again after its interval, within which it ends.
    pub(super) fn due(&mut self, now: Instant, room: usize) -> Vec<Begun> {
        let mut due: Vec<(usize, &mut Upstream, &Arc<Semaphore>)> = Vec::new();
        for Tenant { upstreams, turns, .. } in self.tenants.values_mut() {
            let free = turns.available_permits();
            let under_way = TENANT_CHECKS_AT_ONCE_MAX.saturating_sub(free);
            let mut theirs: Vec<_> = upstreams.values_mut().filter(|upstream| upstream.due <= now).collect();
            theirs.sort_by_key(|upstream| upstream.due);
            let ranked = theirs.into_iter().take(free).zip(under_way..);
            let turns: &Arc<Semaphore> = turns;
            due.extend(ranked.map(|(upstream, rank)| (rank, upstream, turns)));
        }
        due.sort_by_key(|(rank, upstream, _)| (*rank, upstream.due));
        let begin = |(_, upstream, turns): (usize, &mut Upstream, &Arc<Semaphore>)| {
            let turn = Arc::clone(turns).try_acquire_owned().ok()?;
            upstream.due = now + upstream.checked.interval;
            Some(Begun { checked: Arc::clone(&upstream.checked), _turn: turn })
        };
        due.into_iter().take(room).filter_map(begin).collect()
    }

    /// Takes the outcome of a check; without one nothing is known, and it counts as healthy as if it were never checked.
    /// Returns whether it is healthy, where that changed.
    pub(super) fn ended(&mut self, checked: &Arc<Checked>, passed: Option<bool>) -> Option<bool> {
        let tenant = self.tenants.get_mut(&checked.tenant)?;
        // Rules that changed meanwhile have another one in its place.
        let upstream = tenant.upstreams.get_mut(&checked.name);
        let upstream = upstream.filter(|upstream| Arc::ptr_eq(&upstream.checked, checked))?;
        let was_healthy = upstream.verdict.is_healthy();
        match passed {
            Some(passed) => {
                upstream.verdict.take(passed, checked.thresholds);
            }
            None => upstream.verdict = Verdict::new(true),
        }
        let is_healthy = upstream.verdict.is_healthy();
        (is_healthy != was_healthy).then_some(is_healthy)
    }

    /// How many are checked.
    pub(super) fn len(&self) -> usize {
        self.checks
    }

    /// What is unhealthy, as `tenant/name`, in this order.
    pub(super) fn unhealthy(&self) -> impl Iterator<Item = String> {
        let all = self.tenants.values().flat_map(|tenant| tenant.upstreams.values());
        let unhealthy = all.filter(|upstream| !upstream.verdict.is_healthy());
        unhealthy.map(|upstream| format!("{}/{}", upstream.checked.tenant, upstream.checked.name))
    }

    /// A tenant that has nothing checked, whose place another may have.
    fn idle(&self) -> Option<String> {
        self.tenants.iter().find(|(_, tenant)| tenant.is_idle()).map(|(slug, _)| slug.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::checked::checked;
    use super::super::checked::tests::bundle;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Upstreams of acme by name and path.
    fn upstreams(paths: &[(&str, &str)]) -> Vec<Checked> {
        let specs: Vec<(&str, String)> = paths
            .iter()
            .map(|(name, path)| {
                let check = format!(r#"{{"path":"{path}","interval":"10s","failures":2,"successes":2}}"#);
                let regions = r#"{"us-east-1":"https://up.example"}"#;
                (*name, format!(r#"{{"regions":{regions},"healthCheck":{check}}}"#))
            })
            .collect();
        let specs: Vec<(&str, &str)> = specs.iter().map(|(name, spec)| (*name, spec.as_str())).collect();
        checked(bundle("active", &specs).as_bytes(), "acme", "us-east-1").unwrap()
    }

    /// So many upstreams of a tenant.
    fn many(tenant: &str, count: usize) -> Vec<Checked> {
        let one = upstreams(&[("a", "/")]).remove(0);
        let named = |number| {
            let mut checked = one.clone();
            (checked.tenant, checked.name) = (tenant.to_owned(), format!("u{number}"));
            checked
        };
        (0..count).map(named).collect()
    }

    fn unhealthy(watched: &Watched) -> Vec<String> {
        watched.unhealthy().collect()
    }

    #[test]
    fn each_is_due_once_an_interval_and_changes_by_checks_in_a_row() {
        let (mut watched, start) = (Watched::default(), Instant::now());
        assert!(watched.wants("acme", 1));
        assert_eq!(watched.take("acme", 1, upstreams(&[("a", "/"), ("b", "/")]), start), 0);
        assert!(!watched.wants("acme", 1) && watched.wants("acme", 2));
        let first = watched.due(start, 1);
        assert_eq!((first.len(), first[0].checked.name.as_str()), (1, "a"));
        assert_eq!(watched.due(start, 9).len(), 1, "the other one");
        assert!(watched.due(start + 9 * SECOND, 9).is_empty());
        let again = watched.due(start + 10 * SECOND, 9);
        assert_eq!(again.len(), 2);
        for (passed, change) in [
            (Some(false), None),
            (Some(true), None),
            (Some(false), None),
            (Some(false), Some(false)),
            (Some(false), None),
            (Some(true), None),
            (Some(true), Some(true)),
        ] {
            assert_eq!(watched.ended(&first[0].checked, passed), change, "{passed:?}");
        }
        watched.ended(&first[0].checked, Some(false));
        watched.ended(&first[0].checked, Some(false));
        assert_eq!(unhealthy(&watched), ["acme/a"]);
        assert_eq!(watched.ended(&first[0].checked, None), Some(true), "nobody may ask any longer");
    }

    #[test]
    fn what_is_asked_in_another_way_begins_anew() {
        let (mut watched, now) = (Watched::default(), Instant::now());
        watched.take("acme", 1, upstreams(&[("a", "/"), ("b", "/")]), now);
        let asked = watched.due(now, 9);
        for begun in asked.iter().chain(&asked) {
            watched.ended(&begun.checked, Some(false));
        }
        assert_eq!(unhealthy(&watched), ["acme/a", "acme/b"]);
        watched.take("acme", 2, upstreams(&[("a", "/"), ("b", "/other")]), now + SECOND);
        assert_eq!(unhealthy(&watched), ["acme/a"]);
        assert_eq!(watched.ended(&asked[1].checked, Some(false)), None, "its check is of before");
        let due = watched.due(now + SECOND, 9);
        assert_eq!((due.len(), due[0].checked.name.as_str()), (1, "b"));
        watched.take("acme", 3, vec![], now);
        assert_eq!((unhealthy(&watched).len(), watched.len()), (0, 0));
        assert_eq!(watched.ended(&asked[0].checked, Some(true)), None);
    }

    #[test]
    fn there_are_no_more_checks_than_may_be() {
        let (mut watched, now) = (Watched::default(), Instant::now());
        assert_eq!(watched.take("acme", 1, many("acme", CHECKS_MAX - 1), now), 0);
        assert_eq!(watched.take("globex", 1, many("globex", 3), now), 2);
        assert_eq!(watched.len(), CHECKS_MAX);
        // A release that asks for the same again does not count twice.
        assert_eq!(watched.take("acme", 2, many("acme", CHECKS_MAX - 1), now), 0);
        assert_eq!(watched.due(now, 7).len(), 7);
    }

    #[test]
    fn what_found_no_room_is_taken_up_when_there_is_some() {
        let (mut watched, now) = (Watched::default(), Instant::now());
        watched.take("acme", 1, many("acme", CHECKS_MAX - 1), now);
        assert_eq!(watched.take("globex", 1, many("globex", 3), now), 2);
        let due = watched.due(now, CHECKS_MAX);
        let theirs = due.iter().find(|begun| begun.checked.tenant == "globex").expect("the first of them");
        for _ in 0..2 {
            watched.ended(&theirs.checked, Some(false));
        }
        assert!(!watched.wants("globex", 1), "there is no room");
        watched.take("acme", 2, many("acme", CHECKS_MAX - 2), now);
        assert!(watched.wants("globex", 1));
        assert_eq!(watched.take("globex", 1, many("globex", 3), now), 1);
        assert!(!watched.wants("globex", 1) && watched.len() == CHECKS_MAX);
        watched.take("acme", 3, Vec::new(), now);
        assert!(watched.wants("globex", 1));
        assert_eq!(watched.take("globex", 1, many("globex", 3), now), 0);
        assert!(!watched.wants("globex", 1) && watched.len() == 3);
        assert_eq!(unhealthy(&watched), ["globex/u0"], "what was checked all along stands as it did");
    }

    #[test]
    fn who_has_nothing_checked_makes_place_for_others() {
        let (mut watched, now) = (Watched::default(), Instant::now());
        for number in 0..CHECKED_TENANTS_MAX {
            assert_eq!(watched.take(&format!("t{number}"), 1, Vec::new(), now), 0);
        }
        assert!(watched.wants("acme", 1));
        assert_eq!(watched.take("acme", 1, many("acme", 1), now), 0);
        assert_eq!((watched.len(), watched.tenants.len()), (1, CHECKED_TENANTS_MAX));
        watched.take("globex", 1, Vec::new(), now);
        assert!(!watched.wants("acme", 1) && watched.wants("globex", 1), "nothing makes place for nothing");
    }

    #[test]
    fn tenants_take_turns() {
        let (mut watched, now) = (Watched::default(), Instant::now());
        for (tenant, count) in [("acme", 2), ("globex", 1), ("slow", 2 * TENANT_CHECKS_AT_ONCE_MAX)] {
            watched.take(tenant, 1, many(tenant, count), now);
        }
        let whose = |begun: &[Begun]| begun.iter().map(|one| one.checked.tenant.clone()).collect::<Vec<_>>();
        let first = watched.due(now, 6);
        assert_eq!(whose(&first), ["acme", "globex", "slow", "acme", "slow", "slow"]);
        let more = watched.due(now, CHECKS_MAX);
        assert_eq!(whose(&more), vec!["slow"; TENANT_CHECKS_AT_ONCE_MAX - 3]);
        assert!(watched.due(now, CHECKS_MAX).is_empty(), "as many as may be are under way");
        watched.take("late", 1, many("late", 1), now + SECOND);
        assert_eq!(whose(&watched.due(now + SECOND, 9)), ["late"]);
        drop(first);
        assert_eq!(whose(&watched.due(now + SECOND, 1)), ["slow"], "its turn is over");
        drop(more);
        // All are due again, and nothing is under way: who has waited for longest is first.
        assert_eq!(whose(&watched.due(now + 20 * SECOND, 2)), ["slow", "acme"]);
    }

    #[test]
    fn rules_that_change_free_no_turns() {
        let (mut watched, now) = (Watched::default(), Instant::now());
        watched.take("acme", 1, many("acme", TENANT_CHECKS_AT_ONCE_MAX), now);
        let begun = watched.due(now, CHECKS_MAX);
        watched.take("acme", 2, upstreams(&[("a", "/")]), now);
        assert!(watched.due(now, CHECKS_MAX).is_empty());
        drop(begun);
        assert_eq!(watched.due(now, CHECKS_MAX).len(), 1);
    }
}
