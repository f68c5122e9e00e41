//! Waiting for promises. One callback serves all of them, where a `JsFuture` makes two closures for each, with an entry
//! in the finalisation registry for either.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use wasm_bindgen::prelude::*;
use worker::js_sys::Promise;

#[wasm_bindgen(module = "/src/host.js")]
extern "C" {
    /// Sets the callback that is told what became of each watched promise.
    #[wasm_bindgen(js_name = onSettled)]
    fn on_settled(callback: &Closure<dyn Fn(u32, bool, JsValue)>);

    /// Watches a promise under a number.
    fn watch(promise: &Promise, number: u32);
}

/// What a promise comes to.
pub fn wait(promise: Promise) -> Wait {
    WAITS.with_borrow_mut(|waits| {
        if !waits.listening {
            waits.listening = true;
            let callback = Closure::new(|number, fulfilled, value| {
                settle(number, if fulfilled { Ok(value) } else { Err(value) });
            });
            on_settled(&callback);
            // It lives as long as the instance.
            callback.forget();
        }
        let number = waits.begin();
        watch(&promise, number);
        Wait { number }
    })
}

/// A promise that is waited for.
pub struct Wait {
    number: u32,
}

/// Everything that is waited for, by number. Numbers of what was settled are given again.
#[derive(Default)]
struct Waits {
    slots: Vec<Slot>,
    free: Vec<u32>,
    listening: bool,
}

enum Slot {
    Free,
    Pending(Option<Waker>),
    Settled(Result<JsValue, JsValue>),
    /// Nobody waits any more; free once it is settled.
    Abandoned,
}

thread_local! {
    static WAITS: RefCell<Waits> = RefCell::default();
}

impl Waits {
    fn begin(&mut self) -> u32 {
        if let Some(number) = self.free.pop() {
            self.slots[number as usize] = Slot::Pending(None);
            return number;
        }
        self.slots.push(Slot::Pending(None));
        (self.slots.len() - 1) as u32
    }

    fn release(&mut self, number: u32) -> Slot {
        self.free.push(number);
        std::mem::replace(&mut self.slots[number as usize], Slot::Free)
    }
}

fn settle(number: u32, result: Result<JsValue, JsValue>) {
    let waker = WAITS.with_borrow_mut(|waits| match &mut waits.slots[number as usize] {
        Slot::Pending(waker) => {
            let waker = waker.take();
            waits.slots[number as usize] = Slot::Settled(result);
            waker
        }
        Slot::Abandoned => {
            waits.release(number);
            None
        }
        Slot::Free | Slot::Settled(_) => None,
    });
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Future for Wait {
    type Output = Result<JsValue, JsValue>;

    fn poll(self: Pin<&mut Self>, context: &mut Context) -> Poll<Self::Output> {
        WAITS.with_borrow_mut(|waits| match &mut waits.slots[self.number as usize] {
            Slot::Pending(waker) => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
            settled => match std::mem::replace(settled, Slot::Abandoned) {
                Slot::Settled(result) => {
                    *settled = Slot::Settled(Ok(JsValue::UNDEFINED));
                    Poll::Ready(result)
                }
                other => {
                    *settled = other;
                    Poll::Pending
                }
            },
        })
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        WAITS.with_borrow_mut(|waits| match &waits.slots[self.number as usize] {
            Slot::Pending(_) => waits.slots[self.number as usize] = Slot::Abandoned,
            _ => drop(waits.release(self.number)),
        });
    }
}
