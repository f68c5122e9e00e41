//! What one instance of the component keeps from one request to the next.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use meridian_engine::node::Node;
use meridian_engine::ruleset::Target;
use meridian_wire::edge::{Config, InvalidConfig, VARIABLES};
use meridian_wire::event::Fault;
use meridian_wire::place::Places;
use spin_sdk::key_value::Store;
use spin_sdk::variables;
use spin_sdk::wasip3::random::random::get_random_bytes;

use crate::events::Events;
use crate::functions::Components;
use crate::limits::PLACES_BYTES_MAX;
use crate::place::Uses;

/// The place database, mounted beside the component.
const PLACES: &str = "/places.mmdb";

/// The memory of an instance.
pub struct Memory {
    /// Configuration.
    pub config: Config,
    /// The engine's memory. Never borrowed across an `await`.
    pub node: RefCell<Node>,
    /// Places of addresses, where there is a database.
    pub places: Option<Places>,
    /// Newest sequences that an origin told this instance of.
    pub newest: RefCell<HashMap<Target, u64>>,
    /// What the origins are to be told.
    pub events: RefCell<Events>,
    /// What is known of functions' components.
    pub functions: RefCell<Components>,
    /// Places of the cache whose use was noted lately.
    pub uses: RefCell<Uses>,
    /// Index of the origin that answered last.
    pub origin: Cell<usize>,
    /// The key-value store, where it can be opened.
    store: Option<Store>,
}

thread_local! {
    static MEMORY: RefCell<Option<Rc<Memory>>> = const { RefCell::new(None) };
}

impl Memory {
    /// The memory of this instance, made at its first request.
    pub async fn get() -> Result<Rc<Self>, InvalidConfig> {
        if let Some(memory) = Self::here() {
            return Ok(memory);
        }
        let made = Rc::new(Self::make().await?);
        // Another first request may have been as quick; all of them must have the same memory.
        Ok(MEMORY.with_borrow_mut(|memory| Rc::clone(memory.get_or_insert(made))))
    }

    /// The memory of this instance, where it was made already.
    pub fn here() -> Option<Rc<Self>> {
        MEMORY.with_borrow(Clone::clone)
    }

    async fn make() -> Result<Self, InvalidConfig> {
        let values: HashMap<&'static str, String> = join_all(VARIABLES.map(|name| async move {
            // Spin's names are lower-case.
            let value = variables::get(name.to_ascii_lowercase()).await;
            (name, value.inspect_err(|error| eprintln!("variable {name}: {error}")).unwrap_or_default())
        }))
        .await
        .into_iter()
        .collect();
        let config = Config::parse(|name| values.get(name).cloned().unwrap_or_default())?;
        let store = Store::open_default().await;
        let node =
            Node::new(&config.edge, config.secrets()).with_unknown_host_status(config.unknown_host_status);
        Ok(Self {
            node: RefCell::new(node),
            places: places(),
            newest: RefCell::default(),
            events: RefCell::new(Events::new(&config.edge)),
            functions: RefCell::default(),
            uses: RefCell::default(),
            origin: Cell::new(0),
            store: store.inspect_err(|error| eprintln!("the key-value store can't be opened: {error}")).ok(),
            config,
        })
    }

    /// Notes something that could not be accepted.
    pub fn fault(&self, fault: Fault) {
        eprintln!("the bundle of {} is not accepted: {}", fault.target, fault.what);
        self.events.borrow_mut().outbox.push_fault(fault);
    }

    /// The value of a key. The store is a help and never a need: what can't be read is not there.
    pub async fn read(&self, key: &str) -> Option<Vec<u8>> {
        let found = self.store.as_ref()?.get(key).await;
        found.inspect_err(|error| eprintln!("key-value {key}: {error}")).ok().flatten()
    }

    /// Gives a key a value; `false` where that could not be done.
    pub async fn write(&self, key: &str, value: Vec<u8>) -> bool {
        let Some(store) = &self.store else { return false };
        let written = store.set(key, value).await;
        written.inspect_err(|error| eprintln!("key-value {key} is not written: {error}")).is_ok()
    }

    /// Takes a key's value away.
    pub async fn delete(&self, key: &str) {
        if let Some(store) = &self.store
            && let Err(error) = store.delete(key).await
        {
            eprintln!("key-value {key} is not deleted: {error}");
        }
    }
}

fn places() -> Option<Places> {
    let size = std::fs::metadata(PLACES).ok()?.len();
    if size > PLACES_BYTES_MAX {
        eprintln!("{PLACES} has {size} bytes, {PLACES_BYTES_MAX} are the limit: no place is known");
        return None;
    }
    let bytes = std::fs::read(PLACES).inspect_err(|error| eprintln!("{PLACES}: {error}")).ok()?;
    Places::open(bytes).inspect_err(|error| eprintln!("{PLACES}: {error}")).ok()
}

/// Milliseconds since the Unix epoch.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Fresh random bits.
pub fn random() -> [u8; 16] {
    get_random_bytes(16).try_into().unwrap_or_default()
}
