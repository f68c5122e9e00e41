//! The two ways of a change from one region to the other.

use std::fmt;

use serde::Serialize;

/// A way of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Path {
    /// This project's change path.
    Meridian,
    /// PostgreSQL's own logical subscription.
    Subscription,
}

impl Path {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Meridian, Self::Subscription];

    /// The table that is written.
    pub fn table(self) -> &'static str {
        match self {
            Self::Meridian => "meridian.record",
            Self::Subscription => "public.plain_record",
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Meridian => "meridian",
            Self::Subscription => "subscription",
        })
    }
}
