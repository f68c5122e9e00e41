use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::limits::CURSOR_SOURCES_MAX;

/// A position for each source region: "every commit of source S up to P has been applied".
///
/// Positions are the source's WAL positions (LSN) as numbers. A missing source counts as position 0. The text
/// form is `1=100;2=250`, ordered by source; it is what `Meridian-Seen` carries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor {
    positions: BTreeMap<u16, u64>,
}

impl Cursor {
    /// The cursor that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The position of `source`, 0 when nothing of it has been seen.
    #[must_use]
    pub fn get(&self, source: u16) -> u64 {
        self.positions.get(&source).copied().unwrap_or(0)
    }

    /// Moves `source` forward to `position`. A cursor never moves back, and holds a bounded number of sources:
    /// one more than that is ignored, which only makes the cursor claim less.
    pub fn advance(&mut self, source: u16, position: u64) {
        if let Some(held) = self.positions.get_mut(&source) {
            *held = (*held).max(position);
        } else if position > 0 && self.positions.len() < CURSOR_SOURCES_MAX {
            self.positions.insert(source, position);
        }
    }

    /// Forgets `source`: before it is copied again from the start.
    pub fn forget(&mut self, source: u16) {
        self.positions.remove(&source);
    }

    /// Joins two cursors: the higher position of each source.
    pub fn merge(&mut self, other: &Cursor) {
        for (source, position) in other.iter() {
            self.advance(source, position);
        }
    }

    /// Whether this cursor has seen all that `wanted` asks for.
    #[must_use]
    pub fn covers(&self, wanted: &Cursor) -> bool {
        self.first_behind(wanted).is_none()
    }

    /// The first source of which `wanted` has seen more than this cursor has.
    #[must_use]
    pub fn first_behind(&self, wanted: &Cursor) -> Option<u16> {
        wanted.iter().find(|&(source, position)| self.get(source) < position).map(|(source, _)| source)
    }

    /// Sources and positions, by source.
    pub fn iter(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        self.positions.iter().map(|(source, position)| (*source, *position))
    }

    /// Whether nothing has been seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }
}

impl FromIterator<(u16, u64)> for Cursor {
    fn from_iter<I: IntoIterator<Item = (u16, u64)>>(iter: I) -> Self {
        let mut cursor = Self::new();
        for (source, position) in iter {
            cursor.advance(source, position);
        }
        cursor
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (source, position)) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(";")?;
            }
            write!(f, "{source}={position}")?;
        }
        Ok(())
    }
}

/// A text that is not a cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid cursor: found `{found}`, expected SOURCE=POSITION joined by `;`, at most {CURSOR_SOURCES_MAX} of them"
)]
pub struct InvalidCursor {
    /// The part that could not be read.
    pub found: String,
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let mut cursor = Cursor::new();
        for (index, part) in text.split(';').filter(|part| !part.is_empty()).enumerate() {
            let invalid = || InvalidCursor { found: part.chars().take(48).collect() };
            let (source, position) = part.split_once('=').ok_or_else(invalid)?;
            let source = source.trim().parse().map_err(|_| invalid())?;
            let position = position.trim().parse().map_err(|_| invalid())?;
            if index >= CURSOR_SOURCES_MAX {
                return Err(invalid());
            }
            cursor.advance(source, position);
        }
        Ok(cursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(text: &str) -> Cursor {
        text.parse().unwrap_or_default()
    }

    #[test]
    fn text_round_trip() {
        assert_eq!(cursor("2=7;1=100").to_string(), "1=100;2=7");
        assert_eq!(cursor("").to_string(), "");
        for bad in ["1", "x=1", "1=x", "1=1;2", "70000=1"] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad}");
        }
    }

    #[test]
    fn compares_source_by_source() {
        let applied = cursor("1=100;2=50");
        assert!(applied.covers(&cursor("1=100")));
        assert!(applied.covers(&cursor("2=50;1=1")));
        assert_eq!(applied.first_behind(&cursor("1=1;2=51")), Some(2));
        assert_eq!(applied.first_behind(&cursor("3=1")), Some(3));
    }

    #[test]
    fn never_moves_back() {
        let mut held = cursor("1=100");
        held.advance(1, 50);
        held.merge(&cursor("1=99;2=3"));
        assert_eq!(held, cursor("1=100;2=3"));
        held.forget(1);
        assert_eq!(held, cursor("2=3"));
    }
}
