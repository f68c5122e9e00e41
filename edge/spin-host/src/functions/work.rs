//! A function at work on its one request: it is started and asked, and ended where it takes more than it may.

use std::{
    future::{pending, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use futures_channel::oneshot;
use http::{Request, Response};
use rustix::time::{ClockId, clock_gettime};
use tokio::task::JoinSet;
use wasmtime::{AsContextMut, Error, Result, Store, component::Accessor, format_err};
use wasmtime_wasi_http::{
    WasiBody, WasiHttpView,
    handler::{Prepared, Proxy},
    p3::bindings::http::types::ErrorCode,
};

use super::Place;
use crate::{
    instance::{Blueprint, Guest},
    limits,
    whole::{Broken, whole},
};

/// Why a function gave no response.
#[derive(Clone, Copy, Debug)]
pub enum Ended {
    /// It took more processor time than it may.
    Cpu,
    /// It could not be started.
    Start,
    /// It said that it fails.
    Error,
    /// It trapped, or what it gave is no response.
    Trap,
}

/// Lets a function answer the request, in an instance of its own. Whoever stops waiting for the answer ends it. Once it has
/// answered it works on for as long as its response's body takes, within the same limits, and then gives its place back.
pub async fn answer(
    blueprint: Blueprint,
    place: Place,
    request: Request<WasiBody>,
) -> Result<Response<WasiBody>, Ended> {
    let broken = Broken::default();
    let meter = Arc::new(Meter::new(blueprint.limits.busy_timeout, broken.clone()));
    let ended = |otherwise| if meter.is_over() { Ended::Cpu } else { otherwise };
    let interrupted = Arc::clone(&meter);
    let mut store = blueprint.store(move || interrupted.check()).map_err(|_| Ended::Start)?;
    let service = meter.count(blueprint.pre.instantiate_async(&mut store)).await.map_err(|error| {
        tracing::debug!(component = %blueprint.id, "it does not start: {error:#}");
        ended(Ended::Start)
    })?;
    let (tell, told) = oneshot::channel();
    let mut work = JoinSet::new();
    work.spawn({
        let (meter, broken) = (Arc::clone(&meter), broken.clone());
        async move {
            let _place = place;
            let served = meter.count(serve(&mut store, Proxy::P3(service), request, tell));
            let life_max = blueprint.limits.request_timeout + limits::POST_RETURN_TIMEOUT;
            let broke = |why: Error| {
                broken.set();
                tracing::debug!(component = %blueprint.id, "it ended: {why:#}");
            };
            match tokio::time::timeout(life_max, served).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => broke(error),
                Err(_) => broke(format_err!("its body takes too long")),
            }
        }
    });
    match told.await {
        Ok(Ok(response)) => {
            work.detach_all();
            Ok(whole(response, broken))
        }
        Ok(Err(error)) if error.is::<ErrorCode>() => Err(ended(Ended::Error)),
        Ok(Err(_)) | Err(_) => Err(ended(Ended::Trap)),
    }
}

/// Has the request answered, and goes on until the instance has nothing more to do.
async fn serve(
    store: &mut Store<Guest>,
    proxy: Proxy,
    request: Request<WasiBody>,
    tell: oneshot::Sender<Result<Response<WasiBody>>>,
) -> Result<()> {
    let asked = async |accessor: &Accessor<Guest>| {
        let prepared = accessor.with(|mut store| {
            Prepared::new(store.as_context_mut(), &proxy, request, WasiHttpView::http, tell)
        })?;
        prepared.run(accessor, pending()).await?;
        poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
        Ok(())
    };
    store.run_concurrent(asked).await?
}

/// The processor time that futures take, by the clock of the thread that polls them: waiting costs nothing, and what is done
/// between two waits counts, however short.
struct Meter {
    max_ns: u64,
    /// Whom the futures are of.
    instance: Broken,
    used_ns: AtomicU64,
    /// What the thread had used when it was looked at last.
    seen_ns: AtomicU64,
}

impl Meter {
    fn new(max: Duration, instance: Broken) -> Self {
        Self {
            instance,
            max_ns: u64::try_from(max.as_nanos()).unwrap_or(u64::MAX),
            used_ns: AtomicU64::new(0),
            seen_ns: AtomicU64::new(0),
        }
    }

    /// The future, which fails once all that were counted have taken more than they may.
    async fn count<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            self.seen_ns.store(thread_ns(), Ordering::Relaxed);
            let polled = future.as_mut().poll(cx);
            match self.check() {
                Err(error) if polled.is_pending() => Poll::Ready(Err(error)),
                _ => polled,
            }
        })
        .await
    }

    /// Counts what was done since the last look; to be called by the thread that polls, while it does so.
    fn check(&self) -> Result<()> {
        let now = thread_ns();
        let done = now.saturating_sub(self.seen_ns.swap(now, Ordering::Relaxed));
        let used = self.used_ns.fetch_add(done, Ordering::Relaxed).saturating_add(done);
        if used > self.max_ns {
            self.instance.set();
            return Err(format_err!("it took more processor time than it may"));
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.used_ns.load(Ordering::Relaxed) > self.max_ns
    }
}

/// Processor time that this thread has used.
fn thread_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn waiting_costs_nothing() {
        let meter = Meter::new(MAX, Broken::default());
        for _ in 0..10 {
            let wait = async {
                tokio::time::sleep(MAX).await;
                Ok(())
            };
            meter.count(wait).await.unwrap();
        }
        assert!(!meter.is_over());
    }

    #[tokio::test]
    async fn what_is_done_between_waits_counts() {
        let meter = Meter::new(MAX, Broken::default());
        let bursts = async {
            loop {
                let begun = thread_ns();
                while thread_ns() - begun < 1_000_000 {}
                tokio::task::yield_now().await;
            }
            #[expect(unreachable_code, reason = "says what it would be")]
            Ok(())
        };
        meter.count(bursts).await.unwrap_err();
        assert!(meter.is_over());
    }
}
