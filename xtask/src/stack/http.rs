//! Requests to the local stack.

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::limits::REQUEST_TIMEOUT;

/// An answer, whatever its status.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Header fields.
    pub headers: ureq::http::HeaderMap,
    /// The body.
    pub body: String,
}

impl Answer {
    /// A header field, if it is there and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The `Meridian-Decision` header: an edge of ours has answered.
    pub fn decision(&self) -> Option<&str> {
        self.header("meridian-decision")
    }

    /// The `Meridian-Bundle` header: the version of the rules that it decided by.
    pub fn bundle(&self) -> Option<&str> {
        self.header("meridian-bundle")
    }
}

/// A request to the local stack.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Full URL.
    pub url: &'a str,
    /// Header fields.
    pub headers: Vec<(&'a str, String)>,
    /// A JSON body makes it a `POST`, or a `PATCH`.
    pub body: Option<&'a Value>,
    is_patch: bool,
}

impl<'a> Request<'a> {
    /// A `GET` of `url`.
    pub fn get(url: &'a str) -> Self {
        Self { url, headers: Vec::new(), body: None, is_patch: false }
    }

    /// A `POST` of `body` to `url`.
    pub fn post(url: &'a str, body: &'a Value) -> Self {
        Self { url, headers: Vec::new(), body: Some(body), is_patch: false }
    }

    /// A `PATCH` of `url` by `body`.
    pub fn patch(url: &'a str, body: &'a Value) -> Self {
        Self { is_patch: true, ..Self::post(url, body) }
    }

    /// With a header field.
    pub fn header(mut self, name: &'a str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sends it.
    ///
    /// # Errors
    /// When there is no answer. A status of failure is an answer.
    pub fn send(&self) -> Result<Answer> {
        self.send_by(&agent())
    }

    /// Sends it over the connections that an [`agent`] keeps.
    ///
    /// # Errors
    /// As [`Request::send`].
    pub fn send_by(&self, agent: &ureq::Agent) -> Result<Answer> {
        let sent = match self.body {
            None => self
                .headers
                .iter()
                .fold(agent.get(self.url), |request, (name, value)| request.header(*name, value))
                .call(),
            Some(body) => self
                .headers
                .iter()
                .fold(
                    if self.is_patch { agent.patch(self.url) } else { agent.post(self.url) },
                    |request, (name, value)| request.header(*name, value),
                )
                .send_json(body),
        };
        let mut response = sent.with_context(|| format!("no answer from {}", self.url))?;
        Ok(Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response
                .body_mut()
                .read_to_string()
                .with_context(|| format!("half an answer from {}", self.url))?,
        })
    }
}

/// What sends requests, keeps connections, and takes every status for an answer.
pub fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().timeout_global(Some(REQUEST_TIMEOUT));
    config.http_status_as_error(false).max_redirects(0).build().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader, Write as _};

    #[test]
    fn the_host_header_is_the_one_asked_for_and_a_failure_is_an_answer() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/x", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            stream
                .write_all(b"HTTP/1.1 503 Away\r\nMeridian-Decision: d1\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
                .unwrap();
            head
        });
        let answer = Request::get(&url).header("host", "acme.localhost").send().unwrap();
        assert_eq!((answer.status, answer.decision(), answer.body.as_str()), (503, Some("d1"), "no"));
        let hosts: Vec<String> = server
            .join()
            .unwrap()
            .into_iter()
            .filter(|line| line.to_lowercase().starts_with("host:"))
            .collect();
        assert_eq!(
            hosts.iter().map(|line| line.to_lowercase()).collect::<Vec<_>>(),
            ["host: acme.localhost"]
        );
    }
}
