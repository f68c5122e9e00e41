//! What an answer may be made for: the class of the client's device, and its language.

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

/// The language that a client likes best, without its region: two or three letters in lower case (RFC 9110, section
/// 12.5.4; RFC 5646, section 2.2.1). Clients write the best first.
#[must_use]
pub fn language(headers: &Headers) -> Option<String> {
    let list = headers.get("accept-language")?;
    let tag = list.split([',', ';', '-']).next().map(str::trim)?;
    let is_language = (2..=3).contains(&tag.len()) && tag.bytes().all(|byte| byte.is_ascii_alphabetic());
    is_language.then(|| tag.to_ascii_lowercase())
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
        check("*", None);
        check("", None);
        check("x1", None);
        assert_eq!(language(&Headers::default()), None);
    }
}
