//! Segments of a tenant's users.

use serde::{Deserialize, Serialize};

use super::condition::Condition;

spec! {
/// A named part of a tenant's users. Conditions and values ask for it as `segments["NAME"]`, and the signed context tells
/// origins which segments hold, as the attribute `segments`.
pub struct SegmentSpec {
    /// Who is in it; other segments can't be asked for here. Where `auth` and `variants` are not known yet, as in a route's
    /// match, a segment that asks for them can't be asked for.
    pub when: Condition,
}
}
