//! Files that list networks or autonomous systems: one a line, what follows `#` is a comment.

use std::collections::BTreeMap;

use ipnet::IpNet;
use meridian_engine::policy::security::AddressSet;

use super::invalid::{Invalid, nearest};
use super::{File, FileKind};
use crate::bundle::network;
use crate::bundle::networks::{pack, pack_numbers};
use crate::document::Body;
use crate::limits::{INVALID_MAX, LIST_ASNS_MAX, LIST_NETWORKS_MAX};

/// What a file lists, and no more than so many of it.
struct Listed<T> {
    /// What one is called.
    noun: &'static str,
    /// Reads one; the error says what was expected.
    read: fn(&str) -> Result<T, String>,
    entries_max: usize,
    /// The name of that limit.
    limit: &'static str,
}

const NETWORKS: Listed<IpNet> =
    Listed { noun: "network", read: network, entries_max: LIST_NETWORKS_MAX, limit: "LIST_NETWORKS_MAX" };

const ASNS: Listed<u32> =
    Listed { noun: "number", read: asn, entries_max: LIST_ASNS_MAX, limit: "LIST_ASNS_MAX" };

/// What a document may name where it names a list.
const NETWORK_FILES: &str = "the path of a file of the push that ends with .netset or .ipset";
const ASN_FILES: &str = "the path of a file of the push that ends with .asnset";

/// The lists of a push, packed, by their names.
#[derive(Default)]
pub(super) struct Lists<'a> {
    networks: BTreeMap<&'a str, String>,
    asns: BTreeMap<&'a str, String>,
}

/// A list that a document names and the push has not.
pub(super) struct Missing {
    /// Where the document names it.
    pub(super) path: String,
    /// What is there.
    pub(super) found: String,
    /// What should be.
    pub(super) expected: &'static str,
    /// What was perhaps meant.
    pub(super) suggestion: Option<String>,
}

/// What a file lists, by its name; none where it holds something else.
#[must_use]
pub(super) fn list_kind(path: &str) -> Option<FileKind> {
    if path.ends_with(".netset") || path.ends_with(".ipset") {
        Some(FileKind::Networks)
    } else {
        path.ends_with(".asnset").then_some(FileKind::Asns)
    }
}

/// The lists of a push. What is wrong with them goes to `invalid`.
pub(super) fn read<'a>(files: &'a [File], invalid: &mut Vec<Invalid>) -> Lists<'a> {
    let mut lists = Lists::default();
    for file in files {
        match file.kind() {
            FileKind::Networks => {
                let networks = AddressSet::new(&entries(file, &NETWORKS, invalid));
                lists.networks.insert(&file.path, pack(&networks));
            }
            FileKind::Asns => {
                let mut numbers = entries(file, &ASNS, invalid);
                numbers.sort_unstable();
                numbers.dedup();
                lists.asns.insert(&file.path, pack_numbers(&numbers));
            }
            FileKind::Documents | FileKind::Component => {}
        }
    }
    lists
}

/// Reads the number of an autonomous system (RFC 5396, section 2: `asplain`), with or without `AS` before it.
fn asn(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("AS").unwrap_or(text);
    let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
    number.ok_or_else(|| "the number of an autonomous system, such as 64500 or AS64500".to_owned())
}

fn entries<T>(file: &File, listed: &Listed<T>, invalid: &mut Vec<Invalid>) -> Vec<T> {
    let Listed { noun, read, entries_max, limit } = listed;
    let mut entries = Vec::new();
    let mut report = |line: usize, column: usize, found: String, expected: String| {
        let number = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        let (file, path, suggestion) = (file.path.clone(), String::new(), None);
        invalid.push(Invalid {
            file,
            line: number(line),
            column: number(column),
            path,
            found,
            expected,
            suggestion,
        });
    };
    let mut wrong = 0;
    for (at, line) in file.content.lines().enumerate() {
        let text = line.split('#').next().unwrap_or_default();
        let entry = text.trim();
        if entry.is_empty() {
            continue;
        }
        match read(entry) {
            Ok(_) if entries.len() == *entries_max => {
                let expected = format!("at most {entries_max} {noun}s in a file ({limit})");
                report(at + 1, 1, format!("one {noun} more"), expected);
                break;
            }
            Ok(entry) => entries.push(entry),
            Err(expected) => {
                let column = text.chars().take_while(|letter| letter.is_whitespace()).count() + 1;
                let shown: String = entry.chars().take(80).collect();
                report(at + 1, column, format!("{shown:?}"), expected);
                wrong += 1;
                if wrong > INVALID_MAX {
                    break;
                }
            }
        }
    }
    entries
}

/// Puts what files list into a document that names them. What the push has not comes back.
pub(super) fn resolve(body: &mut Body, lists: &Lists<'_>) -> Vec<Missing> {
    let Body::Security(spec) = body else { return Vec::new() };
    let mut missing = Vec::new();
    for (path, files) in [("spec.allowFrom", &mut spec.allow_from), ("spec.denyFrom", &mut spec.deny_from)] {
        for (at, named) in files.iter_mut().enumerate() {
            named.networks = lists.networks.get(named.file.as_str()).cloned().or_else(|| {
                missing.push(gap(format!("{path}[{at}]"), &named.file, &lists.networks, NETWORK_FILES));
                // An empty list, so that the rest of the document can be checked as well.
                Some(pack(&AddressSet::default()))
            });
        }
    }
    let Some(asns) = &mut spec.asns else { return missing };
    let lists = &lists.asns;
    for (path, files) in
        [("spec.asns.allowFrom", &mut asns.allow_from), ("spec.asns.denyFrom", &mut asns.deny_from)]
    {
        for (at, named) in files.iter_mut().enumerate() {
            named.asns = lists.get(named.file.as_str()).cloned().or_else(|| {
                missing.push(gap(format!("{path}[{at}]"), &named.file, lists, ASN_FILES));
                Some(pack_numbers(&[]))
            });
        }
    }
    missing
}

fn gap(path: String, file: &str, lists: &BTreeMap<&str, String>, expected: &'static str) -> Missing {
    let shown: String = file.chars().take(80).collect();
    let suggestion = nearest(file, lists.keys().copied());
    Missing { path, found: format!("{shown:?}"), expected, suggestion }
}

#[cfg(test)]
mod tests {
    use meridian_engine::limits::TENANT_LIST_BYTES_MAX;
    use meridian_engine::policy::security::Listing;
    use meridian_engine::ruleset::{Mode, Target};

    use super::*;
    use crate::authored::{Compiled, compile};
    use crate::bundle::{Bundle, Rules};

    const RULES: &str = "
apiVersion: meridian/v1
kind: Tenant
metadata: {name: acme}
spec: {homeRegion: us-east-1, allowedRegions: [us-east-1]}
---
apiVersion: meridian/v1
kind: Security
metadata: {name: banned}
spec: {deny: [192.0.2.1], denyFrom: [lists/bad.netset], everyRequest: true}
";

    fn push(name: &str, list: &str) -> Result<Compiled, Vec<String>> {
        push_with(RULES, name, list)
    }

    /// A push whose policy has this for `asns`.
    fn push_asns(asns: &str, name: &str, list: &str) -> Result<Compiled, Vec<String>> {
        let (before, _) = RULES.rsplit_once("spec: ").unwrap();
        push_with(&format!("{before}spec: {{asns: {asns}, everyRequest: true}}\n"), name, list)
    }

    fn push_with(rules: &str, name: &str, list: &str) -> Result<Compiled, Vec<String>> {
        let file = |path: &str, content: &str| File { path: path.to_owned(), content: content.to_owned() };
        let files = [file("rules.yaml", rules), file(name, list)];
        compile(&Target::Tenant("acme".to_owned()), &files, None)
            .map_err(|refused| refused.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_list_of_a_million_networks_is_pushed_whole() {
        let mut list = String::from("# scattered\n\n2001:db8::/32 # and these\n");
        for number in 0..LIST_NETWORKS_MAX - 1 {
            let address = u32::try_from(number).unwrap().wrapping_mul(2_654_435_761);
            list.push_str(&format!("{}\n", std::net::Ipv4Addr::from_bits(address)));
        }
        let compiled = push("lists/bad.netset", &list).unwrap();
        let Rules::Tenant(rules) = compiled.rules else { panic!("a tenant's rules") };
        let denies = |address: &str| rules.security[0].deny.contains(address.parse().unwrap());
        let last = u32::try_from(LIST_NETWORKS_MAX - 2).unwrap().wrapping_mul(2_654_435_761);
        assert!(denies("192.0.2.1") && denies("2001:db8::7") && denies("0.0.0.0"));
        assert!(denies(&std::net::Ipv4Addr::from_bits(last).to_string()));
        assert!(!denies("2001:db9::7") && !denies("192.0.2.2"));

        list.push_str("192.0.2.3\n");
        let refused = push("lists/bad.netset", &list).unwrap_err();
        let line = LIST_NETWORKS_MAX + 3;
        assert_eq!(
            refused,
            [format!(
                "lists/bad.netset:{line}:1: found one network more, expected at most {LIST_NETWORKS_MAX} networks in a file (LIST_NETWORKS_MAX)"
            )]
        );
    }

    #[test]
    fn a_list_of_a_million_autonomous_systems_is_pushed_whole() {
        let scattered = |number: usize| u32::try_from(number).unwrap().wrapping_mul(2_654_435_761);
        let mut list = String::from("# scattered\n\n");
        let mut numbers: Vec<u32> = (0..LIST_ASNS_MAX).map(scattered).collect();
        for (at, number) in numbers.iter().enumerate() {
            list.push_str(&format!("{}{number} # a name\n", if at % 2 == 0 { "AS" } else { "" }));
        }
        let compiled = push_asns("{deny: [64500], denyFrom: [bad.asnset]}", "bad.asnset", &list).unwrap();
        let target = Target::Tenant("acme".to_owned());
        numbers.push(64_500);
        let expected = Some(Listing::deny(Mode::Block, numbers));
        for rules in [compiled.rules, Bundle::parse(&compiled.bytes, &target, 1).unwrap()] {
            let Rules::Tenant(rules) = rules else { panic!("a tenant's rules") };
            assert!(rules.security[0].asns == expected);
        }

        list.push_str("1\n");
        let line = LIST_ASNS_MAX + 3;
        assert_eq!(
            push_asns("{denyFrom: [bad.asnset]}", "bad.asnset", &list).unwrap_err(),
            [format!(
                "bad.asnset:{line}:1: found one number more, expected at most {LIST_ASNS_MAX} numbers in a file (LIST_ASNS_MAX)"
            )]
        );
    }

    #[test]
    fn what_is_wrong_with_a_list_of_autonomous_systems_is_told_with_its_line() {
        let wrong = |found: &str, line: u32, column: u32| {
            format!(
                "bad.asnset:{line}:{column}: found {found:?}, expected the number of an autonomous system, such as 64500 or AS64500"
            )
        };
        assert_eq!(
            push_asns(
                "{denyFrom: [bad.asnset]}",
                "bad.asnset",
                "64500\n  AS4294967296\n1.10 # dots\n+5\nAS\n"
            )
            .unwrap_err(),
            [wrong("AS4294967296", 2, 3), wrong("1.10", 3, 1), wrong("+5", 4, 1), wrong("AS", 5, 1)]
        );
        assert_eq!(
            push_asns("{allowFrom: [bad.netset]}", "bad.asnset", "64500").unwrap_err(),
            [
                "rules.yaml:10:27: spec.asns.allowFrom[0]: found \"bad.netset\", expected the path of a file of the push that ends with .asnset; did you mean \"bad.asnset\"?"
            ]
        );
        assert_eq!(
            push_asns("{allow: [64500], denyFrom: [bad.asnset]}", "bad.asnset", "64501").unwrap_err(),
            ["rules.yaml:10:14: spec.asns: found both allow and deny, expected one of them"]
        );
    }

    #[test]
    fn nobody_is_among_those_of_an_empty_list() {
        let compiled = push_asns("{allowFrom: [none.asnset]}", "none.asnset", "# nobody\n").unwrap();
        let Rules::Tenant(rules) = compiled.rules else { panic!("a tenant's rules") };
        assert_eq!(rules.security[0].asns, Some(Listing::allow(Mode::Block, Vec::new(), false)));
    }

    #[test]
    fn what_is_wrong_with_a_list_is_told_with_its_line() {
        assert_eq!(
            push("lists/bad.netset", "192.0.2.0/24\n  192.0.2.1/24\nnobody # here\n").unwrap_err(),
            [
                "lists/bad.netset:2:3: found \"192.0.2.1/24\", expected the network without host bits, 192.0.2.0/24",
                "lists/bad.netset:3:1: found \"nobody\", expected a network such as 192.0.2.0/24 or 2001:db8::/32, or an address",
            ]
        );
        assert_eq!(
            push("lists/bat.netset", "192.0.2.0/24").unwrap_err(),
            [
                "rules.yaml:10:38: spec.denyFrom[0]: found \"lists/bad.netset\", expected the path of a file of the push that ends with .netset or .ipset; did you mean \"lists/bat.netset\"?"
            ]
        );
        let wrong = push("lists/bad.netset", &"x\n".repeat(2 * INVALID_MAX)).unwrap_err();
        assert_eq!(wrong.len(), INVALID_MAX);
    }

    #[test]
    fn lists_that_an_edge_could_not_bear_are_refused() {
        // Short as text and long in memory: each a range of its own, next to the one before.
        let networks = TENANT_LIST_BYTES_MAX / 32 + 1;
        let list: String = (0..networks as u128)
            .map(|at| format!("{}\n", std::net::Ipv6Addr::from_bits((0x2001 << 112) + at * 2)))
            .collect();
        let bytes = networks * 32;
        assert_eq!(
            push("lists/bad.netset", &list).unwrap_err(),
            [format!(
                "rules.yaml:10:7: spec: found {} bytes of lists in memory, those before included, expected at most {TENANT_LIST_BYTES_MAX} (TENANT_LIST_BYTES_MAX)",
                bytes + 8
            )]
        );
    }
}
