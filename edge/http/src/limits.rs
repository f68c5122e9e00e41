//! Every limit of HTTP itself, in one place.

use std::time::Duration;

/// Bytes of a request's target.
pub const URI_BYTES_MAX: usize = 16 << 10;
/// Bytes of a request's head, which is also the size of a connection's read buffer.
pub const HEAD_BYTES_MAX: usize = 64 << 10;
/// Header fields of a request.
pub const HEADERS_MAX: usize = 128;

/// Requests that are open on one connection of HTTP/2 (RFC 9113, section 5.1.2). What its client resets counts until the host
/// has seen to it, so that resets bring no more work than requests do.
pub const STREAMS_MAX: u32 = 100;
/// Streams that a client may reset before the host has begun with them, until its connection is ended (CVE-2023-44487).
pub const STREAMS_RESET_MAX: usize = 20;
/// Streams that the host may have to reset for what the client sent on them, until its connection is ended.
pub const STREAMS_IN_ERROR_MAX: usize = 128;
/// Bytes of a frame of HTTP/2 (RFC 9113, section 4.2); the least that a server has to take.
pub const FRAME_BYTES_MAX: u32 = 16 << 10;
/// Bytes that a client may send ahead of those that were taken, of one body and of all on its connection (section 5.2).
pub const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// See [`STREAM_WINDOW_BYTES`].
pub const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// Bytes of one response that wait for a client of HTTP/2 to take them.
pub const SEND_BUFFER_BYTES_MAX: usize = 256 << 10;
/// How often a client of HTTP/2 is asked whether it is still there (section 6.7), and how long it may take to say so.
pub const PING_INTERVAL: Duration = Duration::from_secs(30);
/// See [`PING_INTERVAL`].
pub const PING_TIMEOUT: Duration = Duration::from_secs(20);
