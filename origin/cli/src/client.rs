//! The control API, as a command sees it.

use std::time::Duration;

use meridian_wire::authored::Invalid;
use meridian_wire::problem::Problem;
use serde_json::Value;
use ureq::http::{Response, Uri};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::typestate::WithBody;
use ureq::{Agent, RequestBuilder};

use crate::failure::Failure;
use crate::limits::{ANSWER_BYTES_MAX, ANSWER_TIMEOUT, CONNECT_TIMEOUT, PAGES_MAX};
use crate::profile::Profile;

/// A server's control API with the token for it.
pub struct Client {
    agent: Agent,
    url: String,
    token: String,
}

/// What a server answered.
pub struct Answer {
    /// Status, below 400.
    pub status: u16,
    /// Body.
    pub body: Value,
}

impl Client {
    /// A client of this server.
    ///
    /// # Errors
    /// Where the URL is none.
    pub fn new(profile: &Profile) -> Result<Self, Failure> {
        let url = profile.url.trim_end_matches('/').to_owned();
        let right = url
            .parse::<Uri>()
            .is_ok_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some());
        if !right {
            return Err(Failure::Usage(format!("{url:?} is no http or https URL")));
        }
        // Without this, the library has no cryptography to speak TLS with. A second call finds it there already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let timeout = |limit: Duration| Some(limit);
        let agent = Agent::config_builder()
            .timeout_global(timeout(ANSWER_TIMEOUT))
            .timeout_connect(timeout(CONNECT_TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("meridian-cli/", env!("CARGO_PKG_VERSION")))
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
            .build()
            .new_agent();
        Ok(Self { agent, url, token: profile.token.clone() })
    }

    /// URL of the server.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `GET /control/v1PATH`
    ///
    /// # Errors
    /// What the server refused, and that it is away.
    pub fn get(&self, path: &str) -> Result<Answer, Failure> {
        let request =
            self.agent.get(self.full(path)).header("authorization", format!("Bearer {}", self.token));
        self.answer(request.call())
    }

    /// `POST /control/v1PATH`. Where the server names another region that decides, that one is asked instead, once.
    ///
    /// # Errors
    /// What the server refused, and that it is away.
    pub fn post(&self, path: &str, body: &Value) -> Result<Answer, Failure> {
        self.send(|url| self.agent.post(url), path, body)
    }

    /// `PATCH /control/v1PATH`, as [`Client::post`].
    ///
    /// # Errors
    /// What the server refused, and that it is away.
    pub fn patch(&self, path: &str, body: &Value) -> Result<Answer, Failure> {
        self.send(|url| self.agent.patch(url), path, body)
    }

    fn send(
        &self,
        request: impl Fn(String) -> RequestBuilder<WithBody>,
        path: &str,
        body: &Value,
    ) -> Result<Answer, Failure> {
        let send = |url: &str| {
            let request = request(format!("{url}/control/v1{path}"));
            self.answer(request.header("authorization", format!("Bearer {}", self.token)).send_json(body))
        };
        match send(&self.url) {
            Err(Failure::Refused { what, status, problem }) => match home_of(&self.url, status, &problem) {
                Some(home) => send(home),
                None => Err(Failure::Refused { what, status, problem }),
            },
            done => done,
        }
    }

    /// Every entry of a list that comes in pages, by the name of its member; `cursor` names the parameter of the next.
    ///
    /// # Errors
    /// What the server refused, and that it is away.
    pub fn list(&self, path: &str, member: &str, cursor: &str) -> Result<Vec<Value>, Failure> {
        let mut all = Vec::new();
        let mut next = String::new();
        for _ in 0..PAGES_MAX {
            let sign = if path.contains('?') { '&' } else { '?' };
            let page = self.get(&format!("{path}{sign}limit=200{next}"))?.body;
            all.extend(page.get(member).and_then(Value::as_array).cloned().unwrap_or_default());
            next = match page.get("next") {
                Some(Value::String(text)) => format!("&{cursor}={}", encode(text)),
                Some(Value::Number(number)) => format!("&{cursor}={number}"),
                _ => return Ok(all),
            };
        }
        Err(Failure::Server(format!("{path} has more than {PAGES_MAX} pages")))
    }

    fn full(&self, path: &str) -> String {
        format!("{}/control/v1{path}", self.url)
    }

    fn answer(&self, answer: Result<Response<ureq::Body>, ureq::Error>) -> Result<Answer, Failure> {
        let mut answer =
            answer.map_err(|error| Failure::Server(format!("{} does not answer: {error}", self.url)))?;
        let status = answer.status().as_u16();
        let text = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
        let text =
            text.map_err(|error| Failure::Server(format!("the answer of {} broke off: {error}", self.url)))?;
        let body: Option<Value> = serde_json::from_str(&text).ok();
        match status {
            200..=299 => match body {
                Some(body) => Ok(Answer { status, body }),
                None if text.is_empty() => Ok(Answer { status, body: Value::Null }),
                None => Err(Failure::Server(format!("{} answered {status}, but not JSON", self.url))),
            },
            400..=499 => {
                let problem = body.unwrap_or(Value::Null);
                Err(Failure::Refused { what: in_words(status, &problem), status, problem })
            }
            _ => {
                let detail = in_words(status, &body.unwrap_or(Value::Null));
                Err(Failure::Server(format!("{} failed: {detail}", self.url)))
            }
        }
    }
}

/// URL of the region that decides, where a server refused because it is not that one. Never one that would send the token
/// in the clear where it was not before.
fn home_of<'a>(asked: &str, status: u16, problem: &'a Value) -> Option<&'a str> {
    let kind = problem.get("type").and_then(Value::as_str)?;
    let home = problem.get("home_url").and_then(Value::as_str)?;
    let safe = home.starts_with("https://") || (home.starts_with("http://") && asked.starts_with("http://"));
    (status == 421 && kind.ends_with("/home-elsewhere") && home != asked && safe).then_some(home)
}

/// The errors of a refused push.
pub fn errors_of(problem: &Value) -> Vec<Invalid> {
    let errors = problem.get("errors").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    errors.iter().filter_map(|error| serde_json::from_value(error.clone()).ok()).collect()
}

/// A path segment or query value, percent-encoded (RFC 3986, section 2.1).
pub fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}

fn in_words(status: u16, problem: &Value) -> String {
    let Ok(problem) = serde_json::from_value::<Problem>(problem.clone()) else {
        return format!("status {status}");
    };
    let title = if problem.title.is_empty() { format!("status {status}") } else { problem.title };
    match (status, problem.detail) {
        (401, _) => format!("{title}: the token is unknown or no longer valid; use `meridian login`"),
        (_, Some(detail)) => format!("{title}: {detail}"),
        (_, None) => title,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_that_decides_is_followed_but_never_out_of_tls() {
        let kind = "https://meridian.example/problems/home-elsewhere";
        let problem =
            |url: Value| serde_json::json!({"type": kind, "home_region": "eu-west-1", "home_url": url});
        let (plain, safe) = ("http://127.0.0.1:17102", "https://eu.origin.example");
        for (asked, status, url, followed) in [
            ("http://127.0.0.1:17101", 421, plain.into(), Some(plain)),
            ("http://127.0.0.1:17101", 421, safe.into(), Some(safe)),
            ("https://us.origin.example", 421, safe.into(), Some(safe)),
            ("https://us.origin.example", 421, plain.into(), None),
            ("https://eu.origin.example", 421, safe.into(), None),
            ("http://127.0.0.1:17101", 409, plain.into(), None),
            ("http://127.0.0.1:17101", 421, Value::Null, None),
            ("http://127.0.0.1:17101", 421, "ftp://a".into(), None),
        ] {
            assert_eq!(home_of(asked, status, &problem(url)), followed, "{asked} {status}");
        }
        let other = serde_json::json!({"type": "about:blank", "home_url": plain});
        assert_eq!(home_of("http://127.0.0.1:17101", 421, &other), None);
    }

    #[test]
    fn texts_are_encoded_for_paths() {
        assert_eq!(encode("tenant:acme"), "tenant:acme");
        assert_eq!(encode("a/b c?ü"), "a%2Fb%20c%3F%C3%BC");
    }
}
