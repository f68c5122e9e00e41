//! Which tenant's rows may go to which region: decided at the source, before anything is written to a stream.
//!
//! The map starts from the tenant table and follows the log. It never goes back to an older version of a tenant than it
//! has seen, so that a stream that resumes in the past does not send what has been forbidden since. What it does
//! not know is forbidden.

use std::collections::HashMap;

use meridian_replica::Stamp;

/// The regions that each tenant allows.
#[derive(Debug, Clone, Default)]
pub struct Residency {
    tenants: HashMap<String, (Stamp, Vec<String>)>,
}

/// What a new version of a tenant means for one region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was not allowed before and is now: the tenant's rows have to be copied there.
    Admitted,
    /// It was allowed before and is not any more.
    Expelled,
    /// As before.
    Same,
}

impl Residency {
    /// Learns a version of a tenant, unless a later one is known.
    pub fn learn(&mut self, tenant: &str, stamp: Stamp, allowed: Vec<String>) {
        match self.tenants.get(tenant) {
            Some((known, _)) if *known > stamp => {}
            _ => {
                self.tenants.insert(tenant.to_owned(), (stamp, allowed));
            }
        }
    }

    /// Whether a row of this tenant may go to `region`. Rows without a tenant belong to the platform.
    #[must_use]
    pub fn allows(&self, tenant: Option<&str>, region: &str) -> bool {
        match tenant {
            None => true,
            Some(tenant) => {
                self.tenants.get(tenant).is_some_and(|(_, allowed)| allowed.iter().any(|r| r == region))
            }
        }
    }

    /// Tenants that allow `region`.
    #[must_use]
    pub fn tenants_of(&self, region: &str) -> Vec<String> {
        self.tenants.keys().filter(|tenant| self.allows(Some(tenant), region)).cloned().collect()
    }
}

/// Compares the regions allowed before and after for one region. Nothing before means a new tenant, of which there
/// is nothing to copy.
#[must_use]
pub fn compare(before: Option<&[String]>, after: &[String], region: &str) -> Change {
    let has = |regions: &[String]| regions.iter().any(|r| r == region);
    match before.map(has) {
        Some(false) if has(after) => Change::Admitted,
        Some(true) if !has(after) => Change::Expelled,
        _ => Change::Same,
    }
}

/// Reads a `text[]` in PostgreSQL's text form.
#[must_use]
pub fn text_array(text: &str) -> Option<Vec<String>> {
    let mut inside = text.strip_prefix('{')?.strip_suffix('}')?.chars();
    let (mut items, mut item, mut quoted, mut any) = (Vec::new(), String::new(), false, false);
    while let Some(c) = inside.next() {
        any = true;
        match c {
            '\\' => item.push(inside.next()?),
            '"' => quoted = !quoted,
            ',' if !quoted => items.push(std::mem::take(&mut item)),
            c => item.push(c),
        }
    }
    if any {
        items.push(item);
    }
    (!quoted).then_some(items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use meridian_replica::Region;

    fn regions(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn what_is_not_known_is_forbidden() {
        let mut residency = Residency::default();
        assert!(residency.allows(None, "eu"));
        assert!(!residency.allows(Some("acme"), "eu"));
        residency.learn("acme", Stamp::at(5, 0, Region(1)), regions(&["eu"]));
        assert!(residency.allows(Some("acme"), "eu"));
        assert_eq!(residency.tenants_of("eu"), ["acme"]);
    }

    #[test]
    fn an_older_version_changes_nothing() {
        let mut residency = Residency::default();
        residency.learn("acme", Stamp::at(5, 0, Region(1)), regions(&["us"]));
        residency.learn("acme", Stamp::at(4, 0, Region(1)), regions(&["us", "eu"]));
        assert!(!residency.allows(Some("acme"), "eu"));
    }

    #[test]
    fn tells_admission_from_expulsion() {
        let (us, both) = (regions(&["us"]), regions(&["us", "eu"]));
        assert_eq!(compare(Some(&us), &both, "eu"), Change::Admitted);
        assert_eq!(compare(Some(&both), &us, "eu"), Change::Expelled);
        assert_eq!(compare(Some(&both), &both, "eu"), Change::Same);
        assert_eq!(compare(None, &both, "eu"), Change::Same);
    }

    #[test]
    fn reads_arrays() {
        assert_eq!(text_array("{us-east-1,eu-west-1}"), Some(regions(&["us-east-1", "eu-west-1"])));
        assert_eq!(text_array("{}"), Some(vec![]));
        assert_eq!(text_array(r#"{"a,b","c\"d"}"#), Some(regions(&["a,b", "c\"d"])));
        assert_eq!(text_array("x"), None);
        assert_eq!(text_array(r#"{"x}"#), None);
    }
}
