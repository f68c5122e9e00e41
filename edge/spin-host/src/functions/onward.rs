//! The one request that a function may send on.

use std::sync::{Arc, PoisonError, atomic::Ordering};

use http::{HeaderMap, uri};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::{Notes, take_own};
use crate::outbound::{Answering, Outbound};

/// The one request that a function may send.
#[derive(Clone)]
pub struct Onward {
    scheme: Option<uri::Scheme>,
    authority: Option<uri::Authority>,
    /// Method, path and query, where no others may be asked for.
    exactly: Option<(http::Method, Option<uri::PathAndQuery>)>,
    withheld: HeaderMap,
    options: Option<RequestOptions>,
    outbound: Outbound,
    notes: Arc<Notes>,
}

impl Onward {
    /// What a function may send that gets this request, with the fields that it does not get.
    pub fn new(
        request: &http::Request<WasiBody>,
        withheld: HeaderMap,
        options: Option<RequestOptions>,
        outbound: Outbound,
        notes: Arc<Notes>,
    ) -> Self {
        let uri = request.uri();
        // A context is signed for one method and target, and what has none must not come to an origin from here at all.
        let is_signed = withheld.contains_key("meridian-context");
        Self {
            scheme: uri.scheme().cloned(),
            authority: uri.authority().cloned(),
            exactly: is_signed.then(|| (request.method().clone(), uri.path_and_query().cloned())),
            withheld,
            options,
            outbound,
            notes,
        }
    }

    /// Whether it may be sent.
    pub fn allows(&self, request: &http::Request<WasiBody>) -> bool {
        let uri = request.uri();
        let is_exact = |(method, path): &(http::Method, Option<uri::PathAndQuery>)| {
            request.method() == method && uri.path_and_query() == path.as_ref()
        };
        uri.scheme() == self.scheme.as_ref()
            && uri.authority() == self.authority.as_ref()
            && self.exactly.as_ref().is_none_or(is_exact)
    }
}

impl WasiHttpHooks for Onward {
    fn send_request(
        &mut self,
        mut request: http::Request<WasiBody>,
        _: Option<RequestOptions>,
        processed: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Answering {
        if !self.allows(&request) || self.notes.sent.swap(true, Ordering::Relaxed) {
            return Box::new(std::future::ready(Err(Error::HttpRequestDenied)));
        }
        take_own(request.headers_mut());
        for (name, value) in &self.withheld {
            request.headers_mut().append(name, value.clone());
        }
        let answering = self.outbound.send_request(request, self.options, processed);
        let notes = Arc::clone(&self.notes);
        Box::new(async move {
            match Box::into_pin(answering).await {
                Ok(sent) => {
                    notes.answered.store(true, Ordering::Relaxed);
                    Ok(sent)
                }
                Err(error) => {
                    let mut target = notes.target.lock().unwrap_or_else(PoisonError::into_inner);
                    *target = Some(same(&error));
                    Err(error)
                }
            }
        })
    }
}

/// An error that says to whoever asked what this one says to the function.
fn same(error: &Error) -> Error {
    match error {
        Error::ConnectionRefused => Error::ConnectionRefused,
        Error::ConnectionTimeout => Error::ConnectionTimeout,
        Error::DestinationUnavailable => Error::DestinationUnavailable,
        Error::TlsCertificateError => Error::TlsCertificateError,
        Error::DnsError { .. } => Error::DnsError { rcode: None, info_code: None },
        Error::HttpResponseTimeout => Error::HttpResponseTimeout,
        Error::ConnectionWriteTimeout => Error::ConnectionWriteTimeout,
        Error::HttpRequestBodySize(bytes) => Error::HttpRequestBodySize(*bytes),
        _ => Error::ConnectionTerminated,
    }
}
