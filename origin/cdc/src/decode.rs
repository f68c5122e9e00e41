//! Reads `pgoutput`, PostgreSQL's logical replication message format, protocol version 1
//! (<https://www.postgresql.org/docs/15/protocol-logicalrep-message-formats.html>).
//!
//! Bytes in, a [`Message`] out, values in place. It keeps no state, allocates only the lists of columns, and
//! answers any input without a panic.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::todo,
    clippy::unimplemented,
    clippy::unreachable
)]

/// Milliseconds from the Unix epoch to PostgreSQL's, 2000-01-01.
const POSTGRES_EPOCH_MS: u64 = 946_684_800_000;

/// Columns that one relation may have (PostgreSQL's own limit).
pub const COLUMNS_MAX: usize = 1600;

/// One message of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'a> {
    /// A transaction begins.
    Begin {
        /// The position of its commit record.
        position: u64,
        /// When it committed, in milliseconds since the Unix epoch.
        commit_ms: u64,
    },
    /// It ends.
    Commit {
        /// The position after its commit record.
        end: u64,
        /// When it committed, in milliseconds since the Unix epoch.
        commit_ms: u64,
    },
    /// It was applied from elsewhere, under this replication origin.
    Origin {
        /// The origin's name.
        name: &'a str,
    },
    /// Names a table and its columns for the rows that follow.
    Relation(Relation<'a>),
    /// A row was inserted.
    Insert {
        /// The id of its relation.
        relation: u32,
        /// The row.
        new: Vec<Value<'a>>,
    },
    /// A row was updated.
    Update {
        /// The id of its relation.
        relation: u32,
        /// The row before, where the table's replica identity is full.
        old: Option<Vec<Value<'a>>>,
        /// The row after.
        new: Vec<Value<'a>>,
    },
    /// A row was taken away.
    Delete {
        /// The id of its relation.
        relation: u32,
    },
    /// Something that replication has no use for: a type, a truncation, a message.
    Other,
}

/// A table and its columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation<'a> {
    /// What rows refer to.
    pub id: u32,
    /// The table's schema.
    pub schema: &'a str,
    /// The table's name.
    pub table: &'a str,
    /// Its columns' names, in the order of values.
    pub columns: Vec<&'a str>,
}

/// One column's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// Null.
    Null,
    /// A large value that the update left as it was; it is not in the log.
    Unchanged,
    /// The value in PostgreSQL's text form.
    Text(&'a str),
}

/// Bytes that are not a message of this protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("pgoutput message {kind:?} can't be read at byte {at} of {length}: expected {expected}")]
pub struct InvalidMessage {
    /// The message's first byte, as a character.
    pub kind: char,
    /// Where.
    pub at: usize,
    /// The message's length.
    pub length: usize,
    /// What should be there.
    pub expected: &'static str,
}

/// Reads one message.
///
/// # Errors
/// [`InvalidMessage`] says where and what was expected.
pub fn read(bytes: &[u8]) -> Result<Message<'_>, InvalidMessage> {
    let mut reader = Reader { bytes, at: 0 };
    let message = match reader.byte("a message type")? {
        b'B' => {
            let position = reader.long()?;
            let commit_ms = reader.time()?;
            reader.skip(4)?;
            Message::Begin { position, commit_ms }
        }
        b'C' => {
            reader.skip(1 + 8)?;
            Message::Commit { end: reader.long()?, commit_ms: reader.time()? }
        }
        b'O' => {
            reader.skip(8)?;
            Message::Origin { name: reader.text()? }
        }
        b'R' => Message::Relation(reader.relation()?),
        b'I' => {
            let relation = reader.int()?;
            reader.tag(b'N', "a new row (N)")?;
            Message::Insert { relation, new: reader.row()? }
        }
        b'U' => {
            let relation = reader.int()?;
            let old = match reader.byte("an old key (K), old row (O) or new row (N)")? {
                b'N' => None,
                kind @ (b'K' | b'O') => {
                    let row = reader.row()?;
                    reader.tag(b'N', "a new row (N)")?;
                    (kind == b'O').then_some(row)
                }
                _ => return Err(reader.invalid("an old key (K), old row (O) or new row (N)")),
            };
            Message::Update { relation, old, new: reader.row()? }
        }
        b'D' => {
            let relation = reader.int()?;
            match reader.byte("an old key (K) or old row (O)")? {
                b'K' | b'O' => reader.row()?,
                _ => return Err(reader.invalid("an old key (K) or old row (O)")),
            };
            Message::Delete { relation }
        }
        b'T' | b'Y' | b'M' => return Ok(Message::Other),
        _ => return Err(reader.invalid("a known message type")),
    };
    if reader.at == bytes.len() { Ok(message) } else { Err(reader.invalid("the end")) }
}

/// The relation of an inserted or updated row, without reading the row.
#[must_use]
pub fn written_relation(bytes: &[u8]) -> Option<u32> {
    match bytes {
        [b'I' | b'U', a, b, c, d, ..] => Some(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}

/// Microseconds since PostgreSQL's epoch, as milliseconds since the Unix epoch.
#[must_use]
pub fn unix_ms(postgres_micros: i64) -> u64 {
    POSTGRES_EPOCH_MS.saturating_add_signed(postgres_micros.div_euclid(1000))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn invalid(&self, expected: &'static str) -> InvalidMessage {
        let kind = char::from(self.bytes.first().copied().unwrap_or(b'?'));
        InvalidMessage { kind, at: self.at, length: self.bytes.len(), expected }
    }

    fn take(&mut self, length: usize, expected: &'static str) -> Result<&'a [u8], InvalidMessage> {
        let end = self.at.checked_add(length).ok_or_else(|| self.invalid(expected))?;
        let taken = self.bytes.get(self.at..end).ok_or_else(|| self.invalid(expected))?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, expected: &'static str) -> Result<[u8; N], InvalidMessage> {
        let taken = self.take(N, expected)?;
        taken.try_into().map_err(|_| self.invalid(expected))
    }

    fn skip(&mut self, length: usize) -> Result<(), InvalidMessage> {
        self.take(length, "more bytes").map(|_| ())
    }

    fn byte(&mut self, expected: &'static str) -> Result<u8, InvalidMessage> {
        self.array::<1>(expected).map(|[byte]| byte)
    }

    fn tag(&mut self, tag: u8, expected: &'static str) -> Result<(), InvalidMessage> {
        if self.byte(expected)? == tag { Ok(()) } else { Err(self.invalid(expected)) }
    }

    fn short(&mut self) -> Result<usize, InvalidMessage> {
        self.array("a 16-bit number").map(|bytes| usize::from(u16::from_be_bytes(bytes)))
    }

    fn int(&mut self) -> Result<u32, InvalidMessage> {
        self.array("a 32-bit number").map(u32::from_be_bytes)
    }

    fn long(&mut self) -> Result<u64, InvalidMessage> {
        self.array("a 64-bit number").map(u64::from_be_bytes)
    }

    fn time(&mut self) -> Result<u64, InvalidMessage> {
        self.array("a time").map(i64::from_be_bytes).map(unix_ms)
    }

    fn utf8(&self, bytes: &'a [u8]) -> Result<&'a str, InvalidMessage> {
        std::str::from_utf8(bytes).map_err(|_| self.invalid("UTF-8"))
    }

    fn text(&mut self) -> Result<&'a str, InvalidMessage> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|byte| *byte == 0).ok_or_else(|| self.invalid("a string's end"))?;
        let bytes = self.take(length, "a string")?;
        self.skip(1)?;
        self.utf8(bytes)
    }

    fn count(&mut self) -> Result<usize, InvalidMessage> {
        let count = self.short()?;
        if count > COLUMNS_MAX { Err(self.invalid("at most 1600 columns")) } else { Ok(count) }
    }

    fn relation(&mut self) -> Result<Relation<'a>, InvalidMessage> {
        let id = self.int()?;
        let schema = self.text()?;
        let table = self.text()?;
        self.skip(1)?;
        let count = self.count()?;
        let mut columns = Vec::with_capacity(count);
        for _ in 0..count {
            self.skip(1)?;
            columns.push(self.text()?);
            self.skip(4 + 4)?;
        }
        Ok(Relation { id, schema, table, columns })
    }

    fn row(&mut self) -> Result<Vec<Value<'a>>, InvalidMessage> {
        let count = self.count()?;
        let mut row = Vec::with_capacity(count);
        for _ in 0..count {
            row.push(match self.byte("a column (n, u or t)")? {
                b'n' => Value::Null,
                b'u' => Value::Unchanged,
                b't' => {
                    let length = usize::try_from(self.int()?).map_err(|_| self.invalid("a length"))?;
                    let bytes = self.take(length, "a value")?;
                    Value::Text(self.utf8(bytes)?)
                }
                _ => return Err(self.invalid("a column (n, u or t)")),
            });
        }
        Ok(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_an_insert() {
        let bytes = b"I\0\0\0\x07N\0\x03t\0\0\0\x02abnu";
        let new = vec![Value::Text("ab"), Value::Null, Value::Unchanged];
        assert_eq!(read(bytes), Ok(Message::Insert { relation: 7, new }));
    }

    #[test]
    fn says_where_it_stopped() {
        let error = read(b"I\0\0\0\x07N\0\x03t\0\0\0\x09ab").map_err(|error| error.to_string());
        assert_eq!(
            error,
            Err("pgoutput message 'I' can't be read at byte 13 of 15: expected a value".to_owned())
        );
        assert!(read(b"").is_err());
        assert!(read(b"I\0\0\0\x07N\0\0more").is_err());
        assert!(read(b"I\0\0\0\x07N\xff\xff").is_err());
    }
}
