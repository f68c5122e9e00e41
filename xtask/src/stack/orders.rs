//! The demo's orders: believable, and the same on every machine.

use serde_json::{Value, json};

/// How many orders the demo has.
pub const COUNT: usize = 320;
/// The first order's moment, 2026-03-02 08:00 UTC, in seconds.
const FIRST_S: u64 = 1_772_438_400;
/// Seconds between two orders, roughly.
const APART_S: u64 = 26 * 60;

const FIRST_NAMES: [&str; 16] = [
    "Amara",
    "Björn",
    "Chen",
    "Daniela",
    "Emeka",
    "Fatima",
    "Giulia",
    "Hiroshi",
    "Ines",
    "Jamal",
    "Katarzyna",
    "Liam",
    "Mei",
    "Noah",
    "Olivia",
    "Priya",
];
const LAST_NAMES: [&str; 14] = [
    "Adeyemi", "Brennan", "Costa", "Dubois", "Eriksen", "Fischer", "García", "Haddad", "Iyer", "Johnson",
    "Kowalski", "Li", "Murphy", "Nakamura",
];
/// City, country, currency, and how many cents of it a US cent buys, in hundredths.
const CITIES: [(&str, &str, &str, u64); 14] = [
    ("Ashburn", "US", "USD", 100),
    ("Austin", "US", "USD", 100),
    ("Toronto", "CA", "CAD", 137),
    ("São Paulo", "BR", "BRL", 541),
    ("Dublin", "IE", "EUR", 92),
    ("Berlin", "DE", "EUR", 92),
    ("Paris", "FR", "EUR", 92),
    ("Manchester", "GB", "GBP", 79),
    ("Lagos", "NG", "USD", 100),
    ("Singapore", "SG", "SGD", 134),
    ("Osaka", "JP", "JPY", 150),
    ("Sydney", "AU", "AUD", 151),
    ("Mumbai", "IN", "INR", 8350),
    ("Cape Town", "ZA", "ZAR", 1830),
];
/// Stock-keeping unit, name, price in US cents.
const PRODUCTS: [(&str, &str, u64); 12] = [
    ("MUG-350", "Enamel mug 350 ml", 1450),
    ("TENT-2P", "Two-person tent", 18900),
    ("LAMP-HD", "Head lamp 400 lm", 3995),
    ("BOOT-42", "Hiking boots", 12900),
    ("ROPE-10", "Climbing rope 10 m", 4550),
    ("STOVE-G", "Gas stove", 5900),
    ("PACK-45", "Backpack 45 l", 13900),
    ("MAT-SLF", "Self-inflating mat", 7490),
    ("BOT-1L", "Steel bottle 1 l", 2890),
    ("FILT-W", "Water filter", 4190),
    ("SOCK-M", "Merino socks", 1890),
    ("MAP-TOP", "Topographic map", 1290),
];
const STATUSES: [&str; 10] = [
    "delivered",
    "delivered",
    "delivered",
    "delivered",
    "shipped",
    "shipped",
    "packed",
    "paid",
    "returned",
    "cancelled",
];
const CHANNELS: [&str; 4] = ["web", "web", "app", "store"];

/// The number of the `n`th order, from one.
pub fn number(n: usize) -> String {
    format!("ORD-{}", 10_000 + n)
}

/// The `n`th order, from one.
pub fn order(n: usize) -> Value {
    let mut dice = Dice(n as u64);
    let customer = format!("{} {}", dice.pick(&FIRST_NAMES), dice.pick(&LAST_NAMES));
    let (city, country, currency, rate) = *dice.pick(&CITIES);
    let lines = 1 + dice.roll(3);
    let mut total_cents = 0;
    let items: Vec<Value> = (0..lines)
        .map(|_| {
            let (sku, name, price) = *dice.pick(&PRODUCTS);
            let (quantity, unit_price_cents) = (1 + dice.roll(3), price * rate / 100);
            total_cents += quantity * unit_price_cents;
            json!({"sku": sku, "name": name, "quantity": quantity, "unit_price": amount(unit_price_cents)})
        })
        .collect();
    let placed_s = FIRST_S + n as u64 * APART_S + dice.roll(APART_S);
    // The newest orders are still on their way.
    let status = if n + 12 > COUNT { "placed" } else { dice.pick(&STATUSES) };
    json!({
        "number": number(n),
        "customer": customer,
        "email": format!("{}@example.com", customer.to_lowercase().replace(' ', ".")),
        "city": city,
        "country": country,
        "currency": currency,
        "status": status,
        "channel": dice.pick(&CHANNELS),
        "items": items,
        "total": amount(total_cents),
        "placed_at": rfc3339(placed_s),
    })
}

/// Cents as an amount of the currency: an exact decimal, since JSON writes the shortest one.
fn amount(cents: u64) -> f64 {
    cents as f64 / 100.0
}

/// A sequence of numbers that looks random and is the same everywhere (SplitMix64, by Sebastiano Vigna).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.next() % sides
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let index = self.roll(from.len() as u64);
        &from[usize::try_from(index).unwrap_or(0)]
    }
}

/// Seconds since 1970 in the words of RFC 3339 (the calendar by Howard Hinnant's days-to-civil algorithm).
fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn orders_are_the_same_every_time_and_add_up() {
        let mut cities = BTreeSet::new();
        for n in 1..=COUNT {
            let order = order(n);
            assert_eq!(order, super::order(n));
            let sum: f64 = order["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|item| item["quantity"].as_f64().unwrap() * item["unit_price"].as_f64().unwrap())
                .sum();
            assert!((order["total"].as_f64().unwrap() - sum).abs() < 0.001);
            cities.insert(order["city"].as_str().unwrap().to_owned());
        }
        assert_eq!(cities.len(), CITIES.len());
    }

    #[test]
    fn moments_are_written_as_the_standard_says() {
        assert_eq!(rfc3339(FIRST_S), "2026-03-02T08:00:00Z");
        assert_eq!(rfc3339(951_826_154), "2000-02-29T12:09:14Z");
    }
}
