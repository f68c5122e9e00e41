//! Prefix codes: made from how often symbols occur, and written down (RFC 7932, section 3).

use super::bits::Bits;

/// Longest code of a symbol, and of a length in what describes a code.
const BITS_MAX: u8 = 15;
const LENGTH_BITS_MAX: u8 = 5;
/// Order in which the lengths of the code for lengths are written (section 3.5).
const LENGTH_ORDER: [usize; 18] = [1, 2, 3, 4, 0, 5, 17, 6, 16, 7, 8, 9, 10, 11, 12, 13, 14, 15];
/// How each of them is written: bits and their number.
const LENGTH_OF_LENGTH: [(u64, u32); 6] = [(0, 2), (7, 4), (3, 3), (2, 2), (1, 2), (15, 4)];
/// Repeats a zero length, by three bits.
const ZEROS: usize = 17;

/// Code and its number of bits, by symbol.
pub(super) struct PrefixCode(Vec<(u16, u8)>);

impl PrefixCode {
    /// Makes the code for these counts and writes it.
    pub fn write(bits: &mut Bits, counts: &[u32]) -> Self {
        let used = counts.iter().filter(|count| **count > 0).count();
        if used <= 1 {
            // A simple code of one symbol, which then takes no bits (section 3.4).
            let symbol = counts.iter().position(|count| *count > 0).unwrap_or_default();
            let symbol_bits = usize::BITS - counts.len().saturating_sub(1).leading_zeros();
            bits.put(1, 2);
            bits.put(0, 2);
            bits.put(symbol as u64, symbol_bits);
            return Self(vec![(0, 0); counts.len()]);
        }
        let lengths = lengths(counts, BITS_MAX);
        write_lengths(bits, &lengths);
        Self(codes(&lengths))
    }

    /// Writes a symbol.
    pub fn put(&self, bits: &mut Bits, symbol: usize) {
        let (code, count) = self.0.get(symbol).copied().unwrap_or_default();
        bits.put(u64::from(code), u32::from(count));
    }
}

/// The length of each symbol's code, none longer than `max`. At least two symbols are used.
fn lengths(counts: &[u32], max: u8) -> Vec<u8> {
    let mut least = 1;
    loop {
        let lengths = huffman(counts, least);
        if lengths.iter().all(|length| *length <= max) {
            return lengths;
        }
        // Rarer symbols count more, until the tree is flat enough.
        least *= 2;
    }
}

/// Lengths by Huffman's way, with no used symbol counting less than `least`.
fn huffman(counts: &[u32], least: u32) -> Vec<u8> {
    let mut leaves: Vec<(u32, usize)> = counts
        .iter()
        .enumerate()
        .filter(|(_, count)| **count > 0)
        .map(|(symbol, count)| ((*count).max(least), symbol))
        .collect();
    leaves.sort_unstable();
    // Nodes in the order in which they are made, whose weights never fall: two queues are enough.
    let mut weights: Vec<u64> = leaves.iter().map(|(weight, _)| u64::from(*weight)).collect();
    let mut parents = vec![0_usize; weights.len()];
    let (mut leaf, mut inner, inner_from) = (0, leaves.len(), leaves.len());
    while weights.len() + 1 < 2 * inner_from {
        let mut next = || {
            let of = |at: usize| weights.get(at).copied().unwrap_or(u64::MAX);
            let takes_leaf = leaf < inner_from && of(leaf) <= of(inner);
            let at = if takes_leaf { &mut leaf } else { &mut inner };
            *at += 1;
            (*at - 1, of(*at - 1))
        };
        let ((first, light), (second, heavy)) = (next(), next());
        let parent = weights.len();
        for child in [first, second] {
            if let Some(of) = parents.get_mut(child) {
                *of = parent;
            }
        }
        weights.push(light + heavy);
        parents.push(0);
    }
    let mut depths = vec![0_u8; weights.len()];
    for at in (0..weights.len().saturating_sub(1)).rev() {
        let above = parents.get(at).and_then(|parent| depths.get(*parent)).copied().unwrap_or_default();
        if let Some(depth) = depths.get_mut(at) {
            *depth = above.saturating_add(1);
        }
    }
    let mut lengths = vec![0; counts.len()];
    for ((_, symbol), depth) in leaves.iter().zip(depths) {
        if let Some(length) = lengths.get_mut(*symbol) {
            *length = depth;
        }
    }
    lengths
}

/// Canonical codes (section 3.2), each with its first bit lowest.
fn codes(lengths: &[u8]) -> Vec<(u16, u8)> {
    let mut codes = vec![(0, 0); lengths.len()];
    let mut next = 0_u32;
    for bits in 1..=BITS_MAX {
        next <<= 1;
        for (length, code) in lengths.iter().zip(&mut codes).filter(|(length, _)| **length == bits) {
            let reversed = next.reverse_bits() >> (32 - u32::from(bits));
            *code = (u16::try_from(reversed).unwrap_or_default(), *length);
            next += 1;
        }
    }
    codes
}

/// Writes the lengths of a code as a complex prefix code (section 3.5).
fn write_lengths(bits: &mut Bits, lengths: &[u8]) {
    let written = run_lengths(lengths);
    let mut counts = [0_u32; 18];
    for (symbol, _) in &written {
        if let Some(count) = counts.get_mut(*symbol) {
            *count += 1;
        }
    }
    let is_single = counts.iter().filter(|count| **count > 0).count() == 1;
    let lengths = match is_single {
        // One length for all: it is named, and then takes no bits.
        true => counts.iter().map(|count| u8::from(*count > 0)).collect(),
        false => self::lengths(&counts, LENGTH_BITS_MAX),
    };
    let of = |symbol: usize| lengths.get(symbol).copied().unwrap_or_default();
    let last = LENGTH_ORDER.iter().rposition(|symbol| of(*symbol) > 0).unwrap_or_default();
    let named = if is_single { LENGTH_ORDER.len() } else { last + 1 };
    bits.put(0, 2);
    for symbol in LENGTH_ORDER.iter().take(named) {
        let (value, count) = LENGTH_OF_LENGTH.get(usize::from(of(*symbol))).copied().unwrap_or_default();
        bits.put(value, count);
    }
    let code = match is_single {
        true => PrefixCode(vec![(0, 0); lengths.len()]),
        false => PrefixCode(codes(&lengths)),
    };
    for (symbol, extra) in written {
        code.put(bits, symbol);
        if symbol == ZEROS {
            bits.put(extra, 3);
        }
    }
}

/// Lengths with runs of zeros taken together; those at the end are left out, since a whole code ends by itself.
fn run_lengths(lengths: &[u8]) -> Vec<(usize, u64)> {
    let end = lengths.iter().rposition(|length| *length > 0).map_or(0, |last| last + 1);
    let mut rest = lengths.get(..end).unwrap_or_default();
    let mut written = Vec::new();
    while let Some((length, behind)) = rest.split_first() {
        let run = rest.iter().take_while(|length| **length == 0).count();
        if run < 3 {
            written.push((usize::from(*length), 0));
            rest = behind;
            continue;
        }
        // Several in a row make one number, the highest three bits first, each but the last counted from one.
        let from = written.len();
        let mut left = run - 3;
        loop {
            written.push((ZEROS, (left & 7) as u64));
            left >>= 3;
            if left == 0 {
                break;
            }
            left -= 1;
        }
        if let Some(digits) = written.get_mut(from..) {
            digits.reverse();
        }
        rest = rest.get(run..).unwrap_or_default();
    }
    written
}
