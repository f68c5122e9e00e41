//! Files that list networks: one a line, what follows `#` is a comment.

use std::collections::BTreeMap;

use meridian_engine::policy::security::AddressSet;

use super::File;
use super::invalid::{Invalid, nearest};
use crate::bundle::network;
use crate::bundle::networks::pack;
use crate::document::{Body, NetworkFile};
use crate::limits::{INVALID_MAX, LIST_NETWORKS_MAX};

/// Whether a file lists networks, by its name, rather than holding documents.
#[must_use]
pub(super) fn is_list(path: &str) -> bool {
    path.ends_with(".netset") || path.ends_with(".ipset")
}

/// The lists of a push, by their names. What is wrong with them goes to `invalid`.
pub(super) fn read<'a>(
    files: impl Iterator<Item = &'a File>,
    invalid: &mut Vec<Invalid>,
) -> BTreeMap<&'a str, String> {
    files.map(|file| (file.path.as_str(), pack(&list(file, invalid)))).collect()
}

fn list(file: &File, invalid: &mut Vec<Invalid>) -> AddressSet {
    let mut networks = Vec::new();
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
        match network(entry) {
            Ok(_) if networks.len() == LIST_NETWORKS_MAX => {
                let expected = format!("at most {LIST_NETWORKS_MAX} networks in a file (LIST_NETWORKS_MAX)");
                report(at + 1, 1, "one network more".to_owned(), expected);
                break;
            }
            Ok(network) => networks.push(network),
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
    AddressSet::new(&networks)
}

/// Puts what files list into a document that names them. What is wrong comes back: path, what was found, and what was
/// perhaps meant.
pub(super) fn resolve(
    body: &mut Body,
    lists: &BTreeMap<&str, String>,
) -> Vec<(String, String, Option<String>)> {
    let Body::Security(spec) = body else { return Vec::new() };
    let mut missing = Vec::new();
    let mut of = |path: &str, files: &mut Vec<NetworkFile>| {
        for (at, named) in files.iter_mut().enumerate() {
            named.networks = lists.get(named.file.as_str()).cloned();
            if named.networks.is_none() {
                let near = nearest(&named.file, lists.keys().copied());
                let shown: String = named.file.chars().take(80).collect();
                missing.push((format!("{path}[{at}]"), format!("{shown:?}"), near));
                // An empty list, so that the rest of the document can be checked as well.
                named.networks = Some(pack(&AddressSet::default()));
            }
        }
    };
    of("spec.allowFrom", &mut spec.allow_from);
    of("spec.denyFrom", &mut spec.deny_from);
    missing
}

#[cfg(test)]
mod tests {
    use meridian_engine::limits::TENANT_LIST_BYTES_MAX;
    use meridian_engine::ruleset::Target;

    use super::*;
    use crate::authored::{Compiled, compile};
    use crate::bundle::Rules;

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
        let file = |path: &str, content: &str| File { path: path.to_owned(), content: content.to_owned() };
        let files = [file("rules.yaml", RULES), file(name, list)];
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
                "rules.yaml:10:7: spec: found {} bytes of networks in memory, those before included, expected at most {TENANT_LIST_BYTES_MAX} (TENANT_LIST_BYTES_MAX)",
                bytes + 8
            )]
        );
    }
}
