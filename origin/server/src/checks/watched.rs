//! What this process knows of what it checks: when each is due, and how it stands. No clock, no sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::checked::Checked;
use super::verdict::Verdict;
use crate::limits::{CHECKED_TENANTS_MAX, CHECKS_MAX, IDLE_TENANTS_MAX, TENANT_CHECKS_AT_ONCE_MAX};

/// Everything that is checked, by tenant.
#[derive(Default)]
pub(super) struct Watched {
    tenants: BTreeMap<String, Tenant>,
    /// How many of them have nothing checked. They are kept so that their releases are not read again and again.
    idle: usize,
    /// Upstreams of all of them.
    checks: usize,
}

/// Upstreams that found no room.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// How many.
    pub(super) count: usize,
    /// Name of the limit that was reached.
    pub(super) limit: &'static str,
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

    fn unhealthy(&self) -> impl Iterator<Item = String> {
        let unhealthy = self.upstreams.values().filter(|upstream| !upstream.verdict.is_healthy());
        unhealthy.map(|upstream| format!("{}/{}", upstream.checked.tenant, upstream.checked.name))
    }
}

impl Watched {
    /// Whether there is something to take of a tenant: a release that is not known, or what there was no room for before, and
    /// there is now.
    pub(super) fn wants(&self, tenant: &str, sequence: i64) -> bool {
        match self.tenants.get(tenant) {
            Some(known) if !known.is_idle() => {
                known.sequence != sequence || (known.left_out > 0 && self.checks < CHECKS_MAX)
            }
            // Whatever it wants, there is no place for it.
            _ if self.is_full() => false,
            Some(idle) => idle.sequence != sequence,
            None => true,
        }
    }

    /// Takes what a tenant's newest release has checked. What is asked as before keeps how it stands; what is new, or asked in
    /// another way, counts as healthy until its checks say otherwise, and is due at once. Returns those that found no room: they
    /// are wanted again as soon as there is some.
    pub(super) fn take(
        &mut self,
        tenant: &str,
        sequence: i64,
        checked: Vec<Checked>,
        now: Instant,
    ) -> Option<LeftOut> {
        let has_place = self.tenants.get(tenant).is_some_and(|known| !known.is_idle());
        if !checked.is_empty() && !has_place && self.is_full() {
            return Some(LeftOut { count: checked.len(), limit: "CHECKED_TENANTS_MAX" });
        }
        let before = self.tenants.remove(tenant);
        self.idle -= usize::from(before.as_ref().is_some_and(Tenant::is_idle));
        let mut before = before.unwrap_or_else(Tenant::new);
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
        let is_idle = taken.is_idle();
        // Those beyond are read again with every look, as slowly as it reads.
        if !is_idle || self.idle < IDLE_TENANTS_MAX {
            self.tenants.insert(tenant.to_owned(), taken);
            self.idle += usize::from(is_idle);
        }
        (left_out > 0).then_some(LeftOut { count: left_out, limit: "CHECKS_MAX" })
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
        self.tenants.values().flat_map(Tenant::unhealthy)
    }

    /// The same of these tenants alone.
    pub(super) fn unhealthy_of(&self, tenants: &BTreeSet<&str>) -> impl Iterator<Item = String> {
        tenants.iter().filter_map(move |slug| self.tenants.get(*slug)).flat_map(Tenant::unhealthy)
    }

    /// Whether as many tenants have something checked, or want it, as may.
    fn is_full(&self) -> bool {
        self.tenants.len() - self.idle >= CHECKED_TENANTS_MAX
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

    /// How many found no room for there are too many.
    fn count(left_out: Option<LeftOut>) -> usize {
        left_out.map_or(0, |LeftOut { count, limit }| {
            assert_eq!(limit, "CHECKS_MAX");
            count
        })
    }

    fn unhealthy(watched: &Watched) -> Vec<String> {
        watched.unhealthy().collect()
    }

    #[test]
    fn each_is_due_once_an_interval_and_changes_by_checks_in_a_row() {
        let (mut watched, start) = (Watched::default(), Instant::now());
        assert!(watched.wants("acme", 1));
        assert_eq!(watched.take("acme", 1, upstreams(&[("a", "/"), ("b", "/")]), start), None);
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
        assert_eq!(watched.take("acme", 1, many("acme", CHECKS_MAX - 1), now), None);
        assert_eq!(count(watched.take("globex", 1, many("globex", 3), now)), 2);
        assert_eq!(watched.len(), CHECKS_MAX);
        // A release that asks for the same again does not count twice.
        assert_eq!(watched.take("acme", 2, many("acme", CHECKS_MAX - 1), now), None);
        assert_eq!(watched.due(now, 7).len(), 7);
    }

    #[test]
    fn what_found_no_room_is_taken_up_when_there_is_some() {
        let (mut watched, now) = (Watched::default(), Instant::now());
        watched.take("acme", 1, many("acme", CHECKS_MAX - 1), now);
        assert_eq!(count(watched.take("globex", 1, many("globex", 3), now)), 2);
        let due = watched.due(now, CHECKS_MAX);
        let theirs = due.iter().find(|begun| begun.checked.tenant == "globex").expect("the first of them");
        for _ in 0..2 {
            watched.ended(&theirs.checked, Some(false));
        }
        assert!(!watched.wants("globex", 1), "there is no room");
        watched.take("acme", 2, many("acme", CHECKS_MAX - 2), now);
        assert!(watched.wants("globex", 1));
        assert_eq!(count(watched.take("globex", 1, many("globex", 3), now)), 1);
        assert!(!watched.wants("globex", 1) && watched.len() == CHECKS_MAX);
        watched.take("acme", 3, Vec::new(), now);
        assert!(watched.wants("globex", 1));
        assert_eq!(watched.take("globex", 1, many("globex", 3), now), None);
        assert!(!watched.wants("globex", 1) && watched.len() == 3);
        assert_eq!(unhealthy(&watched), ["globex/u0"], "what was checked all along stands as it did");
    }

    #[test]
    fn who_has_nothing_checked_takes_nobodys_place_and_is_read_once() {
        let (mut watched, now) = (Watched::default(), Instant::now());
        let one = many("t", 1);
        for number in 0..CHECKED_TENANTS_MAX - 1 {
            watched.take(&format!("t{number}"), 1, one.clone(), now);
        }
        assert!(watched.wants("idle", 1) && watched.wants("acme", 1));
        assert_eq!(watched.take("idle", 1, Vec::new(), now), None);
        assert!(!watched.wants("idle", 1) && watched.wants("idle", 2) && watched.wants("acme", 1));
        assert_eq!(watched.take("acme", 1, many("acme", 1), now).unwrap().limit, "CHECKS_MAX");
        // Nothing of others is wanted any more, known or not, and what was read already has no place.
        assert!(!watched.wants("idle", 2) && !watched.wants("globex", 1));
        let left_out = Some(LeftOut { count: 2, limit: "CHECKED_TENANTS_MAX" });
        assert_eq!(watched.take("globex", 1, many("globex", 2), now), left_out);
        assert_eq!(watched.take("idle", 2, many("idle", 2), now), left_out);
        assert_eq!(watched.take("nothing", 1, Vec::new(), now), None);
        assert_eq!((watched.len(), watched.tenants.len()), (CHECKS_MAX, CHECKED_TENANTS_MAX + 2));
        // One that has nothing checked any longer makes place, and is not read again.
        watched.take("t0", 2, Vec::new(), now);
        assert!(!watched.wants("t0", 2) && !watched.wants("nothing", 1) && watched.wants("globex", 1));
        assert_eq!(watched.take("globex", 1, many("globex", 2), now).unwrap().count, 1);
        assert_eq!((watched.len(), watched.idle), (CHECKS_MAX, 3));
    }

    #[test]
    fn of_those_that_have_nothing_checked_no_more_are_known_than_may_be() {
        let (mut watched, now) = (Watched::default(), Instant::now());
        for number in 0..=IDLE_TENANTS_MAX {
            watched.take(&format!("t{number}"), 1, Vec::new(), now);
        }
        assert_eq!((watched.idle, watched.tenants.len()), (IDLE_TENANTS_MAX, IDLE_TENANTS_MAX));
        assert_eq!(watched.take("t0", 2, many("t0", 1), now), None);
        assert_eq!((watched.idle, watched.tenants.len()), (IDLE_TENANTS_MAX - 1, IDLE_TENANTS_MAX));
    }

    #[test]
    fn an_edge_hears_of_its_tenants_alone() {
        let (mut watched, now) = (Watched::default(), Instant::now());
        for tenant in ["acme", "acme-2", "globex"] {
            watched.take(tenant, 1, many(tenant, 1), now);
        }
        for begun in watched.due(now, 9) {
            watched.ended(&begun.checked, Some(false));
            watched.ended(&begun.checked, Some(false));
        }
        let tenants = BTreeSet::from(["acme", "gone", "globex"]);
        assert_eq!(watched.unhealthy_of(&tenants).collect::<Vec<_>>(), ["acme/u0", "globex/u0"]);
        assert_eq!(unhealthy(&watched), ["acme/u0", "acme-2/u0", "globex/u0"]);
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
