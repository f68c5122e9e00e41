//! Where responses lie: some for each URL, which differ by what they vary by. What may be done with them, their policies say.

use std::collections::HashMap;
use std::time::SystemTime;

use bytes::Bytes;
use http::{Method, Response, StatusCode, request};
use http_cache_semantics::{BeforeRequest, CachePolicy};

/// URLs of which something is kept; when there would be more, all are forgotten.
const URLS_MAX: usize = 10_000;
/// Responses that are kept of one URL: the oldest goes.
const VARIANTS_MAX: usize = 16;

/// What is stored.
#[derive(Default)]
pub struct Shelf {
    stored: HashMap<String, Vec<Stored>>,
}

/// A response that is stored.
#[derive(Clone)]
pub struct Stored {
    /// Its head, and what it was asked with.
    pub policy: CachePolicy,
    /// Its body.
    pub body: Bytes,
}

/// What there is for a request.
pub enum Found {
    /// A response that needs nobody's confirmation.
    Fresh(Response<Bytes>),
    /// One that may be served once the upstream has confirmed it.
    Stale {
        /// What is stored.
        stored: Box<Stored>,
        /// What to ask the upstream.
        request: Box<request::Parts>,
    },
    /// Nothing that would answer it.
    Nothing,
}

impl Shelf {
    /// What there is for `request`: rather what is fresh than what is stale, rather the newer.
    pub fn look_up(&self, request: &request::Parts, now: SystemTime) -> Found {
        let mut found = Found::Nothing;
        if !asks_for_content(request) {
            return found;
        }
        for stored in self.stored.get(&request.uri.to_string()).into_iter().flatten().rev() {
            match stored.policy.before_request(request, now) {
                BeforeRequest::Fresh(head) => {
                    return Found::Fresh(Response::from_parts(head, stored.body.clone()));
                }
                BeforeRequest::Stale { request, matches: true } if matches!(found, Found::Nothing) => {
                    found = Found::Stale { stored: Box::new(stored.clone()), request: Box::new(request) };
                }
                BeforeRequest::Stale { .. } => {}
            }
        }
        found
    }

    /// Keeps the response to `request` where `policy` says that it may be, in the place of what would have answered it. After an
    /// unsafe request that did not fail, forgets what is stored of its URL (RFC 9111, section 4.4): the policies know of one
    /// response each.
    pub fn keep(
        &mut self,
        request: &request::Parts,
        policy: CachePolicy,
        response: &Response<Bytes>,
        now: SystemTime,
    ) {
        let (url, status) = (request.uri.to_string(), response.status());
        if !(request.method.is_safe() || status.is_client_error() || status.is_server_error()) {
            self.stored.remove(&url);
        }
        if !asks_for_content(request) {
            return;
        }
        if self.stored.len() >= URLS_MAX && !self.stored.contains_key(&url) {
            self.stored.clear();
        }
        let variants = self.stored.entry(url).or_default();
        // Parts, confirmations of what somebody else has, and failures tell nothing of what is stored.
        let tells_nothing = [StatusCode::PARTIAL_CONTENT, StatusCode::NOT_MODIFIED].contains(&status)
            || status.is_server_error();
        if policy.is_storable() || !tells_nothing {
            variants.retain(|stored| !answers(&stored.policy, request, now));
        }
        if policy.is_storable() {
            variants.push(Stored { policy, body: response.body().clone() });
        }
        if variants.len() > VARIANTS_MAX {
            variants.remove(0);
        }
    }
}

/// Nothing stored answers another request (RFC 9110, section 9.3.3, says it of `POST`), though the policies would let it.
fn asks_for_content(request: &request::Parts) -> bool {
    [Method::GET, Method::HEAD].contains(&request.method)
}

/// Whether a stored response is one to this request, fresh or not.
fn answers(policy: &CachePolicy, request: &request::Parts, now: SystemTime) -> bool {
    matches!(
        policy.before_request(request, now),
        BeforeRequest::Fresh(_) | BeforeRequest::Stale { matches: true, .. }
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Request;
    use http_cache_semantics::CacheOptions;

    use super::*;

    const STORED: SystemTime = SystemTime::UNIX_EPOCH;

    fn request(method: Method, language: &str) -> request::Parts {
        let request = Request::builder().method(method).uri("/a").header("accept-language", language);
        request.body(()).unwrap().into_parts().0
    }

    fn keep(shelf: &mut Shelf, request: &request::Parts, status: u16, body: &'static str) {
        let response = Response::builder().status(status).header("cache-control", "max-age=60");
        let response = response.header("etag", "\"e\"").header("vary", "accept-language");
        let response = response.body(Bytes::from_static(body.as_bytes())).unwrap();
        let policy = CachePolicy::new_options(request, &response, STORED, CacheOptions::default());
        shelf.keep(request, policy, &response, STORED);
    }

    /// The age and the body of what is fresh after so many seconds.
    fn fresh(shelf: &Shelf, request: &request::Parts, seconds: u64) -> Option<(String, Bytes)> {
        match shelf.look_up(request, STORED + Duration::from_secs(seconds)) {
            Found::Fresh(response) => {
                let age = response.headers()["age"].to_str().unwrap().to_owned();
                Some((age, response.into_body()))
            }
            Found::Stale { .. } | Found::Nothing => None,
        }
    }

    #[test]
    fn variants_lie_beside_each_other_and_a_newer_one_takes_the_place_of_its_like() {
        let mut shelf = Shelf::default();
        let (english, german) = (request(Method::GET, "en"), request(Method::GET, "de"));
        for (request, body) in [(&english, "hello"), (&german, "hallo"), (&english, "good day")] {
            keep(&mut shelf, request, 200, body);
        }
        assert_eq!(fresh(&shelf, &english, 30), Some(("30".to_owned(), Bytes::from_static(b"good day"))));
        assert_eq!(fresh(&shelf, &german, 30), Some(("30".to_owned(), Bytes::from_static(b"hallo"))));
        assert_eq!(shelf.stored["/a"].len(), 2);
        assert!(fresh(&shelf, &request(Method::GET, "fr"), 30).is_none());
    }

    #[test]
    fn what_is_stale_is_asked_for_by_its_entity_tag() {
        let mut shelf = Shelf::default();
        let get = request(Method::GET, "en");
        keep(&mut shelf, &get, 200, "hello");
        let Found::Stale { stored, request } = shelf.look_up(&get, STORED + Duration::from_secs(61)) else {
            panic!("it is fresh or nothing");
        };
        assert_eq!(request.headers["if-none-match"], "\"e\"");
        assert_eq!(stored.body, "hello");
    }

    #[test]
    fn an_unsafe_request_makes_forget_unless_it_failed() {
        for (status, kept) in [(200, false), (404, true), (500, true)] {
            let mut shelf = Shelf::default();
            let get = request(Method::GET, "en");
            keep(&mut shelf, &get, 200, "hello");
            keep(&mut shelf, &request(Method::POST, "en"), status, "done");
            assert_eq!(fresh(&shelf, &get, 1).is_some(), kept, "{status}");
        }
    }
}
