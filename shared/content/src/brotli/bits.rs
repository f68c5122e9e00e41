//! Bits, the lowest first (RFC 7932, section 1.5.1).

/// Bits that are written.
#[derive(Default)]
pub(super) struct Bits {
    bytes: Vec<u8>,
    /// Bits that do not fill a byte yet.
    rest: u64,
    rest_bits: u32,
}

/// A place to go back to.
pub(super) struct Mark {
    bytes: usize,
    rest: u64,
    rest_bits: u32,
}

impl Bits {
    /// Writes the lowest `count` bits, 32 at the most.
    pub fn put(&mut self, value: u64, count: u32) {
        self.rest |= value << self.rest_bits;
        self.rest_bits += count;
        while self.rest_bits >= 8 {
            self.bytes.push(self.rest.to_le_bytes()[0]);
            self.rest >>= 8;
            self.rest_bits -= 8;
        }
    }

    /// Fills up to a whole byte.
    pub fn align(&mut self) {
        if self.rest_bits > 0 {
            self.put(0, 8 - self.rest_bits);
        }
    }

    /// Writes bytes, at a whole byte.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The whole bytes so far.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    pub fn mark(&self) -> Mark {
        Mark { bytes: self.bytes.len(), rest: self.rest, rest_bits: self.rest_bits }
    }

    pub fn rewind(&mut self, mark: &Mark) {
        self.bytes.truncate(mark.bytes);
        (self.rest, self.rest_bits) = (mark.rest, mark.rest_bits);
    }

    pub fn bytes_since(&self, mark: &Mark) -> usize {
        self.bytes.len().saturating_sub(mark.bytes)
    }
}
