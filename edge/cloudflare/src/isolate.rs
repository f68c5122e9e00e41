//! What one isolate keeps from one request to the next.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

use meridian_engine::bounded::{Bounded, Keyed};
use meridian_engine::node::Node;
use meridian_wire::edge::Config;
use meridian_wire::place::Places;
use worker::js_sys::{Reflect, Uint8Array};
use worker::wasm_bindgen::JsValue;
use worker::{Env, console_error, console_warn};

use crate::events::Queue;
use crate::fields::Recurring;
use crate::host;
use crate::limits::{CACHE_CODED_BYTES_MAX, KEYS_MAX, RANDOM_POOL_BYTES};
use crate::signature::ImportedKeys;

/// The memory of an isolate.
pub struct Isolate {
    /// Variables and secrets.
    pub config: Config,
    /// Bindings.
    pub env: Env,
    /// The engine's memory. Never borrowed across an `await`.
    pub node: RefCell<Node>,
    /// Places of addresses, where there is a database.
    pub places: Option<Places>,
    /// Keys as WebCrypto has them.
    pub keys: RefCell<ImportedKeys>,
    /// Header fields as the runtime has them.
    pub fields: RefCell<Recurring>,
    /// What the origin is to be told.
    pub events: RefCell<Queue>,
    /// Index of the origin that answered last.
    pub origin: Cell<usize>,
    random: RefCell<Random>,
}

thread_local! {
    static ISOLATE: OnceCell<Option<Rc<Isolate>>> = const { OnceCell::new() };
}

impl Isolate {
    /// The isolate's memory, made at its first request. `None` where the variables are not readable, which is logged.
    pub fn get(env: &Env) -> Option<Rc<Self>> {
        let value = |name: &'static str| env.var(name).map(|value| value.to_string()).unwrap_or_default();
        let make = || match Config::parse(value) {
            Ok(config) => Some(Rc::new(Self::new(config, env.clone()))),
            Err(error) => {
                console_error!("the edge is not configured: {error}");
                None
            }
        };
        ISOLATE.with(|isolate| isolate.get_or_init(make).clone())
    }

    fn new(config: Config, env: Env) -> Self {
        let mut random = Random::default();
        let hashing: [u8; 32] = random.next();
        let node = Node::new(&config.edge, config.secrets())
            .with_unknown_host_status(config.unknown_host_status)
            .with_coded_bytes_max(CACHE_CODED_BYTES_MAX)
            .with_recoded_content();
        Self {
            places: places(&env),
            env,
            node: RefCell::new(node),
            keys: RefCell::new(Bounded::new(KEYS_MAX, Keyed::new(&hashing))),
            fields: RefCell::new(Recurring::new(Keyed::new(&hashing))),
            events: RefCell::new(Queue::new(&config.edge)),
            origin: Cell::new(0),
            random: RefCell::new(random),
            config,
        }
    }

    /// Fresh random bytes.
    pub fn random<const N: usize>(&self) -> [u8; N] {
        self.random.borrow_mut().next()
    }

    /// A binding by name; where there is none that is logged.
    pub fn binding(&self, name: &str) -> Option<JsValue> {
        let binding = Reflect::get(&self.env, &JsValue::from_str(name)).unwrap_or_default();
        if binding.is_undefined() {
            console_warn!("binding {name} is missing");
            return None;
        }
        Some(binding)
    }
}

fn places(env: &Env) -> Option<Places> {
    let data = Reflect::get(env, &JsValue::from_str("PLACES")).unwrap_or_default();
    if data.is_undefined() {
        return None;
    }
    let opened = Places::open(Uint8Array::new(&data).to_vec());
    opened.inspect_err(|error| console_warn!("binding PLACES: {error}")).ok()
}

/// Randomness fetched many bytes at once.
#[derive(Default)]
struct Random {
    pool: Vec<u8>,
}

impl Random {
    fn next<const N: usize>(&mut self) -> [u8; N] {
        if self.pool.len() < N {
            self.pool.resize(RANDOM_POOL_BYTES.max(N), 0);
            host::random(&mut self.pool);
        }
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.pool[self.pool.len() - N..]);
        self.pool.truncate(self.pool.len() - N);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deployment_is_refused_until_its_placeholders_are_filled_in() {
        let deployment = include_str!("../../../wrangler.toml");
        let value = |name: &'static str| {
            let line = deployment.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
            line.map_or_else(String::new, |value| value.trim_matches('"').to_owned())
        };
        let secret = |name| match name {
            "MERIDIAN_CONTEXT_KEYS" => "k1:BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc".to_owned(),
            "MERIDIAN_HASH_KEY" => "CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg".to_owned(),
            name => value(name),
        };
        let error = Config::parse(secret).unwrap_err().to_string();
        assert!(error.starts_with("variable MERIDIAN_BUNDLE_KEYS: key \"KID\""), "{error}");
    }
}
