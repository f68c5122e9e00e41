//! Brotli (RFC 7932), written for replies on the fly: one block type, one prefix code each for literals, commands and
//! distances, matches within the window, and no static dictionary. The known encoders in Rust bring tables of 400 kB
//! (compressed) into a component, half as much as the rest of it together.

mod bits;
mod matches;
mod prefix;

use self::bits::Bits;
use self::matches::{Command, Matches};
use self::prefix::PrefixCode;
use crate::limits::{BROTLI_WINDOW_BITS, UNIT_BYTES};

/// Symbols of the three alphabets (RFC 7932, sections 3.3 and 4): no direct distance codes, no postfix bits.
const LITERALS: usize = 256;
const COMMANDS: usize = 704;
const DISTANCES: usize = 16 + 48;

/// Codes one body.
#[derive(Default)]
pub struct Brotli {
    bits: Bits,
    matches: Matches,
    has_header: bool,
}

impl Brotli {
    /// Takes the next bytes and gives those that are coded by now.
    pub fn push(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        while !bytes.is_empty() {
            let room = UNIT_BYTES.saturating_sub(self.matches.pending());
            let (now, later) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
            self.matches.extend(now);
            bytes = later;
            if self.matches.pending() >= UNIT_BYTES {
                self.block();
            }
        }
        self.bits.take()
    }

    /// Gives everything that was taken, up to a whole byte.
    pub fn flush(&mut self) -> Vec<u8> {
        if self.matches.pending() > 0 {
            self.block();
            // An empty block of metadata: not the last, no length, which ends at a whole byte (section 9.2).
            self.bits.put(0b00_0110, 6);
            self.bits.align();
        }
        self.bits.take()
    }

    /// Ends the body.
    pub fn finish(mut self) -> Vec<u8> {
        if self.matches.pending() > 0 {
            self.block();
        }
        self.header();
        // The last meta-block, an empty one.
        self.bits.put(0b11, 2);
        self.bits.align();
        self.bits.take()
    }

    fn header(&mut self) {
        if !self.has_header {
            self.bits.put(u64::from((BROTLI_WINDOW_BITS - 17) << 1 | 1), 4);
            self.has_header = true;
        }
    }

    /// Codes what is pending as one meta-block; as it is where that is shorter.
    fn block(&mut self) {
        self.header();
        let length = self.matches.pending();
        let before = self.bits.mark();
        let last_distance = self.matches.last_distance;
        self.meta_block_header(length, false);
        let commands = self.matches.commands();
        Histograms::of(&commands, self.matches.block()).write(
            &mut self.bits,
            &commands,
            self.matches.block(),
        );
        if self.bits.bytes_since(&before) > length {
            self.bits.rewind(&before);
            self.matches.last_distance = last_distance;
            self.meta_block_header(length, true);
            self.bits.align();
            self.bits.bytes(self.matches.block());
        }
        self.matches.end_block();
    }

    fn meta_block_header(&mut self, length: usize, is_as_it_is: bool) {
        self.bits.put(0, 1);
        // The length less one, in four groups of four bits, or in five where the fifth is not zero.
        let length = length.saturating_sub(1) as u64;
        let more = u32::from(length >> 16 > 0);
        self.bits.put(more.into(), 2);
        self.bits.put(length, 16 + 4 * more);
        self.bits.put(u64::from(is_as_it_is), 1);
    }
}

/// How often each symbol occurs in a meta-block.
struct Histograms {
    literals: Vec<u32>,
    commands: Vec<u32>,
    distances: Vec<u32>,
}

impl Histograms {
    fn of(commands: &[Command], block: &[u8]) -> Self {
        let mut all =
            Self { literals: vec![0; LITERALS], commands: vec![0; COMMANDS], distances: vec![0; DISTANCES] };
        let mut at = 0;
        for command in commands {
            count(&mut all.commands, command.symbol());
            for byte in block.iter().skip(at).take(command.insert) {
                count(&mut all.literals, usize::from(*byte));
            }
            if command.has_distance() {
                count(&mut all.distances, command.distance_symbol().0);
            }
            at += command.insert + command.copy;
        }
        all
    }

    /// The rest of a meta-block (RFC 7932, section 9.2): one block type each, no direct distances, one tree each.
    fn write(&self, bits: &mut Bits, commands: &[Command], block: &[u8]) {
        // NBLTYPESL, NBLTYPESI, NBLTYPESD; NPOSTFIX, NDIRECT; the literals' context mode; NTREESL, NTREESD.
        bits.put(0, 3 + 2 + 4 + 2 + 1 + 1);
        let literal_code = PrefixCode::write(bits, &self.literals);
        let command_code = PrefixCode::write(bits, &self.commands);
        let distance_code = PrefixCode::write(bits, &self.distances);
        let mut at = 0;
        for command in commands {
            command_code.put(bits, command.symbol());
            command.put_extra(bits);
            for byte in block.iter().skip(at).take(command.insert) {
                literal_code.put(bits, usize::from(*byte));
            }
            if command.has_distance() {
                let (symbol, extra, extra_bits) = command.distance_symbol();
                distance_code.put(bits, symbol);
                bits.put(extra, extra_bits);
            }
            at += command.insert + command.copy;
        }
    }
}

fn count(histogram: &mut [u32], symbol: usize) {
    if let Some(count) = histogram.get_mut(symbol) {
        *count += 1;
    }
}
