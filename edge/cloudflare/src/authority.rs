//! The authority of limits: a Durable Object for each shard of a limit's keys, exact because it is the only one.

use std::cell::RefCell;

use futures_util::future::join_all;
use meridian_engine::policy::rate_limit::Authority;
use meridian_engine::step::{Lease, Take};
use meridian_wire::lease::{LeaseReply, LeaseRequest};
use wasm_bindgen::prelude::*;
use worker::{DurableObject, Env, Method, Request, Response, Result, State, console_warn, durable_object};

use crate::host;
use crate::isolate::Isolate;
use crate::limits::{AUTHORITY_SHARD_CHARS, AUTHORITY_WAIT_MS};

/// Binding of the namespace of [`LimitAuthority`].
const LIMITS: &str = "LIMITS";

/// Takes from all limits at the same time; `None` where the authority does not answer.
pub async fn take(isolate: &Isolate, takes: &[Take]) -> Vec<Option<Lease>> {
    let namespace = isolate.binding(LIMITS);
    if namespace.is_undefined() {
        console_warn!("binding {LIMITS} is missing");
        return vec![None; takes.len()];
    }
    join_all(takes.iter().map(|take| take_one(&namespace, take))).await
}

async fn take_one(namespace: &JsValue, take: &Take) -> Option<Lease> {
    let shard: String = take.key.chars().take(AUTHORITY_SHARD_CHARS).collect();
    let name = format!("{}/{}/{shard}", take.tenant, take.limit);
    let question = serde_json::to_string(&LeaseRequest::from(take)).ok()?;
    let answer = host::wait(host::ask(namespace, &name, &question, AUTHORITY_WAIT_MS)).await.ok()?;
    let reply: LeaseReply = serde_json::from_str(&answer.as_string()?).ok()?;
    Some(Lease::from(reply))
}

/// Counts one shard of one limit. What it granted is written to its storage behind the answer, so that a restart
/// forgets at most what was not yet written.
#[durable_object(fetch)]
pub struct LimitAuthority {
    state: State,
    authority: RefCell<Authority>,
}

impl DurableObject for LimitAuthority {
    fn new(state: State, _env: Env) -> Self {
        Self { state, authority: RefCell::default() }
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
        let lease = self.authority.borrow_mut().take(&take_of(ask), host::now_ms());
        Response::ok(serde_json::to_string(&LeaseReply::from(lease))?)
    }
}

fn take_of(ask: LeaseRequest) -> Take {
    let LeaseRequest { tenant, limit, key, cost, quota, window_ms, burst, amount } = ask;
    Take { tenant, limit, key, amount, cost, quota, window_ms, burst }
}
