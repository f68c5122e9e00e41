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

mod onward;
mod work;

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
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use meridian_engine::step::{
    FunctionCall, FunctionFailure, FunctionFault, Ran,
    function::{ENDED_FIELD, FIELD, TARGET_FIELD, ended_field},
};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use wasmtime::{Engine, component::Linker};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, p3::bindings::ServicePre};

pub use self::onward::Onward;
use self::work::Ended;
use crate::{
    component,
    instance::{Blueprint, Guest, InstanceLimits, Sending},
    key_value::{self, hex},
    limits,
    outbound::{Answering, Outbound, Sent},
};

/// Where components send requests that are to go through a function.
pub const AUTHORITY: &str = "functions.spin.internal";
/// Fields whose names begin so are the platform's own.
const OWN_FIELDS: &str = "meridian-";

/// Whether a request asks for a function.
pub fn is_for(uri: &Uri) -> bool {
    uri.host() == Some(AUTHORITY)
}

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
    pub fn new(engine: Engine, store: Arc<key_value::Store>, compiled: PathBuf) -> anyhow::Result<Self> {
        Ok(Self {
            linker: component::function_linker(&engine)?,
            engine,
            compiled,
            store,
            ready: Mutex::default(),
            uses: AtomicU64::new(0),
            compiling: Semaphore::new(1),
            in_progress: Mutex::default(),
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
            stopping: Arc::default(),
            function: Some(Arc::clone(&notes)),
        };
        match tokio::time::timeout(timeout, work::answer(blueprint, place, request)).await {
            Ok(Ok(response)) => {
                let ran = if notes.answered.load(Ordering::Relaxed) { Ran::SentOn } else { Ran::Answered };
                Ok(ended(Some(response), Ok(ran)))
            }
            Ok(Err(why)) => match notes.target.lock().unwrap_or_else(PoisonError::into_inner).take() {
                // It could not be sent on, and the function had nothing to say to that.
                Some(fault) if matches!(why, Ended::Error) => Err(fault),
                _ => failed(notes.why(why)),
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

/// Takes the platform's own fields out, and what shows a loop (RFC 8586): no function may hide it.
fn take_own(headers: &mut HeaderMap) -> HeaderMap {
    let mut own = HeaderMap::new();
    let is_own = |name: &str| name.starts_with(OWN_FIELDS) || name == "cdn-loop";
    let names: Vec<_> = headers.keys().filter(|name| is_own(name.as_str())).cloned().collect();
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

/// What becomes known of a function while it runs.
#[derive(Default)]
pub struct Notes {
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

    fn why(&self, ended: Ended) -> FunctionFailure {
        let is_memory = self.memory.load(Ordering::Relaxed);
        match ended {
            Ended::Cpu => FunctionFailure::Cpu,
            Ended::Error => FunctionFailure::Error,
            Ended::Start | Ended::Trap if is_memory => FunctionFailure::Memory,
            Ended::Start => FunctionFailure::Unsupported,
            Ended::Trap => FunctionFailure::Trap,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::client;

    const CALL: &str = "greet;tenant=acme;bundle=00;sha256=ab;bytes=1;memory=1048576;cpu=50;timeout=900";

    fn request(fields: &[(&str, &str)]) -> http::Request<WasiBody> {
        let mut request = http::Request::builder().uri("http://functions.spin.internal/v1/a?b=c");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync()).unwrap()
    }

    fn asked(fields: &[(&str, &str)]) -> Option<Asked> {
        let own = [(FIELD, CALL), (TARGET_FIELD, "https://origin.example:8443"), ("host", AUTHORITY)];
        Asked::of(request(&[&own[..], fields].concat()))
    }

    fn onward(asked: &Asked) -> Onward {
        let outbound = Outbound::new("edge".into(), Vec::new(), client(), crate::limits::BODY_PAUSE_TIMEOUT);
        Onward::new(&asked.request, asked.withheld.clone(), None, outbound, Arc::default())
    }

    fn sends(onward: &Onward, method: &str, uri: &str) -> bool {
        let (mut parts, body) = request(&[]).into_parts();
        parts.method = method.parse().unwrap();
        parts.uri = uri.parse().unwrap();
        onward.allows(&http::Request::from_parts(parts, body))
    }

    #[tokio::test]
    async fn a_function_gets_the_request_without_what_is_the_platforms_own() {
        let fields = [("meridian-context", "signed"), ("meridian-session", "s1"), ("x-a", "1")];
        let Asked { call, request, withheld } = asked(&fields).unwrap();
        assert_eq!(
            (&*call.name, request.uri().to_string().as_str()),
            ("greet", "https://origin.example:8443/v1/a?b=c")
        );
        let names: Vec<&str> = request.headers().keys().map(http::HeaderName::as_str).collect();
        assert_eq!(names, ["x-a"]);
        assert!(
            withheld.len() == 2
                && withheld["meridian-context"] == "signed"
                && withheld["meridian-session"] == "s1"
        );
    }

    #[tokio::test]
    async fn what_asks_for_no_function_is_refused() {
        assert!(Asked::of(request(&[])).is_none());
        assert!(Asked::of(request(&[(FIELD, CALL)])).is_none());
        assert!(Asked::of(request(&[(FIELD, "greet"), (TARGET_FIELD, "https://origin.example")])).is_none());
        assert!(Asked::of(request(&[(FIELD, CALL), (TARGET_FIELD, "/nowhere")])).is_none());
    }

    #[tokio::test]
    async fn a_request_goes_on_to_its_own_authority_alone() {
        let to_upstream = onward(&asked(&[]).unwrap());
        let signed = onward(&asked(&[("meridian-context", "signed")]).unwrap());
        #[rustfmt::skip]
        let cases = [
            ("GET", "https://origin.example:8443/v1/a?b=c", true, true),
            ("GET", "https://origin.example:8443/control", true, false),
            ("GET", "https://origin.example:8443/v1/a", true, false),
            ("POST", "https://origin.example:8443/v1/a?b=c", true, false),
            ("GET", "http://origin.example:8443/v1/a?b=c", false, false),
            ("GET", "https://origin.example/v1/a?b=c", false, false),
            ("GET", "https://other.example:8443/v1/a?b=c", false, false),
            ("GET", "http://functions.spin.internal/v1/a?b=c", false, false),
        ];
        for (method, uri, upstream, origin) in cases {
            assert_eq!(
                (sends(&to_upstream, method, uri), sends(&signed, method, uri)),
                (upstream, origin),
                "{method} {uri}"
            );
        }
    }

    #[tokio::test]
    async fn a_tenant_takes_its_own_places_and_leaves_others_theirs() {
        let folder = std::env::temp_dir().join(format!("meridian-functions-{}", std::process::id()));
        let store = Arc::new(key_value::Store::open(&folder, 1 << 20).unwrap());
        let engine = component::engine(1 << 20, false).unwrap();
        let functions = Arc::new(Functions::new(engine, store, folder.clone()).unwrap());
        let take = |tenant: &str| Place::take(&functions, &tenant.into());
        let held: Vec<Place> = std::iter::from_fn(|| take("acme")).take(1_000).collect();
        assert_eq!(held.len(), limits::TENANT_FUNCTIONS_AT_ONCE_MAX);
        assert!(take("globex").is_some());
        drop(held);
        assert!(take("acme").is_some());
        let all: Vec<Place> = (0..1_000).filter_map(|at| take(&format!("t{at}"))).collect();
        assert_eq!(all.len(), limits::FUNCTIONS_AT_ONCE_MAX);
        drop(all);
        assert!(functions.in_progress.lock().unwrap().is_empty());
        drop(functions);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
