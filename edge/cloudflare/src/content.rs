//! What a body becomes on its way to the client, by what the runtime has for it: `HTMLRewriter`, and the coders of
//! `node:zlib`, which can be told to hold nothing back while a body pauses.

use meridian_engine::ruleset::{Coding, HtmlChange, HtmlEdit, Markup, PageChanges, Spot};
use wasm_bindgen::prelude::*;

use crate::limits::PAUSE_MS;

mod js {
    use super::*;

    #[wasm_bindgen(module = "/src/content.js")]
    extern "C" {
        /// The stream of a body in a content coding.
        #[wasm_bindgen(catch)]
        pub fn code(body: &JsValue, coding: &str, pause_ms: u32) -> Result<JsValue, JsValue>;

        /// The stream of a page with changes made to it; faults are logged with the decision's id.
        #[wasm_bindgen(catch)]
        pub fn rewrite(body: &JsValue, changes: &str, decision: &str) -> Result<JsValue, JsValue>;

        /// Promise of the bytes of a whole page with changes made to it.
        #[cfg(feature = "corpus")]
        #[wasm_bindgen(catch, js_name = rewriteWhole)]
        pub fn rewrite_whole(page: &[u8], changes: &str) -> Result<worker::js_sys::Promise, JsValue>;
    }
}

/// The body that the client gets: a stream or bytes, `null` where there is none.
pub fn reworked(
    body: JsValue,
    html: &PageChanges,
    coding: Option<Coding>,
    decision: &str,
) -> Result<JsValue, JsValue> {
    if body.is_null() {
        return Ok(body);
    }
    let page = match html.is_empty() {
        true => body,
        false => js::rewrite(&body, &plan(html), decision)?,
    };
    match coding {
        Some(coding) => js::code(&page, coding.token(), PAUSE_MS),
        None => Ok(page),
    }
}

/// Promise of the bytes of a whole page with changes made to it.
#[cfg(feature = "corpus")]
pub fn rewrite_whole(page: &[u8], html: &PageChanges) -> Result<worker::js_sys::Promise, JsValue> {
    js::rewrite_whole(page, &plan(html))
}

/// Changes as `content.js` reads them: JSON of edits (selector, change, name or kind of markup, value) and of what
/// minification leaves and keeps, if there is one.
fn plan(html: &PageChanges) -> String {
    let line = |HtmlEdit { select, change }: &HtmlEdit| {
        let (change, first, value) = match change {
            HtmlChange::SetAttribute(name, value) => ("setAttribute", name.as_str(), value.as_str()),
            HtmlChange::RemoveAttribute(name) => ("removeAttribute", name.as_str(), ""),
            HtmlChange::Remove => ("remove", "", ""),
            HtmlChange::Put(spot, markup, value) => {
                let change = match spot {
                    Spot::Before => "before",
                    Spot::Prepend => "prepend",
                    Spot::Append => "append",
                    Spot::After => "after",
                    Spot::Inner => "inner",
                    Spot::Replace => "replace",
                };
                let markup = match markup {
                    Markup::Text => "text",
                    Markup::Html => "html",
                };
                (change, markup, value.as_str())
            }
        };
        serde_json::json!([select, change, first, value])
    };
    let edits: Vec<serde_json::Value> = html.edits.iter().map(line).collect();
    let minify = html.minify.then(
        || serde_json::json!({ "left": PageChanges::LEFT_ELEMENTS, "kept": PageChanges::KEPT_COMMENTS }),
    );
    serde_json::json!({ "edits": edits, "minify": minify }).to_string()
}
