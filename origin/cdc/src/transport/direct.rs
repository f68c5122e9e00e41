//! The direct transport: one WebSocket (RFC 6455) from each receiver to each source.
//!
//! The source sends binary messages of frames, the receiver text messages that say where to resume and what it
//! has applied. Both ends bound what they accept, and give up on silence.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use meridian_wire::change::{ACK_BYTES_MAX, Ack, MESSAGE_BYTES_MAX, Resume};
use rustls::ClientConfig;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config};

use crate::{Fault, limits, peer};

/// The path of the stream at every origin.
const PATH: &str = "/replication/v1/stream";

/// The value of `Sec-WebSocket-Accept` for a request's `Sec-WebSocket-Key` (RFC 6455, section 4.2.2).
#[must_use]
pub fn accept_key(key: &str) -> String {
    derive_accept_key(key.as_bytes())
}

fn config(message_bytes_max: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(message_bytes_max))
        .max_frame_size(Some(message_bytes_max))
        .write_buffer_size(0)
}

/// The source's end.
pub(crate) struct ToReceiver<S> {
    sink: SplitSink<WebSocketStream<S>, Message>,
}

/// What the source hears.
pub(crate) struct FromReceiver<S> {
    stream: SplitStream<WebSocketStream<S>>,
}

/// Takes over an upgraded connection of a receiver; the handshake has been answered.
pub(crate) async fn accept<S>(io: S) -> (ToReceiver<S>, FromReceiver<S>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config(ACK_BYTES_MAX))).await;
    let (sink, stream) = socket.split();
    (ToReceiver { sink }, FromReceiver { stream })
}

impl<S: AsyncRead + AsyncWrite + Unpin> ToReceiver<S> {
    /// Sends a message of frames. A receiver that takes nothing for as long as it may be silent is given up.
    pub(crate) async fn send(&mut self, message: Vec<u8>) -> Result<(), Fault> {
        let sending = self.sink.send(Message::Binary(message.into()));
        Ok(timeout(limits::SILENCE_MAX, sending).await.map_err(|_| Fault::Silence)??)
    }

    /// Says good-bye.
    pub(crate) async fn close(&mut self) {
        let _ = timeout(limits::CONNECT_TIMEOUT, self.sink.close()).await;
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> FromReceiver<S> {
    /// The receiver's first message.
    pub(crate) async fn resume(&mut self) -> Result<Resume, Fault> {
        let text = timeout(limits::CONNECT_TIMEOUT, self.text()).await.map_err(|_| Fault::Silence)??;
        serde_json::from_str(&text)
            .map_err(|_| Fault::Protocol { found: shorten(&text), expected: "a resume message" })
    }

    /// Its next acknowledgement.
    pub(crate) async fn ack(&mut self) -> Result<Ack, Fault> {
        let text = self.text().await?;
        serde_json::from_str(&text)
            .map_err(|_| Fault::Protocol { found: shorten(&text), expected: "an acknowledgement" })
    }

    async fn text(&mut self) -> Result<String, Fault> {
        loop {
            match self.stream.next().await.ok_or(Fault::Closed)?? {
                Message::Text(text) => return Ok(text.as_str().to_owned()),
                Message::Ping(_) | Message::Pong(_) => {}
                Message::Close(_) => return Err(Fault::Closed),
                Message::Binary(_) | Message::Frame(_) => {
                    return Err(Fault::Protocol {
                        found: "a binary message".into(),
                        expected: "a text message",
                    });
                }
            }
        }
    }
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The receiver's end.
pub(crate) struct ToSource {
    sink: SplitSink<Socket, Message>,
}

/// What the receiver hears.
pub(crate) struct FromSource {
    stream: SplitStream<Socket>,
}

/// Connects to the source at `url` (an origin's `http://` or `https://` URL) with a proof of who connects.
pub(crate) async fn connect(
    url: &str,
    proof: &str,
    tls: Arc<ClientConfig>,
) -> Result<(ToSource, FromSource), Fault> {
    let bad = || Fault::Url { what: "peer URL", expected: "http://HOST:PORT or https://HOST" };
    let rest = url.strip_prefix("http").ok_or_else(bad)?;
    let mut request =
        format!("ws{}{PATH}", rest.trim_end_matches('/')).into_client_request().map_err(|_| bad())?;
    let proof = HeaderValue::from_str(proof).map_err(|_| bad())?;
    request.headers_mut().insert(peer::HEADER, proof);
    let config = Some(config(MESSAGE_BYTES_MAX));
    let connecting = connect_async_tls_with_config(request, config, true, Some(Connector::Rustls(tls)));
    let connected = timeout(limits::CONNECT_TIMEOUT, connecting).await.map_err(|_| Fault::Unanswered)?;
    let (socket, _) = connected.map_err(|error| Fault::connecting(error, url))?;
    let (sink, stream) = socket.split();
    Ok((ToSource { sink }, FromSource { stream }))
}

impl ToSource {
    /// Sends a resume message or an acknowledgement.
    pub(crate) async fn send(&mut self, message: &impl Serialize) -> Result<(), Fault> {
        let text = serde_json::to_string(message).map_err(|_| Fault::Protocol {
            found: "nothing".into(),
            expected: "a message that can be written",
        })?;
        Ok(self.sink.send(Message::Text(text.into())).await?)
    }

    /// Says good-bye.
    pub(crate) async fn close(&mut self) {
        let _ = timeout(limits::CONNECT_TIMEOUT, self.sink.close()).await;
    }
}

impl FromSource {
    /// The next message of frames.
    pub(crate) async fn message(&mut self) -> Result<Bytes, Fault> {
        loop {
            let next = timeout(limits::SILENCE_MAX, self.stream.next()).await.map_err(|_| Fault::Silence)?;
            match next.ok_or(Fault::Closed)?? {
                Message::Binary(bytes) => return Ok(bytes),
                Message::Ping(_) | Message::Pong(_) => {}
                Message::Close(_) => return Err(Fault::Closed),
                Message::Text(_) | Message::Frame(_) => {
                    return Err(Fault::Protocol {
                        found: "a text message".into(),
                        expected: "a binary message",
                    });
                }
            }
        }
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(limits::FOUND_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn answers_the_key_of_the_rfc() {
        assert_eq!(super::accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
