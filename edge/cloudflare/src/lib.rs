//! The edge on Cloudflare Workers.
