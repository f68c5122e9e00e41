//! Trace context (W3C Recommendation "Trace Context", level 2).

use std::fmt;

use crate::headers::Headers;
use crate::secret::hex_digits;

/// The flag of a trace that is followed.
const SAMPLED: u8 = 1;

/// The part of a trace that this edge is: the client's trace continued, or a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    id: u128,
    span: u64,
    parent: Option<u64>,
    flags: u8,
}

impl Trace {
    /// Continues the trace that a request belongs to, with a new span; a new trace where there is none or it can't be
    /// read. `random` are the request's fresh bits.
    #[must_use]
    pub fn of(headers: &Headers, random: [u8; 16]) -> Self {
        let bits = u128::from_be_bytes(random);
        // Told apart from the decision's id, which shows the same bits.
        let span = mix(bits as u64 ^ mix((bits >> 64) as u64)) | 1;
        let mut fields = headers.get_all("traceparent");
        let parent = fields.next().filter(|_| fields.next().is_none()).and_then(parse);
        match parent {
            Some((id, parent, flags)) => Self { id, span, parent: Some(parent), flags },
            None => {
                let id = u128::from(mix(span)) << 64 | u128::from(mix(span ^ bits as u64) | 1);
                Self { id, span, parent: None, flags: 0 }
            }
        }
    }

    /// Whether it was the client's already; if not, its `tracestate` is not to be passed on (section 3.3).
    #[must_use]
    pub fn is_continued(&self) -> bool {
        self.parent.is_some()
    }

    /// Number of the trace.
    #[must_use]
    pub fn id(&self) -> u128 {
        self.id
    }

    /// Number of this edge's span in it.
    #[must_use]
    pub fn span(&self) -> u64 {
        self.span
    }

    /// Number of the client's span, where the trace was the client's already.
    #[must_use]
    pub fn parent(&self) -> Option<u64> {
        self.parent
    }

    /// Whether it is followed: its spans are recorded (section 3.2.2.5.1).
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// From here on it is followed.
    pub fn sample(&mut self) {
        self.flags |= SAMPLED;
    }
}

/// The value of `traceparent` for whoever comes next.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = *b"00-................................-................-..";
        let (id, span) = (self.id.to_be_bytes(), self.span.to_be_bytes());
        for (from, bytes) in [(3, &id[..]), (36, &span), (53, &[self.flags])] {
            let places = text.get_mut(from..).unwrap_or_default().as_chunks_mut().0;
            places.iter_mut().zip(bytes).for_each(|(place, byte)| *place = hex_digits(*byte));
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

/// Trace id, parent and the flags that we know. Later versions are read as far as version 00 goes (section 4.2).
fn parse(field: &str) -> Option<(u128, u64, u8)> {
    let hexadecimal = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut parts = field.splitn(5, '-');
    let mut part = |length: usize| parts.next().filter(|part| part.len() == length && hexadecimal(part));
    let (version, id, parent, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    let (id, parent) = (u128::from_str_radix(id, 16).ok()?, u64::from_str_radix(parent, 16).ok()?);
    let flags = u8::from_str_radix(flags, 16).ok()?;
    let known = version == "00" && parts.next().is_none() || version != "00" && version != "ff";
    // Sampled (level 1) and random (level 2).
    (known && id != 0 && parent != 0).then_some((id, parent, flags & 0b11))
}

/// A finaliser that spreads every bit over all (SplitMix64).
pub(crate) fn mix(bits: u64) -> u64 {
    let bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn trace(fields: &[&str]) -> Trace {
        Trace::of(&fields.iter().map(|field| ("traceparent", *field)).collect(), [5; 16])
    }

    #[test]
    fn a_valid_parent_is_continued_with_a_new_span() {
        for parent in [PARENT, "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more"] {
            let continued = trace(&[parent]);
            assert_eq!(continued.parent(), Some(0x00f0_67aa_0ba9_02b7));
            assert!(continued.is_sampled());
            let trace = continued.to_string();
            assert!(trace.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{trace}");
            assert!(trace.ends_with("-01") && !trace.contains("00f067aa0ba902b7"), "{trace}");
        }
    }

    #[test]
    fn anything_else_begins_a_new_trace() {
        let odd = [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        ];
        for parent in odd {
            let trace = trace(&[parent]);
            assert!(!trace.is_continued(), "{parent}");
            assert_eq!(parse(&trace.to_string()), Some((trace.id, trace.span, 0)));
        }
        assert!(!trace(&[PARENT, PARENT]).is_continued());
        assert_ne!(trace(&[]), Trace::of(&Headers::default(), [6; 16]));
    }
}
