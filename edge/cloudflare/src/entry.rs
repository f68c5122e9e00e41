//! Where requests and timers come in.

use std::rc::Rc;
use std::time::Duration;

use meridian_engine::exchange::Exchange;
use meridian_engine::problem::Problem;
use meridian_engine::refusal::Refusal;
use meridian_wire::event::Seen;
use wasm_bindgen::prelude::*;
use worker::js_sys::Uint8Array;
use worker::worker_sys::Context as JsContext;
use worker::{Context, Env, ScheduleContext, ScheduledEvent, console_error, event};

use crate::facts::{self, Sources, gather};
use crate::forward::RequestBody;
use crate::isolate::Isolate;
use crate::limits::{SYNC_BACKGROUND_MS, WAIT_MS_MAX};
use crate::perform::Passage;
use crate::{bundle, events, host, serving};

/// Serves a request: a `Response`, or `undefined` where something has to be waited for. `owed` is resolved to it then.
#[wasm_bindgen(js_name = serve)]
pub fn fetch(request: JsValue, env: Env, ctx: JsContext, owed: JsValue) -> Result<JsValue, JsValue> {
    serving::serve(serve(request, env, Context::new(ctx)), owed).unwrap_or(Ok(JsValue::UNDEFINED))
}

/// Tells `worker.js` the limit that it shares with the waits in here.
#[wasm_bindgen(js_name = waitMsMax)]
pub fn wait_ms_max() -> f64 {
    WAIT_MS_MAX as f64
}

/// Keeps an idle isolate's last good rules from growing old: asks the origins what is new.
#[event(scheduled)]
async fn scheduled(_event: ScheduledEvent, env: Env, _ctx: ScheduleContext) {
    let Some(isolate) = Isolate::get(&env) else { return };
    let ask = isolate.node.borrow_mut().ask_sync(host::now_ms());
    let news = bundle::sync(&isolate, &ask, SYNC_BACKGROUND_MS).await;
    isolate.node.borrow_mut().synced(news, host::now_ms());
    events::flush(&isolate).await;
}

async fn serve(request: JsValue, env: Env, ctx: Context) -> Result<JsValue, JsValue> {
    let Some(isolate) = Isolate::get(&env) else { return refuse(&request, "The edge is not configured") };
    let sources = Sources {
        config: &isolate.config,
        places: isolate.places.as_ref(),
        now_ms: host::now_ms(),
        random: isolate.random(),
    };
    let head = host::head(&request);
    let facts = gather(&head, &sources);
    #[cfg(feature = "fault-injection")]
    // A promise of a timer is never rejected.
    meridian_corpus::fault::inject(&facts.path, async |ms| drop(host::wait(host::sleep(ms)).await)).await;
    #[cfg(feature = "corpus")]
    if facts.path == "/.corpus" {
        return crate::corpus::run(&isolate, &request).await;
    }
    let seen = Seen::of(&facts);
    let body = RequestBody::of(&request, facts.body);
    let (exchange, step) = Exchange::begin(&mut isolate.node.borrow_mut(), facts);
    let mut passage = Passage::new(Rc::clone(&isolate), Rc::new(ctx), seen, body);
    let reply = passage.drive(exchange, step).await;
    passage.respond(reply)
}

/// The reply where the engine can't be asked.
fn refuse(request: &JsValue, title: &'static str) -> Result<JsValue, JsValue> {
    let head = host::head(request);
    let mut random = [0; 16];
    host::random(&mut random);
    let problem = Problem::new(500, "internal", title);
    let fields = host::fields(head.split('\n').skip(facts::LINES_BEFORE_FIELDS));
    let refusal = Refusal::new(&problem, &fields, host::now_ms(), random, Duration::ZERO);
    console_error!("decision {}: {title}", refusal.decision);
    let body = Uint8Array::from(refusal.body.as_slice());
    host::respond(refusal.status, &JsValue::UNDEFINED, &host::lines(&refusal.headers), &body, false)
}
