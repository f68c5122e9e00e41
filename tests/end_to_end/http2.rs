//! HTTP/2 that is none: other beginnings, the frames of `http2.yaml`, and messages. The Spin host speaks HTTP/2 itself; workerd here
//! does not, and has Caddy in front for it.

use std::io::{Read, Write};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use meridian_tests::stack::Stack;
use serde::Deserialize;

use crate::EdgeTest;
use crate::frames::{self, Answer};
use crate::recorder::Recorder;
use crate::surface::{exchange, with_recorder};
use crate::tls::with_front;

pub const TESTS: &[(&str, EdgeTest)] = &[
    ("ends_what_begins_otherwise", ends_what_begins_otherwise),
    ("refuses_frames_that_break_the_protocol", refuses_frames_that_break_the_protocol),
];

pub const SPIN_TESTS: &[(&str, EdgeTest)] = &[("refuses_http2_that_is_none", refuses_http2_that_is_none)];

/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Requests that a client resets at once, far more than it may.
const RESETS: u32 = 300;

/// What is almost a preface (RFC 9113, section 3.4), or none.
const BEGINNINGS: &[(&str, &[u8])] = &[
    ("another end", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"),
    ("another version", b"PRI * HTTP/1.1\r\n\r\nSM\r\n\r\n"),
    ("settings alone", b"\0\0\0\x04\0\0\0\0\0\r\n\r\n"),
];

/// Kinds of frames by their numbers (section 6).
const KINDS: [&str; 10] = [
    "DATA",
    "HEADERS",
    "PRIORITY",
    "RST_STREAM",
    "SETTINGS",
    "PUSH_PROMISE",
    "PING",
    "GOAWAY",
    "WINDOW_UPDATE",
    "CONTINUATION",
];

const FLAGS: &[(&str, u8)] =
    &[("ACK", 0x1), ("END_STREAM", 0x1), ("END_HEADERS", 0x4), ("PADDED", 0x8), ("PRIORITY", 0x20)];

/// Error codes (section 7) that are expected of someone.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Code {
    ProtocolError = 1,
    InternalError = 2,
    FlowControlError = 3,
    StreamClosed = 5,
    FrameSizeError = 6,
    CompressionError = 9,
    EnhanceYourCalm = 11,
}

/// One case of `http2.yaml`, which says what each member means.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    about: String,
    send: Vec<String>,
    #[serde(default)]
    without_settings: bool,
    #[serde(default)]
    connection: Vec<Code>,
    #[serde(default)]
    stream: Vec<Code>,
    #[serde(default)]
    answered: bool,
    #[serde(default)]
    right_first: bool,
}

/// What a server of HTTP/2 is asked for: what is below a folder reaches the upstream.
struct Target<'a> {
    scheme: &'a str,
    authority: &'a str,
    folder: &'a str,
}

fn ends_what_begins_otherwise(stack: &Stack, edge: &str) -> Result<()> {
    let up = stack.up()?;
    let edge_url = &up.edges[edge];
    let origin = &up.origins.values().next().context("an origin")?.url;
    let whole = [("the preface itself", frames::PREFACE)];
    // Who speaks HTTP/1.1 alone does not wait for what follows the preface.
    let of_edge = whole.iter().filter(|_| edge == "cloudflare").chain(BEGINNINGS).map(|it| (edge_url, it));
    let of_origin = whole.iter().chain(BEGINNINGS).map(|it| (origin, it));
    for (url, (about, bytes)) in of_edge.chain(of_origin) {
        let (statuses, ended) = exchange(url, bytes)?;
        let refused = ended && statuses.iter().all(|status| *status >= 400);
        ensure!(refused, "{about} at {url}: {statuses:?}, the connection has ended: {ended}");
    }
    Ok(())
}

fn refuses_frames_that_break_the_protocol(stack: &Stack, edge: &str) -> Result<()> {
    if edge == "cloudflare" {
        return with_front(stack, edge, |front, recorder| {
            let target = Target { scheme: "https", authority: &front.authority(), folder: "/tls" };
            try_all(&target, || front.stream(b"h2"), recorder)
        });
    }
    with_recorder(stack, edge, |url, recorder| {
        let target = Target { scheme: "http", authority: "acme.localhost", folder: "/seen" };
        try_all(&target, || frames::connect(url, ANSWER_MAX), recorder)
    })
}

/// What reached the upstream is looked at behind all cases: a request that was given up may still be on its way. So are the
/// connections: Caddy leaves its clients a second to hear why one ends.
fn try_all<S: Read + Write>(
    target: &Target<'_>,
    connect: impl Fn() -> Result<S>,
    recorder: &Recorder,
) -> Result<()> {
    let cases: Vec<Case> = serde_saphyr::from_str(include_str!("http2.yaml")).context("in http2.yaml")?;
    ensure!(cases.len() > 60, "only {} cases", cases.len());
    let (mut wrong, mut ending) = (Vec::new(), Vec::new());
    for (number, case) in cases.iter().enumerate() {
        match case.run(target, &connect, number) {
            Ok(stream) => ending.extend(stream.map(|stream| (case, stream))),
            Err(error) => wrong.push(format!("{}: {error:#}", case.about)),
        }
    }
    for (case, mut stream) in ending {
        let mut rest = std::iter::from_fn(|| frames::next(&mut stream).transpose());
        let open = rest.find_map(Result::err);
        wrong.extend(open.map(|error| format!("{}: its connection is not closed: {error:#}", case.about)));
    }
    let seen = recorder.take();
    for (number, case) in cases.iter().enumerate() {
        let path = target.path(number);
        let reached = seen.iter().filter(|request| request.target() == path).count();
        if reached > usize::from(case.answered || case.right_first) {
            wrong.push(format!("{}: it reached the upstream {reached} times", case.about));
        }
    }
    let evil = seen.iter().filter(|request| request.target().contains("evil")).count();
    ensure!(evil == 0, "{evil} requests are not what was asked for: {seen:?}");
    ensure!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    Ok(())
}

impl Target<'_> {
    fn path(&self, number: usize) -> String {
        format!("{}/{number}", self.folder)
    }

    /// A frame with the fields of requests for this.
    fn filled(&self, frame: &str, number: usize) -> String {
        frame
            .replace("{GET}", "END_HEADERS END_STREAM :method=GET {REST}")
            .replace("{POST}", "END_HEADERS :method=POST {REST}")
            .replace("{REST}", ":scheme={S} :authority={A} :path={P}")
            .replace("{S}", self.scheme)
            .replace("{A}", self.authority)
            .replace("{P}", &self.path(number))
    }

    /// Another client asks for something.
    fn is_served(&self, stream: &mut (impl Read + Write)) -> Result<()> {
        let path = format!("{}/beside", self.folder);
        let fields = [
            (":method", "GET"),
            (":scheme", self.scheme),
            (":authority", self.authority),
            (":path", path.as_str()),
        ];
        let answer = frames::send_over(stream, &fields, b"")?;
        ensure!(answer == Answer::Success, "another client gets {answer:?}");
        Ok(())
    }
}

impl Case {
    /// The connection, where its end was announced. While nothing of it is read, another client is served.
    fn run<S: Read + Write>(
        &self,
        target: &Target<'_>,
        connect: &impl Fn() -> Result<S>,
        number: usize,
    ) -> Result<Option<S>> {
        let bytes = self.bytes(target, number)?;
        let mut stream = connect()?;
        // It may be ended before all is sent.
        let _sent = stream.write_all(&bytes);
        target.is_served(&mut connect()?)?;
        let mut answer = frames::answer(&mut stream).context("nothing comes")?;
        while self.right_first && matches!(answer, Answer::Success | Answer::Other) {
            answer = frames::answer(&mut stream).context("nothing comes behind the answer")?;
        }
        ensure!(self.expects(answer), "{answer:?}");
        Ok(matches!(answer, Answer::Ended(_)).then_some(stream))
    }

    fn expects(&self, answer: Answer) -> bool {
        let is_one_of = |codes: &[Code], code: u32| codes.iter().any(|expected| *expected as u32 == code);
        match answer {
            Answer::Success => self.answered,
            Answer::Other => !self.stream.is_empty(),
            Answer::Reset(code) => is_one_of(&self.stream, code),
            Answer::Ended(code) => is_one_of(&self.stream, code) || is_one_of(&self.connection, code),
            Answer::Closed => false,
        }
    }

    fn bytes(&self, target: &Target<'_>, number: usize) -> Result<Vec<u8>> {
        let mut bytes = frames::PREFACE.to_vec();
        if !self.without_settings {
            bytes.extend(frame("SETTINGS 0")?);
        }
        for text in &self.send {
            bytes.extend(frame(&target.filled(text, number)).with_context(|| text.clone())?);
        }
        Ok(bytes)
    }
}

/// A frame, or several, as `http2.yaml` writes it.
fn frame(text: &str) -> Result<Vec<u8>> {
    let mut words = text.split(' ');
    let (times, kind) = repeated(words.next().context("a kind")?)?;
    let kind = match (0_u8..).zip(KINDS).find(|(_, name)| *name == kind) {
        Some((number, _)) => number,
        None => kind.parse::<u8>().context("a kind that is known, or the number of another")?,
    };
    let stream = words.next().context("a stream")?.parse::<u32>().context("the number of a stream")?;
    let (mut flags, mut payload) = (0_u8, Vec::new());
    for word in words {
        match FLAGS.iter().find(|(name, _)| *name == word) {
            Some((_, flag)) => flags |= *flag,
            None => payload.extend(part(word).with_context(|| word.to_owned())?),
        }
    }
    let mut bytes = Vec::new();
    frames::frame(&mut bytes, kind, flags, stream, &payload);
    Ok(bytes.repeat(times))
}

/// A field, or bytes.
fn part(word: &str) -> Result<Vec<u8>> {
    if let Some(field) = word.split_once('=') {
        return frames::block(&[field]);
    }
    let (times, digits) = repeated(word)?;
    let byte = |at: usize| -> Result<u8> {
        let digits = digits.get(at..at + 2).context("two digits for each byte")?;
        Ok(u8::from_str_radix(digits, 16)?)
    };
    let bytes = (0..digits.len()).step_by(2).map(byte).collect::<Result<Vec<u8>>>()?;
    Ok(bytes.repeat(times))
}

/// How often something is meant, and what.
fn repeated(word: &str) -> Result<(usize, &str)> {
    match word.split_once('*') {
        Some((times, word)) => Ok((times.parse()?, word)),
        None => Ok((1, word)),
    }
}

/// Messages that are no request (RFC 9113, sections 8.1 to 8.3), and requests that are all reset.
fn refuses_http2_that_is_none(stack: &Stack, edge: &str) -> Result<()> {
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
        ensure!(ended == Some(Code::EnhanceYourCalm as u32), "{RESETS} resets: {ended:?}");
        let reached = recorder.take().len();
        ensure!(reached < RESETS as usize / 2, "{reached} of {RESETS} requests reached the upstream");
        Ok(())
    })
}
