//! Content codings undone, as a client does it; also of the beginning of a body.

use std::io::Read;

use anyhow::{Result, bail};

/// The content of a body in a coding (`""`, `gzip`, `br`, `zstd`), whole.
pub fn decoded(coding: &str, body: &[u8]) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    reader(coding, body)?.read_to_end(&mut content)?;
    Ok(content)
}

/// As much of the content as the first bytes of a body tell.
pub fn begun(coding: &str, body: &[u8]) -> Result<Vec<u8>> {
    let mut reader = reader(coding, body)?;
    let (mut content, mut part) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = reader.read(&mut part) {
        content.extend_from_slice(&part[..read]);
    }
    Ok(content)
}

fn reader<'a>(coding: &str, body: &'a [u8]) -> Result<Box<dyn Read + 'a>> {
    Ok(match coding {
        "" => Box::new(body),
        "gzip" => Box::new(flate2::read::GzDecoder::new(body)),
        "br" => Box::new(brotli::Decompressor::new(body, 4096)),
        "zstd" => Box::new(zstd::stream::read::Decoder::new(body)?),
        other => bail!("nobody asked for {other}"),
    })
}
