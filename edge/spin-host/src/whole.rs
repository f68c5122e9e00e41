//! Bodies of instances that end before they are done. Where an instance is gone, the runtime ends its bodies as if they were
//! whole, which in HTTP/1.1 and HTTP/2 looks like the end to whoever counts on no length.

use std::{
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, SizeHint};
use wasmtime_wasi_http::{Error, WasiBody};

/// Whether an instance came to an end that it did not choose: it trapped, or was ended.
#[derive(Clone, Default)]
pub struct Broken(Arc<AtomicBool>);

impl Broken {
    /// It did; to be said while its store is there still, and with that its bodies are open.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The instance that a request was given to, once it is known.
#[derive(Clone, Default)]
pub struct Answering(Arc<OnceLock<Broken>>);

impl Answering {
    /// The request is given to the instance that this tells of.
    pub fn by(&self, instance: &Broken) {
        // One request is given to one instance.
        let _known = self.0.set(instance.clone());
    }

    /// The instance's response, whose body is whole or ends with an error.
    pub fn whole(self, response: Response<WasiBody>) -> Response<WasiBody> {
        match self.0.get() {
            Some(instance) => whole(response, instance.clone()),
            None => response,
        }
    }
}

/// A response of this instance, whose body is whole or ends with an error.
pub fn whole(response: Response<WasiBody>, instance: Broken) -> Response<WasiBody> {
    // Who gets a length counts for itself.
    if response.body().size_hint().exact().is_some() {
        return response;
    }
    response.map(|body| Whole { body, instance }.boxed_unsync())
}

struct Whole {
    body: WasiBody,
    instance: Broken,
}

impl Body for Whole {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(match frame {
            None if self.instance.is_set() => Some(Err(Error::ConnectionTerminated)),
            frame => frame,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && !self.instance.is_set()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{Full, StreamBody, combinators::UnsyncBoxBody};

    use super::*;

    fn open() -> WasiBody {
        let part = Ok::<_, Error>(Frame::data(Bytes::from_static(b"abc")));
        UnsyncBoxBody::new(StreamBody::new(futures_util::stream::iter([part])))
    }

    #[tokio::test]
    async fn a_body_ends_with_an_error_where_its_instance_broke() {
        let (sound, broken) = (Broken::default(), Broken::default());
        broken.set();
        let told = full();
        assert_eq!(
            whole(Response::new(told), broken.clone()).into_body().collect().await.unwrap().to_bytes(),
            "abc"
        );
        assert_eq!(
            whole(Response::new(open()), sound).into_body().collect().await.unwrap().to_bytes(),
            "abc"
        );
        let answering = Answering::default();
        answering.by(&broken);
        let mut body = answering.whole(Response::new(open())).into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "abc");
        assert!(!body.is_end_stream() && body.frame().await.unwrap().is_err());
    }

    fn full() -> WasiBody {
        Full::new(Bytes::from_static(b"abc")).map_err(|never| match never {}).boxed_unsync()
    }
}
