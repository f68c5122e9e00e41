//! Dates of HTTP (RFC 9110, section 5.6.7): read as they are met, and written in the one form.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// The end of the last year that has four digits, in milliseconds since the Unix epoch.
const LAST_MS: u64 = 253_402_300_799_999;

/// A time in milliseconds since the Unix epoch as a date of HTTP, which has whole seconds; one beyond the year 9999 as the end of
/// that.
pub(crate) fn date_text(at_ms: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(at_ms.min(LAST_MS)))
}

/// A date of HTTP (RFC 9110, section 5.6.7) in milliseconds since the Unix epoch; its words in any case. In the form of
/// `asctime` the name of the day tells nothing that the date does not, and may be wrong.
pub(super) fn date_ms(date: Option<&str>) -> Option<u64> {
    let date = date?.trim();
    let parsed = httpdate::parse_http_date(date)
        .or_else(|_| httpdate::parse_http_date(&in_usual_case(date)))
        .ok()
        .or_else(|| on_another_day(date))?;
    u64::try_from(parsed.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}

fn on_another_day(date: &str) -> Option<SystemTime> {
    let (day, rest) = date.split_once(' ').filter(|(day, _)| DAYS.contains(day))?;
    let others = DAYS.iter().filter(|other| **other != day);
    others.map(|other| httpdate::parse_http_date(&format!("{other} {rest}"))).find_map(Result::ok)
}

fn in_usual_case(date: &str) -> String {
    let mut begins = true;
    let letters = date.chars().map(|letter| {
        let usual = if begins { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() };
        begins = !letter.is_ascii_alphabetic();
        usual
    });
    letters.collect::<String>().replace("Gmt", "GMT")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;
    const DATE: &str = "Fri, 15 Jan 2027 08:00:00 GMT";

    #[test]
    fn dates_are_read_in_all_three_forms() {
        assert_eq!(date_ms(Some(DATE)), Some(NOW_MS));
        assert_eq!(date_ms(Some("Friday, 15-Jan-27 08:00:00 GMT")), Some(NOW_MS));
        assert_eq!(date_ms(Some("Fri Jan 15 08:00:00 2027")), Some(NOW_MS));
        assert_eq!(date_ms(Some("FRI, 15 jan 2027 08:00:00 gMT")), Some(NOW_MS));
        assert_eq!(date_ms(Some("Mon Aug  8 02:01:18 2050")), Some(2_543_536_878_000));
        assert_eq!(date_ms(Some("Thu Aug  8 02:01:18 2050")), Some(2_543_536_878_000), "it is a Monday");
        assert_eq!(date_ms(Some("Thu Aug 38 02:01:18 2050")), None);
        assert_eq!(date_ms(Some("Thu, 08 Aug 2050 02:01:18 GMT")), None);
        assert_eq!(date_ms(Some("0")), None);
        assert_eq!(date_ms(Some("Fri, 15 Jan 2027 08:00:00 CET")), None);
    }

    #[test]
    fn dates_are_written_in_one_form() {
        assert_eq!(date_text(NOW_MS), DATE);
        assert_eq!(date_text(NOW_MS + 999), DATE);
        assert_eq!(date_text(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(date_text(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
