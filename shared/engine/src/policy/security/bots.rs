//! How much a request looks like one that a person's browser sent, by what it says of itself. Whoever wants to can
//! write a browser's header fields: this sorts out the careless, and proves nothing.

use super::Inputs;
use crate::facts::Facts;
use crate::headers::Headers;
use crate::ruleset::Mode;

/// What is thought of bots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bots {
    /// What a hit does.
    pub mode: Mode,
    /// Scores below this are hits; 0 to 100, 100 being a browser without a sign of anything else.
    pub below: u8,
    /// Crawlers of [`CRAWLERS`] whose claim to be one is enough to pass. Nothing verifies it here.
    pub crawlers: Vec<String>,
}

/// Crawlers by a word of their `User-Agent`, in lower case.
pub const CRAWLERS: [&str; 18] = [
    "ahrefsbot",
    "amazonbot",
    "applebot",
    "baiduspider",
    "bingbot",
    "ccbot",
    "claudebot",
    "duckduckbot",
    "facebookexternalhit",
    "googlebot",
    "gptbot",
    "linkedinbot",
    "petalbot",
    "pinterestbot",
    "semrushbot",
    "slurp",
    "twitterbot",
    "yandexbot",
];

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

/// Fields that every browser sends: what is said where one is missing, and how much that costs.
const EXPECTED: [(&str, &str, u8); 3] = [
    ("accept", "no-accept", 30),
    ("accept-language", "no-accept-language", 20),
    ("accept-encoding", "no-accept-encoding", 15),
];

impl Bots {
    /// Whether a request is hit, and by what it was judged.
    pub(super) fn judge(&self, facts: &Facts) -> (bool, Inputs) {
        let agent = facts.headers.get("user-agent").unwrap_or_default().to_ascii_lowercase();
        let claim = CRAWLERS.into_iter().find(|name| agent.contains(name));
        let (score, signs) = assess(&agent, claim, &facts.headers);
        let mut inputs = vec![("score", format!("{score} of 100"))];
        if !signs.is_empty() {
            inputs.push(("signs", signs.join(",")));
        }
        if let Some(name) = claim {
            inputs.push(("agent", format!("claims to be {name}")));
        }
        let is_let = claim.is_some_and(|claim| self.crawlers.iter().any(|name| name == claim));
        (score < self.below && !is_let, inputs)
    }
}

/// The score of a `User-Agent` in lower case and of the fields beside it, with the signs that lowered it.
fn assess(agent: &str, claim: Option<&str>, headers: &Headers) -> (u8, Vec<&'static str>) {
    let (mut score, mut signs) = (100u8, Vec::new());
    let mut lower = |sign, by| {
        score = score.saturating_sub(by);
        signs.push(sign);
    };
    if agent.trim().is_empty() {
        lower("no-user-agent", 70);
    }
    for (sign, by, words) in SIGNS {
        if words.iter().any(|word| agent.contains(word)) || (sign == "crawler" && claim.is_some()) {
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
            let claim = CRAWLERS.into_iter().find(|name| agent.contains(name));
            let headers = Headers::from_iter(headers.iter().copied());
            assert_eq!(assess(agent, claim, &headers).0, expect, "{agent}");
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
