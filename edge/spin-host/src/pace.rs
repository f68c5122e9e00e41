//! Who is waited for while a request's body is on its way: a taker that waits for the sender has not been slow.

use std::{
    future::{Future, pending},
    pin::Pin,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use meridian_edge_http::hop;
use tokio::{
    sync::watch,
    time::{Instant, Sleep, sleep_until},
};
use wasmtime_wasi_http::{Error, WasiBody};

use crate::limits;

/// Who is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// Whoever sends the body.
    Sender,
    /// Whoever takes it, since then: for taking more of it, or for an answer once it is sent.
    Taker(Instant),
    /// Nobody: the sender broke it off, or paused for too long.
    Nobody(Fault),
}

/// Why a body did not come whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It broke off, or is not as long as it says.
    BrokeOff,
    /// It paused for longer than it may, or came too slowly.
    Paused,
}

impl Fault {
    fn of(error: &Error) -> Self {
        match error {
            Error::ConnectionReadTimeout => Self::Paused,
            _ => Self::BrokeOff,
        }
    }

    /// What a component is told whose request could not be sent because of it. No target can cause either.
    pub fn error(self) -> Error {
        match self {
            Self::BrokeOff => Error::HttpRequestBodySize(None),
            Self::Paused => Error::ConnectionWriteTimeout,
        }
    }
}

/// What is asked of whoever sends a body.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// How long it may pause.
    pub pause_max: Duration,
    /// Bytes a second that it has to come at, over [`limits::BODY_RATE_WINDOW`] of waiting for it, or over the time of a pause
    /// where that is longer.
    pub rate_min: u64,
}

impl Demand {
    /// Of a component, which may itself have to wait: no rate.
    pub fn of_component(pause_max: Duration) -> Self {
        Self { pause_max, rate_min: 0 }
    }
}

/// How far the body of one request is.
#[derive(Clone)]
pub struct Pace(watch::Receiver<Awaited>);

/// The request with a body that can be followed, where it has one.
pub fn follow(request: Request<WasiBody>, demand: Demand) -> (Request<WasiBody>, Option<Pace>) {
    if request.body().is_end_stream() {
        return (request, None);
    }
    let (awaited, pace) = watch::channel(Awaited::Taker(Instant::now()));
    let rate = Rate::new(demand);
    let followed = |body| Followed { body, awaited, pause_max: demand.pause_max, rate, waiting: None };
    (request.map(|body| followed(body).boxed_unsync()), Some(Pace(pace)))
}

impl Pace {
    /// Who is waited for.
    pub fn awaited(&self) -> Awaited {
        *self.0.borrow()
    }

    /// Whether no more of the body will be taken.
    pub fn is_over(&self) -> bool {
        self.0.has_changed().is_err()
    }

    /// Ends when the taker has had its turn for so long.
    async fn overdue(&mut self, limit: Duration) {
        loop {
            let awaited = *self.0.borrow_and_update();
            let late = async {
                match awaited {
                    Awaited::Taker(since) => sleep_until(since + limit).await,
                    Awaited::Sender | Awaited::Nobody(_) => pending().await,
                }
            };
            tokio::select! {
                () = late => return,
                Ok(()) = self.0.changed() => {}
            }
        }
    }
}

/// Waits for what comes of a request, and no longer than so long for whoever takes its body. `None` is too late.
pub async fn within<F: Future>(pace: &mut Option<Pace>, limit: Duration, future: F) -> Option<F::Output> {
    match pace {
        None => tokio::time::timeout(limit, future).await.ok(),
        Some(pace) => tokio::select! {
            biased;
            output = future => Some(output),
            () = pace.overdue(limit) => None,
        },
    }
}

/// The bodies that one instance is being sent.
#[derive(Default)]
pub struct Bodies {
    /// There are any, or there were.
    any: AtomicBool,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    coming: Vec<Pace>,
    /// When the last of those that are over was.
    over: Option<Instant>,
}

impl Bodies {
    /// Adds the body of a request, where it has one.
    pub fn add(&self, pace: Option<Pace>) {
        if let Some(pace) = pace {
            self.known.lock().unwrap_or_else(PoisonError::into_inner).coming.push(pace);
            self.any.store(true, Ordering::Relaxed);
        }
    }

    /// Since when nobody who sends a body was waited for, if that is later than `since`.
    pub fn awaited_since(&self, since: std::time::Instant) -> std::time::Instant {
        if !self.any.load(Ordering::Relaxed) {
            return since;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Known { coming, over } = &mut *known;
        let mut last = Instant::from_std(since);
        coming.retain(|pace| {
            let at = match pace.awaited() {
                Awaited::Sender => Instant::now(),
                Awaited::Taker(at) => at,
                Awaited::Nobody(_) => return false,
            };
            last = last.max(at);
            if pace.is_over() {
                *over = (*over).max(Some(at));
            }
            !pace.is_over()
        });
        over.map_or(last, |over| last.max(over)).into_std()
    }
}

/// How much of a body came while it was waited for, a window after the other.
struct Rate {
    window: Duration,
    bytes_min: u64,
    bytes: u64,
    waited: Duration,
}

impl Rate {
    fn new(demand: Demand) -> Self {
        // No pause that is allowed is a slow body.
        let window = limits::BODY_RATE_WINDOW.max(demand.pause_max);
        let bytes_min = demand.rate_min.saturating_mul(window.as_secs());
        Self { window, bytes_min, bytes: 0, waited: Duration::ZERO }
    }

    /// How much longer can be waited until the window is over.
    fn left(&self) -> Duration {
        self.window.saturating_sub(self.waited)
    }

    /// It was waited for so long; whether that is still fast enough.
    fn waited(&mut self, time: Duration) -> bool {
        self.waited += time;
        if self.waited < self.window {
            return true;
        }
        let fast = self.bytes >= self.bytes_min;
        (self.bytes, self.waited) = (0, Duration::ZERO);
        fast
    }
}

struct Followed<B> {
    body: B,
    awaited: watch::Sender<Awaited>,
    pause_max: Duration,
    rate: Rate,
    waiting: Option<Waiting>,
}

/// A pause of a body.
struct Waiting {
    since: Instant,
    /// Up to here it has been counted.
    counted: Instant,
    /// When it has to be looked at again.
    sleep: Pin<Box<Sleep>>,
}

impl<B> Followed<B> {
    fn failed(&self, error: Error) -> Error {
        self.awaited.send_replace(Awaited::Nobody(Fault::of(&error)));
        error
    }

    /// Waits for the sender; ready where that was too long.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { awaited, pause_max, rate, waiting, .. } = self;
        let waiting = waiting.get_or_insert_with(|| {
            awaited.send_replace(Awaited::Sender);
            let now = Instant::now();
            let sleep = Box::pin(sleep_until(now + rate.left().min(*pause_max)));
            Waiting { since: now, counted: now, sleep }
        });
        loop {
            ready!(waiting.sleep.as_mut().poll(cx));
            let now = Instant::now();
            let fast = rate.waited(now.saturating_duration_since(waiting.counted));
            waiting.counted = now;
            let pause_ends = waiting.since + *pause_max;
            if !fast || now >= pause_ends {
                return Poll::Ready(());
            }
            waiting.sleep.as_mut().reset((now + rate.left()).min(pause_ends));
        }
    }
}

impl<B: Body<Data = Bytes, Error = Error> + Unpin> Body for Followed<B> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = hop::poll_content(&mut this.body, cx) else {
            ready!(this.poll_late(cx));
            return Poll::Ready(Some(Err(this.failed(Error::ConnectionReadTimeout))));
        };
        if let Some(Err(error)) = frame {
            return Poll::Ready(Some(Err(this.failed(error))));
        }
        let waited = this.waiting.take().map(|waiting| waiting.counted.elapsed());
        let bytes = frame.iter().flatten().filter_map(Frame::data_ref).map(Bytes::len).sum::<usize>();
        this.rate.bytes = this.rate.bytes.saturating_add(bytes as u64);
        if let Some(waited) = waited
            && !this.rate.waited(waited)
        {
            return Poll::Ready(Some(Err(this.failed(Error::ConnectionReadTimeout))));
        }
        this.awaited.send_replace(Awaited::Taker(Instant::now()));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Followed<B> {
    fn drop(&mut self) {
        // Nobody wants more of it, so that it is not the sender who is waited for.
        self.awaited.send_if_modified(|awaited| {
            let waits = *awaited == Awaited::Sender;
            if waits {
                *awaited = Awaited::Taker(Instant::now());
            }
            waits
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, task::Waker};

    use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

    use super::*;

    type Part = Result<Frame<Bytes>, Error>;

    /// A body whose parts come from somewhere else.
    struct Parts(UnboundedReceiver<Part>);

    impl Body for Parts {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Part>> {
            self.0.poll_recv(cx)
        }
    }

    const LIMIT: Duration = Duration::from_secs(5);
    const UNHURRIED: Demand = Demand { pause_max: limits::BODY_PAUSE_TIMEOUT, rate_min: 0 };

    /// Takes a followed body whole, then answers after a while; says what came of it after how long.
    async fn taken(
        send: impl AsyncFnOnce(UnboundedSender<Part>),
        answer_after: Duration,
    ) -> (Option<bool>, u64, Awaited) {
        let (frames, body) = unbounded_channel();
        let (request, mut pace) = follow(Request::new(Parts(body).boxed_unsync()), UNHURRIED);
        let begun = Instant::now();
        let take = async {
            let whole = request.into_body().collect().await.is_ok();
            tokio::time::sleep(answer_after).await;
            whole
        };
        let (came, ()) = tokio::join!(within(&mut pace, LIMIT, take), send(frames));
        (came, begun.elapsed().as_secs(), pace.unwrap().awaited())
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_sender_takes_none_of_the_takers_time() {
        let slowly = async |frames: UnboundedSender<Part>| {
            for _ in 0..10 {
                tokio::time::sleep(LIMIT * 3).await;
                frames.send(Ok(Frame::data(Bytes::from_static(b"part")))).unwrap();
            }
        };
        let (came, after_s, _) = taken(slowly, LIMIT - Duration::from_secs(1)).await;
        assert_eq!((came, after_s), (Some(true), 154));
        let (came, after_s, awaited) = taken(slowly, LIMIT + Duration::from_secs(1)).await;
        assert_eq!((came, after_s), (None, 155));
        assert!(matches!(awaited, Awaited::Taker(_)), "{awaited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_that_fails_is_known_by_how() {
        let broken = async |frames: UnboundedSender<Part>| {
            frames.send(Err(Error::ConnectionTerminated)).unwrap();
        };
        let (came, _, awaited) = taken(broken, Duration::ZERO).await;
        assert_eq!((came, awaited), (Some(false), Awaited::Nobody(Fault::BrokeOff)));
        let silent = async |frames: UnboundedSender<Part>| frames.closed().await;
        let (came, after_s, awaited) = taken(silent, Duration::ZERO).await;
        assert_eq!((came, awaited), (Some(false), Awaited::Nobody(Fault::Paused)));
        assert_eq!(after_s, limits::BODY_PAUSE_TIMEOUT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_that_waits_for_a_client_is_not_stuck() {
        let (parts, body) = unbounded_channel();
        let (request, pace) = follow(Request::new(Parts(body).boxed_unsync()), UNHURRIED);
        let bodies = Bodies::default();
        let begun = Instant::now().into_std();
        tokio::time::advance(LIMIT).await;
        assert_eq!(bodies.awaited_since(begun), begun);
        bodies.add(pace);
        let mut body = request.into_body();
        assert!(pin!(body.frame()).poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(bodies.awaited_since(begun), begun + LIMIT);
        tokio::time::advance(LIMIT).await;
        assert_eq!(bodies.awaited_since(begun), begun + LIMIT * 2);
        drop(parts);
        assert!(body.frame().await.is_none());
        drop(body);
        tokio::time::advance(LIMIT).await;
        assert_eq!(bodies.awaited_since(begun), begun + LIMIT * 2);
        assert!(bodies.known.lock().unwrap().coming.is_empty());
        assert_eq!(bodies.awaited_since(begun), begun + LIMIT * 2);
    }

    /// What comes of a body of which so many bytes come after each of so many pauses, and after how long.
    async fn paced(part: &'static [u8], pause: Duration, parts: usize, rate_min: u64) -> (bool, u64) {
        paced_by(part, pause, parts, Demand { rate_min, ..UNHURRIED }).await
    }

    async fn paced_by(part: &'static [u8], pause: Duration, parts: usize, demand: Demand) -> (bool, u64) {
        let (frames, body) = unbounded_channel();
        let (request, _pace) = follow(Request::new(Parts(body).boxed_unsync()), demand);
        let begun = Instant::now();
        let send = async move {
            for _ in 0..parts {
                tokio::time::sleep(pause).await;
                let _taken = frames.send(Ok(Frame::data(Bytes::from_static(part))));
            }
        };
        let (whole, ()) = tokio::join!(
            async {
                let whole = request.into_body().collect().await.is_ok();
                (whole, begun.elapsed().as_secs())
            },
            send
        );
        whole
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_has_to_come_at_some_rate_while_it_is_waited_for() {
        let second = Duration::from_secs(1);
        assert_eq!(paced(b"a", second, 100, 0).await, (true, 100));
        assert_eq!(paced(b"a", second, 100, 2).await, (false, limits::BODY_RATE_WINDOW.as_secs()));
        assert_eq!(paced(b"abc", second, 100, 2).await, (true, 100));
        // One pause within a window is none of its business, and longer ones end the body whatever came before.
        assert_eq!(paced(&[b'.'; 1_000], second * 24, 3, 30).await, (true, 72));
        assert_eq!(paced(&[b'.'; 1_000], second * 26, 3, 0).await, (false, 25));
        let patient = Demand { pause_max: second * 60, rate_min: 2 };
        assert_eq!(paced_by(&[b'.'; 1_000], second * 50, 3, patient).await, (true, 150));
    }

    #[tokio::test]
    async fn a_request_without_a_body_is_left_alone() {
        let empty = http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync();
        assert!(follow(Request::new(empty), UNHURRIED).1.is_none());
    }
}
