//! Request collapsing: of equal requests that find nothing stored, one goes forward, and the others wait for what it stores
//! (RFC 9111, section 4; RFC 9211, section 2.6).
//!
//! A request with a condition of its client's may be answered by a 304, which is for nobody else. One by itself goes forward as it
//! came; the next one, while that is out, is sent without its condition for all of them, and the conditions of those who wait are
//! answered from what it stores. A request for a range waits for a fetch for a moment, and begins none: what it asks for is short,
//! and the whole may not be.
//!
//! They ask the node's memory again after ever longer pauses, so that no host has to wake one request for another, and
//! look up again once the fetch has ended. Whoever finds nothing then, or has waited long enough, goes forward alone.

use super::{Exchange, Waiting};
use crate::limits::{COLLAPSE_PAUSE_MS_MAX, COLLAPSE_PAUSE_MS_MIN, COLLAPSE_RANGE_WAIT_MS, COLLAPSE_WAIT_MS};
use crate::node::{Fetched, Node, Patience, Turn};
use crate::policy::cache::{Fwd, Part, Serve};
use crate::step::{After, CacheKey, Step};

/// The part that an exchange has in fetches which others wait for.
#[derive(Debug, Default)]
pub(super) struct Collapse {
    /// The key that it fetches for the others too.
    pub(super) leads: Option<CacheKey>,
    /// The key that it asks for with its client's condition.
    asks: Option<CacheKey>,
    /// What became of it, unless the host says so once it is stored.
    pub(super) fetched: Fetched,
    /// The fetch that it waits or waited for.
    waits: Option<Wait>,
    /// How long it has waited in all.
    waited_ms: u32,
    /// How long it may.
    patience_ms: u32,
}

#[derive(Debug)]
struct Wait {
    key: CacheKey,
    /// Decision that fetches.
    leader: String,
    /// Why this request would have gone forward.
    fwd: Fwd,
    begun_ms: u64,
}

/// How long to pause before the next look at what another request does: a part of the time waited so far, which makes
/// many steps at first, and few in all.
pub(super) fn pause_ms(waited_ms: u32) -> u32 {
    (waited_ms / 4).clamp(COLLAPSE_PAUSE_MS_MIN, COLLAPSE_PAUSE_MS_MAX)
}

impl Exchange {
    /// Nothing at hand answers the request: it goes forward, unless another one has done so already.
    pub(super) fn fetch(&mut self, node: &mut Node) -> Step {
        // A revalidation leads from its beginning.
        let Some(lookup) = self.lookup.as_ref().filter(|_| !self.background) else {
            return self.steer(node);
        };
        let part = lookup.part(&self.facts.headers);
        let key = lookup.place().clone();
        let fwd = lookup.fwd();
        let has_waited = self.collapse.waits.as_ref().is_some_and(|wait| wait.key == key);
        self.collapse.patience_ms =
            if part == Part::Follows { COLLAPSE_RANGE_WAIT_MS } else { COLLAPSE_WAIT_MS };
        let may_wait = lookup.may_wait() && self.collapse.waited_ms < self.collapse.patience_ms;
        let patience = match (may_wait, has_waited) {
            (true, false) => Patience::Any,
            (true, true) => Patience::Again,
            (false, _) => Patience::None,
        };
        let turn = match part {
            Part::Leads => node.fetches.begin(&key, &self.id, patience, self.now_ms),
            Part::Asks => node.fetches.ask(&key, &self.id, patience, self.now_ms),
            Part::Follows => node.fetches.follow(&key, &self.id, patience, self.now_ms),
            Part::Alone => Turn::Alone,
        };
        match turn {
            Turn::Wait(leader) => {
                self.collapse.waits = Some(Wait { key, leader, fwd, begun_ms: self.now_ms });
                self.pause()
            }
            Turn::Lead => {
                self.collapse.leads = Some(key);
                if let Some(lookup) = self.lookup.as_mut().filter(|_| part == Part::Asks) {
                    lookup.ask_for_all();
                    self.explain("collapse", None, "asks for others too, without its condition", Vec::new());
                }
                self.steer(node)
            }
            Turn::Ask => {
                self.collapse.asks = Some(key);
                self.steer(node)
            }
            Turn::Alone => self.steer(node),
        }
    }

    fn pause(&mut self) -> Step {
        let ms = pause_ms(self.collapse.waited_ms);
        // Counted without a clock, which may be set back.
        self.collapse.waited_ms += ms;
        self.wait(Waiting::Pause, Step::Pause { ms })
    }

    /// After a pause: another one while the fetch is under way, and a second look where it is not.
    pub(super) fn paused(&mut self, node: &mut Node) -> Step {
        let (Some(wait), Some(lookup)) = (&self.collapse.waits, &mut self.lookup) else {
            return self.fail_internally(node, "nobody was waited for");
        };
        let is_under_way = node.fetches.is_under_way(&wait.key, &wait.leader);
        if is_under_way && self.collapse.waited_ms < self.collapse.patience_ms {
            return self.pause();
        }
        lookup.again();
        let key = lookup.key().clone();
        let (leader, waited_ms) = (wait.leader.clone(), self.now_ms.saturating_sub(wait.begun_ms));
        let inputs = vec![("decision", leader), ("waited_ms", waited_ms.to_string())];
        self.explain("collapse", None, "waited for the fetch of another request", inputs);
        self.wait(Waiting::LookUp, Step::LookUp(key))
    }

    /// What another request fetched is no hit of this one: it would have gone forward as well.
    pub(super) fn reused(&self, serve: &mut Serve) {
        if let Some(wait) = &self.collapse.waits {
            serve.status_line.collapse(wait.fwd);
        }
    }

    /// Ends the fetch that this exchange leads, unless the host does once the answer is stored.
    pub(super) fn end_fetch(&mut self, node: &mut Node, after: &[After]) {
        if let Some(asks) = self.collapse.asks.take() {
            node.fetches.asked(&asks, &self.id);
        }
        let Some(leads) = self.collapse.leads.take() else { return };
        let is_stored = |item: &After| matches!(item, After::Store { key, .. } if *key == leads);
        if !after.iter().any(is_stored) {
            node.fetches.end(&leads, &self.id, self.collapse.fetched, self.now_ms);
        }
    }
}
