//! The authority of limits: a Durable Object for each shard of a limit's keys, exact because it is the only one.

use std::cell::{Cell, RefCell};

use futures_util::future::join_all;
use meridian_engine::policy::rate_limit::Authority;
use meridian_engine::ruleset::LimitScope;
use meridian_engine::step::{Lease, Take};
use meridian_wire::lease::{LeaseReply, LeaseRequest};
use wasm_bindgen::prelude::*;
use worker::{DurableObject, Env, ListOptions, Method, Request, Response, Result, State, durable_object};

use crate::host;
use crate::isolate::Isolate;
use crate::limits::{
    AUTHORITY_PAGE, AUTHORITY_SHARD_CHARS, AUTHORITY_SWEEP, AUTHORITY_WAIT_MS, STORAGE_KEYS_MAX,
};
use crate::sweep::Sweep;

/// Binding of the namespace of [`LimitAuthority`].
const LIMITS: &str = "LIMITS";
/// Where the next sweep of an object's storage begins, if one stopped before the end. Keys of counters are base64url, which come
/// behind it in the order of keys.
const SWEPT: &str = "!swept";

/// Takes from all limits at the same time; `None` where the authority does not answer.
pub async fn take(isolate: &Isolate, takes: &[Take]) -> Vec<Option<Lease>> {
    let Some(namespace) = isolate.binding(LIMITS) else { return vec![None; takes.len()] };
    join_all(takes.iter().map(|take| take_one(&namespace, take))).await
}

async fn take_one(namespace: &JsValue, take: &Take) -> Option<Lease> {
    let shard: String = take.key.chars().take(AUTHORITY_SHARD_CHARS).collect();
    let of = if take.scope == LimitScope::Global { "*" } else { &*take.region };
    let name = format!("{}/{}/{of}/{shard}", take.tenant, take.limit);
    let question = serde_json::to_string(&LeaseRequest::from(take)).ok()?;
    let answer = host::wait(host::ask(namespace, &name, &question, AUTHORITY_WAIT_MS)).await.ok()?;
    let reply: LeaseReply = serde_json::from_str(&answer.as_string()?).ok()?;
    Some(Lease::from(reply))
}

/// Counts one shard of one limit. Each counter is written to the object's storage before its grant leaves (Durable
/// Objects hold answers back until what they wrote is safe), and forgotten by the alarm once it is whole again.
#[durable_object(alarm)]
pub struct LimitAuthority {
    state: State,
    authority: RefCell<Authority>,
    /// Whether the alarm is known to be set.
    armed: Cell<bool>,
}

impl DurableObject for LimitAuthority {
    fn new(state: State, _env: Env) -> Self {
        Self { state, authority: RefCell::default(), armed: Cell::new(false) }
    }

    async fn fetch(&self, mut request: Request) -> Result<Response> {
        if request.method() != Method::Post {
            return Response::error("expected POST", 405);
        }
        let Ok(ask) = serde_json::from_str::<LeaseRequest>(&request.text().await?) else {
            return Response::error("expected a lease request as JSON", 400);
        };
        if let Err(invalid) = ask.check() {
            return Response::error(invalid.to_string(), 400);
        }
        let lease = self.take(&Take::from(ask)).await?;
        Response::ok(serde_json::to_string(&LeaseReply::from(lease))?)
    }

    async fn alarm(&self) -> Result<Response> {
        let storage = self.state.storage();
        let before: Option<String> = storage.get(SWEPT).await?;
        let goes_on = before.is_some();
        let mut sweep = Sweep::new(before);
        loop {
            let options = ListOptions::new().limit(AUTHORITY_PAGE);
            let options = match sweep.begins() {
                Some(key) => options.start(key),
                None => options,
            };
            let page = storage.list_with_options(options).await?;
            let mut counters = Vec::new();
            page.for_each(&mut |saved, key| {
                counters.extend(key.as_string().map(|key| (key, saved.as_string())));
            });
            let whole = sweep.page(counters, host::now_ms());
            for keys in whole.chunks(STORAGE_KEYS_MAX) {
                storage.delete_multiple(keys.to_vec()).await?;
            }
            if !sweep.goes_on() {
                break;
            }
        }
        let ended = sweep.end();
        if let Some(key) = ended.begins {
            storage.put(SWEPT, key).await?;
        } else if goes_on {
            storage.delete(SWEPT).await?;
        }
        self.armed.set(ended.due.is_some());
        if let Some(due) = ended.due {
            storage.set_alarm(due).await?;
        }
        Response::ok("")
    }
}

impl LimitAuthority {
    async fn take(&self, take: &Take) -> Result<Lease> {
        let storage = self.state.storage();
        if self.authority.borrow().saved(take).is_none()
            && let Some(saved) = storage.get::<String>(&take.key).await?
            // Another request may have come in between.
            && self.authority.borrow().saved(take).is_none()
        {
            self.authority.borrow_mut().restore(take, &saved, host::now_ms());
        }
        let lease = self.authority.borrow_mut().take(take, host::now_ms());
        let saved = self.authority.borrow().saved(take);
        if lease.granted > 0
            && let Some(saved) = saved
        {
            storage.put(&take.key, saved).await?;
        }
        if !self.armed.replace(true) && storage.get_alarm().await?.is_none() {
            storage.set_alarm(AUTHORITY_SWEEP).await?;
        }
        Ok(lease)
    }
}
