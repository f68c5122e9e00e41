//! What this process knows of what it checks: when each is due, and how it stands. No clock, no sockets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::checked::Checked;
use super::verdict::Verdict;
use crate::limits::{CHECKED_TENANTS_MAX, CHECKS_MAX};

/// Everything that is checked, by tenant.
#[derive(Default)]
pub(super) struct Watched {
    tenants: BTreeMap<String, Tenant>,
}

struct Tenant {
    /// Of the release that says what is checked.
    sequence: i64,
    upstreams: BTreeMap<String, Upstream>,
}

struct Upstream {
    checked: Arc<Checked>,
    verdict: Verdict,
    due: Instant,
}

impl Watched {
    /// Whether a tenant's newest release is another than the known one, and there is room to know it.
    pub(super) fn wants(&self, tenant: &str, sequence: i64) -> bool {
        match self.tenants.get(tenant) {
            Some(known) => known.sequence != sequence,
            None => self.tenants.len() < CHECKED_TENANTS_MAX,
        }
    }

    /// Takes what a tenant's newest release has checked. What is asked as before keeps how it stands; what is new, or asked in
    /// another way, counts as healthy until its checks say otherwise, and is due at once. Returns how many found no room.
    pub(super) fn take(&mut self, tenant: &str, sequence: i64, checked: Vec<Checked>, now: Instant) -> usize {
        let mut before = self.tenants.remove(tenant).map(|tenant| tenant.upstreams).unwrap_or_default();
        let room = CHECKS_MAX.saturating_sub(self.len());
        let left_out = checked.len().saturating_sub(room);
        let upstream = |checked: Checked| {
            let name = checked.name.clone();
            let known = before.remove(&name).filter(|known| *known.checked == checked);
            let new = || Upstream { checked: Arc::new(checked), verdict: Verdict::new(true), due: now };
            (name, known.unwrap_or_else(new))
        };
        let upstreams = checked.into_iter().take(room).map(upstream).collect();
        self.tenants.insert(tenant.to_owned(), Tenant { sequence, upstreams });
        left_out
    }

    /// What is to be checked now, at most `room` of them: those first that have been due for longest. Each is due again after
    /// its interval, within which it ends.
    pub(super) fn due(&mut self, now: Instant, room: usize) -> Vec<Arc<Checked>> {
        let all = self.tenants.values_mut().flat_map(|tenant| tenant.upstreams.values_mut());
        let mut due: Vec<_> = all.filter(|upstream| upstream.due <= now).collect();
        due.sort_by_key(|upstream| upstream.due);
        due.truncate(room);
        let begin = |upstream: &mut Upstream| {
            upstream.due = now + upstream.checked.interval;
            Arc::clone(&upstream.checked)
        };
        due.into_iter().map(begin).collect()
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
        self.tenants.values().map(|tenant| tenant.upstreams.len()).sum()
    }

    /// What is unhealthy, as `tenant/name`, in this order.
    pub(super) fn unhealthy(&self) -> impl Iterator<Item = String> {
        let all = self.tenants.values().flat_map(|tenant| tenant.upstreams.values());
        let unhealthy = all.filter(|upstream| !upstream.verdict.is_healthy());
        unhealthy.map(|upstream| format!("{}/{}", upstream.checked.tenant, upstream.checked.name))
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
        assert_eq!((first.len(), first[0].name.as_str()), (1, "a"));
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
            assert_eq!(watched.ended(&first[0], passed), change, "{passed:?}");
        }
        watched.ended(&first[0], Some(false));
        watched.ended(&first[0], Some(false));
        assert_eq!(unhealthy(&watched), ["acme/a"]);
        assert_eq!(watched.ended(&first[0], None), Some(true), "nobody may ask any longer");
    }

    #[test]
    fn what_is_asked_in_another_way_begins_anew() {
        let (mut watched, now) = (Watched::default(), Instant::now());
        watched.take("acme", 1, upstreams(&[("a", "/"), ("b", "/")]), now);
        let asked = watched.due(now, 9);
        for checked in asked.iter().chain(&asked) {
            watched.ended(checked, Some(false));
        }
        assert_eq!(unhealthy(&watched), ["acme/a", "acme/b"]);
        watched.take("acme", 2, upstreams(&[("a", "/"), ("b", "/other")]), now + SECOND);
        assert_eq!(unhealthy(&watched), ["acme/a"]);
        assert_eq!(watched.ended(&asked[1], Some(false)), None, "its check is of before");
        let due = watched.due(now + SECOND, 9);
        assert_eq!((due.len(), due[0].name.as_str()), (1, "b"));
        watched.take("acme", 3, vec![], now);
        assert_eq!((unhealthy(&watched).len(), watched.len()), (0, 0));
        assert_eq!(watched.ended(&asked[0], Some(true)), None);
    }

    #[test]
    fn there_are_no_more_checks_than_may_be() {
        let (mut watched, now) = (Watched::default(), Instant::now());
        let many = |tenant: &str, count: usize| -> Vec<Checked> {
            let one = upstreams(&[("a", "/")]).remove(0);
            let named = |number| {
                let mut checked = one.clone();
                (checked.tenant, checked.name) = (tenant.to_owned(), format!("u{number}"));
                checked
            };
            (0..count).map(named).collect()
        };
        assert_eq!(watched.take("acme", 1, many("acme", CHECKS_MAX - 1), now), 0);
        assert_eq!(watched.take("globex", 1, many("globex", 3), now), 2);
        assert_eq!(watched.len(), CHECKS_MAX);
        // A release that asks for the same again does not count twice.
        assert_eq!(watched.take("acme", 2, many("acme", CHECKS_MAX - 1), now), 0);
        assert_eq!(watched.due(now, 7).len(), 7);
    }
}
