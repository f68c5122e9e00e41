//! How much a request looks like one that a person's browser sent, by what it says of itself. Whoever wants to can
//! write a browser's header fields: this sorts out the careless, and proves nothing. A crawler's claim can be verified:
//! its address has a name under the crawler's domain, and that name has the address.

use std::sync::LazyLock;

use super::{Asked, Inputs, Name};
use crate::headers::Headers;
use crate::ruleset::Mode;
use crate::words::Words;

/// What is thought of bots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bots {
    /// What a hit does.
    pub mode: Mode,
    /// Scores below this are hits; 0 to 100, 100 being a browser without a sign of anything else.
    pub below: u8,
    /// Crawlers that pass whatever their score, by name, once they are verified.
    pub crawlers: Vec<String>,
    /// Crawlers beside [`CRAWLERS`].
    pub own: Vec<Crawler>,
    /// What a claim does that is known to be false.
    pub false_claims: Mode,
    /// What becomes of claims that nobody has verified yet.
    pub unverified: Unverified,
    /// Whether limits are not for verified crawlers of the list.
    pub is_unlimited: bool,
}

/// A crawler that says in `User-Agent` which it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crawler {
    /// Its name.
    pub name: String,
    /// A word of its `User-Agent`, in lower case.
    pub agent: String,
    /// Domains, in lower case, that its addresses have names under.
    pub domains: Vec<String>,
}

/// What becomes of a crawler of the list that nobody has verified yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unverified {
    /// It passes while its name is asked for, where no other address of its network turned out to have another one. Otherwise
    /// its score counts. One that never can be verified passes.
    #[default]
    Allow,
    /// Its score counts.
    Score,
    /// It is a hit.
    Block,
}

/// Crawlers by a word of their `User-Agent`, in lower case, and the domains that their operators say their addresses have
/// names under. Those without publish lists of addresses at most: their claims stay unverified.
pub const CRAWLERS: [(&str, &[&str]); 18] = [
    ("ahrefsbot", &["ahrefs.com", "ahrefs.net"]),
    ("amazonbot", &["crawl.amazonbot.amazon"]),
    ("applebot", &["applebot.apple.com"]),
    ("baiduspider", &["baidu.com", "baidu.jp"]),
    ("bingbot", &["search.msn.com"]),
    ("ccbot", &["crawl.commoncrawl.org"]),
    ("claudebot", &[]),
    ("duckduckbot", &[]),
    ("facebookexternalhit", &[]),
    ("googlebot", &["googlebot.com", "google.com"]),
    ("gptbot", &[]),
    ("linkedinbot", &["fwd.linkedin.com"]),
    ("petalbot", &["petalsearch.com"]),
    ("pinterestbot", &["pinterest.com"]),
    ("semrushbot", &["semrush.com"]),
    ("slurp", &["crawl.yahoo.net"]),
    ("twitterbot", &[]),
    ("yandexbot", &["yandex.ru", "yandex.net", "yandex.com"]),
];

/// What a request says which crawler it is.
struct Claim<'a> {
    name: &'a str,
    domains: Vec<&'a str>,
}

/// What came of a claim.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    True,
    False,
    /// The crawler's operator names no domain.
    Never,
    /// Its name is asked for.
    Open,
    /// So it is, but an address of the same network had another one.
    Doubtful,
    /// Too many others are asked for.
    Unasked,
}

/// What is thought of a request.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// What it hit, in order, and what that does.
    pub hits: Vec<(Mode, &'static str)>,
    /// What it was judged by.
    pub inputs: Inputs,
    /// It is of a verified crawler that no limit is for.
    pub is_unlimited: bool,
}

/// Signs in `User-Agent`: what is said of them, how much they cost, words that give them away.
const SIGNS: [(&str, u8, &[&str]); 4] = [
    (
        "scanner",
        90,
        &[
            "sqlmap",
            "nikto",
            "nmap",
            "masscan",
            "zgrab",
            "nuclei",
            "wpscan",
            "dirbuster",
            "gobuster",
            "ffuf",
            "acunetix",
            "nessus",
            "openvas",
        ],
    ),
    ("headless", 70, &["headless", "phantomjs", "puppeteer", "playwright", "selenium", "webdriver"]),
    (
        "scripted",
        60,
        &[
            "curl/",
            "wget/",
            "python",
            "aiohttp",
            "httpx",
            "go-http-client",
            "java/",
            "okhttp",
            "libwww-perl",
            "lwp::",
            "scrapy",
            "node-fetch",
            "undici",
            "axios/",
            "ruby",
            "guzzlehttp",
            "apache-httpclient",
            "postmanruntime",
            "insomnia/",
            "httpie/",
            "dart:io",
        ],
    ),
    ("crawler", 60, &["bot/", "bot;", "crawler", "spider"]),
];

/// The words of [`SIGNS`], each of the sort that its place there is.
static SIGN_WORDS: LazyLock<Words> = LazyLock::new(|| {
    let signs = SIGNS.into_iter().enumerate();
    Words::new(signs.flat_map(|(at, (_, _, words))| words.iter().map(move |word| (*word, 1 << at))))
});

/// Fields that every browser sends: what is said where one is missing, and how much that costs.
const EXPECTED: [(&str, &str, u8); 3] = [
    ("accept", "no-accept", 30),
    ("accept-language", "no-accept-language", 20),
    ("accept-encoding", "no-accept-encoding", 15),
];

impl Bots {
    /// What is thought of a request.
    pub(super) fn judge(&self, asked: &mut Asked<'_>) -> Judged {
        let agent = asked.facts.headers.get("user-agent").unwrap_or_default().to_ascii_lowercase();
        let claim = self.claim(&agent);
        let (score, signs) = assess(&agent, claim.is_some(), &asked.facts.headers);
        let mut judged = Judged { inputs: vec![("score", format!("{score} of 100"))], ..Judged::default() };
        if !signs.is_empty() {
            judged.inputs.push(("signs", signs.join(",")));
        }
        let passes = claim.is_some_and(|claim| self.verify(&claim, asked, &mut judged));
        if score < self.below && !passes {
            judged.hits.push((self.mode, "looks like a bot"));
        }
        judged
    }

    fn claim<'a>(&'a self, agent: &str) -> Option<Claim<'a>> {
        let own = self.own.iter().find(|crawler| agent.contains(crawler.agent.as_str()));
        let own = own.map(|Crawler { name, domains, .. }| Claim {
            name,
            domains: domains.iter().map(String::as_str).collect(),
        });
        let known = || CRAWLERS.into_iter().find(|(name, _)| agent.contains(name));
        own.or_else(|| known().map(|(name, domains)| Claim { name, domains: domains.to_vec() }))
    }

    /// Whether a claim lets the request pass whatever its score.
    fn verify(&self, claim: &Claim<'_>, asked: &mut Asked<'_>, judged: &mut Judged) -> bool {
        let name = claim.name;
        let verdict = claim.verdict(asked);
        let told = match verdict {
            Verdict::True => format!("{name}, verified"),
            Verdict::False => format!("claims falsely to be {name}"),
            Verdict::Never => format!("claims to be {name}, which nobody can verify"),
            Verdict::Open => format!("claims to be {name}, not verified yet"),
            Verdict::Doubtful => {
                format!("claims to be {name}, not verified yet, and a neighbour has another name")
            }
            Verdict::Unasked => format!("claims to be {name}, not verified yet: too many are asked for"),
        };
        judged.inputs.push(("agent", told));
        let is_listed = self.crawlers.iter().any(|listed| listed == name);
        match (verdict, self.unverified) {
            (Verdict::False, _) if self.false_claims != Mode::Off => {
                judged.hits.push((self.false_claims, "claims falsely to be a crawler"));
                false
            }
            (Verdict::False, _) => false,
            (Verdict::True, _) => {
                judged.is_unlimited = is_listed && self.is_unlimited;
                is_listed
            }
            (Verdict::Never | Verdict::Open, Unverified::Allow) => is_listed,
            (_, Unverified::Allow | Unverified::Score) => false,
            (_, Unverified::Block) => {
                if is_listed {
                    judged.hits.push((self.mode, "claims to be a crawler, not verified yet"));
                }
                false
            }
        }
    }
}

impl Claim<'_> {
    fn verdict(&self, asked: &mut Asked<'_>) -> Verdict {
        if self.domains.is_empty() {
            return Verdict::Never;
        }
        let client = asked.facts.client;
        match asked.names.of(client, asked.now_ms) {
            Name::Confirmed(name) if self.is_of(&name) => Verdict::True,
            Name::Confirmed(_) | Name::None => Verdict::False,
            Name::Unasked => Verdict::Unasked,
            Name::Asked => match asked.names.of_network(client) {
                Some(neighbour) if !neighbour.is_some_and(|name| self.is_of(name)) => Verdict::Doubtful,
                _ => Verdict::Open,
            },
        }
    }

    /// Whether a name is under one of the crawler's domains.
    fn is_of(&self, name: &str) -> bool {
        let is_under = |domain: &&str| {
            name.strip_suffix(*domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        self.domains.iter().any(is_under)
    }
}

/// Words, in lower case, by which a `User-Agent` is one of a program that nobody sits before.
pub(crate) fn program_words() -> impl Iterator<Item = &'static str> {
    SIGNS
        .into_iter()
        .flat_map(|(_, _, words)| words)
        .copied()
        .chain(CRAWLERS.into_iter().map(|(name, _)| name))
}

/// The score of a `User-Agent` in lower case and of the fields beside it, with the signs that lowered it.
fn assess(agent: &str, claims: bool, headers: &Headers) -> (u8, Vec<&'static str>) {
    let (mut score, mut signs) = (100u8, Vec::new());
    let mut lower = |sign, by| {
        score = score.saturating_sub(by);
        signs.push(sign);
    };
    if agent.trim().is_empty() {
        lower("no-user-agent", 70);
    }
    let found = SIGN_WORDS.find(agent);
    for (at, (sign, by, _)) in SIGNS.into_iter().enumerate() {
        if found & (1 << at) != 0 || (sign == "crawler" && claims) {
            lower(sign, by);
        }
    }
    for (name, sign, by) in EXPECTED {
        if headers.get(name).is_none() {
            lower(sign, by);
        }
    }
    (score, signs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_scores_high_and_others_by_their_signs() {
        const CHROME: &str =
            "mozilla/5.0 (x11; linux x86_64) applewebkit/537.36 chrome/140.0.0.0 safari/537.36";
        let browser = [("accept", "text/html"), ("accept-language", "de"), ("accept-encoding", "br")];
        let check = |agent: &str, headers: &[(&str, &str)], expect: u8| {
            let claims = CRAWLERS.into_iter().any(|(name, _)| agent.contains(name));
            let headers = Headers::from_iter(headers.iter().copied());
            assert_eq!(assess(agent, claims, &headers).0, expect, "{agent}");
        };
        check(CHROME, &browser, 100);
        check(CHROME, &browser[..1], 65);
        check(&CHROME.replace("chrome/", "headlesschrome/"), &browser, 30);
        check("curl/8.5.0", &browser[..1], 5);
        check("", &[], 0);
        check("mozilla/5.0 (compatible; googlebot/2.1)", &browser, 40);
        check("sqlmap/1.8", &browser, 10);
    }
}
