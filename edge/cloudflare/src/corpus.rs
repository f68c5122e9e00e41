//! A case of the decision corpus, run in the worker. Only the tests of parity build this in, with the feature `corpus`.

use meridian_engine::ruleset::PageChanges;
use meridian_engine::step::Verify;
use worker::js_sys::Uint8Array;
use worker::wasm_bindgen::JsValue;

use crate::isolate::Isolate;
use crate::limits::BODY_PAUSE_MS;
use crate::{content, host, signature};

/// Runs the case that is the request's body and answers with its outcome.
pub async fn run(isolate: &Isolate, request: &JsValue) -> Result<JsValue, JsValue> {
    let case = Uint8Array::from(host::wait(host::bytes_of(request, BODY_PAUSE_MS)).await?).to_vec();
    let verify = async |ask: &Verify, _now_ms: u64| signature::verify(isolate, ask).await;
    let rewrite = async |changes: PageChanges, page: Vec<u8>| {
        let page = host::wait(content::rewrite_whole(&page, &changes).ok()?).await.ok()?;
        Some(Uint8Array::from(page).to_vec())
    };
    let outcome = meridian_corpus::run(&case, verify, rewrite).await;
    let body = Uint8Array::from(outcome.as_slice());
    host::respond(200, &JsValue::UNDEFINED, "content-type\napplication/json", &body, false)
}
