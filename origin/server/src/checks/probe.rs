//! One check: a connection of its own, a request, the status of the response.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use hickory_resolver::TokioResolver;
use http::Request;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::checked::Checked;
use crate::config::UpstreamChecks;
use crate::edge::names;
use crate::limits::{CHECK_ADDRESSES_MAX, CHECK_HEAD_BYTES_MAX};

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A response with a status that passes.
    Passed,
    /// A response with another status.
    Status(u16),
    /// No response in time.
    Timeout,
    /// No name, no connection, no certificate that is trusted, or no response of HTTP/1.1.
    Unreachable,
    /// It has no address that this origin may ask.
    Refused,
}

/// Asks upstreams.
#[derive(Clone)]
pub(super) struct Probe {
    tls: TlsConnector,
    /// None where no name server is known: what is named by an address is asked all the same.
    resolver: Option<Arc<TokioResolver>>,
    allowed: UpstreamChecks,
}

impl Outcome {
    /// Whether the check passed; nothing where none was made.
    pub(super) fn passed(self) -> Option<bool> {
        match self {
            Self::Passed => Some(true),
            Self::Status(_) | Self::Timeout | Self::Unreachable => Some(false),
            Self::Refused => None,
        }
    }

    /// The label of what is counted.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Status(_) => "status",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
        }
    }
}

impl Probe {
    /// Trusts whom `tls` says, and looks names up at these servers; without any, at those of the operating system.
    pub(super) fn new(tls: Arc<ClientConfig>, servers: &[SocketAddr], allowed: UpstreamChecks) -> Self {
        let resolver = names::resolver(servers, |_| {}).inspect_err(|error| {
            tracing::warn!(%error, "no name server is known: only upstreams named by addresses are checked");
        });
        Self { tls: TlsConnector::from(tls), resolver: resolver.ok().map(Arc::new), allowed }
    }

    /// Makes one check.
    pub(super) async fn ask(&self, checked: &Checked) -> Outcome {
        let status = tokio::time::timeout(checked.timeout, self.status(checked)).await;
        match status.unwrap_or(Err(Outcome::Timeout)) {
            Ok(status) if checked.passes(status) => Outcome::Passed,
            Ok(status) => Outcome::Status(status),
            Err(outcome) => outcome,
        }
    }

    async fn status(&self, checked: &Checked) -> Result<u16, Outcome> {
        let addresses = self.addresses(checked).await?;
        let stream = TcpStream::connect(addresses.as_slice()).await.map_err(|_| Outcome::Unreachable)?;
        if !checked.tls {
            return exchange(stream, checked).await;
        }
        let name = ServerName::try_from(checked.host.clone()).map_err(|_| Outcome::Unreachable)?;
        let stream = self.tls.connect(name, stream).await.map_err(|_| Outcome::Unreachable)?;
        exchange(stream, checked).await
    }

    /// The addresses of an upstream that may be asked. They are connected to as they are: a name that has another address
    /// when it is looked up again leads nowhere else.
    async fn addresses(&self, checked: &Checked) -> Result<Vec<SocketAddr>, Outcome> {
        let found = match checked.host.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => {
                let resolver = self.resolver.as_ref().ok_or(Outcome::Refused)?;
                let found = resolver.lookup_ip(checked.host.as_str()).await;
                found.map_err(|_| Outcome::Unreachable)?.iter().take(CHECK_ADDRESSES_MAX).collect()
            }
        };
        let may_be_asked = |address: &IpAddr| self.allowed == UpstreamChecks::Any || is_public(*address);
        let addresses = found.iter().copied().filter(may_be_asked);
        let mut addresses: Vec<_> = addresses.map(|address| SocketAddr::new(address, checked.port)).collect();
        // Without IPv6, its addresses would take the time that the others need.
        addresses.sort_by_key(SocketAddr::is_ipv6);
        match (found.is_empty(), addresses.is_empty()) {
            (true, _) => Err(Outcome::Unreachable),
            (false, true) => Err(Outcome::Refused),
            (false, false) => Ok(addresses),
        }
    }
}

/// Sends the request and waits for the response's head; what follows is not read.
async fn exchange<S>(stream: S, checked: &Checked) -> Result<u16, Outcome>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut builder = http1::Builder::new();
    builder.max_buf_size(CHECK_HEAD_BYTES_MAX);
    let handshake = builder.handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|_| Outcome::Unreachable)?;
    let request = Request::get(checked.path.as_str()).body(Empty::<Bytes>::new());
    let mut request = request.map_err(|_| Outcome::Unreachable)?;
    *request.headers_mut() = checked.headers.clone();
    let mut connection = pin!(connection);
    let mut response = pin!(sender.send_request(request));
    // The connection is what moves the response on: where it ends first, the response is there or never comes.
    let response = tokio::select! {
        response = response.as_mut() => response,
        _ = connection.as_mut() => response.await,
    };
    response.map(|response| response.status().as_u16()).map_err(|_| Outcome::Unreachable)
}

/// Whether an address is one of the public Internet's, by IANA's registries of special-purpose addresses (RFC 6890): nothing
/// of this machine, of the network that it is in, or of what runs it.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = matches!(
        (a, b, c),
        (0 | 10 | 127, ..)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (192, 168, _)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
            | (224..=255, ..)
    );
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    match segments {
        // Addresses that IPv4 ones are translated to (RFC 6052, section 2.1).
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            is_public_v4(Ipv4Addr::new(a, b, c, d))
        }
        // Protocol assignments, documentation, and tunnels that end at IPv4 addresses.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // What is assigned at all (RFC 4291, section 2.4), and nothing that a network translates for itself (RFC 8215).
        [first, ..] => (0x2000..=0x3fff).contains(&first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_internet_are_public() {
        for public in [
            "8.8.8.8",
            "172.32.0.1",
            "192.0.3.1",
            "100.128.0.1",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for special in [
            "0.0.0.0",
            "127.0.0.1",
            "10.1.2.3",
            "100.64.0.1",
            "169.254.169.254",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.2.1",
            "198.19.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a9fe:a9fe",
            "64:ff9b:1::808:808",
            "2001:db8::1",
            "2001::1",
            "2002:7f00:1::1",
            "2002:a9fe:a9fe::1",
            "2001:0:808:808:0:0:5601:5601",
            "fd00:ec2::254",
        ] {
            assert!(!is_public(special.parse().unwrap()), "{special}");
        }
    }
}
