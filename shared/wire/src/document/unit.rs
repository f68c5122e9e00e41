//! Quantities as people write them, with their unit: spans of time and shares.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::DURATION_MS_MAX;

/// A span of time, written as a whole number with its unit: `250ms`, `30s`, `5m`, `12h`, `7d`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Milliseconds.
    pub ms: u64,
}

/// A share, written in per cent with at most two digits after the point: `50%`, `0.25%`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share {
    /// Hundredths of a per cent, 0 to 10,000.
    pub basis_points: u32,
}

/// How long to wait for something that may be slow: a span of time, or `p95`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// So long.
    Span(Span),
    /// As long as 95 of 100 of the last ones took.
    Percentile95,
}

/// A text that is no such quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not {expected}")]
pub struct InvalidUnit {
    /// What was found.
    pub found: String,
    /// What was expected.
    pub expected: &'static str,
}

const SPAN: &str = "a span of time such as 250ms, 30s, 5m, 12h or 7d, 366d at the most";
const PATIENCE: &str = "p95 or a span of time such as 80ms";
const SHARE: &str = "a share such as 50% or 0.25%, 100% at the most";
const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl Span {
    /// So many milliseconds.
    #[must_use]
    pub const fn from_ms(ms: u64) -> Self {
        Self { ms }
    }

    /// So many seconds.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self { ms: secs.saturating_mul(1_000) }
    }
}

impl Share {
    /// All of it.
    pub const ALL: Self = Self { basis_points: 10_000 };
}

impl FromStr for Span {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        let invalid = || InvalidUnit { found: text.chars().take(40).collect(), expected: SPAN };
        let digits = text.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(invalid)?;
        let (number, unit) = text.split_at_checked(digits).ok_or_else(invalid)?;
        let number: u64 = number.parse().map_err(|_| invalid())?;
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(invalid)?;
        let ms = number.checked_mul(*factor).filter(|ms| *ms <= DURATION_MS_MAX).ok_or_else(invalid)?;
        Ok(Self { ms })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |(_, factor): &&(&str, u64)| self.ms != 0 && self.ms.is_multiple_of(*factor);
        let (unit, factor) = UNITS.iter().rev().find(whole).unwrap_or(&("s", 1_000));
        write!(f, "{}{unit}", self.ms / factor)
    }
}

impl FromStr for Share {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        let invalid = || InvalidUnit { found: text.chars().take(40).collect(), expected: SHARE };
        let number = text.strip_suffix('%').ok_or_else(invalid)?;
        let (whole, part) = number.split_once('.').unwrap_or((number, "00"));
        let digits = |text: &str, most: usize| {
            (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
        };
        if !digits(whole, 3) || !digits(part, 2) {
            return Err(invalid());
        }
        let (whole, tens): (u32, u32) =
            (whole.parse().map_err(|_| invalid())?, part.parse().map_err(|_| invalid())?);
        let part = if part.len() == 1 { tens * 10 } else { tens };
        Some(whole * 100 + part)
            .filter(|all| *all <= 10_000)
            .map(|basis_points| Self { basis_points })
            .ok_or_else(invalid)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.basis_points / 100, self.basis_points % 100) {
            (whole, 0) => write!(f, "{whole}%"),
            (whole, part) if part % 10 == 0 => write!(f, "{whole}.{}%", part / 10),
            (whole, part) => write!(f, "{whole}.{part:02}%"),
        }
    }
}

impl FromStr for Patience {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        if text == "p95" {
            return Ok(Self::Percentile95);
        }
        let span = text.parse().map(Self::Span);
        span.map_err(|error: InvalidUnit| InvalidUnit { expected: PATIENCE, ..error })
    }
}

impl fmt::Display for Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Span(span) => span.fmt(f),
            Self::Percentile95 => f.write_str("p95"),
        }
    }
}

/// Statuses of a reply: one, or the hundred of a class (RFC 9110, section 15).
pub(crate) fn statuses(text: &str) -> Option<RangeInclusive<u16>> {
    if let Some(class) = text.strip_suffix("xx") {
        let first =
            class.parse::<u16>().ok().filter(|class| (2..=5).contains(class) && text.len() == 3)? * 100;
        return Some(first..=first + 99);
    }
    let status = text.parse().ok().filter(|status| (200..=599).contains(status))?;
    Some(status..=status)
}

macro_rules! text_in_serde {
    ($unit:ty, $pattern:literal, $description:literal) => {
        impl Serialize for $unit {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $unit {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        #[cfg(feature = "documents")]
        impl schemars::JsonSchema for $unit {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($unit).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": $pattern, "description": $description })
            }
        }
    };
}

text_in_serde!(Span, "^[0-9]+(ms|s|m|h|d)$", "A span of time: 250ms, 30s, 5m, 12h, 7d.");
text_in_serde!(Patience, "^(p95|[0-9]+(ms|s|m|h|d))$", "A span of time such as 80ms, or p95.");
text_in_serde!(Share, "^[0-9]{1,3}(\\.[0-9]{1,2})?%$", "A share: 50%, 0.25%.");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_written_alike() {
        for (text, ms) in [("250ms", 250), ("90s", 90_000), ("5m", 300_000), ("12h", 43_200_000), ("0s", 0)] {
            let span: Span = text.parse().unwrap();
            assert_eq!((span.ms, span.to_string().as_str()), (ms, text));
        }
        assert_eq!("60s".parse::<Span>().unwrap().to_string(), "1m");
        for text in ["", "s", "5", "5 s", "-5s", "1.5s", "5w", "367d", "99999999999999999999s", "5é"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn shares_are_read_and_written_alike() {
        for (text, points) in [("50%", 5_000), ("0.25%", 25), ("12.5%", 1_250), ("100%", 10_000), ("0%", 0)] {
            let share: Share = text.parse().unwrap();
            assert_eq!((share.basis_points, share.to_string().as_str()), (points, text));
        }
        for text in ["", "%", "50", "100.01%", "1000%", "1.234%", ".5%", "5.%", "-1%"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
    }
}
