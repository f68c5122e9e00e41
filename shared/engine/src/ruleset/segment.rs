//! Segments of a tenant's users.

use super::RuleRef;
use crate::expr::Expr;

/// A named condition: whoever it holds for is in the segment.
#[derive(Clone, Debug)]
pub struct UserSegment {
    /// Where it stands; its name is the segment's.
    pub rule: RuleRef,
    /// Who is in it. It sees no other segments.
    pub when: Expr,
}
