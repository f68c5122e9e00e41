//! Every limit of this crate, in one place.

/// Level of gzip: about where more time stops to pay (1 to 9).
pub const GZIP_LEVEL: u32 = 6;
/// Bytes of content that make one Zstandard frame: what its coder holds back until the source pauses.
pub const UNIT_BYTES: usize = 128 * 1024;
/// Bits of Brotli's window (RFC 7932, section 9.1): 256 KiB.
pub const BROTLI_WINDOW_BITS: u32 = 18;
/// Quality of Brotli: about where more time stops to pay for replies made on the fly (0 to 11).
pub const BROTLI_QUALITY: u32 = 4;
/// Bytes that its coder hands on at once.
pub const BROTLI_BUFFER_BYTES: usize = 16 * 1024;
/// Bytes that the HTML parser may hold for one page: a tag or a comment whose end did not come yet, and open elements. It is
/// what Cloudflare's own rewriter has, so that both give up on the same pages.
pub const HTML_MEMORY_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Bytes that it sets aside at once.
pub const HTML_BUFFER_BYTES: usize = 1024;
