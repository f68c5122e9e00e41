//! Whether the edges deploy as they are: by Cloudflare's own command, and into the world that Spin gives a component.

mod component;
mod wrangler;
