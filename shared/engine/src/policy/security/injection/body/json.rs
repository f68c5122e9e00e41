//! The texts of a JSON body, each by its path. They are taken as they are read, so that those before a cut are seen; a
//! name that occurs twice has each of its values looked at.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{End, Values};
use crate::limits::INJECTION_BODY_DEPTH_MAX;

/// Takes the texts of one JSON value (RFC 8259). An element of a list has the path of the list.
pub(super) fn read(bytes: &[u8], whole: bool, values: &mut Values<'_>) -> Result<(), End> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(());
    }
    let mut reader = Reader { path: String::new(), values, is_full: false };
    let mut parser = serde_json::Deserializer::from_slice(bytes);
    let inside = Inside { reader: &mut reader, depth: INJECTION_BODY_DEPTH_MAX };
    let read = inside.deserialize(&mut parser).and_then(|()| parser.end());
    match read {
        _ if reader.is_full => Err(End::Full),
        Err(error) if whole || !error.is_eof() => Err(End::Malformed),
        _ => Ok(()),
    }
}

struct Reader<'r, 'l> {
    /// Names from the outermost in, with dots between.
    path: String,
    values: &'r mut Values<'l>,
    is_full: bool,
}

impl Reader<'_, '_> {
    fn taken<E: Error>(&mut self, taken: Result<(), End>) -> Result<(), E> {
        self.is_full |= taken.is_err();
        taken.map_err(|_| E::custom("more values than are looked at"))
    }
}

/// A value inside of at most `depth` further levels of lists and objects.
struct Inside<'a, 'r, 'l> {
    reader: &'a mut Reader<'r, 'l>,
    depth: usize,
}

impl Inside<'_, '_, '_> {
    fn deeper<E: Error>(&self) -> Result<usize, E> {
        self.depth.checked_sub(1).ok_or_else(|| E::custom("nested too deeply"))
    }
}

impl<'de> DeserializeSeed<'de> for Inside<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Inside<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        let taken = self.reader.values.value(&self.reader.path, text, false);
        self.reader.taken(taken)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let depth = self.deeper()?;
        while elements.next_element_seed(Inside { reader: &mut *self.reader, depth })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let depth = self.deeper()?;
        let outer = self.reader.path.len();
        while let Some(name) = members.next_key::<String>()? {
            let taken = self.reader.values.name(&name, false);
            self.reader.taken::<A::Error>(taken)?;
            if outer > 0 {
                self.reader.path.push('.');
            }
            self.reader.path.push_str(&name);
            members.next_value_seed(Inside { reader: &mut *self.reader, depth })?;
            self.reader.path.truncate(outer);
        }
        Ok(())
    }
}
