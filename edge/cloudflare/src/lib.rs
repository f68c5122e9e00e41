//! The edge on Cloudflare Workers: a shell around `meridian-engine`.
//!
//! A request becomes [`facts`], the engine says what to do, and [`perform`] does it with what the platform has: KV for
//! the last good rules, Durable Objects as the authority of limits, the Cache API for bodies, WebCrypto for signatures.
//! What is decided is decided in the engine; nothing here forwards without its permit.
//!
//! Everything that is shared between requests is in the [`isolate`], bounded, and never borrowed across an `await`. The
//! boundary to JavaScript is in [`host`], [`wait`] and [`serving`] alone.

mod authority;
mod bundle;
mod cache;
mod content;
#[cfg(feature = "corpus")]
mod corpus;
mod entry;
mod events;
mod facts;
mod fields;
mod forward;
mod functions;
mod host;
mod isolate;
mod limits;
mod origin;
mod perform;
mod serving;
mod signature;
mod sweep;
mod wait;
