//! Values during evaluation, and how they compare.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::expr::evaluate::Fault;
use crate::expr::{Comparison, Value};

/// A value during evaluation, borrowed from the facts or the expression where possible.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen<'a> {
    /// Absent.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// 64-bit integer.
    Int(i64),
    /// 64-bit floating point.
    Double(f64),
    /// Text.
    Text(Cow<'a, str>),
    /// List.
    List(Vec<Seen<'a>>),
}

impl Seen<'_> {
    /// The text, if there is something.
    pub(crate) fn into_text(self) -> Result<Option<String>, Fault> {
        match self {
            Seen::Null => Ok(None),
            Seen::Text(text) => Ok(Some(text.into_owned())),
            other => Err(Fault::Type { found: other.kind(), expected: "a text" }),
        }
    }
}

pub(super) fn compare(how: Comparison, left: &Seen<'_>, right: &Seen<'_>) -> Result<bool, Fault> {
    let ordered = |accept: fn(Ordering) -> bool| {
        let mismatch = || Fault::Type { found: right.kind(), expected: left.kind() };
        match (left, right) {
            (Seen::Text(left), Seen::Text(right)) => Ok(accept(left.cmp(right))),
            (Seen::Bool(left), Seen::Bool(right)) => Ok(accept(left.cmp(right))),
            // A comparison with a number that is none (NaN) never holds.
            _ if left.is_number() && right.is_number() => Ok(number_order(left, right).is_some_and(accept)),
            _ => Err(mismatch()),
        }
    };
    match how {
        Comparison::Equal => Ok(equal(left, right)),
        Comparison::NotEqual => Ok(!equal(left, right)),
        Comparison::Less => ordered(Ordering::is_lt),
        Comparison::LessOrEqual => ordered(Ordering::is_le),
        Comparison::Greater => ordered(Ordering::is_gt),
        Comparison::GreaterOrEqual => ordered(Ordering::is_ge),
    }
}

pub(super) fn equal(left: &Seen<'_>, right: &Seen<'_>) -> bool {
    if left.is_number() && right.is_number() {
        return number_order(left, right) == Some(Ordering::Equal);
    }
    match (left, right) {
        (Seen::List(left), Seen::List(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| equal(left, right))
        }
        _ => left == right,
    }
}

/// Numbers compare by value across types, without losing digits.
fn number_order(left: &Seen<'_>, right: &Seen<'_>) -> Option<Ordering> {
    match (left, right) {
        (Seen::Int(left), Seen::Int(right)) => Some(left.cmp(right)),
        (Seen::Double(left), Seen::Double(right)) => left.partial_cmp(right),
        (Seen::Int(left), Seen::Double(right)) => int_double_order(*left, *right),
        (Seen::Double(left), Seen::Int(right)) => int_double_order(*right, *left).map(Ordering::reverse),
        _ => None,
    }
}

fn int_double_order(int: i64, double: f64) -> Option<Ordering> {
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    match double {
        _ if double.is_nan() => None,
        _ if double >= BEYOND => Some(Ordering::Less),
        _ if double < -BEYOND => Some(Ordering::Greater),
        _ => Some(
            int.cmp(&(double.trunc() as i64))
                .then_with(|| 0.0_f64.partial_cmp(&double.fract()).unwrap_or(Ordering::Equal)),
        ),
    }
}

impl Seen<'_> {
    fn is_number(&self) -> bool {
        matches!(self, Self::Int(_) | Self::Double(_))
    }

    pub(super) fn is(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Null, Value::Null) => true,
            (Self::Bool(left), Value::Bool(right)) => left == right,
            (Self::Text(left), Value::Text(right)) => left == right,
            (_, Value::Int(right)) => equal(self, &Seen::Int(*right)),
            (_, Value::Double(right)) => equal(self, &Seen::Double(*right)),
            (Self::List(left), Value::List(right)) => {
                left.len() == right.len() && left.iter().zip(right).all(|(left, right)| left.is(right))
            }
            _ => false,
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "an absent value",
            Self::Bool(_) => "a truth value",
            Self::Int(_) => "an integer",
            Self::Double(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whole_numbers_and_others_compare_without_losing_digits() {
        assert_eq!(int_double_order(i64::MAX, i64::MAX as f64), Some(Ordering::Less));
        assert_eq!(int_double_order(-1, -1.5), Some(Ordering::Greater));
        assert_eq!(int_double_order(2, 2.0), Some(Ordering::Equal));
        assert_eq!(int_double_order(0, f64::NAN), None);
    }

    proptest! {
        #[test]
        fn numbers_order_the_same_way_from_both_sides(int: i64, double: f64) {
            let (int, double) = (Seen::Int(int), Seen::Double(double));
            let order = number_order(&int, &double);
            prop_assert_eq!(order.map(Ordering::reverse), number_order(&double, &int));
        }
    }
}
