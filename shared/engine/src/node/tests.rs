use super::*;
use crate::fixtures::{platform, route, rule, ruleset};
use crate::limits::{LOAD_WAIT_MS, TENANT_LIST_BYTES_MAX, TENANT_ROUTE_BYTES_MAX};
use crate::policy::security::{AddressSet, Security};
use crate::ruleset::Mode;

const NOW: u64 = 1_800_000_000_000;

fn node() -> Node {
    Node::new("test-1", Secrets::new(&[3; 32], &[3; 32]))
}

fn host(node: &mut Node, host: &str, tenant: Option<&str>, now_ms: u64) {
    let loaded = Loaded::Host(tenant.map(str::to_owned));
    node.loaded(&LoadKey::Host(host.to_owned()), loaded, now_ms).unwrap();
}

fn rules(node: &mut Node, sequence: u64, now_ms: u64) -> Result<(), String> {
    let mut rules = ruleset(vec![route("/**")]);
    rules.version.sequence = sequence;
    let key = LoadKey::Target(Target::Tenant("acme".to_owned()));
    node.loaded(&key, Loaded::Ruleset(Arc::new(rules)), now_ms)
}

#[test]
fn a_host_is_asked_for_again_only_where_the_rules_do_not_name_it() {
    let mut node = node();
    host(&mut node, "acme.example", Some("acme"), NOW);
    host(&mut node, "shop.example", Some("acme"), NOW);
    rules(&mut node, 1, NOW).unwrap();
    let later = NOW + HOST_KNOWN_MS;
    assert_eq!(node.host("acme.example", later), HostKnown::Tenant("acme".into()));
    assert_eq!(node.host("shop.example", later), HostKnown::No);
    assert_eq!(node.host_before("shop.example"), Some("acme".into()));
}

#[test]
fn a_host_is_kept_in_one_place_by_whether_the_rules_name_it() {
    let mut node = node();
    host(&mut node, "acme.example", Some("acme"), NOW);
    let acme = HostKnown::Tenant("acme".into());
    assert_eq!(node.host("acme.example", NOW), acme, "nobody has seen the rules yet");
    assert_eq!((node.hosts.len(), node.unnamed_hosts.len()), (0, 1));
    rules(&mut node, 1, NOW).unwrap();
    let later = NOW + HOST_KNOWN_MS;
    assert_eq!(
        node.host("acme.example", later),
        acme,
        "the rules name it, however long ago it was asked for"
    );
    assert_eq!((node.hosts.len(), node.unnamed_hosts.len()), (1, 0));
    assert_eq!(node.host("acme.example", later), acme);
    host(&mut node, "acme.example", Some("globex"), later);
    assert_eq!((node.hosts.len(), node.unnamed_hosts.len()), (0, 1), "it changed hands");
    assert_eq!(node.host("acme.example", later), HostKnown::Tenant("globex".into()));
}

#[test]
fn an_unknown_host_is_remembered_for_a_moment() {
    let mut node = node();
    host(&mut node, "x.example", None, NOW);
    assert_eq!(node.host("x.example", NOW + UNKNOWN_HOST_MS - 1), HostKnown::Nobody);
    assert_eq!(node.host("x.example", NOW + UNKNOWN_HOST_MS), HostKnown::No);
}

#[test]
fn hosts_that_nobody_claimed_push_no_known_host_out() {
    let mut node = node();
    host(&mut node, "acme.example", Some("acme"), NOW);
    for number in 0..HOSTS_MAX * 2 {
        host(&mut node, &format!("x{number}.example"), None, NOW);
    }
    assert_eq!(node.host("acme.example", NOW), HostKnown::Tenant("acme".into()));
    assert!(node.unknown_hosts.len() <= UNKNOWN_HOSTS_MAX);
}

#[test]
fn of_a_hundred_thousand_hosts_those_asked_for_last_are_remembered() {
    let mut node = node();
    for number in 0..100_000 {
        host(&mut node, &format!("h{number}.example"), Some("acme"), NOW);
    }
    assert!(node.hosts.is_empty() && node.unnamed_hosts.len() <= HOSTS_MAX);
    assert_eq!(node.host("h99999.example", NOW), HostKnown::Tenant("acme".into()));
    assert_eq!(node.host("h0.example", NOW), HostKnown::No);
}

#[test]
fn names_below_a_wildcard_push_no_host_out_that_the_rules_name() {
    let mut node = node();
    host(&mut node, "acme.example", Some("acme"), NOW);
    rules(&mut node, 1, NOW).unwrap();
    assert_eq!(node.host("acme.example", NOW), HostKnown::Tenant("acme".into()));
    for number in 0..HOSTS_MAX * 3 {
        let below = format!("x{number}.acme.example");
        host(&mut node, &below, Some("acme"), NOW);
        assert_eq!(node.host(&below, NOW), HostKnown::Tenant("acme".into()));
    }
    assert!(node.hosts.len() == 1 && node.unnamed_hosts.len() <= HOSTS_MAX);
    assert_eq!(node.host("acme.example", NOW + HOST_KNOWN_MS), HostKnown::Tenant("acme".into()));
    host(&mut node, "acme.example", Some("globex"), NOW);
    assert_eq!(node.host("acme.example", NOW), HostKnown::Tenant("globex".into()), "it changed hands");
    host(&mut node, "acme.example", None, NOW);
    assert_eq!(node.host("acme.example", NOW), HostKnown::Nobody);
    assert_eq!(node.host_before("acme.example"), None);
}

#[test]
fn memory_is_bounded_by_what_is_served() {
    let mut node = node();
    for number in 0..TENANTS_MAX * 2 {
        let slug = format!("t{number}");
        let mut rules = ruleset(vec![]);
        rules.tenant.slug.clone_from(&slug);
        let key = LoadKey::Target(Target::Tenant(slug));
        node.loaded(&key, Loaded::Ruleset(Arc::new(rules)), NOW).unwrap();
    }
    assert!(node.tenants.len() <= TENANTS_MAX);
    assert!(node.ask_sync(NOW).targets.len() <= TENANTS_MAX);
}

#[test]
fn long_lists_of_one_tenant_make_room_for_those_of_another() {
    let mut node = node();
    let mut load = |number: u32, entries: u32| {
        let slug = format!("t{number}");
        let ranges = (0..entries).map(|at| (at * 4, at * 4)).collect();
        let mut security = Security::new(rule("Security"), Mode::Block);
        security.deny = AddressSet::of_ranges(ranges, Vec::new());
        let mut rules = ruleset(vec![]);
        rules.tenant.slug.clone_from(&slug);
        rules.security = vec![security];
        let key = LoadKey::Target(Target::Tenant(slug));
        node.loaded(&key, Loaded::Ruleset(Arc::new(rules)), NOW).unwrap();
        node.tenants
            .iter()
            .filter_map(|(_, held)| held.current.as_ref())
            .map(|rules| rules.ruleset.list_bytes())
            .sum()
    };
    let most = u32::try_from(TENANT_LIST_BYTES_MAX / 8).unwrap();
    load(0, 0);
    for number in 1..6 {
        let bytes: usize = load(number, most);
        assert!(bytes <= LIST_BYTES_MAX, "{bytes}");
    }
    assert!(node.rules("t0").is_some(), "what has no lists stays");
    assert!(node.rules("t5").is_some());
    assert_eq!((1..6).filter(|number| node.rules(&format!("t{number}")).is_some()).count(), 2);
}

#[test]
fn many_routes_of_one_tenant_make_room_for_those_of_another() {
    let mut node = node();
    let mut load = |number: u32, count: usize| {
        let slug = format!("t{number}");
        let mut rules = ruleset((0..count).map(|at| route(&format!("/{at}"))).collect());
        rules.tenant.slug.clone_from(&slug);
        let bytes = rules.route_bytes();
        let key = LoadKey::Target(Target::Tenant(slug));
        node.loaded(&key, Loaded::Ruleset(Arc::new(rules)), NOW).unwrap();
        bytes
    };
    let most = TENANT_ROUTE_BYTES_MAX / (route("/10000").bytes() + 1);
    let small = load(0, 1);
    for number in 1..4 {
        let bytes = load(number, most);
        assert!(2 * bytes + small <= ROUTE_BYTES_MAX && 3 * bytes > ROUTE_BYTES_MAX, "{bytes}");
    }
    assert!(node.rules("t0").is_some(), "what has few routes stays");
    assert!(node.rules("t3").is_some());
    assert_eq!((1..4).filter(|number| node.rules(&format!("t{number}")).is_some()).count(), 2);
}

#[test]
fn a_newer_release_is_loaded_once_at_a_time_and_after_a_fault_not_at_once() {
    let mut node = node();
    let target = Target::Tenant("acme".to_owned());
    let wanted = |node: &mut Node, now_ms| {
        node.look("acme.example", now_ms).wanted.contains(&LoadKey::Target(Target::Tenant("acme".to_owned())))
    };
    host(&mut node, "acme.example", Some("acme"), NOW);
    assert!(wanted(&mut node, NOW));
    rules(&mut node, 1, NOW).unwrap();
    assert!(!wanted(&mut node, NOW));
    node.synced(Some(SyncNews { heads: vec![(target.clone(), 2)], ..SyncNews::default() }), NOW);
    assert!(wanted(&mut node, NOW));
    node.loading(&[LoadKey::Target(target.clone())], NOW);
    assert!(!wanted(&mut node, NOW), "somebody else loads it");
    assert!(wanted(&mut node, NOW + LOAD_WAIT_MS), "but seems to be lost");
    let key = LoadKey::Target(target);
    assert!(node.loaded(&key, Loaded::Unavailable("bad signature".to_owned()), NOW).is_err());
    assert!(!wanted(&mut node, NOW));
    assert!(wanted(&mut node, NOW + LOAD_RETRY_MS));
    rules(&mut node, 2, NOW).unwrap();
    assert!(!wanted(&mut node, NOW + LOAD_RETRY_MS));
}

#[test]
fn what_does_not_fit_is_refused_and_the_last_good_stays() {
    let mut node = node();
    rules(&mut node, 5, NOW).unwrap();
    assert_eq!(
        rules(&mut node, 4, NOW),
        Err("tenant:acme: found sequence 4, expected 5 or newer".to_owned())
    );
    let other = LoadKey::Target(Target::Tenant("globex".to_owned()));
    let wrong = node.loaded(&other, Loaded::Ruleset(Arc::new(ruleset(vec![]))), NOW);
    assert_eq!(wrong, Err("tenant:globex: found the rules of acme".to_owned()));
    let wrong = node.loaded(&other, Loaded::Platform(Arc::new(platform())), NOW);
    assert_eq!(wrong, Err("tenant:globex: found something else".to_owned()));
    assert_eq!(node.rules("acme").unwrap().ruleset.version.sequence, 5);
    assert!(node.rules("globex").is_none());
}

#[test]
fn a_clock_set_back_stops_neither_news_nor_loads() {
    const HOUR: u64 = 3_600_000;
    let mut node = node();
    let target = Target::Tenant("acme".to_owned());
    host(&mut node, "acme.example", Some("acme"), NOW);
    rules(&mut node, 1, NOW).unwrap();
    node.synced(Some(SyncNews { heads: vec![(target.clone(), 2)], ..SyncNews::default() }), NOW);
    assert_eq!(node.sync_need(NOW), SyncNeed::None);
    assert_eq!(node.sync_need(NOW - HOUR), SyncNeed::First, "the news are old");
    node.ask_sync(NOW);
    assert_eq!(node.sync_need(NOW), SyncNeed::None, "somebody asks");
    assert_eq!(node.sync_need(NOW - HOUR), SyncNeed::First, "but seems to be lost");
    node.synced(None, NOW);
    assert_eq!(node.sync_need(NOW), SyncNeed::None, "nobody answered just now");
    assert_eq!(node.sync_need(NOW - HOUR), SyncNeed::After);
    let wanted = |node: &mut Node, now_ms| node.look("acme.example", now_ms).wanted;
    node.loading(&[LoadKey::Target(target.clone())], NOW);
    assert!(!wanted(&mut node, NOW).contains(&LoadKey::Target(target.clone())));
    assert!(wanted(&mut node, NOW - HOUR).contains(&LoadKey::Target(target.clone())), "the load is lost");
    let key = LoadKey::Target(target.clone());
    assert!(node.loaded(&key, Loaded::Unavailable("bad signature".to_owned()), NOW).is_err());
    assert!(!wanted(&mut node, NOW).contains(&key));
    assert!(wanted(&mut node, NOW - HOUR).contains(&key), "the pause is over");
    host(&mut node, "x.example", None, NOW);
    assert_eq!(node.host("x.example", NOW - HOUR), HostKnown::No, "asked again");
}
