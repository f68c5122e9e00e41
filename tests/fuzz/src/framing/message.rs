//! A reader of HTTP/1.1 that takes what can be read in one way only: whatever is doubtful is wrong (RFC 9112, section 11.2).

/// Why bytes do not begin with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// They may be the beginning of one.
    Partial,
    /// They are none.
    Wrong(&'static str),
}

/// A message, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// Its first line.
    pub start: String,
    /// Names in lower case, and values.
    pub fields: Vec<Field>,
    pub body: Vec<u8>,
    pub trailers: Vec<Field>,
}

pub(super) type Field = (String, Vec<u8>);

impl Message {
    /// The word of the first line that comes at this place.
    pub(super) fn word(&self, at: usize) -> &str {
        self.start.split(' ').nth(at).unwrap_or_default()
    }

    /// Whether another response follows to the same request (RFC 9110, section 15.2).
    pub(super) fn is_interim(&self) -> bool {
        self.word(1).starts_with('1')
    }
}

/// The request that bytes begin with, and what is behind it.
pub(super) fn request(bytes: &[u8]) -> Result<(Message, &[u8]), Fault> {
    let mut reader = Reader { rest: bytes };
    let line = reader.line()?;
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [method, target, b"HTTP/1.1"] = words[..] else { return Err(Fault::Wrong("no request line")) };
    if !is_token(method) || target.is_empty() || !target.iter().all(|byte| *byte > b' ') {
        return Err(Fault::Wrong("no method or no target"));
    }
    let fields = reader.fields()?;
    let end = End::of(&fields)?.unwrap_or(End::Length(0));
    let (body, trailers) = reader.body(end)?;
    Ok((Message { start: text(line), fields, body, trailers }, reader.rest))
}

/// The response to a request of that method that bytes begin with, and what is behind it. One that ends with its connection is
/// wrong, as nobody sees whether it is whole.
pub(super) fn response<'a>(bytes: &'a [u8], method: &str) -> Result<(Message, &'a [u8]), Fault> {
    let mut reader = Reader { rest: bytes };
    let line = reader.line()?;
    let words: Vec<&[u8]> = line.splitn(3, |byte| *byte == b' ').collect();
    let [b"HTTP/1.1" | b"HTTP/1.0", status, _] = words[..] else {
        return Err(Fault::Wrong("no status line"));
    };
    if status.len() != 3 || !status.iter().all(u8::is_ascii_digit) {
        return Err(Fault::Wrong("no status"));
    }
    let fields = reader.fields()?;
    let end = End::of(&fields)?;
    // RFC 9112, section 6.3.
    let never = method == "HEAD" || status[0] == b'1' || matches!(status, b"204" | b"304");
    let end = if never { End::Length(0) } else { end.ok_or(Fault::Wrong("no end but the connection's"))? };
    let (body, trailers) = reader.body(end)?;
    Ok((Message { start: text(line), fields, body, trailers }, reader.rest))
}

/// Where a body ends.
#[derive(Clone, Copy)]
enum End {
    Length(u64),
    Chunked,
}

impl End {
    /// What one field says, where any does.
    fn of(fields: &[Field]) -> Result<Option<Self>, Fault> {
        let all = |name: &str| fields.iter().filter(|field| field.0 == name).collect::<Vec<_>>();
        match (&all("content-length")[..], &all("transfer-encoding")[..]) {
            ([], []) => Ok(None),
            ([(_, length)], []) => number(length, 10).map(|length| Some(Self::Length(length))),
            ([], [(_, coding)]) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Some(Self::Chunked)),
            ([], [_]) => Err(Fault::Wrong("another coding")),
            _ => Err(Fault::Wrong("more than one end")),
        }
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A line that ends with CR and LF, and has neither in it.
    fn line(&mut self) -> Result<&'a [u8], Fault> {
        let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') else { return Err(Fault::Partial) };
        let (line, rest) = self.rest.split_at(end);
        self.rest = &rest[1..];
        let line = line.strip_suffix(b"\r").ok_or(Fault::Wrong("LF alone"))?;
        if line.contains(&b'\r') { Err(Fault::Wrong("CR alone")) } else { Ok(line) }
    }

    fn take(&mut self, bytes: u64) -> Result<&'a [u8], Fault> {
        let bytes = usize::try_from(bytes).ok().filter(|bytes| *bytes <= self.rest.len());
        let (taken, rest) = self.rest.split_at(bytes.ok_or(Fault::Partial)?);
        self.rest = rest;
        Ok(taken)
    }

    /// Lines up to an empty one. A folded line has no name, and is wrong.
    fn fields(&mut self) -> Result<Vec<Field>, Fault> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            let colon = line.iter().position(|byte| *byte == b':').ok_or(Fault::Wrong("no colon"))?;
            let (name, value) = (&line[..colon], &line[colon + 1..]);
            let is_value = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
            if !is_token(name) || !value.iter().all(is_value) {
                return Err(Fault::Wrong("no field"));
            }
            fields.push((text(name).to_ascii_lowercase(), value.trim_ascii().to_vec()));
        }
    }

    /// A body and its trailers.
    fn body(&mut self, end: End) -> Result<(Vec<u8>, Vec<Field>), Fault> {
        match end {
            End::Length(bytes) => Ok((self.take(bytes)?.to_vec(), Vec::new())),
            End::Chunked => self.chunks(),
        }
    }

    /// RFC 9112, section 7.1.
    fn chunks(&mut self) -> Result<(Vec<u8>, Vec<Field>), Fault> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let bytes = number(line.split(|byte| *byte == b';').next().unwrap_or_default(), 16)?;
            if bytes == 0 {
                return Ok((body, self.fields()?));
            }
            body.extend_from_slice(self.take(bytes)?);
            if !self.line()?.is_empty() {
                return Err(Fault::Wrong("a chunk is longer than it says"));
            }
        }
    }
}

fn is_token(bytes: &[u8]) -> bool {
    let in_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(in_token)
}

/// Digits alone: no sign, no space, no prefix.
fn number(digits: &[u8], radix: u32) -> Result<u64, Fault> {
    let text = std::str::from_utf8(digits).unwrap_or_default();
    let is_number = !text.is_empty() && text.chars().all(|digit| digit.is_digit(radix));
    let number = is_number.then(|| u64::from_str_radix(text, radix).ok()).flatten();
    number.ok_or(Fault::Wrong("no number"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_end_where_they_say() {
        let check = |bytes: &str, body: &str, rest: &str| {
            let (message, behind) =
                request(bytes.as_bytes()).unwrap_or_else(|fault| panic!("{bytes:?}: {fault:?}"));
            assert_eq!((text(&message.body), text(behind)), (body.to_owned(), rest.to_owned()), "{bytes:?}");
        };
        check("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET", "", "GET");
        check("POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nabcd", "abc", "d");
        check(
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nx: y\r\n\r\nd",
            "abc",
            "d",
        );
    }

    #[test]
    fn what_is_doubtful_is_wrong() {
        for fields in [
            "a : b\r\n",
            "a: b\r\n c\r\n",
            "a: b\n",
            "a: b\rc\r\n",
            "a: \0\r\n",
            ": b\r\n",
            "content-length: 3, 3\r\n",
            "content-length: +3\r\n",
            "content-length: 3\r\ncontent-length: 3\r\n",
            "content-length: 3\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: gzip, chunked\r\n",
            "transfer-encoding: chunked\r\n\r\n0x3\r\n",
            "transfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n",
            "transfer-encoding: chunked\r\n\r\n3\nabc\r\n",
        ] {
            let bytes = format!("POST / HTTP/1.1\r\n{fields}\r\nabc\r\n");
            assert!(matches!(request(bytes.as_bytes()), Err(Fault::Wrong(_))), "{bytes:?}");
        }
        assert_eq!(request(b"GET  / HTTP/1.1\r\n\r\n"), Err(Fault::Wrong("no request line")));
    }

    #[test]
    fn half_a_message_is_none() {
        let whole = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        for bytes in 0..whole.len() {
            assert_eq!(request(&whole[..bytes]), Err(Fault::Partial), "{bytes}");
        }
        assert!(request(whole).is_ok());
    }

    #[test]
    fn a_response_says_where_it_ends_or_has_no_body() {
        let check = |bytes: &str, method: &str, rest: Result<&str, Fault>| {
            let found = response(bytes.as_bytes(), method).map(|(_, rest)| text(rest));
            assert_eq!(found, rest.map(str::to_owned), "{bytes:?}");
        };
        check("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab", "GET", Ok("b"));
        check("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab", "HEAD", Ok("ab"));
        check("HTTP/1.1 304 Not Modified\r\n\r\n", "GET", Ok(""));
        check("HTTP/1.1 200 \r\n\r\nab", "GET", Err(Fault::Wrong("no end but the connection's")));
        check("HTTP/1.1 99 Odd\r\n\r\n", "GET", Err(Fault::Wrong("no status")));
    }
}
