//! Matches in the window, and the commands that they make (RFC 7932, sections 4 and 5).

use super::bits::Bits;
use crate::limits::{BROTLI_SEARCH_MAX, BROTLI_WINDOW_BITS};

const WINDOW: usize = 1 << BROTLI_WINDOW_BITS;
/// Largest distance: sixteen less than the window (section 9.1).
const DISTANCE_MAX: usize = WINDOW - 16;
const HASH_BITS: u32 = 15;
/// Shortest match that is looked for, and one that is long enough to stop the search.
const MATCH_MIN: usize = 4;
const MATCH_ENOUGH: usize = 128;
const NOWHERE: u32 = u32::MAX;

/// Bytes to insert, then bytes to copy from a distance. The last of a block copies nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Command {
    pub insert: usize,
    pub copy: usize,
    distance: usize,
    is_last_distance: bool,
}

/// The window with what is to be coded at its end.
pub(super) struct Matches {
    window: Vec<u8>,
    /// Where the block that is to be coded begins.
    from: usize,
    /// Latest place of each hash, and of each place the one before with the same hash.
    heads: Vec<u32>,
    before: Vec<u32>,
    /// Distance of the last copy, as a decoder has it.
    pub last_distance: usize,
}

impl Default for Matches {
    fn default() -> Self {
        Self {
            window: Vec::new(),
            from: 0,
            heads: vec![NOWHERE; 1 << HASH_BITS],
            before: Vec::new(),
            last_distance: 4,
        }
    }
}

impl Matches {
    pub fn extend(&mut self, bytes: &[u8]) {
        self.window.extend_from_slice(bytes);
    }

    /// Bytes that are to be coded.
    pub fn pending(&self) -> usize {
        self.window.len() - self.from
    }

    pub fn block(&self) -> &[u8] {
        self.window.get(self.from..).unwrap_or_default()
    }

    /// Forgets what no distance reaches any more.
    pub fn end_block(&mut self) {
        self.from = self.window.len();
        if self.window.len() < 2 * WINDOW {
            return;
        }
        let gone = self.window.len() - WINDOW;
        self.window.drain(..gone);
        self.before.drain(..gone.min(self.before.len()));
        self.from = self.window.len();
        let moved = u32::try_from(gone).unwrap_or(NOWHERE);
        for place in self.heads.iter_mut().chain(&mut self.before) {
            *place = match *place {
                NOWHERE => NOWHERE,
                place => place.checked_sub(moved).unwrap_or(NOWHERE),
            };
        }
    }

    /// The commands of the block.
    pub fn commands(&mut self) -> Vec<Command> {
        let mut commands = Vec::new();
        let (mut at, mut inserted) = (self.from, self.from);
        while at < self.window.len() {
            let Some(mut found) = self.longest(at) else {
                self.note(at);
                at += 1;
                continue;
            };
            self.note(at);
            // One byte later there may be more to copy.
            if found.0 < MATCH_ENOUGH
                && let Some(later) = self.longest(at + 1).filter(|later| later.0 > found.0 + 1)
            {
                at += 1;
                self.note(at);
                found = later;
            }
            let (copy, distance) = found;
            let is_last_distance = distance == self.last_distance;
            commands.push(Command { insert: at - inserted, copy, distance, is_last_distance });
            self.last_distance = distance;
            for place in at + 1..at + copy {
                self.note(place);
            }
            at += copy;
            inserted = at;
        }
        if inserted < at {
            commands.push(Command { insert: at - inserted, copy: 0, distance: 0, is_last_distance: false });
        }
        commands
    }

    /// The longest match at a place: its length and distance.
    fn longest(&self, at: usize) -> Option<(usize, usize)> {
        let here = self.window.get(at..)?;
        let mut best: Option<(usize, usize)> = None;
        let mut consider = |place: usize| {
            let there = self.window.get(place..).unwrap_or_default();
            let length = here.iter().zip(there).take_while(|(here, there)| here == there).count();
            // A longer distance takes more bits: a match has to earn them.
            let is_better = best.is_none_or(|(than, _)| length > than);
            let is_worth_it = length > MATCH_MIN || at - place < WINDOW / 16;
            if length >= MATCH_MIN && is_better && is_worth_it {
                best = Some((length, at - place));
            }
            length >= MATCH_ENOUGH
        };
        if let Some(place) = at.checked_sub(self.last_distance)
            && consider(place)
        {
            return best;
        }
        let mut next = hash(here).and_then(|hash| self.heads.get(hash)).copied().unwrap_or(NOWHERE);
        for _ in 0..BROTLI_SEARCH_MAX {
            let place = next as usize;
            if next == NOWHERE || place >= at || at - place > DISTANCE_MAX || consider(place) {
                break;
            }
            next = self.before.get(place).copied().unwrap_or(NOWHERE);
        }
        best
    }

    /// Lets later places find this one. Places are noted in order.
    fn note(&mut self, at: usize) {
        let head = self.window.get(at..).and_then(hash).and_then(|hash| self.heads.get_mut(hash));
        self.before.resize(at, NOWHERE);
        let Some(head) = head else { return self.before.push(NOWHERE) };
        self.before.push(*head);
        *head = u32::try_from(at).unwrap_or(NOWHERE);
    }
}

fn hash(bytes: &[u8]) -> Option<usize> {
    let four = bytes.first_chunk::<4>()?;
    Some((u32::from_le_bytes(*four).wrapping_mul(0x9e37_79b1) >> (32 - HASH_BITS)) as usize)
}

/// Base and number of extra bits of insert lengths, by code (section 5).
const INSERTS: [(usize, u32); 24] = [
    (0, 0),
    (1, 0),
    (2, 0),
    (3, 0),
    (4, 0),
    (5, 0),
    (6, 1),
    (8, 1),
    (10, 2),
    (14, 2),
    (18, 3),
    (26, 3),
    (34, 4),
    (50, 4),
    (66, 5),
    (98, 5),
    (130, 6),
    (194, 7),
    (322, 8),
    (578, 9),
    (1_090, 10),
    (2_114, 12),
    (6_210, 14),
    (22_594, 24),
];
/// The same of copy lengths.
const COPIES: [(usize, u32); 24] = [
    (2, 0),
    (3, 0),
    (4, 0),
    (5, 0),
    (6, 0),
    (7, 0),
    (8, 0),
    (9, 0),
    (10, 1),
    (12, 1),
    (14, 2),
    (18, 2),
    (22, 3),
    (30, 3),
    (38, 4),
    (54, 4),
    (70, 5),
    (102, 5),
    (134, 6),
    (198, 7),
    (326, 8),
    (582, 9),
    (1_094, 10),
    (2_118, 24),
];

/// Code, extra value and number of extra bits of a length.
fn length_code(table: &[(usize, u32); 24], length: usize) -> (usize, u64, u32) {
    let code = table.partition_point(|(base, _)| *base <= length).saturating_sub(1);
    let (base, bits) = table.get(code).copied().unwrap_or_default();
    (code, (length.saturating_sub(base)) as u64, bits)
}

impl Command {
    /// Length of the copy as it is written: a block that ends with what is inserted names one that is never made.
    fn copy_named(&self) -> usize {
        self.copy.max(2)
    }

    /// Symbol of both lengths, and of the last distance where that takes no symbol of its own (section 5).
    pub fn symbol(&self) -> usize {
        let (insert, _, _) = length_code(&INSERTS, self.insert);
        let (copy, _, _) = length_code(&COPIES, self.copy_named());
        let low = (copy & 7) | ((insert & 7) << 3);
        if self.is_last_distance && insert < 8 && copy < 16 {
            return low | if copy < 8 { 0 } else { 64 };
        }
        let cell = match (insert >> 3, copy >> 3) {
            (0, 0) => 128,
            (0, 1) => 192,
            (1, 0) => 256,
            (1, 1) => 320,
            (0, _) => 384,
            (2, 0) => 448,
            (1, _) => 512,
            (2, 1) => 576,
            _ => 640,
        };
        cell | low
    }

    /// The extra bits of both lengths.
    pub fn put_extra(&self, bits: &mut Bits) {
        let (_, insert, insert_bits) = length_code(&INSERTS, self.insert);
        let (_, copy, copy_bits) = length_code(&COPIES, self.copy_named());
        bits.put(insert, insert_bits);
        bits.put(copy, copy_bits);
    }

    /// Whether a symbol of the distance follows.
    pub fn has_distance(&self) -> bool {
        self.copy > 0 && self.symbol() >= 128
    }

    /// Symbol, extra value and number of extra bits of the distance (section 4).
    pub fn distance_symbol(&self) -> (usize, u64, u32) {
        if self.is_last_distance {
            return (0, 0, 0);
        }
        let shifted = self.distance + 3;
        let bits = shifted.ilog2().saturating_sub(1);
        let half = (shifted >> bits) & 1;
        let symbol = 16 + 2 * (bits as usize - 1) + half;
        (symbol, (shifted - ((2 + half) << bits)) as u64, bits)
    }
}
