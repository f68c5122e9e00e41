//! Content codings, a piece at a time.

use std::io::{self, Write};

use brotli::CompressorWriter;
use flate2::Compression;
use flate2::write::GzEncoder;
use meridian_engine::ruleset::Coding;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use crate::limits::{BROTLI_BUFFER_BYTES, BROTLI_QUALITY, BROTLI_WINDOW_BITS, GZIP_LEVEL, UNIT_BYTES};

/// Codes one body.
pub struct Coder(Inner);

enum Inner {
    Gzip(GzEncoder<Vec<u8>>),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Zstd(Zstd),
}

impl Coder {
    /// A coder at the beginning of a body.
    #[must_use]
    pub fn new(coding: Coding) -> Self {
        Self(match coding {
            Coding::Gzip => Inner::Gzip(GzEncoder::new(Vec::new(), Compression::new(GZIP_LEVEL))),
            Coding::Brotli => Inner::Brotli(Box::new(CompressorWriter::new(
                Vec::new(),
                BROTLI_BUFFER_BYTES,
                BROTLI_QUALITY,
                BROTLI_WINDOW_BITS,
            ))),
            Coding::Zstd => Inner::Zstd(Zstd::default()),
        })
    }

    /// Takes the next bytes and gives those that are coded by now.
    ///
    /// # Errors
    /// None that is known: memory is all that is written to.
    pub fn push(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        match &mut self.0 {
            Inner::Gzip(encoder) => {
                encoder.write_all(bytes)?;
                Ok(std::mem::take(encoder.get_mut()))
            }
            Inner::Brotli(encoder) => {
                encoder.write_all(bytes)?;
                Ok(std::mem::take(encoder.get_mut()))
            }
            Inner::Zstd(encoder) => Ok(encoder.push(bytes)),
        }
    }

    /// Gives everything that was taken so far in a form that can be decoded: the source pauses.
    ///
    /// # Errors
    /// As [`Coder::push`].
    pub fn flush(&mut self) -> io::Result<Vec<u8>> {
        match &mut self.0 {
            Inner::Gzip(encoder) => {
                encoder.flush()?;
                Ok(std::mem::take(encoder.get_mut()))
            }
            Inner::Brotli(encoder) => {
                encoder.flush()?;
                Ok(std::mem::take(encoder.get_mut()))
            }
            Inner::Zstd(encoder) => Ok(encoder.flush()),
        }
    }

    /// Ends the body.
    ///
    /// # Errors
    /// As [`Coder::push`].
    pub fn finish(self) -> io::Result<Vec<u8>> {
        match self.0 {
            Inner::Gzip(encoder) => encoder.finish(),
            Inner::Brotli(encoder) => Ok(encoder.into_inner()),
            Inner::Zstd(encoder) => Ok(encoder.finish()),
        }
    }
}

/// One frame after the other (RFC 8878, section 3): the library's encoder has no other way to pause.
#[derive(Default)]
struct Zstd {
    pending: Vec<u8>,
    has_frame: bool,
}

impl Zstd {
    fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.pending.extend_from_slice(bytes);
        let mut coded = Vec::new();
        let mut rest = self.pending.as_slice();
        while let Some((unit, behind)) = rest.split_at_checked(UNIT_BYTES) {
            coded.extend(compress_to_vec(unit, CompressionLevel::Fastest));
            (self.has_frame, rest) = (true, behind);
        }
        let taken = self.pending.len() - rest.len();
        self.pending.drain(..taken);
        coded
    }

    fn flush(&mut self) -> Vec<u8> {
        if self.pending.is_empty() {
            return Vec::new();
        }
        self.has_frame = true;
        compress_to_vec(std::mem::take(&mut self.pending).as_slice(), CompressionLevel::Fastest)
    }

    fn finish(mut self) -> Vec<u8> {
        match self.pending.is_empty() && !self.has_frame {
            true => compress_to_vec(&[][..], CompressionLevel::Fastest),
            false => self.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;
    use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

    use super::*;

    fn decoded(coding: Coding, mut coded: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        match coding {
            Coding::Gzip => _ = flate2::read::GzDecoder::new(coded).read_to_end(&mut bytes).unwrap(),
            Coding::Brotli => {
                brotli::BrotliDecompress(&mut coded, &mut bytes).unwrap();
                assert!(coded.is_empty(), "{} bytes are left", coded.len());
            }
            Coding::Zstd => {
                while !coded.is_empty() {
                    let mut frame = FrameDecoder::new();
                    frame.reset(&mut coded).unwrap();
                    frame.decode_blocks(&mut coded, BlockDecodingStrategy::All).unwrap();
                    bytes.extend(frame.collect().unwrap_or_default());
                }
            }
        }
        bytes
    }

    /// Pieces of a body, and whether the source pauses after each.
    fn coded(coding: Coding, pieces: &[(Vec<u8>, bool)]) -> Vec<u8> {
        let mut coder = Coder::new(coding);
        let mut coded = Vec::new();
        for (piece, pauses) in pieces {
            coded.extend(coder.push(piece).unwrap());
            if *pauses {
                coded.extend(coder.flush().unwrap());
            }
        }
        coded.extend(coder.finish().unwrap());
        coded
    }

    /// Bodies of every kind: words that repeat near and far, one byte for long, noise.
    fn piece() -> impl Strategy<Value = Vec<u8>> {
        let words =
            prop::collection::vec("[a-e ]{1,12}", 0..400).prop_map(|words| words.concat().into_bytes());
        let flat = (any::<u8>(), 0..300_000_usize).prop_map(|(byte, length)| vec![byte; length]);
        let noise = prop::collection::vec(any::<u8>(), 0..5_000);
        let cycle = (prop::collection::vec(any::<u8>(), 1..4_000), 1..200_usize)
            .prop_map(|(bytes, times)| bytes.repeat(times));
        prop_oneof![3 => words, 1 => flat, 1 => noise, 1 => cycle]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        #[test]
        fn what_was_coded_is_decoded_as_it_was(pieces in prop::collection::vec((piece(), any::<bool>()), 0..5)) {
            let whole: Vec<u8> = pieces.iter().flat_map(|(piece, _)| piece.clone()).collect();
            for coding in Coding::ALL {
                let coded = coded(coding, &pieces);
                prop_assert!(decoded(coding, &coded) == whole, "{coding:?} of {} bytes", whole.len());
            }
        }
    }

    #[test]
    fn a_pause_holds_nothing_back() {
        for coding in Coding::ALL {
            let mut coder = Coder::new(coding);
            let mut coded = coder.push(b"first line\n").unwrap();
            coded.extend(coder.flush().unwrap());
            let mut seen = Vec::new();
            match coding {
                Coding::Gzip => _ = flate2::read::GzDecoder::new(coded.as_slice()).read_to_end(&mut seen),
                Coding::Brotli => {
                    _ = brotli::BrotliDecompress(&mut coded.as_slice(), &mut seen);
                }
                Coding::Zstd => seen = decoded(coding, &coded),
            }
            assert_eq!(seen, b"first line\n", "{coding:?}");
        }
    }

    #[test]
    fn text_becomes_shorter() {
        let page: String = (0..2_000)
            .map(|at| format!("<li id=\"item-{at}\"><a href=\"/items/{}\">Item</a></li>\n", at * 7))
            .collect();
        for coding in Coding::ALL {
            let coded = coded(coding, &[(page.clone().into_bytes(), false)]);
            assert!(coded.len() * 4 < page.len(), "{coding:?}: {} of {} bytes", coded.len(), page.len());
            assert_eq!(decoded(coding, &coded), page.as_bytes());
        }
    }
}
