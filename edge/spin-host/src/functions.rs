//! Functions: a tenant's own components, run around requests that a component of the application sends.
//!
//! A component asks for one by sending its request to `functions.spin.internal`, as it would to a component of the
//! application called `functions` (service chaining); its `allowed_outbound_hosts` has to list that. Here the host itself
//! is that component. What the request says of the function is in the fields of [`meridian_engine::step::function`], and
//! the component's bytes lie in the `default` key-value store of whoever asks, under the function's key.
//!
//! A function has no stores, variables, files, environment or sockets. It may send one request, to the authority that its
//! own request is for; where that carries a signed context, method, path and query are those that were signed. Fields
//! that are the platform's own (`meridian-…`) are kept from it and put back.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header, uri};
use http_body_util::{BodyExt, Empty};
use meridian_engine::step::{
    FunctionCall, FunctionFailure, FunctionFault, Ran,
    function::{ENDED_FIELD, FIELD, TARGET_FIELD, ended_field},
};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use wasmtime::{Engine, component::Linker};
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttpHooks,
    handler::{InstantiationError, ProxyHandler, TrapOrPanicError},
    p3::bindings::{ServicePre, http::types::ErrorCode},
};

use crate::{
    component,
    instance::{Blueprint, Guest, InstanceLimits, Instances, Sending, Turn},
    key_value::{self, hex},
    limits,
    outbound::{Answering, Outbound, Sent},
};

/// Where components send requests that are to go through a function.
pub const AUTHORITY: &str = "functions.spin.internal";
/// Whether a request asks for a function.
pub fn is_for(uri: &Uri) -> bool {
    uri.host() == Some(AUTHORITY)
}

/// Fields whose names begin so are the platform's own.
const OWN_FIELDS: &str = "meridian-";

/// The functions that one component may have run.
pub struct Functions {
    engine: Engine,
    linker: Linker<Guest>,
    compiled: PathBuf,
    /// Where the components lie.
    store: Arc<key_value::Store>,
    ready: Mutex<BTreeMap<Identity, Ready>>,
    uses: AtomicU64,
    compiling: Semaphore,
    /// Requests in functions, by tenant.
    in_progress: Mutex<HashMap<Arc<str>, usize>>,
    stopping: Arc<AtomicBool>,
}

/// Tenant and digest.
type Identity = (Arc<str>, Arc<str>);

/// A function that is compiled and linked.
struct Ready {
    pre: ServicePre<Guest>,
    used: u64,
}

impl Functions {
    /// Functions whose components lie in `store`; what is compiled of them is kept in `compiled`.
    pub fn new(
        engine: Engine,
        store: Arc<key_value::Store>,
        compiled: PathBuf,
        stopping: Arc<AtomicBool>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            linker: component::function_linker(&engine)?,
            engine,
            compiled,
            store,
            ready: Mutex::default(),
            uses: AtomicU64::new(0),
            compiling: Semaphore::new(1),
            in_progress: Mutex::default(),
            stopping,
        })
    }

    /// Answers a request to [`AUTHORITY`]: the function's response, or in its place why there is none.
    pub fn run(
        self: &Arc<Self>,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        outbound: Outbound,
    ) -> Answering {
        let Some(asked) = Asked::of(request) else {
            return Box::new(std::future::ready(Err(Error::HttpRequestUriInvalid)));
        };
        if !outbound.allows(asked.request.uri()) {
            outbound.refused(asked.request.uri());
            return Box::new(std::future::ready(Err(Error::HttpRequestDenied)));
        }
        let functions = Arc::clone(self);
        Box::new(async move { functions.answer(asked, options, outbound).await })
    }

    async fn answer(
        self: Arc<Self>,
        asked: Asked,
        options: Option<RequestOptions>,
        outbound: Outbound,
    ) -> Result<Sent, Error> {
        let Asked { call, request, withheld } = asked;
        let notes = Arc::new(Notes::default());
        let failed = |why| Ok(ended(None, Err(notes.fault(why))));
        let Some(place) = Place::take(&self, &call.tenant) else { return failed(FunctionFailure::Busy) };
        let pre = match self.ready(&call).await {
            Ok(pre) => pre,
            Err(why) => return failed(why),
        };
        let timeout = Duration::from_millis(call.timeout_ms.into());
        let blueprint = Blueprint {
            id: format!("function {}/{}", call.tenant, call.name).into(),
            engine: self.engine.clone(),
            pre,
            files: None,
            environment: Vec::new(),
            variables: Arc::default(),
            stores: Arc::default(),
            outbound: Sending::Onward(Box::new(Onward::new(
                &request,
                withheld,
                options,
                outbound,
                Arc::clone(&notes),
            ))),
            limits: InstanceLimits {
                requests_max: 1,
                requests_at_once_max: 1,
                memory_bytes_max: usize::try_from(call.memory_bytes_max).unwrap_or(usize::MAX),
                request_timeout: timeout,
                busy_timeout: Duration::from_millis(call.cpu_ms_max.into()),
            },
            stopping: Arc::clone(&self.stopping),
            function: Some(Arc::new(Bounds { notes: Arc::clone(&notes), _place: place })),
        };
        let instances = ProxyHandler::new(Instances::isolated(Arc::new(blueprint)));
        match tokio::time::timeout(timeout, instances.handle(None, request)).await {
            Ok(Ok(response)) => {
                let ran = if notes.answered.load(Ordering::Relaxed) { Ran::SentOn } else { Ran::Answered };
                Ok(ended(Some(response), Ok(ran)))
            }
            Ok(Err(error)) => match notes.target.lock().unwrap_or_else(PoisonError::into_inner).take() {
                // It could not be sent on, and the function had nothing to say to that.
                Some(fault) if error.downcast_ref::<ErrorCode>().is_some() => Err(fault),
                _ => failed(notes.why(&error)),
            },
            Err(_) => failed(FunctionFailure::Timeout),
        }
    }

    /// The function, compiled and linked: as it was for an earlier request, or from the store.
    async fn ready(self: &Arc<Self>, call: &FunctionCall) -> Result<ServicePre<Guest>, FunctionFailure> {
        if let Some(pre) = self.known(call) {
            return Ok(pre);
        }
        // One after the other: compiling takes processors from those who serve.
        let turn = tokio::time::timeout(limits::FUNCTION_COMPILE_TIMEOUT, self.compiling.acquire()).await;
        let _turn = turn.map_err(|_| FunctionFailure::Busy)?.map_err(|_| FunctionFailure::Busy)?;
        if let Some(pre) = self.known(call) {
            return Ok(pre);
        }
        let (functions, wanted) = (Arc::clone(self), call.clone());
        let made = tokio::task::spawn_blocking(move || functions.make(&wanted)).await;
        let pre = made.map_err(|_| FunctionFailure::Unsupported)??;
        self.keep(call, pre.clone());
        Ok(pre)
    }

    fn make(&self, call: &FunctionCall) -> Result<ServicePre<Guest>, FunctionFailure> {
        let bytes = self.store.get(&call.key()).ok_or(FunctionFailure::Missing)?;
        if hex(&Sha256::digest(&bytes)) != *call.sha256 {
            return Err(FunctionFailure::Missing);
        }
        let name = format!("function {}/{}", call.tenant, call.name);
        let files_max = limits::FUNCTION_FILES_MAX;
        let made = component::compiled(&self.engine, &bytes, &name, &self.compiled, files_max)
            .and_then(|compiled| component::link_to(&self.linker, &compiled));
        made.map_err(|error| {
            tracing::warn!(function = name, "it can't be run: {error:#}");
            FunctionFailure::Unsupported
        })
    }

    fn known(&self, call: &FunctionCall) -> Option<ServicePre<Guest>> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let ready = ready.get_mut(&(Arc::clone(&call.tenant), Arc::clone(&call.sha256)))?;
        ready.used = self.uses.fetch_add(1, Ordering::Relaxed);
        Some(ready.pre.clone())
    }

    fn keep(&self, call: &FunctionCall, pre: ServicePre<Guest>) {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if ready.len() >= limits::FUNCTIONS_READY_MAX {
            let oldest = ready.iter().min_by_key(|(_, ready)| ready.used).map(|(key, _)| key.clone());
            oldest.and_then(|key| ready.remove(&key));
        }
        let used = self.uses.fetch_add(1, Ordering::Relaxed);
        ready.insert((Arc::clone(&call.tenant), Arc::clone(&call.sha256)), Ready { pre, used });
    }
}

/// A request that is to go through a function.
struct Asked {
    call: FunctionCall,
    /// The request as the function gets it.
    request: http::Request<WasiBody>,
    /// Fields that it does not get.
    withheld: HeaderMap,
}

impl Asked {
    fn of(request: http::Request<WasiBody>) -> Option<Self> {
        let (mut parts, body) = request.into_parts();
        let text = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let call = FunctionCall::of_field(text(FIELD)?)?;
        let target: Uri = text(TARGET_FIELD)?.parse().ok()?;
        parts.uri = Uri::builder()
            .scheme(target.scheme()?.clone())
            .authority(target.authority()?.clone())
            .path_and_query(parts.uri.path_and_query()?.clone())
            .build()
            .ok()?;
        parts.headers.remove(header::HOST);
        let mut withheld = take_own(&mut parts.headers);
        withheld.remove(FIELD);
        withheld.remove(TARGET_FIELD);
        Some(Self { call, request: http::Request::from_parts(parts, body), withheld })
    }
}

/// Takes the platform's own fields out.
fn take_own(headers: &mut HeaderMap) -> HeaderMap {
    let mut own = HeaderMap::new();
    let names: Vec<_> =
        headers.keys().filter(|name| name.as_str().starts_with(OWN_FIELDS)).cloned().collect();
    for name in names {
        let values: Vec<HeaderValue> = headers.get_all(&name).iter().cloned().collect();
        headers.remove(&name);
        for value in values {
            own.append(name.clone(), value);
        }
    }
    own
}

/// A place among the requests that are in functions at once, until it is dropped.
struct Place {
    functions: Arc<Functions>,
    tenant: Arc<str>,
}

impl Place {
    fn take(functions: &Arc<Functions>, tenant: &Arc<str>) -> Option<Self> {
        let mut all = functions.in_progress.lock().unwrap_or_else(PoisonError::into_inner);
        let total: usize = all.values().sum();
        let own = all.get(tenant).copied().unwrap_or_default();
        if total >= limits::FUNCTIONS_AT_ONCE_MAX || own >= limits::TENANT_FUNCTIONS_AT_ONCE_MAX {
            return None;
        }
        all.insert(Arc::clone(tenant), own + 1);
        Some(Self { functions: Arc::clone(functions), tenant: Arc::clone(tenant) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.functions.in_progress.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(&self.tenant) {
            Some(own) if *own > 1 => *own -= 1,
            _ => _ = all.remove(&self.tenant),
        }
    }
}

/// What an instance of a function is bound by, for as long as it lives.
pub struct Bounds {
    /// What is noted of it.
    pub notes: Arc<Notes>,
    _place: Place,
}

/// What becomes known of a function while it runs.
#[derive(Default)]
pub struct Notes {
    /// It took more processor time than it may.
    pub cpu: AtomicBool,
    /// It asked for more memory than it may have.
    pub memory: AtomicBool,
    /// It has sent its request on.
    sent: AtomicBool,
    /// That was answered.
    answered: AtomicBool,
    /// Why that was not answered.
    target: Mutex<Option<Error>>,
}

impl Notes {
    fn fault(&self, why: FunctionFailure) -> FunctionFault {
        FunctionFault { why, sent_on: self.sent.load(Ordering::Relaxed) }
    }

    fn why(&self, error: &wasmtime::Error) -> FunctionFailure {
        let is_start = error.is::<InstantiationError<Turn>>();
        if self.cpu.load(Ordering::Relaxed) {
            FunctionFailure::Cpu
        } else if self.memory.load(Ordering::Relaxed) && (is_start || error.is::<TrapOrPanicError>()) {
            FunctionFailure::Memory
        } else if error.is::<ErrorCode>() {
            FunctionFailure::Error
        } else if is_start {
            FunctionFailure::Unsupported
        } else {
            FunctionFailure::Trap
        }
    }
}

/// The response to whoever asked: the function's, or an empty one in its place.
fn ended(response: Option<http::Response<WasiBody>>, came: Result<Ran, FunctionFault>) -> Sent {
    let mut response = response.unwrap_or_else(|| {
        let mut response =
            http::Response::new(Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync());
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response
    });
    if let Ok(value) = HeaderValue::from_str(&ended_field(came)) {
        response.headers_mut().insert(ENDED_FIELD, value);
    }
    (response, Box::new(std::future::ready(Ok(()))))
}

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
    fn new(
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

    fn allows(&self, request: &http::Request<WasiBody>) -> bool {
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
        Error::HttpRequestBodySize(bytes) => Error::HttpRequestBodySize(*bytes),
        _ => Error::ConnectionTerminated,
    }
}
