//! Functions: Cloudflare runs them as scripts of a dispatch namespace (Workers for Platforms), or a service of the
//! operator's own runs them all.

use meridian_engine::step::function::{ENDED_FIELD, FIELD, of_ended_field};
use meridian_engine::step::{Forward, FunctionCall, FunctionFailure, FunctionFault, Ran};
use worker::js_sys::Reflect;
use worker::wasm_bindgen::JsValue;

use crate::host::{self, SendFault, Sent};
use crate::isolate::Isolate;

/// Binding of the dispatch namespace.
const NAMESPACE: &str = "FUNCTIONS";
/// Letters of a component's digest in the name of its script.
const DIGEST_CHARS: usize = 16;

/// The function that an attempt goes through.
pub struct Through {
    /// What takes the request in the place of its target.
    pub fetcher: JsValue,
    /// Whether it is the operator's own, which says what came of the function.
    is_service: bool,
}

impl Through {
    /// What runs the function of an attempt, where it has one; what is to be said to it goes into the attempt's fields.
    ///
    /// # Errors
    /// Where nothing here runs functions.
    pub fn of(isolate: &Isolate, ask: &mut Forward) -> Result<Option<Self>, FunctionFault> {
        let Some(call) = &ask.function else { return Ok(None) };
        let found = host::function_of(&isolate.env, &script(call), call.cpu_ms_max);
        let fetcher = found.ok().filter(|fetcher| !fetcher.is_undefined());
        let unsupported = FunctionFault { why: FunctionFailure::Unsupported, sent_on: false };
        let fetcher = fetcher.ok_or(unsupported)?;
        let is_service =
            Reflect::get(&isolate.env, &NAMESPACE.into()).is_ok_and(|found| found.is_undefined());
        if is_service {
            ask.headers.set(FIELD, call.field());
        }
        ask.timeout_ms = call.timeout_ms;
        Ok(Some(Self { fetcher, is_service }))
    }

    /// What came of the function.
    ///
    /// # Errors
    /// Where it failed.
    pub fn ran(is_service: bool, sent: &mut Sent) -> Result<Ran, FunctionFault> {
        let fault = match &sent.status {
            Ok(_) => {
                let ended = sent.headers.get(ENDED_FIELD).filter(|_| is_service);
                let ran = of_ended_field(ended);
                sent.headers.remove(ENDED_FIELD);
                return ran;
            }
            Err(SendFault::Timeout) => (FunctionFailure::Timeout, true),
            Err(SendFault::Broken(text)) if text.contains("not found") => (FunctionFailure::Missing, false),
            Err(SendFault::Broken(text)) if text.contains("CPU") => (FunctionFailure::Cpu, true),
            Err(SendFault::Broken(text)) if text.contains("memory") => (FunctionFailure::Memory, true),
            // Whether the target saw the request is not to be known.
            Err(_) => (FunctionFailure::Error, true),
        };
        Err(FunctionFault { why: fault.0, sent_on: fault.1 })
    }

    /// Whether the operator's own service runs it.
    pub fn is_service(&self) -> bool {
        self.is_service
    }
}

/// Name of a function's script: each version has one of its own, so that a roll-back finds the one before.
fn script(call: &FunctionCall) -> String {
    let digest: String = call.sha256.chars().take(DIGEST_CHARS).collect();
    format!("{}-{}-{digest}", call.tenant, call.name)
}
