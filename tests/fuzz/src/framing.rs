//! Where messages begin and end, from the bytes of one connection to those of the next: what two servers would read in two ways
//! (RFC 9112, section 11). The Spin host's own protocols and checks read, its client and server write, and a reader that takes
//! nothing doubtful says what was written. Between the two stands no component but what one does to the ends of a message.

mod link;
mod message;

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::{Either, join, select};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper::service::service_fn;
use meridian_edge_http::limits::HEAD_BYTES_MAX;
use meridian_edge_http::{head, hop, protocols};

use link::{Link, Pace, Shared, drive, lock};
use message::{Fault, Field, Message};

/// Bytes of a connection that are looked at.
const INPUT_BYTES_MAX: usize = 8 * 1024;

/// Fields that no component sees (those that `wasi:http` forbids) or lets through (the others).
const OF_CONNECTION: [&str; 12] = [
    "connection",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What an upstream answers to every request.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

type AnyBody = UnsyncBoxBody<Bytes, hyper::Error>;

/// The first byte says whose bytes the others are and how they come: a client's, or an upstream's (1), on a connection that ends
/// behind them (2), in what pieces (4, 8), and in answer to HEAD (16).
pub fn framing(data: &[u8]) {
    let [how, bytes @ ..] = data else { return };
    let bytes = &bytes[..bytes.len().min(INPUT_BYTES_MAX)];
    let piece = [usize::MAX, 1, 7, 64][usize::from((how >> 2) & 3)];
    let pace = Pace { piece, ends: how & 2 != 0 };
    if how & 1 == 0 {
        return requests(bytes, pace);
    }
    let method = if how & 16 == 0 { Method::GET } else { Method::HEAD };
    response(bytes, pace, &method);
    nothing_is_left(bytes, pace, &method);
}

/// A message that goes on to the next connection.
struct Passed {
    /// Its first line.
    start: String,
    /// Its fields, but for those that say where it ends.
    fields: Vec<Field>,
    /// Fields that were of the connection that it came on.
    nominated: Vec<String>,
    content: Shared<Content>,
}

/// A body, as far as it was read.
#[derive(Default)]
struct Content {
    bytes: Vec<u8>,
    whole: bool,
}

/// A request that the server handed out, and what went on of it to which upstream, where it was not refused.
struct Handed {
    method: String,
    content: Shared<Content>,
    sent: Option<(Passed, Shared<Vec<u8>>)>,
}

/// Each request that the server hands out goes on as exactly one request of the same body, or as less than one where its body
/// breaks off; and a client whose bytes can be read in one way only is read that way.
fn requests(bytes: &[u8], pace: Pace) {
    let handed: Shared<Vec<Handed>> = Arc::default();
    let (client, answers) = Link::new(bytes, pace, |_| true);
    let service = service_fn({
        let handed = Arc::clone(&handed);
        move |request: Request<Incoming>| {
            let handed = Arc::clone(&handed);
            async move { Ok::<_, Infallible>(pass_on(request, &handed).await) }
        }
    });
    // HTTP/2 has frames of its own.
    let protocols = protocols().http1_only();
    drive(pin!(protocols.serve_connection(client, service)));
    let handed = lock(&handed);
    let mut rest = Some(bytes);
    for one in &*handed {
        let content = lock(&one.content);
        if let Some((passed, written)) = &one.sent {
            let written = lock(written);
            passed.arrives(message::request(&written), &content, pace.ends);
        }
        let plain = rest.and_then(|bytes| message::request(bytes).ok());
        rest = plain.as_ref().map(|(_, behind)| *behind);
        if let Some((plain, _)) = plain {
            assert_eq!(plain.word(0), one.method);
            assert!(!content.whole || plain.body == content.bytes, "{plain:?} has another body");
        }
    }
    are_answers(&lock(&answers), &handed);
}

/// What the client gets are whole answers, one to each request, and perhaps one to what is none.
fn are_answers(mut bytes: &[u8], handed: &[Handed]) {
    let mut answers = 0;
    while !bytes.is_empty() {
        let method = handed.get(answers).map_or("GET", |one| &*one.method);
        let (answer, behind) = message::response(bytes, method).expect("an answer is written whole");
        answers += usize::from(!answer.is_interim());
        bytes = behind;
    }
    assert!(answers <= handed.len() + 1, "{answers} answers to {} requests", handed.len());
}

/// Sends a request on, over a connection of its own, as the host and a component do together.
async fn pass_on(request: Request<Incoming>, handed: &Mutex<Vec<Handed>>) -> Response<Empty<Bytes>> {
    let (mut head, body) = request.into_parts();
    let (body, content) = Passing::new(body, None);
    let nominated = nominated(&head.headers);
    lock(handed).push(Handed { method: head.method.to_string(), content: Arc::clone(&content), sent: None });
    if head::check(&mut head).is_err() {
        return status(StatusCode::BAD_REQUEST);
    }
    let Some(request) = onward(head, body).await else { return status(StatusCode::BAD_REQUEST) };
    let start = format!("{} {} HTTP/1.1", request.method(), request.uri());
    let passed = Passed { start, fields: fields(request.headers()), nominated, content };
    let (upstream, written) = Link::new(ANSWER, Pace::WHOLE, is_request);
    if let Some(last) = lock(handed).last_mut() {
        last.sent = Some((passed, written));
    }
    let (mut sender, connection) = client().handshake(upstream).await.expect("nothing was said yet");
    // Without the sender, the connection ends behind the answer.
    let answered = async move { sender.send_request(request).await.is_ok() };
    match join(connection, answered).await {
        (_, true) => status(StatusCode::OK),
        (_, false) => status(StatusCode::BAD_REQUEST),
    }
}

/// The request that a component makes of one: the body by its length where that is known, of GET and HEAD always, as a host sends
/// no chunks with these. Nothing where the body breaks off before.
async fn onward(head: Parts, body: Passing) -> Option<Request<AnyBody>> {
    let length = body.size_hint().exact();
    let declared = head.headers.get(header::CONTENT_LENGTH);
    let declared = declared.and_then(|declared| declared.to_str().ok()?.parse::<u64>().ok());
    assert!(declared.is_none() || declared == length, "a component takes {declared:?} for {length:?}");
    let (length, body) = match (length, &head.method) {
        (Some(0), &(Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)) => (None, nothing()),
        (Some(0), _) => (Some(0), nothing()),
        (None, &(Method::GET | Method::HEAD)) => {
            let bytes = body.collect().await.ok()?.to_bytes();
            (Some(bytes.len() as u64), Full::new(bytes).map_err(|never| match never {}).boxed_unsync())
        }
        (length, _) => (length, body.boxed_unsync()),
    };
    let mut request = Request::new(body);
    let mut headers = head.headers;
    forget_connection(&mut headers);
    headers.remove(header::CONTENT_LENGTH);
    if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    let host = head.uri.authority().expect("what is checked has a host").as_str();
    headers.insert(header::HOST, HeaderValue::from_str(host).expect("and it can be a field's value"));
    *request.headers_mut() = headers;
    *request.uri_mut() = Uri::from(head.uri.path_and_query().expect("and a path").clone());
    *request.method_mut() = head.method;
    Some(request)
}

/// A response is refused, or comes to the client as exactly one of the same body, or as less than one where its body breaks off.
fn response(bytes: &[u8], pace: Pace, method: &Method) {
    let passed: Shared<Option<Passed>> = Arc::default();
    let asked = format!("{method} /a HTTP/1.1\r\nhost: a.test\r\n\r\n");
    let (client, answers) = Link::new(asked.as_bytes(), Pace::WHOLE, |_| true);
    let service = service_fn({
        let (bytes, passed) = (bytes.to_vec(), Arc::clone(&passed));
        move |request: Request<Incoming>| {
            let (upstream, _) = Link::new(&bytes, pace, is_request);
            let passed = Arc::clone(&passed);
            async move { Ok::<_, Infallible>(pass_back(request, upstream, &passed).await) }
        }
    });
    let protocols = protocols().http1_only();
    drive(pin!(protocols.serve_connection(client, service)));
    let answers = lock(&answers);
    let found = message::response(&answers, method.as_str());
    match &*lock(&passed) {
        Some(passed) => passed.arrives(found, &lock(&passed.content), false),
        None if answers.is_empty() => {}
        None => {
            let (answer, behind) = found.expect("an answer is written whole");
            assert!(answer.word(1) == "502" && answer.body.is_empty() && behind.is_empty(), "{answer:?}");
        }
    }
}

/// Asks an upstream and passes its answer on, as the host and a component do together.
async fn pass_back(
    asked: Request<Incoming>,
    upstream: Link,
    passed: &Mutex<Option<Passed>>,
) -> Response<AnyBody> {
    let refused = || status(StatusCode::BAD_GATEWAY).map(|_: Empty<Bytes>| nothing());
    let (mut sender, connection) = client().handshake(upstream).await.expect("nothing was said yet");
    let mut connection: Connection = Box::pin(connection);
    let answer = pin!(sender.send_request(asked));
    let (answer, is_over) = match select(answer, &mut connection).await {
        Either::Left((answer, _)) => (answer, false),
        Either::Right((_, answer)) => (answer.await, true),
    };
    let Ok(answer) = answer else { return refused() };
    let (mut head, body) = answer.into_parts();
    let nominated = nominated(&head.headers);
    let is_final = (200..600).contains(&head.status.as_u16());
    if hop::check_response(&mut head.headers).is_err() || !is_final || !says_length_once(&mut head.headers) {
        return refused();
    }
    forget_connection(&mut head.headers);
    let (body, content) = Passing::new(body, (!is_over).then_some(connection));
    // The date is the server's where there is none, and so is the length of nothing.
    let mut fields = fields(&head.headers);
    fields.retain(|(name, _)| name != "date" && name != "content-length");
    let reason = head.status.canonical_reason().unwrap_or("<none>");
    let start = format!("HTTP/1.1 {} {reason}", head.status.as_str());
    *lock(passed) = Some(Passed { start, fields, nominated, content });
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    response
}

/// What comes behind a response is not the answer to the next request on its connection.
fn nothing_is_left(bytes: &[u8], pace: Pace, method: &Method) {
    let ask = || {
        let request = Request::builder().method(method).uri("/a").header("host", "a.test");
        request.body(Empty::<Bytes>::new()).expect("this is a request")
    };
    let (upstream, _) = Link::new(bytes, pace, is_request);
    let connected = drive(pin!(client().handshake(upstream)));
    let (mut sender, connection) = connected.expect("nothing is waited for").expect("nothing was said yet");
    let mut connection = pin!(connection);
    let mut answers = 0;
    for _ in 0..2 {
        let next = async {
            if let Ok(answer) = sender.send_request(ask()).await
                && answer.into_body().collect().await.is_ok()
            {
                answers += 1;
            }
        };
        let is_over = drive(pin!(join(connection.as_mut(), next))).is_some();
        if is_over || !sender.is_ready() {
            break;
        }
    }
    assert!(answers < 2, "what was sent before it was asked for is no answer");
}

impl Passed {
    /// What was written is this message and nothing else, or less than it where its body is not whole or its reader `left`.
    fn arrives(&self, found: Result<(Message, &[u8]), Fault>, content: &Content, left: bool) {
        let (message, behind) = match found {
            Ok(found) => found,
            Err(Fault::Partial) => {
                assert!(!content.whole || left, "{} is written to its end", self.start);
                return;
            }
            Err(Fault::Wrong(why)) => panic!("{} is written wrong: {why}", self.start),
        };
        assert!(content.whole, "a body that breaks off is whole to nobody: {message:?}");
        assert!(behind.is_empty(), "{:?} stands behind {message:?}", String::from_utf8_lossy(behind));
        assert_eq!(message.start, self.start);
        assert_eq!(message.body, content.bytes, "{}", self.start);
        assert_eq!(message.trailers, Vec::new(), "{}", self.start);
        let is_request = self.fields.iter().any(|(name, _)| name == "host");
        let mut fields = message.fields;
        fields.retain(|(name, _)| match &**name {
            "transfer-encoding" => false,
            "content-length" | "date" => is_request,
            _ => true,
        });
        fields.sort();
        assert_eq!(fields, self.fields, "{}", self.start);
        let of_connection = |name: &String| fields.iter().any(|field| field.0 == *name);
        assert!(!self.nominated.iter().any(of_connection), "{:?} of {fields:?}", self.nominated);
    }
}

/// A connection that brings a body.
type Connection = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// A body that passes through, without its trailers.
struct Passing {
    body: Incoming,
    content: Shared<Content>,
    /// Where nobody else drives it.
    connection: Option<Connection>,
}

impl Passing {
    fn new(body: Incoming, connection: Option<Connection>) -> (Self, Shared<Content>) {
        let content = Content { bytes: Vec::new(), whole: body.is_end_stream() };
        let content = Arc::new(Mutex::new(content));
        (Self { body, content: Arc::clone(&content), connection }, content)
    }
}

impl Body for Passing {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let is_over =
            this.connection.as_mut().is_some_and(|connection| connection.as_mut().poll(cx).is_ready());
        if is_over {
            this.connection = None;
        }
        let frame = hop::poll_content(&mut this.body, cx);
        let mut content = lock(&this.content);
        match &frame {
            Poll::Ready(None) => content.whole = true,
            Poll::Ready(Some(Ok(frame))) => {
                content.bytes.extend_from_slice(frame.data_ref().expect("trailers are left out"));
                content.whole = this.body.is_end_stream();
            }
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        drop(content);
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The host's client, but for its pool.
fn client() -> http1::Builder {
    let mut client = http1::Builder::new();
    client.max_buf_size(HEAD_BYTES_MAX);
    client
}

fn is_request(written: &[u8]) -> bool {
    message::request(written).is_ok()
}

fn status(status: StatusCode) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    response
}

fn nothing() -> AnyBody {
    Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync()
}

/// Names that `Connection` lists, but for those that every message may have.
fn nominated(headers: &HeaderMap) -> Vec<String> {
    let lists = headers.get_all(header::CONNECTION).iter().filter_map(|list| list.to_str().ok());
    let names = lists.flat_map(|list| list.split(',')).map(|name| name.trim().to_ascii_lowercase());
    names.filter(|name| !matches!(&**name, "content-length" | "transfer-encoding" | "host")).collect()
}

fn forget_connection(headers: &mut HeaderMap) {
    for name in OF_CONNECTION {
        headers.remove(name);
    }
}

/// As the engine has it, and no component can say otherwise.
fn says_length_once(headers: &mut HeaderMap) -> bool {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = lengths.next().cloned() else { return true };
    let is_number =
        first.to_str().is_ok_and(|digits| !digits.starts_with('+') && digits.parse::<u64>().is_ok());
    let is_one = is_number && lengths.all(|length| *length == first);
    headers.insert(header::CONTENT_LENGTH, first);
    is_one
}

/// In the order of names and values.
fn fields(headers: &HeaderMap) -> Vec<Field> {
    let field = |(name, value): (&http::HeaderName, &HeaderValue)| {
        (name.as_str().to_owned(), value.as_bytes().to_vec())
    };
    let mut fields: Vec<Field> = headers.iter().map(field).collect();
    fields.sort();
    fields
}
