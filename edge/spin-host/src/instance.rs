//! Instances of a component: how one is made, what it may use, how many requests it answers, and when it ends.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Sleep,
};
use wasmtime::{
    Engine, ResourceLimiter, Result, Store, StoreContextMut, StoreLimits, StoreLimitsBuilder, UpdateDeadline,
    component::{GuestTaskId, ResourceTable},
    format_err,
};
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{
    WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
    handler::{HandlerState, Instance, Proxy, ShouldAccept, WorkerExpiration, WorkerState, WorkerStatus},
    p3::bindings::ServicePre,
};

use crate::{
    functions::{Notes, Onward},
    key_value, limits,
    logs::LogStream,
    outbound::{Client, Outbound},
    pace::{Bodies, Pace},
    whole::{Answering, Broken},
};

/// What the host keeps for one instance.
pub struct Guest {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    outbound: Sending,
    limits: Memory,
    /// Everything that the instance holds a handle of.
    pub table: ResourceTable,
    /// The component's variables.
    pub variables: Arc<HashMap<String, String>>,
    /// The key-value stores that the component may open, by label.
    pub stores: Arc<BTreeMap<String, Arc<key_value::Store>>>,
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: self.outbound.hooks() }
    }
}

/// How much one instance may do; the defaults are in [`limits`].
#[derive(Clone, Copy, Debug)]
pub struct InstanceLimits {
    /// Requests until the instance is replaced.
    pub requests_max: usize,
    /// Requests at the same time.
    pub requests_at_once_max: usize,
    /// Linear memory.
    pub memory_bytes_max: usize,
    /// How long a request may take until the component has answered.
    pub request_timeout: Duration,
    /// How long the component may compute without waiting for anything; a function, altogether.
    pub busy_timeout: Duration,
}

/// A component that is ready to be instantiated.
#[derive(Clone)]
pub struct Blueprint {
    /// The component's name.
    pub id: Arc<str>,
    /// The engine that compiled it.
    pub engine: Engine,
    /// The compiled and linked component.
    pub pre: ServicePre<Guest>,
    /// The folder of its files, if it has any.
    pub files: Option<PathBuf>,
    /// Its environment.
    pub environment: Vec<(String, String)>,
    /// Its variables.
    pub variables: Arc<HashMap<String, String>>,
    /// Its key-value stores.
    pub stores: Arc<BTreeMap<String, Arc<key_value::Store>>>,
    /// The requests that it may send.
    pub outbound: Sending,
    /// What one instance may do.
    pub limits: InstanceLimits,
    /// Set when the host stops, so that instances which end with it are no failures.
    pub stopping: Arc<AtomicBool>,
    /// Of a tenant's function: what becomes known of it.
    pub function: Option<Arc<Notes>>,
}

/// The requests that an instance may send.
#[derive(Clone)]
pub enum Sending {
    /// Those of a component of the application.
    Own(Box<Outbound>),
    /// The one of a function.
    Onward(Box<Onward>),
}

impl Sending {
    /// The same over other connections.
    pub fn over(&self, client: Client) -> Self {
        match self {
            Self::Own(outbound) => Self::Own(Box::new(outbound.over(client))),
            Self::Onward(onward) => Self::Onward(onward.clone()),
        }
    }

    fn hooks(&mut self) -> &mut dyn WasiHttpHooks {
        match self {
            Self::Own(outbound) => &mut **outbound,
            Self::Onward(onward) => &mut **onward,
        }
    }
}

/// The memory of an instance within its limits.
struct Memory {
    limits: StoreLimits,
    /// Who is told of a limit that was met.
    function: Option<Arc<Notes>>,
}

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        let grows = self.limits.memory_growing(current, desired, maximum)?;
        if let Some(function) = self.function.as_ref().filter(|_| !grows) {
            function.memory.store(true, Ordering::Relaxed);
        }
        Ok(grows)
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        self.limits.table_growing(current, desired, maximum)
    }

    fn instances(&self) -> usize {
        self.limits.instances()
    }

    fn tables(&self) -> usize {
        self.limits.tables()
    }

    fn memories(&self) -> usize {
        self.limits.memories()
    }
}

impl Blueprint {
    /// The store of a new instance. At every tick of the epoch at which the component computes, `interrupted` says whether it
    /// may go on; it lets others run first.
    pub fn store(
        &self,
        mut interrupted: impl FnMut() -> Result<()> + Send + Sync + 'static,
    ) -> Result<Store<Guest>> {
        let mut store = Store::new(&self.engine, self.guest()?);
        store.limiter(|guest| &mut guest.limits);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(move |_| {
            interrupted()?;
            Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
        });
        Ok(store)
    }

    fn guest(&self) -> Result<Guest> {
        let mut wasi = WasiCtx::builder();
        wasi.envs(&self.environment)
            .stdout(self.log())
            .stderr(self.log())
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false);
        if let Some(files) = &self.files {
            wasi.preopened_dir(files, "/", FsPerms::ReadOnly)?;
        }
        let limits = StoreLimitsBuilder::new()
            .memory_size(self.limits.memory_bytes_max)
            .table_elements(limits::INSTANCE_TABLE_ELEMENTS_MAX);
        // The memory of a function is that of all its modules.
        let limits = if self.function.is_some() { limits.memories(1) } else { limits };
        let limits = Memory { limits: limits.build(), function: self.function.clone() };
        Ok(Guest {
            wasi: wasi.build(),
            http: WasiHttpCtx::new(),
            outbound: self.outbound.clone(),
            limits,
            table: ResourceTable::new(),
            variables: Arc::clone(&self.variables),
            stores: Arc::clone(&self.stores),
        })
    }

    /// Where it writes to. Tenants' functions don't write into the operator's log, unless that is asked for.
    fn log(&self) -> LogStream {
        let stream = LogStream::new(Arc::clone(&self.id));
        if self.function.is_some() { stream.quiet() } else { stream }
    }
}

/// Makes the instances that answer a component's requests.
pub struct Instances {
    blueprint: Arc<Blueprint>,
    requests_max: usize,
    requests_at_once_max: usize,
}

impl Instances {
    /// Instances that answer as many requests as the limits allow.
    pub fn reused(blueprint: Arc<Blueprint>) -> Self {
        let InstanceLimits { requests_max, requests_at_once_max, .. } = blueprint.limits;
        Self { blueprint, requests_max, requests_at_once_max }
    }

    /// Instances that answer one request each, so that a request which ends its instance harms no other.
    pub fn isolated(blueprint: Arc<Blueprint>) -> Self {
        Self { blueprint, requests_max: 1, requests_at_once_max: 1 }
    }
}

impl HandlerState for Instances {
    type StoreData = Guest;
    type WorkerExpiration = Expiration;
    type WorkerState = Working;

    async fn instantiate(&self) -> Result<Instance<Guest, Expiration, Working>> {
        let blueprint = &self.blueprint;
        let computing = Arc::new(AtomicBool::new(false));
        let beginning = Arc::new(Beginning::default());
        let mut store = blueprint.store({
            let computing = Arc::clone(&computing);
            move || {
                computing.store(true, Ordering::Relaxed);
                Ok(())
            }
        })?;
        tracing::debug!(component = %blueprint.id, "an instance is made");
        let service = tokio::time::timeout(
            blueprint.limits.request_timeout,
            blueprint.pre.instantiate_async(&mut store),
        )
        .await
        .map_err(|_| format_err!("the component didn't start in time"))??;
        Ok(Instance {
            store,
            proxy: Proxy::P3(service),
            view: WasiHttpView::http,
            expiration: Expiration::new(&blueprint.limits, computing, Arc::clone(&beginning)),
            state: Working {
                id: Arc::clone(&blueprint.id),
                requests_max: self.requests_max,
                requests_at_once_max: self.requests_at_once_max,
                beginning,
                broken: Broken::default(),
                stopping: Arc::clone(&blueprint.stopping),
            },
        })
    }
}

/// The turn of a request to find an instance or to have one made. It is over when the request waits for something or
/// ends: before that the instance does not take another one, and each request of a crowd would have one of its own made.
/// `None` where it was not waited for any longer.
pub type Turn = Option<OwnedSemaphorePermit>;

/// Gives requests their turns, one after the other, without keeping any of them for long: the instance that a request
/// was given to may be busy.
#[derive(Clone)]
pub struct Turns(Arc<Semaphore>);

impl Turns {
    /// Nobody's turn yet.
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }

    /// The next turn.
    pub async fn next(&self) -> Turn {
        if let Ok(turn) = Arc::clone(&self.0).try_acquire_owned() {
            return Some(turn);
        }
        let turn = tokio::time::timeout(limits::TURN_TIMEOUT, Arc::clone(&self.0).acquire_owned());
        turn.await.ok().and_then(Result::ok)
    }
}

/// What an instance gets to know of a request beside the request itself.
#[derive(Default)]
pub struct Begun {
    /// Its turn.
    pub turn: Turn,
    /// How far its body is, where it has one.
    pub pace: Option<Pace>,
    /// Is told which instance answers it.
    pub answering: Answering,
}

/// The turn of the request that an instance has begun with last, until the instance can take another one, and the bodies that
/// it is being sent.
#[derive(Default)]
struct Beginning {
    turn: Mutex<Turn>,
    /// The instance has waited for something since.
    waited: AtomicBool,
    bodies: Bodies,
}

impl Beginning {
    fn begin(&self, begun: Begun) {
        self.waited.store(false, Ordering::Relaxed);
        *self.turn() = begun.turn;
        self.bodies.add(begun.pace);
    }

    /// Ends the turn, where the instance has waited since it began.
    fn end(&self) {
        if self.waited.swap(false, Ordering::Relaxed) {
            *self.turn() = None;
        }
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many requests an instance takes.
pub struct Working {
    id: Arc<str>,
    requests_max: usize,
    requests_at_once_max: usize,
    beginning: Arc<Beginning>,
    broken: Broken,
    stopping: Arc<AtomicBool>,
}

impl WorkerState for Working {
    type StoreData = Guest;
    type RequestData = Begun;

    fn should_accept_request(&self, at_once: usize, total: usize) -> ShouldAccept {
        // Asked again after every wait, and right before the instance counts as free.
        self.beginning.end();
        if total >= self.requests_max {
            ShouldAccept::Never
        } else if at_once >= self.requests_at_once_max {
            ShouldAccept::No
        } else {
            ShouldAccept::Yes
        }
    }

    fn on_request_start(
        &self,
        _: StoreContextMut<'_, Guest>,
        begun: Begun,
        _: GuestTaskId,
    ) -> Pin<Box<dyn Future<Output = ()> + 'static + Send + Sync>> {
        begun.answering.by(&self.broken);
        self.beginning.begin(begun);
        // The server has a timeout around the whole request. One in here would make the instance stop taking requests
        // while it still waits for them, and with that the notice of a request that another instance should have got.
        Box::pin(std::future::pending())
    }

    fn drop(&self, store: Store<Guest>, result: Result<()>) {
        if let Err(error) = result {
            self.broken.set();
            if !self.stopping.load(Ordering::Relaxed) {
                tracing::error!(component = %self.id, "an instance ended and is replaced: {error:#}");
            }
        }
        drop(store);
    }
}

/// When an instance ends: it computes without pause, a request or work after the last answer takes too long, or
/// nothing comes any more.
///
/// A component that computes is interrupted at every tick of the epoch, which shows here as a poll with `computing`
/// set; a component that waits is polled without it. So only ticks in a row count as being busy.
pub struct Expiration {
    computing: Arc<AtomicBool>,
    beginning: Arc<Beginning>,
    busy_ticks: u32,
    busy_ticks_max: u32,
    request_timeout: Duration,
    armed: Option<Instant>,
    sleep: Pin<Box<Sleep>>,
}

impl Expiration {
    fn new(limits: &InstanceLimits, computing: Arc<AtomicBool>, beginning: Arc<Beginning>) -> Self {
        Self {
            computing,
            beginning,
            busy_ticks: 0,
            busy_ticks_max: ticks(limits.busy_timeout),
            // The request's own timeout answers the client first.
            request_timeout: limits.request_timeout + Duration::from_secs(1),
            armed: None,
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
        }
    }
}

/// Ticks of the epoch in so long a time.
fn ticks(time: Duration) -> u32 {
    u32::try_from(time.as_millis() / limits::EPOCH_TICK.as_millis()).unwrap_or(u32::MAX)
}

impl WorkerExpiration for Expiration {
    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        status: WorkerStatus,
        since: Instant,
    ) -> Poll<()> {
        // Polled whenever the instance has nothing to do but to wait, or is interrupted.
        self.beginning.waited.store(true, Ordering::Relaxed);
        self.busy_ticks = if self.computing.swap(false, Ordering::Relaxed) { self.busy_ticks + 1 } else { 0 };
        if self.busy_ticks > self.busy_ticks_max {
            return Poll::Ready(());
        }
        let deadline = match status {
            WorkerStatus::Requests => self.beginning.bodies.awaited_since(since) + self.request_timeout,
            WorkerStatus::PostReturn => since + limits::POST_RETURN_TIMEOUT,
            WorkerStatus::Idle => since + limits::IDLE_TIMEOUT,
        };
        // A timer that is due too early is cheap; setting it again for every request is not.
        loop {
            if self.armed.is_none_or(|armed| armed > deadline) {
                self.sleep.as_mut().reset(deadline.into());
                self.armed = Some(deadline);
            }
            match self.sleep.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) if Instant::now() >= deadline => return Poll::Ready(()),
                Poll::Ready(()) => self.armed = None,
            }
        }
    }
}
