//! The edge as a Spin component: it turns requests into facts, performs what the engine asks for, and never decides
//! anything itself.
//!
//! What needs the host is compiled for Wasm only; the rest is plain and tested natively. Everything that an instance
//! knows is in one value of `instance`, and can be lost at any moment: instances live for few requests.

pub mod cache;
pub mod events;
pub mod facts;
pub mod limits;
pub mod place;
pub mod stored;
pub mod url;

#[cfg(target_family = "wasm")]
mod bundle;
#[cfg(target_family = "wasm")]
mod content;
#[cfg(target_family = "wasm")]
mod entry;
#[cfg(target_family = "wasm")]
mod forward;
#[cfg(target_family = "wasm")]
mod functions;
#[cfg(target_family = "wasm")]
mod instance;
#[cfg(target_family = "wasm")]
mod keys;
#[cfg(target_family = "wasm")]
mod later;
#[cfg(target_family = "wasm")]
mod message;
#[cfg(target_family = "wasm")]
mod origin;
#[cfg(target_family = "wasm")]
mod perform;
#[cfg(target_family = "wasm")]
mod respond;
#[cfg(target_family = "wasm")]
mod shelf;
#[cfg(target_family = "wasm")]
mod store;
