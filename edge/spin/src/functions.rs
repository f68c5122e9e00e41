//! Functions: their components, brought to where they run, and the requests that go through them.
//!
//! They run where Spin's service chaining leads, at a component called `functions`; a host may be that component itself.
//! The components lie in the key-value store, one of each function, so that what is pushed often takes no more room.

use std::collections::HashMap;

use meridian_engine::step::function::{FIELD, TARGET_FIELD};
use meridian_engine::step::{FunctionCall, FunctionFailure};
use meridian_wire::encoding::sha256_hex;

use crate::instance::{Memory, now_ms};
use crate::limits::{FUNCTION_AGAIN_MS, FUNCTIONS_KNOWN_MAX, LOAD_TIMEOUT_MS};
use crate::origin::{self, Call};
use crate::url::Url;

/// Where functions run.
const PLACE: &str = "http://functions.spin.internal";

/// What an instance knows of components, by their keys.
#[derive(Debug, Default)]
pub struct Components(HashMap<String, Known>);

/// What is known of a component.
#[derive(Debug)]
struct Known {
    sha256: String,
    /// When it could not be had; `None` where it lies in the store.
    failed_ms: Option<u64>,
}

impl Components {
    /// Whether this component is there, where that is known.
    fn is_there(&self, call: &FunctionCall, now_ms: u64) -> Option<bool> {
        let known = self.0.get(&call.key()).filter(|known| *known.sha256 == *call.sha256)?;
        match known.failed_ms {
            None => Some(true),
            Some(failed_ms) if now_ms.saturating_sub(failed_ms) < FUNCTION_AGAIN_MS => Some(false),
            Some(_) => None,
        }
    }

    fn note(&mut self, call: &FunctionCall, failed_ms: Option<u64>) {
        if self.0.len() >= FUNCTIONS_KNOWN_MAX {
            self.0.clear();
        }
        self.0.insert(call.key(), Known { sha256: call.sha256.to_string(), failed_ms });
    }

    /// Where it ran it was not there, or another one was.
    pub fn forget(&mut self, call: &FunctionCall) {
        self.0.remove(&call.key());
    }
}

/// Sees to it that the component lies in the store.
pub async fn bring(memory: &Memory, call: &FunctionCall) -> Result<(), FunctionFailure> {
    let known = memory.functions.borrow().is_there(call, now_ms());
    let is_there = match known {
        Some(known) => known,
        None => {
            let found = is_stored(memory, call).await || fetch(memory, call).await;
            let failed_ms = (!found).then(now_ms);
            memory.functions.borrow_mut().note(call, failed_ms);
            found
        }
    };
    if is_there { Ok(()) } else { Err(FunctionFailure::Missing) }
}

fn is_it(call: &FunctionCall, bytes: &[u8]) -> bool {
    bytes.len() as u64 == call.component_bytes && sha256_hex(bytes) == *call.sha256
}

async fn is_stored(memory: &Memory, call: &FunctionCall) -> bool {
    memory.read(&call.key()).await.is_some_and(|bytes| is_it(call, &bytes))
}

/// Asks the origins, one after the other, until one has it: a release may not have come to all of them yet.
async fn fetch(memory: &Memory, call: &FunctionCall) -> bool {
    let FunctionCall { tenant, bundle, sha256, .. } = call;
    let path = format!("/edge/v1/bundles/tenant:{tenant}/{bundle}/functions/{sha256}");
    let bytes_max = usize::try_from(call.component_bytes).unwrap_or(usize::MAX);
    let ask = Call {
        method: "GET",
        path: &path,
        body: None,
        version: None,
        timeout_ms: LOAD_TIMEOUT_MS,
        bytes_max,
    };
    let mut turns = origin::turns(memory, LOAD_TIMEOUT_MS);
    while let Some((index, timeout_ms)) = turns.next_at(now_ms()) {
        match origin::attempt(memory, index, &ask, timeout_ms).await {
            Ok(answer) if answer.status == 200 && is_it(call, &answer.body) => {
                return memory.write(&call.key(), answer.body).await;
            }
            Ok(answer) => eprintln!("{}: an origin answered with status {}", call.key(), answer.status),
            Err(fault) => eprintln!("{}: {fault}", call.key()),
        }
    }
    false
}

/// Where a request to this URL goes in the place of its target; the fields that say so come to its own. `None` where it is
/// no URL.
pub fn turned(call: &FunctionCall, url: &str, fields: &mut Vec<(String, Vec<u8>)>) -> Option<String> {
    let Url { secure, authority, target } = Url::parse(url)?;
    let scheme = if secure { "https" } else { "http" };
    fields.push((FIELD.to_owned(), call.field().into_bytes()));
    fields.push((TARGET_FIELD.to_owned(), format!("{scheme}://{authority}").into_bytes()));
    Some(format!("{PLACE}{target}"))
}
