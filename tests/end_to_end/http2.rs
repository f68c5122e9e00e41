//! HTTP/2 that is none, by its frames.

use anyhow::{Context as _, Result, ensure};
use meridian_tests::stack::Stack;

use crate::EdgeTest;
use crate::frames::{self, Answer};
use crate::surface::{exchange, with_recorder};

pub const TESTS: &[(&str, EdgeTest)] = &[("refuses_http2_that_is_none", refuses_http2_that_is_none)];

/// Requests that a client resets at once, far more than it may.
const RESETS: u32 = 300;
/// Why such a connection ends (RFC 9113, section 7).
const ENHANCE_YOUR_CALM: u32 = 11;

/// Frames that are no request of HTTP/2 (RFC 9113, sections 8.1 to 8.3). workerd's listener here speaks HTTP/1.1 alone.
fn refuses_http2_that_is_none(stack: &Stack, edge: &str) -> Result<()> {
    if edge == "cloudflare" {
        let (statuses, ended) = exchange(&stack.up()?.edges[edge], frames::PREFACE)?;
        ensure!(ended && statuses.iter().all(|status| *status >= 400), "{ended} {statuses:?}");
        return Ok(());
    }
    with_recorder(stack, edge, |url, recorder| {
        let pseudo = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "acme.localhost"),
            (":path", "/seen/a"),
        ];
        let request = |more: &[(&'static str, &'static str)]| [&pseudo[..], more].concat();
        let without = |name: &str| pseudo.into_iter().filter(|(have, _)| *have != name).collect::<Vec<_>>();
        ensure!(frames::send(url, &request(&[("content-length", "3")]), b"abc")? == Answer::Success);
        ensure!(
            recorder.take().iter().map(|seen| seen.line.clone()).collect::<Vec<_>>() == ["POST /seen/a abc"]
        );
        for (about, fields, body) in [
            ("a length beyond the body", request(&[("content-length", "9")]), &b"abc"[..]),
            ("a length within the body", request(&[("content-length", "1")]), b"abc"),
            ("a field of a connection", request(&[("connection", "close")]), b""),
            ("a coding", request(&[("transfer-encoding", "chunked")]), b""),
            ("an upgrade", request(&[("upgrade", "websocket")]), b""),
            ("a name in upper case", request(&[("X-A", "1")]), b""),
            ("a name with a space", request(&[("x a", "1")]), b""),
            ("a line end in a value", request(&[("x-a", "1\r\nx-b: 2")]), b""),
            ("a pseudo field behind a field", [&[("x-a", "1")], &pseudo[..]].concat(), b""),
            ("a pseudo field that nobody knows", request(&[(":odd", "1")]), b""),
            ("a pseudo field of answers", request(&[(":status", "200")]), b""),
            ("two paths", request(&[(":path", "/seen/b")]), b""),
            ("no path", without(":path"), b""),
            ("no method", without(":method"), b""),
            ("no authority and no host", without(":authority"), b""),
            ("another host", request(&[("host", "globex.localhost")]), b""),
            ("two hosts", request(&[("host", "acme.localhost"), ("host", "acme.localhost")]), b""),
        ] {
            let answer = frames::send(url, &fields, body).with_context(|| about.to_owned())?;
            ensure!(answer != Answer::Success, "{about}: {answer:?}");
            ensure!(recorder.take().is_empty(), "{about} reached the upstream");
        }
        // A head that is longer than is taken, by what each field counts for (section 6.5.2), in one frame.
        let many = vec![("a", ""); 3_500];
        let answer = frames::send(url, &[&pseudo[..], &many[..]].concat(), b"").context("a long head")?;
        ensure!(answer != Answer::Success, "a long head: {answer:?}");
        ensure!(recorder.take().is_empty(), "a long head reached the upstream");
        let reset = [(":method", "GET"), pseudo[1], pseudo[2], pseudo[3]];
        let ended = frames::reset_rapidly(url, &reset, RESETS)?;
        ensure!(ended == Some(ENHANCE_YOUR_CALM), "{RESETS} resets: {ended:?}");
        let reached = recorder.take().len();
        ensure!(reached < RESETS as usize / 2, "{reached} of {RESETS} requests reached the upstream");
        Ok(())
    })
}
