//! A plain HTTP/1.1 client that keeps what a test wants to look at and treats no status as an error.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

/// Longest wait for one response.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Longest body that a test reads.
const BODY_BYTES_MAX: u64 = 65 * 1024 * 1024;

/// Sends requests to one server under one `Host`.
#[derive(Clone)]
pub struct Client {
    base: String,
    host: String,
    agent: ureq::Agent,
    headers: Vec<(String, String)>,
}

/// A response, read whole.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Header fields in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

impl Client {
    /// A client of the server at `base` (`http://127.0.0.1:8787`) that says `Host: host`.
    #[must_use]
    pub fn new(base: &str, host: &str) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            .max_redirects(0)
            .build()
            .into();
        Self {
            base: base.trim_end_matches('/').to_owned(),
            host: host.to_owned(),
            agent,
            headers: Vec::new(),
        }
    }

    /// The same client with one more header field on every request.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut client = self.clone();
        client.headers.retain(|(have, _)| have != name);
        client.headers.push((name.to_owned(), value.to_owned()));
        client
    }

    /// The same client with this bearer token.
    #[must_use]
    pub fn bearer(&self, token: &str) -> Self {
        self.with("authorization", &format!("Bearer {token}"))
    }

    /// The same client, seen as coming from this address.
    #[must_use]
    pub fn from(&self, address: &str) -> Self {
        self.with("x-forwarded-for", address)
    }

    /// Sends a request without a body.
    pub fn send(&self, method: &str, path: &str) -> Result<Response> {
        self.request(method, path, None)
    }

    /// `GET`.
    pub fn get(&self, path: &str) -> Result<Response> {
        self.send("GET", path)
    }

    /// Sends JSON.
    pub fn json(&self, method: &str, path: &str, body: &Value) -> Result<Response> {
        self.with("content-type", "application/json").request(
            method,
            path,
            Some(body.to_string().into_bytes()),
        )
    }

    /// Sends a request, with these bytes as its body if there are any.
    pub fn request(&self, method: &str, path: &str, body: Option<Vec<u8>>) -> Result<Response> {
        let url = format!("{}{path}", self.base);
        let mut request = ureq::http::Request::builder().method(method).uri(&url).header("host", &self.host);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let response = match body {
            Some(body) => self.agent.run(request.body(body)?),
            None => self.agent.run(request.body(())?),
        }
        .with_context(|| format!("{method} {url}"))?;
        let status = response.status().as_u16();
        let headers = response
            .headers()
            .iter()
            .map(|(name, value)| {
                (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
            })
            .collect();
        let body = response.into_body().into_with_config().limit(BODY_BYTES_MAX).read_to_vec()?;
        Ok(Response { status, headers, body })
    }
}

impl Response {
    /// First value of a header field (name in lower case), or the empty string.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(have, _)| have == name).map_or("", |(_, value)| value)
    }

    /// The body as JSON.
    pub fn value(&self) -> Result<Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("not JSON, status {}: {}", self.status, self.text()))
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Fails with what came unless the status is this one.
    pub fn expect(self, status: u16) -> Result<Self> {
        anyhow::ensure!(
            self.status == status,
            "expected {status}, got {}: {} {:?}",
            self.status,
            self.text(),
            self.headers
        );
        Ok(self)
    }
}
