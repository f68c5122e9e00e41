//! Requests that are being served. Each goes on right where what it waits for is settled, and pays its answer to who began it:
//! a promise of Rust's would be a promise, two closures and a microtask more for every request, and each wait another microtask.
//!
//! A request belongs to what may wake it. Where that is given up, the request is, and everything that it held is freed.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use slab::Slab;
use wasm_bindgen::prelude::*;

/// What comes of serving a request.
type Answer = Result<JsValue, JsValue>;

#[wasm_bindgen(module = "/src/host.js")]
extern "C" {
    /// Gives the answer to who waits for it.
    fn pay(owed: &JsValue, answer: &JsValue);

    /// Tells who waits for an answer why there will be none.
    fn fail(owed: &JsValue, error: &JsValue);
}

/// Serves as far as it goes at once. Where something has to be waited for, `None`; `owed` gets the answer then.
pub fn serve(serving: impl Future<Output = Answer> + 'static, owed: JsValue) -> Option<Answer> {
    let task = Task { serving: Some(Box::pin(serving)), owed, woken: false };
    let handle = Arc::new(Handle(TASKS.with_borrow_mut(|tasks| tasks.insert(task))));
    handle.go_on().map(|(_, answer)| answer)
}

struct Task {
    /// Not there while it is polled.
    serving: Option<Pin<Box<dyn Future<Output = Answer>>>>,
    owed: JsValue,
    /// It was woken while it was polled.
    woken: bool,
}

thread_local! {
    static TASKS: RefCell<Slab<Task>> = const { RefCell::new(Slab::new()) };
}

/// Whoever has a clone of it may wake the task; the last one takes the task along.
struct Handle(usize);

impl Handle {
    /// Polls until there is an answer, with who is owed it, or something to wait for.
    fn go_on(self: Arc<Self>) -> Option<(JsValue, Answer)> {
        let id = self.0;
        let waker = Waker::from(self);
        loop {
            let serving = TASKS.with_borrow_mut(|tasks| {
                let task = tasks.get_mut(id)?;
                task.woken = task.serving.is_none();
                task.serving.take()
            });
            let mut serving = serving?;
            match serving.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(answer) => {
                    let owed =
                        TASKS.with_borrow_mut(|tasks| Some(std::mem::take(&mut tasks.get_mut(id)?.owed)));
                    return owed.map(|owed| (owed, answer));
                }
                Poll::Pending => {
                    let woken = TASKS.with_borrow_mut(|tasks| {
                        let task = tasks.get_mut(id)?;
                        task.serving = Some(serving);
                        Some(task.woken)
                    });
                    if woken != Some(true) {
                        return None;
                    }
                }
            }
        }
    }
}

impl Wake for Handle {
    fn wake(self: Arc<Self>) {
        match self.go_on() {
            Some((owed, Ok(answer))) => pay(&owed, &answer),
            Some((owed, Err(error))) => fail(&owed, &error),
            None => {}
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Freed outside: it may hold wakers of others.
        let task = TASKS.with_borrow_mut(|tasks| tasks.try_remove(self.0));
        drop(task);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::rc::Rc;

    use super::*;

    /// A future that ends with the `polls`th poll, and gives its waker away at each one before.
    fn serving(
        polls: u32,
        wakers: &Rc<RefCell<Vec<Waker>>>,
        at_once: bool,
    ) -> impl Future<Output = Answer> + use<> {
        let (wakers, mut left) = (Rc::clone(wakers), polls);
        poll_fn(move |context| {
            left -= 1;
            if left == 0 {
                return Poll::Ready(Ok(JsValue::NULL));
            }
            match at_once {
                true => context.waker().wake_by_ref(),
                false => wakers.borrow_mut().push(context.waker().clone()),
            }
            Poll::Pending
        })
    }

    fn tasks() -> usize {
        TASKS.with_borrow(Slab::len)
    }

    #[test]
    fn what_is_at_hand_is_answered_at_once() {
        let wakers = Rc::default();
        assert!(serve(serving(1, &wakers, false), JsValue::UNDEFINED).is_some());
        assert!(serve(serving(3, &wakers, true), JsValue::UNDEFINED).is_some(), "woken while it was polled");
        assert_eq!(tasks(), 0);
    }

    #[test]
    fn it_goes_on_when_it_is_woken() {
        let wakers = Rc::default();
        assert!(serve(serving(3, &wakers, false), JsValue::UNDEFINED).is_none());
        let first = wakers.borrow_mut().pop().unwrap();
        first.wake();
        assert_eq!((wakers.borrow().len(), tasks()), (1, 1), "it waits again");
        wakers.borrow_mut().clear();
        assert_eq!(tasks(), 0, "nobody can wake it");
    }

    #[test]
    fn what_nobody_can_wake_is_freed_with_all_it_holds() {
        struct Held(Rc<Cell<bool>>);
        impl Drop for Held {
            fn drop(&mut self) {
                self.0.set(true);
            }
        }
        let freed = Rc::new(Cell::new(false));
        let held = Held(Rc::clone(&freed));
        let waiting = async move {
            std::future::pending::<()>().await;
            drop(held);
            Ok(JsValue::NULL)
        };
        assert!(serve(waiting, JsValue::UNDEFINED).is_none());
        assert!(freed.get());
        assert_eq!(tasks(), 0);
    }
}
