//! Waiting for promises. One callback serves all of them, where a `JsFuture` makes two closures for each, with an entry
//! in the finalisation registry for either.
//!
//! A request whose client leaves is cancelled: its promises never settle. What has been waited for longer than
//! [`WAIT_MS_MAX`] is therefore given up, and everything that the request held is freed with it.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use wasm_bindgen::prelude::*;
use worker::js_sys::Promise;

use crate::host::now_ms;
use crate::limits::{WAIT_MS_MAX, WAITS_A_SWEEP};

#[wasm_bindgen(module = "/src/host.js")]
extern "C" {
    /// Sets the callback that is told what became of each watched promise.
    #[wasm_bindgen(js_name = onSettled)]
    fn on_settled(callback: &Closure<dyn Fn(u32, u32, bool, JsValue)>);

    /// Watches a promise under a slot and the turn of that slot.
    fn watch(promise: &Promise, slot: u32, turn: u32);
}

/// What a promise comes to.
pub fn wait(promise: Promise) -> Wait {
    let (wait, lost) = WAITS.with_borrow_mut(|waits| {
        if !waits.listening {
            waits.listening = true;
            let callback = Closure::new(|slot, turn, fulfilled, value| {
                settle(slot, turn, if fulfilled { Ok(value) } else { Err(value) });
            });
            on_settled(&callback);
            // It lives as long as the instance.
            callback.forget();
        }
        waits.begin(now_ms())
    });
    // Freed here, for what they hold may be waiting as well.
    drop(lost);
    watch(&promise, wait.slot, wait.turn);
    wait
}

/// A promise that is waited for.
pub struct Wait {
    slot: u32,
    turn: u32,
}

/// Everything that is waited for. Slots are used again, each time for another turn.
#[derive(Default)]
struct Waits {
    slots: Vec<Slot>,
    free: Vec<u32>,
    begun: u32,
    listening: bool,
}

struct Slot {
    turn: u32,
    since_ms: u64,
    state: State,
}

enum State {
    Free,
    Pending(Option<Waker>),
    Settled(Result<JsValue, JsValue>),
}

thread_local! {
    static WAITS: RefCell<Waits> = RefCell::default();
}

impl Waits {
    /// Begins a wait. The wakers of those that were given up are for the caller to drop.
    fn begin(&mut self, now_ms: u64) -> (Wait, Vec<Waker>) {
        self.begun = self.begun.wrapping_add(1);
        let lost = if self.begun.is_multiple_of(WAITS_A_SWEEP) { self.give_up(now_ms) } else { Vec::new() };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { turn: 0, since_ms: 0, state: State::Free });
            (self.slots.len() - 1) as u32
        });
        let entry = &mut self.slots[slot as usize];
        entry.turn = entry.turn.wrapping_add(1);
        entry.since_ms = now_ms;
        entry.state = State::Pending(None);
        (Wait { slot, turn: entry.turn }, lost)
    }

    /// The slot, if it is still this turn's.
    fn get(&mut self, slot: u32, turn: u32) -> Option<&mut State> {
        let entry = self.slots.get_mut(slot as usize)?;
        let current = entry.turn == turn && !matches!(entry.state, State::Free);
        current.then_some(&mut entry.state)
    }

    fn settle(&mut self, slot: u32, turn: u32, result: Result<JsValue, JsValue>) -> Option<Waker> {
        match self.get(slot, turn)? {
            State::Pending(waker) => {
                let waker = waker.take();
                self.slots[slot as usize].state = State::Settled(result);
                waker
            }
            State::Free | State::Settled(_) => None,
        }
    }

    fn release(&mut self, slot: u32, turn: u32) -> Option<State> {
        let state = std::mem::replace(self.get(slot, turn)?, State::Free);
        self.free.push(slot);
        Some(state)
    }

    fn give_up(&mut self, now_ms: u64) -> Vec<Waker> {
        let old = |entry: &&mut Slot| now_ms.saturating_sub(entry.since_ms) > WAIT_MS_MAX;
        let waker = |entry: &mut Slot| match &mut entry.state {
            State::Pending(waker) => waker.take(),
            State::Free | State::Settled(_) => None,
        };
        self.slots.iter_mut().filter(old).filter_map(waker).collect()
    }
}

fn settle(slot: u32, turn: u32, result: Result<JsValue, JsValue>) {
    let waker = WAITS.with_borrow_mut(|waits| waits.settle(slot, turn, result));
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Future for Wait {
    type Output = Result<JsValue, JsValue>;

    fn poll(self: Pin<&mut Self>, context: &mut Context) -> Poll<Self::Output> {
        WAITS.with_borrow_mut(|waits| match waits.get(self.slot, self.turn) {
            Some(State::Pending(waker)) => {
                // Always the same one: no other is dropped here.
                if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                    *waker = Some(context.waker().clone());
                }
                Poll::Pending
            }
            _ => match waits.release(self.slot, self.turn) {
                Some(State::Settled(result)) => Poll::Ready(result),
                _ => Poll::Pending,
            },
        })
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let state = WAITS.with_borrow_mut(|waits| waits.release(self.slot, self.turn));
        drop(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leak(wait: Wait) {
        std::mem::forget(wait);
    }

    #[test]
    fn a_slot_is_used_again_but_not_for_an_old_promise() {
        let mut waits = Waits::default();
        let (first, _) = waits.begin(0);
        assert!(matches!(waits.release(first.slot, first.turn), Some(State::Pending(None))));
        let (second, _) = waits.begin(0);
        assert_eq!(first.slot, second.slot);
        assert!(waits.get(first.slot, first.turn).is_none());
        assert!(waits.release(first.slot, first.turn).is_none(), "released once");
        assert!(waits.get(second.slot, second.turn).is_some());
        leak(first);
        leak(second);
    }

    #[test]
    fn what_never_settles_is_given_up() {
        let mut waits = Waits::default();
        let (wait, _) = waits.begin(0);
        *waits.get(wait.slot, wait.turn).unwrap() = State::Pending(Some(Waker::noop().clone()));
        for _ in 0..WAITS_A_SWEEP {
            let (other, lost) = waits.begin(WAIT_MS_MAX);
            assert!(lost.is_empty());
            leak(other);
        }
        let lost: usize = (0..WAITS_A_SWEEP)
            .map(|_| {
                let (other, lost) = waits.begin(WAIT_MS_MAX + 1);
                leak(other);
                lost.len()
            })
            .sum();
        assert_eq!(lost, 1);
        leak(wait);
    }
}
