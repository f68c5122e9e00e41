//! What an answer may be made for: the class of the client's device, and its language.

use std::cmp::Reverse;
use std::sync::LazyLock;

use crate::headers::Headers;
use crate::policy::security::program_words;
use crate::words::Words;

/// Sorts of words in `User-Agent`.
const PROGRAM: u16 = 1;
const TABLET: u16 = 1 << 1;
const ANDROID: u16 = 1 << 2;
const MOBILE: u16 = 1 << 3;
const PHONE: u16 = 1 << 4;

static WORDS: LazyLock<Words> = LazyLock::new(|| {
    let devices = [
        ("ipad", TABLET),
        ("tablet", TABLET),
        ("kindle", TABLET),
        ("silk/", TABLET),
        ("android", ANDROID),
        ("mobile", MOBILE),
        ("mobi", PHONE),
        ("iphone", PHONE),
        ("ipod", PHONE),
    ];
    Words::new(program_words().map(|word| (word, PROGRAM)).chain(devices))
});

/// `mobile`, `tablet`, `desktop` or `bot`. The client hint `Sec-CH-UA-Mobile` (W3C User-Agent Client Hints) says that it
/// is mobile or that it is not; the rest is told from `User-Agent`, without which it is a bot.
#[must_use]
pub fn device(headers: &Headers) -> &'static str {
    let agent = headers.get("user-agent").unwrap_or_default();
    let words = WORDS.find(agent);
    let has = |sort: u16| words & sort != 0;
    let hint = headers.get("sec-ch-ua-mobile").map(str::trim);
    if agent.is_empty() || has(PROGRAM) {
        return "bot";
    }
    let is_tablet = has(TABLET) || (has(ANDROID) && !has(MOBILE));
    match hint {
        Some("?1") => "mobile",
        _ if is_tablet => "tablet",
        Some("?0") => "desktop",
        _ if has(PHONE) => "mobile",
        _ => "desktop",
    }
}

/// The languages that a client accepts with their weights in thousandths, the best first (RFC 9110, section 12.5.4). Those of
/// one weight stay in their order, which clients mean something by.
pub(in crate::policy) fn languages(headers: &Headers) -> Vec<(u16, &str)> {
    let elements = headers.get_all("accept-language").flat_map(|list| list.split(',')).map(str::trim);
    let mut languages: Vec<_> = elements.filter(|element| !element.is_empty()).map(weighted).collect();
    languages.sort_by_key(|(weight, _)| Reverse(*weight));
    languages
}

fn weighted(element: &str) -> (u16, &str) {
    let (language, weight) = element.split_once(';').unwrap_or((element, "q=1"));
    let weight = weight.trim().strip_prefix(['q', 'Q']).and_then(|weight| weight.strip_prefix('='));
    (weight.map_or(0, milli), language.trim())
}

/// A weight (RFC 9110, section 12.4.2), which has three digits at the most; what is none counts as "not acceptable".
fn milli(weight: &str) -> u16 {
    let weight: f32 = weight.parse().unwrap_or(0.0);
    (weight * 1_000.0).round().clamp(0.0, 1_000.0) as u16
}

/// The language that a client likes best, without its region: two or three letters in lower case (RFC 9110, section
/// 12.5.4; RFC 5646, section 2.2.1).
#[must_use]
pub fn language(headers: &Headers) -> Option<String> {
    let (weight, best) = languages(headers).into_iter().next()?;
    let tag = best.split('-').next()?;
    let is_language = (2..=3).contains(&tag.len()) && tag.bytes().all(|byte| byte.is_ascii_alphabetic());
    (weight > 0 && is_language).then(|| tag.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_told_apart() {
        let check = |expect: &str, fields: &[(&str, &str)]| {
            let headers = fields.iter().copied().collect();
            assert_eq!(device(&headers), expect, "{fields:?}");
        };
        let agent = |text| ("user-agent", text);
        let iphone = agent(
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148",
        );
        let pixel = agent(
            "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 Chrome/130.0.0.0 Mobile Safari/537.36",
        );
        let galaxy_tab =
            agent("Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 Chrome/130.0.0.0 Safari/537.36");
        let firefox = agent("Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0");
        check("mobile", &[iphone]);
        check("mobile", &[pixel]);
        check("tablet", &[galaxy_tab]);
        check(
            "tablet",
            &[agent("Mozilla/5.0 (iPad; CPU OS 18_1 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148")],
        );
        check("desktop", &[firefox]);
        check("mobile", &[firefox, ("sec-ch-ua-mobile", "?1")]);
        check("desktop", &[agent("Mozilla/5.0 Mobile"), ("sec-ch-ua-mobile", "?0")]);
        check("tablet", &[galaxy_tab, ("sec-ch-ua-mobile", "?0")]);
        check("bot", &[agent("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)")]);
        check("bot", &[agent("curl/8.10.1")]);
        check(
            "mobile",
            &[agent("Mozilla/5.0 (Linux; Android 14; CUBOT KINGKONG) Chrome/130.0 Mobile Safari/537.36")],
        );
        check("bot", &[("sec-ch-ua-mobile", "?1")]);
    }

    #[test]
    fn the_best_language_counts_without_its_region() {
        let check = |text: &str, expect: Option<&str>| {
            let headers = Headers::from_iter([("accept-language", text)]);
            assert_eq!(language(&headers).as_deref(), expect, "{text:?}");
        };
        check("de-AT, de;q=0.8, en;q=0.5", Some("de"));
        check("FR", Some("fr"));
        check("fr;q=0.5, de;q=0.9", Some("de"));
        check("de, en", Some("de"));
        check("en, de", Some("en"));
        check("en;q=0.8, *;q=0.9", None);
        check("de;q=0", None);
        check(", ,it", Some("it"));
        check("*", None);
        check("", None);
        check("x1", None);
        assert_eq!(language(&Headers::default()), None);
    }
}
