//! HTTP messages on the host's own types: bodies pass through the component as handles wherever nobody has to look
//! into them, so that the host moves their bytes without the component.
//!
//! A future that the host reads already takes a write at once. With one that it does not read yet the component waits, and is
//! woken once more in every request only to be told that the write is over. Writers are therefore held until the host has
//! the other end.

use futures_util::future::join;
use meridian_engine::headers::Headers;
use meridian_engine::policy::steering::Connection;
use meridian_engine::step::ClientFault;
use spin_sdk::wasip3::http::client;
use spin_sdk::wasip3::http::types::{
    ErrorCode, Fields, HeaderError, Method, Request, RequestOptions, Response, Scheme, Trailers,
};
use spin_sdk::wasip3::wit_bindgen::{FutureReader, FutureWriter, StreamReader, StreamResult, StreamWriter};
use spin_sdk::wasip3::{self, wit_future, wit_stream};

use crate::facts::Head;
use crate::shelf::Reading;
use crate::url::Url;

/// Bytes that are read of a body at once.
const CHUNK_BYTES: usize = 16 * 1024;

/// A body that is still with the host.
pub struct Body {
    stream: StreamReader<u8>,
    trailers: TrailersReader,
}

/// A body to send.
pub enum Content {
    /// None.
    Empty,
    /// These bytes.
    Bytes(Vec<u8>),
    /// What the host has.
    Stream(Body),
    /// What was read of a body already, and the rest of it.
    Begun(Vec<u8>, Body),
    /// What lies in the cache.
    Shelved(Reading),
}

/// A request to send.
pub struct Outgoing<'a> {
    /// Method.
    pub method: &'a str,
    /// Absolute URL.
    pub url: &'a str,
    /// Header fields.
    pub fields: Vec<(String, Vec<u8>)>,
    /// Body.
    pub content: Content,
    /// Length of a streamed body, if it is known.
    pub length: Option<u64>,
    /// Until the head of the answer must be here.
    pub timeout_ms: u32,
    /// Until there must be a connection.
    pub connect_timeout_ms: u32,
    /// The longest pause in the body of the answer, if the host is not to decide.
    pub body_timeout_ms: Option<u32>,
}

/// An answer whose body is still with the host.
pub struct Incoming {
    /// Status.
    pub status: u16,
    /// Header fields.
    pub headers: Headers,
    /// Bytes that the body may have, where they have to be counted.
    pub bytes_max: Option<u64>,
    /// Where connections to the target are counted: this one.
    pub connection: Option<Connection>,
    response: Response,
}

/// Why a request brought no answer, or a body no bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendFault {
    /// The target saw nothing of the request.
    #[error("no connection: {0}")]
    Connect(String),
    /// The host sends nothing there.
    #[error("this host sends nothing there")]
    Denied,
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The body that was to be sent did not come.
    #[error("its body did not come whole")]
    Body(ClientFault),
    /// More bytes than allowed.
    #[error("more than {0} bytes")]
    TooLarge(usize),
}

/// The head of a request from a client.
pub fn head(request: &Request) -> Head {
    Head {
        method: method_text(request.get_method()),
        secure: matches!(request.get_scheme(), Some(Scheme::Https)),
        authority: request.get_authority(),
        target: request.get_path_with_query(),
        fields: request.get_headers().copy_all(),
    }
}

/// The body of a request from a client.
pub fn request_body(request: Request) -> Body {
    let (taken, result) = wit_future::new(|| Ok(()));
    let (stream, trailers) = Request::consume_body(request, result);
    drop(taken);
    Body { stream, trailers }
}

/// Sends a request and waits for the head of the answer.
pub async fn send(outgoing: Outgoing<'_>) -> Result<Incoming, SendFault> {
    // What the host does not take will be taken nowhere else: no fault that asks for another attempt.
    let (request, end) = build_request(outgoing).map_err(|error| SendFault::Broken(error.to_string()))?;
    // In this order: the host reads the trailers from the beginning of the sending on.
    let (response, ()) = join(client::send(request), async { drop(end) }).await;
    let response = response.map_err(|code| fault(&code))?;
    let fields = response.get_headers().copy_all();
    Ok(Incoming {
        status: response.get_status_code(),
        headers: fields.iter().map(|(name, value)| (name, String::from_utf8_lossy(value))).collect(),
        bytes_max: None,
        connection: None,
        response,
    })
}

impl Incoming {
    /// The body, unread.
    pub fn body(self) -> Body {
        let (taken, result) = wit_future::new(|| Ok(()));
        let (stream, trailers) = Response::consume_body(self.response, result);
        drop(taken);
        Body { stream, trailers }
    }

    /// The whole body, if it has at most so many bytes.
    pub async fn bytes(self, bytes_max: usize) -> Result<Vec<u8>, SendFault> {
        self.body().bytes(bytes_max).await
    }
}

impl SendFault {
    /// What it says of whoever sent a body that could not be read.
    pub fn of_client(&self) -> ClientFault {
        match self {
            Self::Timeout | Self::Body(ClientFault::Paused) => ClientFault::Paused,
            _ => ClientFault::BrokeOff,
        }
    }
}

impl Body {
    /// The next bytes, `None` at the end.
    pub async fn chunk(&mut self) -> Option<Vec<u8>> {
        loop {
            let (result, bytes) = self.stream.read(Vec::with_capacity(CHUNK_BYTES)).await;
            if !bytes.is_empty() {
                return Some(bytes);
            }
            if !matches!(result, StreamResult::Complete(_)) {
                return None;
            }
        }
    }

    /// Whether the body ended as it should, once there are no more bytes.
    pub async fn end(self) -> Result<(), SendFault> {
        self.trailers.await.map(drop).map_err(|code| fault(&code))
    }

    /// The whole body, if it has at most so many bytes.
    pub async fn bytes(self, bytes_max: usize) -> Result<Vec<u8>, SendFault> {
        match self.at_most(Vec::new(), bytes_max).await? {
            (bytes, None) => Ok(bytes),
            (_, Some(_)) => Err(SendFault::TooLarge(bytes_max)),
        }
    }

    /// The whole body after what was read of it already, or the first part of it with the rest where it has more than
    /// so many bytes.
    pub async fn at_most(
        mut self,
        mut bytes: Vec<u8>,
        bytes_max: usize,
    ) -> Result<(Vec<u8>, Option<Self>), SendFault> {
        while let Some(chunk) = self.chunk().await {
            if bytes.is_empty() {
                bytes = chunk;
            } else {
                bytes.extend_from_slice(&chunk);
            }
            if bytes.len() > bytes_max {
                return Ok((bytes, Some(self)));
            }
        }
        self.end().await?;
        Ok((bytes, None))
    }
}

/// Where a body is written. Dropped without its end, it breaks off, and whoever reads it sees that.
pub struct Outlet {
    writer: StreamWriter<u8>,
    end: TrailersWriter,
}

impl Outlet {
    /// Writes the next bytes.
    ///
    /// # Errors
    /// Where nobody takes them any more.
    pub async fn write(&mut self, bytes: Vec<u8>) -> Result<(), SendFault> {
        match bytes.is_empty() || self.writer.write_all(bytes).await.is_empty() {
            true => Ok(()),
            false => Err(SendFault::Broken("nobody reads it any more".to_owned())),
        }
    }

    /// Ends the body.
    pub async fn finish(self, end: Result<Option<Trailers>, ErrorCode>) {
        drop(self.writer);
        // What nobody reads is nobody's loss.
        let _ = self.end.write(end).await;
    }
}

/// Two ends of a new body: what is written to the one is read from the other.
pub fn pipe() -> (Outlet, Body) {
    let (writer, stream) = wit_stream::new();
    let (end, trailers) =
        wit_future::new(|| Err(ErrorCode::InternalError(Some("the body broke off".to_owned()))));
    (Outlet { writer, end }, Body { stream, trailers })
}

/// A response for the client.
pub fn response(
    status: u16,
    fields: &[(String, Vec<u8>)],
    content: Content,
) -> Result<Response, HeaderError> {
    let fields = Fields::from_list(fields)?;
    // The host reads the trailers only once the response is returned, so that the end can wait for nothing here.
    let Opened { contents, trailers, .. } = open(content);
    let (response, _) = Response::new(fields, contents, trailers);
    // A status that the host doesn't take leaves 200, which no reply may be: the engine gives three digits.
    if response.set_status_code(status).is_err() {
        return Err(HeaderError::InvalidSyntax);
    }
    Ok(response)
}

/// The request, with the end of its body where that is to be dropped once the host has begun to send.
fn build_request(outgoing: Outgoing<'_>) -> Result<(Request, Option<TrailersWriter>), HeaderError> {
    let url = Url::parse(outgoing.url).ok_or(HeaderError::InvalidSyntax)?;
    let length = match &outgoing.content {
        Content::Empty => {
            Some(0).filter(|_| !matches!(outgoing.method, "GET" | "HEAD" | "OPTIONS" | "TRACE"))
        }
        Content::Bytes(bytes) => Some(bytes.len() as u64),
        Content::Stream(_) | Content::Begun(..) | Content::Shelved(_) => outgoing.length,
    };
    let mut fields = outgoing.fields;
    fields.retain(|(name, _)| {
        !matches!(name.as_str(), "content-length" | "host" | "transfer-encoding" | "connection")
    });
    if let Some(length) = length {
        fields.push(("content-length".to_owned(), length.to_string().into_bytes()));
    }
    let options = RequestOptions::new();
    let ns = |ms: u32| u64::from(ms) * 1_000_000;
    // A host may have no such option; its own limits hold then.
    let _ = options.set_connect_timeout(Some(ns(outgoing.connect_timeout_ms)));
    let _ = options.set_first_byte_timeout(Some(ns(outgoing.timeout_ms)));
    if let Some(pause_ms) = outgoing.body_timeout_ms {
        let _ = options.set_between_bytes_timeout(Some(ns(pause_ms)));
    }
    let fields = Fields::from_list(&fields)?;
    let Opened { contents, trailers, end } = open(outgoing.content);
    let (request, _) = Request::new(fields, contents, trailers, Some(options));
    let scheme = if url.secure { Scheme::Https } else { Scheme::Http };
    let set = request
        .set_method(&method_of(outgoing.method))
        .and_then(|()| request.set_scheme(Some(&scheme)))
        .and_then(|()| request.set_authority(Some(url.authority)))
        .and_then(|()| request.set_path_with_query(Some(url.target)));
    set.map(|()| (request, end)).map_err(|()| HeaderError::InvalidSyntax)
}

/// A body as messages take it.
struct Opened {
    contents: Option<StreamReader<u8>>,
    trailers: TrailersReader,
    /// Of a body without contents: dropped, it says that there are no trailers either.
    end: Option<TrailersWriter>,
}

impl Opened {
    /// A body whose end is written by whoever writes its contents.
    fn of(Body { stream, trailers }: Body) -> Self {
        Self { contents: Some(stream), trailers, end: None }
    }
}

fn open(content: Content) -> Opened {
    match content {
        Content::Empty => {
            let (end, trailers) = no_trailers();
            Opened { contents: None, trailers, end: Some(end) }
        }
        Content::Stream(body) => Opened::of(body),
        Content::Bytes(bytes) => {
            let (mut writer, stream) = wit_stream::new();
            let (end, trailers) = no_trailers();
            wasip3::spawn(async move {
                // What nobody reads is nobody's loss.
                let _ = writer.write_all(bytes).await;
                drop(writer);
                drop(end);
            });
            Opened::of(Body { stream, trailers })
        }
        Content::Shelved(mut reading) => {
            let (mut outlet, body) = pipe();
            wasip3::spawn(async move {
                // Where it breaks off, the outlet is dropped without its end.
                while let Ok(next) = reading.next().await {
                    let Some(bytes) = next else { return outlet.finish(Ok(None)).await };
                    if outlet.write(bytes).await.is_err() {
                        return;
                    }
                }
            });
            Opened::of(body)
        }
        Content::Begun(bytes, mut rest) => {
            let (mut outlet, body) = pipe();
            wasip3::spawn(async move {
                let mut next = Some(bytes);
                while let Some(bytes) = next {
                    if outlet.write(bytes).await.is_err() {
                        return;
                    }
                    next = rest.chunk().await;
                }
                // Trailers end here, as they do wherever a body is read (RFC 9110, section 6.5.1).
                outlet.finish(rest.trailers.await.map(|_| None)).await;
            });
            Opened::of(body)
        }
    }
}

type TrailersReader = FutureReader<Result<Option<Trailers>, ErrorCode>>;
type TrailersWriter = FutureWriter<Result<Option<Trailers>, ErrorCode>>;

/// Two ends of trailers that are none: the one says so once it is dropped.
fn no_trailers() -> (TrailersWriter, TrailersReader) {
    wit_future::new(|| Ok(None))
}

fn method_of(text: &str) -> Method {
    match text {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "CONNECT" => Method::Connect,
        "OPTIONS" => Method::Options,
        "TRACE" => Method::Trace,
        "PATCH" => Method::Patch,
        other => Method::Other(other.to_owned()),
    }
}

fn method_text(method: Method) -> String {
    let text = match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Connect => "CONNECT",
        Method::Options => "OPTIONS",
        Method::Trace => "TRACE",
        Method::Patch => "PATCH",
        Method::Other(other) => return other,
    };
    text.to_owned()
}

/// Which part of the way failed (the names are those of `wasi:http`).
fn fault(code: &ErrorCode) -> SendFault {
    match code {
        ErrorCode::DnsTimeout
        | ErrorCode::DnsError(_)
        | ErrorCode::DestinationNotFound
        | ErrorCode::DestinationUnavailable
        | ErrorCode::DestinationIpProhibited
        | ErrorCode::DestinationIpUnroutable
        | ErrorCode::ConnectionRefused
        | ErrorCode::ConnectionTimeout
        | ErrorCode::ConnectionLimitReached
        | ErrorCode::TlsProtocolError
        | ErrorCode::TlsCertificateError => SendFault::Connect(code.to_string()),
        ErrorCode::HttpRequestDenied => SendFault::Denied,
        ErrorCode::ConnectionReadTimeout | ErrorCode::HttpResponseTimeout => SendFault::Timeout,
        // The host says these of a request's own body alone.
        ErrorCode::HttpRequestBodySize(_) => SendFault::Body(ClientFault::BrokeOff),
        ErrorCode::ConnectionWriteTimeout => SendFault::Body(ClientFault::Paused),
        other => SendFault::Broken(other.to_string()),
    }
}
