//! What requests are checked for.

use std::net::IpAddr;

use ipnet::IpNet;
use meridian_engine::limits::{PEEK_BYTES_MAX, TENANT_LIST_BYTES_MAX};
use meridian_engine::policy::security::{
    AddressSet, Bots, CRAWLERS, Country, Crawler, Injection, Listing, RULES, Security, Sizes, Spot,
    Unverified,
};
use meridian_engine::ruleset::Mode;

use super::policies::is_field_name;
use super::{Body, Compiler, Document, Flaw, is_host, of_kind, rule, short};
use crate::bundle::networks::{unpack, unpack_numbers};
use crate::document::{
    AsnFile, AsnsSpec, BotsSpec, CountriesSpec, CrawlerSpec, FailSpec, InjectionSpec, ModeSpec, NetworkFile,
    SecuritySpec, SizesSpec, UnknownSpec, UnverifiedSpec,
};
use crate::limits::{CRAWLER_AGENT_CHARS_MIN, INSPECTED_HEADERS_MAX};

/// Codes of ISO 3166-1 alpha-2 that are assigned.
const COUNTRIES: &str = "\
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ \
    CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR \
    GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT \
    JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO \
    MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY \
    QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO \
    TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW";

/// Reads a network, or a single address as one; the error says what was expected.
pub(crate) fn network(text: &str) -> Result<IpNet, String> {
    match text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
        Ok(network) if network.trunc() == network => Ok(network),
        Ok(network) => Err(format!("the network without host bits, {}", network.trunc())),
        Err(_) => Err("a network such as 192.0.2.0/24 or 2001:db8::/32, or an address".to_owned()),
    }
}

impl Compiler {
    pub(super) fn security(&mut self, documents: &[Document]) -> Vec<Security> {
        let mut security = Vec::new();
        let mut list_bytes = 0;
        for (at, document, spec) in of_kind!(documents, Security) {
            self.document = at;
            let SecuritySpec {
                allow,
                deny,
                allow_from,
                deny_from,
                countries,
                asns,
                limits,
                bots,
                injection,
                mode,
                every_request: _,
            } = spec;
            let has_networks =
                [allow.len(), deny.len(), allow_from.len(), deny_from.len()].iter().any(|count| *count > 0);
            let has_list = has_networks || countries.is_some() || asns.is_some();
            if !has_list && limits.is_none() && bots.is_none() && injection.is_none() {
                let expected = "at least one of allow, deny, countries, asns, limits, bots and injection";
                self.flaw("spec", "nothing to check", expected);
            }
            let of = |section: Option<ModeSpec>| Mode::from(section.unwrap_or(*mode));
            let policy = Security {
                rule: rule(document),
                mode: Mode::from(*mode),
                allow: self.addresses(allow, allow_from, "spec.allow"),
                deny: self.addresses(deny, deny_from, "spec.deny"),
                countries: countries.as_ref().map(|spec| self.countries(spec, of(spec.mode))),
                asns: asns.as_ref().map(|spec| self.asns(spec, of(spec.mode))),
                sizes: limits.as_ref().map(|spec| self.sizes(spec, of(spec.mode))),
                bots: bots.as_ref().map(|spec| self.bots(spec, of(spec.mode))),
                injection: injection.as_ref().map(|spec| self.injection(spec, of(spec.mode))),
            };
            let fits = list_bytes <= TENANT_LIST_BYTES_MAX;
            list_bytes += policy.list_bytes();
            if fits && list_bytes > TENANT_LIST_BYTES_MAX {
                let found = format!("{list_bytes} bytes of lists in memory, those before included");
                self.flaw("spec", found, format!("at most {TENANT_LIST_BYTES_MAX} (TENANT_LIST_BYTES_MAX)"));
            }
            security.push(policy);
        }
        security
    }

    /// The addresses of a list and of the files that go on with it.
    fn addresses(&mut self, texts: &[String], files: &[NetworkFile], path: &str) -> AddressSet {
        let mut set = AddressSet::new(&self.networks(texts, path));
        for (at, file) in files.iter().enumerate() {
            match file.networks.as_deref().and_then(unpack) {
                Some(networks) => set = set.joined(networks),
                None => {
                    let found = format!("{:?} without its networks", short(&file.file));
                    self.flaw(format!("{path}From[{at}]"), found, "the packed networks of the file");
                }
            }
        }
        set
    }

    fn networks(&mut self, texts: &[String], path: &str) -> Vec<IpNet> {
        let mut networks = Vec::with_capacity(texts.len());
        for (at, text) in texts.iter().enumerate() {
            match network(text) {
                Ok(network) => networks.push(network),
                Err(expected) => {
                    self.flaw(format!("{path}[{at}]"), format_args!("{:?}", short(text)), expected);
                }
            }
        }
        networks
    }

    fn countries(&mut self, spec: &CountriesSpec, mode: Mode) -> Listing<Country> {
        let CountriesSpec { mode: _, allow, deny, unknown } = spec;
        for (list, path) in [(allow, "spec.countries.allow"), (deny, "spec.countries.deny")] {
            for (at, code) in list.iter().enumerate() {
                if !COUNTRIES.split(' ').any(|known| known == code) {
                    let upper = code.to_ascii_uppercase();
                    let meant = COUNTRIES.split(' ').filter(|known| *known == upper).map(str::to_owned);
                    self.flaws.push(Flaw {
                        document: self.document,
                        path: format!("{path}[{at}]"),
                        found: format!("{:?}", short(code)),
                        expected: "a code of ISO 3166-1 alpha-2 in upper case, such as DE".to_owned(),
                        names: meant.collect(),
                    });
                }
            }
        }
        self.one_side(!allow.is_empty(), !deny.is_empty(), *unknown, "spec.countries");
        let codes = |list: &[String]| list.iter().filter_map(|code| Country::known(code)).collect();
        if allow.is_empty() {
            Listing::deny(mode, codes(deny))
        } else {
            Listing::allow(mode, codes(allow), *unknown == UnknownSpec::Deny)
        }
    }

    fn asns(&mut self, spec: &AsnsSpec, mode: Mode) -> Listing<u32> {
        let AsnsSpec { mode: _, allow, deny, allow_from, deny_from, unknown } = spec;
        // A file takes its side even where it lists nobody: then nobody is known to be among those who alone may come.
        let allows = !allow.is_empty() || !allow_from.is_empty();
        let denies = !deny.is_empty() || !deny_from.is_empty();
        self.one_side(allows, denies, *unknown, "spec.asns");
        let allow = self.numbers(allow, allow_from, "spec.asns.allow");
        let deny = self.numbers(deny, deny_from, "spec.asns.deny");
        if allows {
            Listing::allow(mode, allow, *unknown == UnknownSpec::Deny)
        } else {
            Listing::deny(mode, deny)
        }
    }

    /// The numbers of a list and of the files that go on with it.
    fn numbers(&mut self, list: &[u32], files: &[AsnFile], path: &str) -> Vec<u32> {
        let mut numbers = list.to_vec();
        for (at, file) in files.iter().enumerate() {
            match file.asns.as_deref().and_then(unpack_numbers) {
                Some(more) => numbers.extend(more),
                None => {
                    let found = format!("{:?} without its numbers", short(&file.file));
                    self.flaw(format!("{path}From[{at}]"), found, "the packed numbers of the file");
                }
            }
        }
        numbers
    }

    /// Those who alone may come or those who may not, and what that leaves of the unknown.
    fn one_side(&mut self, allows: bool, denies: bool, unknown: UnknownSpec, path: &str) {
        match (allows, denies) {
            (false, false) => self.flaw(path, "neither allow nor deny", "one of them"),
            (true, true) => self.flaw(path, "both allow and deny", "one of them"),
            (false, true) if unknown == UnknownSpec::Deny => {
                self.flaw(
                    format!("{path}.unknown"),
                    "deny beside a deny list",
                    "it only beside an allow list",
                );
            }
            _ => {}
        }
    }

    fn sizes(&mut self, spec: &SizesSpec, mode: Mode) -> Sizes {
        let SizesSpec { mode: _, header_bytes, headers, body_bytes, path_bytes, query_bytes } = spec;
        if [header_bytes, headers, body_bytes, path_bytes, query_bytes].iter().all(|max| max.is_none()) {
            let expected = "at least one of headerBytes, headers, bodyBytes, pathBytes and queryBytes";
            self.flaw("spec.limits", "no limit", expected);
        }
        if *path_bytes == Some(0) {
            self.flaw("spec.limits.pathBytes", 0, "1 or more: every path has a slash");
        }
        Sizes {
            mode,
            path_bytes_max: *path_bytes,
            query_bytes_max: *query_bytes,
            headers_max: *headers,
            header_bytes_max: *header_bytes,
            body_bytes_max: *body_bytes,
        }
    }

    fn bots(&mut self, spec: &BotsSpec, mode: Mode) -> Bots {
        if !(1..=100).contains(&spec.below) {
            self.flaw("spec.bots.below", spec.below, "1 to 100");
        }
        self.unique(&spec.crawlers, "spec.bots.crawlers");
        let own: Vec<Crawler> =
            spec.own.iter().enumerate().map(|(at, crawler)| self.crawler(at, crawler)).collect();
        let names = CRAWLERS.iter().map(|(name, _)| (*name).to_owned());
        let names: Vec<String> = names.chain(own.iter().map(|crawler| crawler.name.clone())).collect();
        for (at, crawler) in own.iter().enumerate() {
            if names.iter().filter(|name| **name == crawler.name).count() > 1 {
                let found = format!("{:?} once more", short(&crawler.name));
                self.flaw(format!("spec.bots.own[{at}].name"), found, "a name that no other crawler has");
            }
        }
        for (at, name) in spec.crawlers.iter().enumerate() {
            if !names.contains(name) {
                self.flaws.push(Flaw {
                    document: self.document,
                    path: format!("spec.bots.crawlers[{at}]"),
                    found: format!("{:?}", short(name)),
                    expected: "the name of a known crawler, such as googlebot".to_owned(),
                    names: names.clone(),
                });
            }
        }
        Bots {
            mode,
            below: spec.below,
            crawlers: spec.crawlers.clone(),
            own,
            false_claims: spec.false_claims.map_or(mode, Mode::from),
            unverified: match spec.unverified {
                UnverifiedSpec::Allow => Unverified::Allow,
                UnverifiedSpec::Score => Unverified::Score,
                UnverifiedSpec::Block => Unverified::Block,
            },
            is_unlimited: spec.unlimited,
        }
    }

    fn crawler(&mut self, at: usize, spec: &CrawlerSpec) -> Crawler {
        let path = |field: &str| format!("spec.bots.own[{at}].{field}");
        if spec.agent.chars().count() < CRAWLER_AGENT_CHARS_MIN {
            let expected =
                format!("a word of at least {CRAWLER_AGENT_CHARS_MIN} characters, which no browser has");
            self.flaw(path("agent"), format_args!("{:?}", short(&spec.agent)), expected);
        }
        if spec.domains.is_empty() {
            self.flaw(
                path("domains"),
                "no domain",
                "the domains that the crawler's addresses have names under",
            );
        }
        for (number, domain) in spec.domains.iter().enumerate() {
            // A name under a public suffix could be anybody's.
            if !is_host(domain) || domain.starts_with('*') || !domain.contains('.') {
                let path = format!("{}[{number}]", path("domains"));
                self.flaw(
                    path,
                    format_args!("{:?}", short(domain)),
                    "a domain in lower case, such as crawl.example.com",
                );
            }
        }
        Crawler {
            name: spec.name.clone(),
            agent: spec.agent.to_ascii_lowercase(),
            domains: spec.domains.clone(),
        }
    }

    fn injection(&mut self, spec: &InjectionSpec, mode: Mode) -> Injection {
        if !(1..=4).contains(&spec.paranoia) {
            self.flaw("spec.injection.paranoia", spec.paranoia, "1 to 4");
        }
        if spec.threshold == 0 {
            self.flaw("spec.injection.threshold", 0, "1 or more");
        }
        if spec.headers.len() > INSPECTED_HEADERS_MAX {
            let found = format!("{} fields", spec.headers.len());
            self.flaw("spec.injection.headers", found, format!("at most {INSPECTED_HEADERS_MAX}"));
        }
        if let Some(bytes) = spec.body_bytes.filter(|bytes| !(1..=PEEK_BYTES_MAX).contains(bytes)) {
            self.flaw("spec.injection.bodyBytes", bytes, format!("1 to {PEEK_BYTES_MAX}"));
        }
        if spec.body_bytes.is_none() && spec.fail == FailSpec::Closed {
            self.flaw("spec.injection.fail", "closed without bodyBytes", "bodyBytes with it");
        }
        for (at, name) in spec.headers.iter().enumerate() {
            if !is_field_name(name) || name.eq_ignore_ascii_case("cookie") {
                let path = format!("spec.injection.headers[{at}]");
                self.flaw(
                    path,
                    format_args!("{:?}", short(name)),
                    "the name of a header field beside Cookie",
                );
            }
        }
        let mut exclude = Vec::new();
        for (at, exclusion) in spec.exclude.iter().enumerate() {
            let path = format!("spec.injection.exclude[{at}]");
            let known = RULES.into_iter().flatten().find(|rule| rule.id == exclusion.rule);
            let place = Spot::parse(&exclusion.place);
            if known.is_none() {
                self.flaws.push(Flaw {
                    document: self.document,
                    path: format!("{path}.rule"),
                    found: format!("{:?}", short(&exclusion.rule)),
                    expected: "the id of an injection rule".to_owned(),
                    names: RULES.into_iter().flatten().map(|rule| rule.id.to_owned()).collect(),
                });
            }
            if place.is_none() {
                let found = format!("{:?}", short(&exclusion.place));
                self.flaw(
                    format!("{path}.in"),
                    found,
                    "query:NAME, header:NAME, cookie:NAME, body:NAME, path or body",
                );
            }
            exclude.extend(known.map(|rule| rule.id).zip(place));
        }
        Injection {
            mode,
            paranoia: spec.paranoia,
            threshold: spec.threshold,
            headers: spec.headers.iter().map(|name| name.to_ascii_lowercase()).collect(),
            body_bytes_max: spec.body_bytes,
            fail: spec.fail.into(),
            exclude,
        }
    }
}

impl From<ModeSpec> for Mode {
    fn from(mode: ModeSpec) -> Self {
        match mode {
            ModeSpec::Off => Self::Off,
            ModeSpec::Log => Self::Log,
            ModeSpec::Block => Self::Block,
        }
    }
}

#[cfg(test)]
mod tests {
    use meridian_engine::ruleset::{Target, Version};

    use super::*;
    use crate::bundle::Rules;
    use crate::bundle::compile::compile;
    use crate::bundle::networks::pack_numbers;
    use crate::limits::NETWORKS_MAX;

    fn policy(networks: usize) -> Result<Rules, Vec<Flaw>> {
        let deny: Vec<String> = (0..networks)
            .map(|number| format!("{}.{}.{}.0/25", 1 + (number >> 16), number >> 8 & 255, number & 255))
            .collect();
        policy_of(&serde_json::json!({ "deny": deny, "everyRequest": true }))
    }

    fn policy_of(spec: &serde_json::Value) -> Result<Rules, Vec<Flaw>> {
        let documents = serde_json::json!([
            { "kind": "Tenant", "metadata": { "name": "acme" }, "source": { "file": "a", "line": 1 },
              "spec": { "homeRegion": "us-east-1", "allowedRegions": ["us-east-1"] } },
            { "kind": "Security", "metadata": { "name": "long" }, "source": { "file": "a", "line": 2 },
              "spec": spec },
        ]);
        let documents: Vec<Document> = serde_json::from_value(documents).unwrap();
        let version = Version { sequence: 1, hash: String::new() };
        compile(&documents, &Target::Tenant("acme".to_owned()), version)
    }

    #[test]
    fn a_list_of_networks_may_be_long_but_not_endless() {
        let Ok(Rules::Tenant(rules)) = policy(NETWORKS_MAX) else { panic!("no rules") };
        assert_eq!(rules.security[0].deny.bytes(), NETWORKS_MAX * 8);
        assert_eq!(rules.tenant.security, [0]);
        let flaws = policy(NETWORKS_MAX + 1).unwrap_err();
        assert_eq!(flaws[0].to_string(), "spec.deny: found 50001 entries, expected at most 50000");
    }

    #[test]
    fn packed_numbers_count_as_what_they_take_in_memory() {
        let policy = |packed: Option<String>| {
            let mut file = serde_json::json!({ "file": "long.asnset" });
            match packed {
                Some(packed) => file["asns"] = packed.into(),
                None => file = file["file"].take(),
            }
            policy_of(&serde_json::json!({ "asns": { "denyFrom": [file] }, "everyRequest": true }))
        };
        let most = u32::try_from(TENANT_LIST_BYTES_MAX / 4).unwrap();
        let numbers = |count: u32| Some(pack_numbers(&(0..count).collect::<Vec<_>>()));
        let Ok(Rules::Tenant(rules)) = policy(numbers(most)) else { panic!("no rules") };
        assert_eq!(rules.list_bytes(), TENANT_LIST_BYTES_MAX);
        let refused = |packed| policy(packed).unwrap_err()[0].to_string();
        assert_eq!(
            refused(numbers(most + 1)),
            "spec: found 16777220 bytes of lists in memory, those before included, expected at most 16777216 (TENANT_LIST_BYTES_MAX)"
        );
        let without = "spec.asns.denyFrom[0]: found \"long.asnset\" without its numbers, expected the packed numbers of the file";
        assert_eq!(refused(None), without);
        assert_eq!(refused(Some("AQ".to_owned())), without, "one number, which is not there");
    }

    #[test]
    fn countries_are_249_codes_in_order() {
        let codes: Vec<&str> = COUNTRIES.split(' ').collect();
        assert_eq!(codes.len(), 249);
        assert!(codes.is_sorted() && codes.iter().all(|code| Country::known(code).is_some()));
    }
}
