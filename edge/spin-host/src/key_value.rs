//! Key-value stores: one file a key on disk, `spin:key-value` for components.
//!
//! Small values are in memory for reading; a change of one is seen by every reader at once and is on disk within
//! [`limits::KEY_VALUE_FLUSH`]. Large ones are on disk, written and read as they are asked for; of those that were read
//! last so many stay in memory that the host's doesn't grow with them ([`limits::KEY_VALUE_RECENT_BYTES_MAX`]). A file is
//! written beside its place and renamed, so a killed host leaves the old value or the new one, never half of one. It is
//! meant for one machine; a store of production is the platform's own.

mod interface;
mod recent;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt::Write as _,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use sha2::{Digest, Sha256};

pub use self::interface::link;
use self::recent::Recent;
use crate::limits;

/// Why a store didn't do what was asked.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum StoreError {
    /// The key is longer than any may be.
    #[error("the key has {0} bytes, at most {max} are allowed", max = limits::KEY_BYTES_MAX)]
    Key(usize),
    /// The value is longer than any may be.
    #[error("the value has {0} bytes, at most {max} are allowed", max = limits::VALUE_BYTES_MAX)]
    Value(usize),
    /// The store has no room left.
    #[error("the store is full: it may hold {0} bytes")]
    Full(usize),
    /// The disk didn't do what was asked.
    #[error("the disk: {0}")]
    Disk(io::ErrorKind),
}

/// One store. Dropping it writes what is not on disk yet.
pub struct Store {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

struct Shared {
    folder: PathBuf,
    bytes_max: usize,
    state: Mutex<State>,
    /// Held while files are written.
    writing: Mutex<()>,
    changed: Condvar,
}

struct State {
    values: HashMap<String, Value>,
    bytes: usize,
    unwritten: HashSet<String>,
    closing: bool,
    /// Large values that were written so far: tells one of a key from another.
    written: u64,
    /// Large values that were read last.
    recent: Recent,
}

/// Where a value is.
#[derive(Clone)]
enum Value {
    Memory(Arc<[u8]>),
    /// In its file.
    Disk(Large),
}

/// A value in a file.
#[derive(Clone, Copy, PartialEq)]
struct Large {
    bytes: usize,
    /// Which of those that were written.
    number: u64,
}

impl Value {
    fn len(&self) -> usize {
        match self {
            Self::Memory(value) => value.len(),
            Self::Disk(large) => large.bytes,
        }
    }
}

impl State {
    fn new() -> Self {
        Self {
            values: HashMap::new(),
            bytes: 0,
            unwritten: HashSet::new(),
            closing: false,
            written: 0,
            recent: Recent::new(),
        }
    }

    /// The value of a key: `None` where it has to be read from the disk.
    fn at_hand(&mut self, key: &str) -> Option<Option<Arc<[u8]>>> {
        match self.values.get(key) {
            None => Some(None),
            Some(Value::Memory(value)) => Some(Some(Arc::clone(value))),
            Some(Value::Disk(_)) => self.recent.get(key).map(Some),
        }
    }

    /// Keeps a large value that was read, if it is the key's still; what has to go for it is for the caller to drop.
    fn keep(&mut self, key: &str, large: Large, value: &Arc<[u8]>) -> Vec<Arc<[u8]>> {
        let is_same = matches!(self.values.get(key), Some(Value::Disk(now)) if *now == large);
        if is_same { self.recent.put(key, value) } else { Vec::new() }
    }
}

impl Store {
    /// Opens the store in `folder`, which is made where it is missing, with at most `bytes_max` bytes in it.
    pub fn open(folder: &Path, bytes_max: usize) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut state = State::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            match read(&path, limits::VALUE_MEMORY_BYTES_MAX) {
                Some((key, value)) if state.bytes + key.len() + value.len() <= bytes_max => {
                    state.bytes += key.len() + value.len();
                    state.values.insert(key, value);
                }
                Some((key, _)) => {
                    tracing::warn!(%key, "the key-value store has no room for this key any more");
                }
                None => {
                    tracing::warn!(file = %path.display(), "removing a file that is no key-value entry");
                    fs::remove_file(&path)?;
                }
            }
        }
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            bytes_max,
            state: Mutex::new(state),
            writing: Mutex::new(()),
            changed: Condvar::new(),
        });
        let writer = std::thread::Builder::new().name("key-value".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.write_changes()
        })?;
        Ok(Self { shared, writer: Some(writer) })
    }

    /// The value of a key. May wait for the disk.
    pub fn get(&self, key: &str) -> Option<Arc<[u8]>> {
        let mut state = self.shared.lock();
        if let Some(value) = state.at_hand(key) {
            return value;
        }
        let Some(Value::Disk(large)) = state.values.get(key) else { return None };
        let large = *large;
        drop(state);
        // Written anew meanwhile, it is the new value that is read; deleted, there is none.
        match read(&self.shared.path(key), usize::MAX)? {
            (_, Value::Memory(value)) => {
                let gone = self.shared.lock().keep(key, large, &value);
                drop(gone);
                Some(value)
            }
            (_, Value::Disk(_)) => None,
        }
    }

    /// The value of a key as far as it is in memory: `None` where [`Store::get`] would wait for the disk.
    pub fn at_hand(&self, key: &str) -> Option<Option<Arc<[u8]>>> {
        self.shared.lock().at_hand(key)
    }

    /// Whether a key has a value.
    pub fn exists(&self, key: &str) -> bool {
        self.shared.lock().values.contains_key(key)
    }

    /// All keys, in no order.
    pub fn keys(&self) -> Vec<String> {
        self.shared.lock().values.keys().cloned().collect()
    }

    /// Gives a key a value. Waits for the disk where it is a large one.
    pub fn set(&self, key: String, value: Vec<u8>) -> Result<(), StoreError> {
        if key.len() > limits::KEY_BYTES_MAX {
            return Err(StoreError::Key(key.len()));
        }
        if value.len() > limits::VALUE_BYTES_MAX {
            return Err(StoreError::Value(value.len()));
        }
        let is_large = value.len() > limits::VALUE_MEMORY_BYTES_MAX;
        // One after the other: a file and what is known of it must not come from two writers.
        let writing = is_large.then(|| self.shared.writing());
        let mut state = self.shared.lock();
        let old = state.values.get(&key).map_or(0, |value| key.len() + value.len());
        let bytes = state.bytes - old + key.len() + value.len();
        if bytes > self.shared.bytes_max {
            return Err(StoreError::Full(self.shared.bytes_max));
        }
        if is_large {
            drop(state);
            self.shared.write(&key, Some(&value)).map_err(|error| StoreError::Disk(error.kind()))?;
            state = self.shared.lock();
            state.unwritten.remove(&key);
            state.written += 1;
        } else {
            state.unwritten.insert(key.clone());
        }
        let entry = match is_large {
            true => Value::Disk(Large { bytes: value.len(), number: state.written }),
            false => Value::Memory(value.as_slice().into()),
        };
        // Whoever read the file before this may still come to keep it, as a value of another number.
        state.recent.remove(&key);
        let old = state.values.insert(key.clone(), entry).map_or(0, |old| key.len() + old.len());
        state.bytes = state.bytes - old + key.len() + value.len();
        drop((state, writing));
        self.shared.changed.notify_one();
        Ok(())
    }

    /// Takes a key's value away.
    pub fn delete(&self, key: &str) {
        let mut state = self.shared.lock();
        if let Some(value) = state.values.remove(key) {
            state.bytes -= key.len() + value.len();
            state.unwritten.insert(key.to_owned());
            state.recent.remove(key);
            drop(state);
            self.shared.changed.notify_one();
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.changed.notify_one();
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the writer of the key-value store panicked");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(hex(&Sha256::digest(key.as_bytes())))
    }

    /// Writes changed keys until the store closes; many changes of one key in a short time are one write.
    fn write_changes(&self) {
        loop {
            let mut state = self.lock();
            while state.unwritten.is_empty() && !state.closing {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let closing = state.closing;
            if !closing {
                drop(state);
                std::thread::sleep(limits::KEY_VALUE_FLUSH);
            } else {
                drop(state);
            }
            let writing = self.writing();
            let mut state = self.lock();
            let keys = std::mem::take(&mut state.unwritten);
            let changes: Vec<(Option<Value>, String)> =
                keys.into_iter().map(|key| (state.values.get(&key).cloned(), key)).collect();
            drop(state);
            for (value, key) in changes {
                let value = match &value {
                    Some(Value::Memory(value)) => Some(&**value),
                    // It is in its file already.
                    Some(Value::Disk(_)) => continue,
                    None => None,
                };
                if let Err(error) = self.write(&key, value) {
                    tracing::error!(%key, %error, folder = %self.folder.display(), "a key-value change is not on disk");
                }
            }
            drop(writing);
            if closing {
                return;
            }
        }
    }

    fn write(&self, key: &str, value: Option<&[u8]>) -> io::Result<()> {
        let path = self.path(key);
        let Some(value) = value else {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                result => result,
            };
        };
        let key_bytes = u32::try_from(key.len()).map_err(io::Error::other)?;
        let mut content = Vec::with_capacity(4 + key.len() + value.len());
        content.extend_from_slice(&key_bytes.to_le_bytes());
        content.extend_from_slice(key.as_bytes());
        content.extend_from_slice(value);
        let beside = path.with_extension("new");
        fs::write(&beside, content)?;
        fs::rename(beside, path)
    }
}

/// Reads an entry: the key's length (4 bytes, little-endian), the key, the value, which stays on disk where it has more
/// than so many bytes.
fn read(path: &Path, bytes_max: usize) -> Option<(String, Value)> {
    let mut file = fs::File::open(path).ok()?;
    let mut length = [0; 4];
    file.read_exact(&mut length).ok()?;
    let length = u32::from_le_bytes(length) as usize;
    if length > limits::KEY_BYTES_MAX {
        return None;
    }
    let mut key = vec![0; length];
    file.read_exact(&mut key).ok()?;
    let key = String::from_utf8(key).ok()?;
    if path.file_name()?.to_str()? != hex(&Sha256::digest(key.as_bytes())) {
        return None;
    }
    let bytes = usize::try_from(file.metadata().ok()?.len()).ok()?.checked_sub(4 + length)?;
    if bytes > bytes_max {
        return Some((key, Value::Disk(Large { bytes, number: 0 })));
    }
    let mut value = Vec::with_capacity(bytes);
    file.read_to_end(&mut value).ok()?;
    Some((key, Value::Memory(value.into())))
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing into a string does not fail.
        let _written = write!(digits, "{byte:02x}");
    }
    digits
}

/// Opens the stores that components name, each in a folder of its own.
pub fn open_all(
    labels: impl IntoIterator<Item = String>,
    folder: &Path,
    bytes_max: usize,
) -> io::Result<BTreeMap<String, Arc<Store>>> {
    let labels: BTreeSet<String> = labels.into_iter().collect();
    labels
        .into_iter()
        .map(|label| {
            let name = hex(label.as_bytes());
            Ok((label, Arc::new(Store::open(&folder.join(name), bytes_max)?)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("meridian-spin-host-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&folder));
        folder
    }

    #[test]
    fn values_are_there_after_a_restart() {
        let folder = folder("restart");
        let store = Store::open(&folder, 1 << 20).unwrap();
        store.set("a".to_owned(), b"one".to_vec()).unwrap();
        store.set("a".to_owned(), b"two".to_vec()).unwrap();
        store.set("gone".to_owned(), b"x".to_vec()).unwrap();
        store.set("empty".to_owned(), Vec::new()).unwrap();
        store.delete("gone");
        drop(store);
        fs::write(folder.join("half.new"), b"half").unwrap();
        let store = Store::open(&folder, 1 << 20).unwrap();
        assert_eq!(store.get("a").as_deref(), Some(b"two".as_slice()));
        assert_eq!(store.get("empty").as_deref(), Some(b"".as_slice()));
        assert!(store.get("gone").is_none() && !store.exists("gone"));
        let mut keys = store.keys();
        keys.sort();
        assert_eq!(keys, ["a", "empty"]);
        assert!(!folder.join("half.new").exists());
        drop(store);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn large_values_are_on_disk_alone_and_there_after_a_restart() {
        let folder = folder("large");
        let large = |byte: u8| vec![byte; limits::VALUE_MEMORY_BYTES_MAX + 1];
        let store = Store::open(&folder, 1 << 20).unwrap();
        store.set("k".to_owned(), large(1)).unwrap();
        assert!(store.at_hand("k").is_none());
        assert_eq!(store.get("k").as_deref(), Some(large(1).as_slice()));
        // Small, large and gone by turns: the last one counts, here and on disk.
        store.set("k".to_owned(), b"small".to_vec()).unwrap();
        assert!(store.at_hand("k").is_some());
        store.set("k".to_owned(), large(2)).unwrap();
        store.set("l".to_owned(), large(3)).unwrap();
        store.set("l".to_owned(), b"small".to_vec()).unwrap();
        store.set("m".to_owned(), large(4)).unwrap();
        store.delete("m");
        drop(store);
        let store = Store::open(&folder, 1 << 20).unwrap();
        assert!(store.at_hand("k").is_none() && store.at_hand("l").is_some());
        assert_eq!(store.get("k").as_deref(), Some(large(2).as_slice()));
        assert_eq!(store.get("l").as_deref(), Some(b"small".as_slice()));
        assert!(store.get("m").is_none());
        let most = (1 << 20) - "k".len() - large(2).len() - "l".len() - "small".len() - "n".len();
        assert_eq!(store.set("n".to_owned(), vec![0; most + 1]), Err(StoreError::Full(1 << 20)));
        store.set("n".to_owned(), vec![0; most]).unwrap();
        drop(store);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn large_values_that_were_read_last_are_at_hand_and_never_old() {
        let folder = folder("recent");
        let large = |byte: u8| vec![byte; limits::VALUE_MEMORY_BYTES_MAX + 1];
        let store = Store::open(&folder, 1 << 30).unwrap();
        store.set("k".to_owned(), large(1)).unwrap();
        assert_eq!(store.get("k").as_deref(), Some(large(1).as_slice()));
        assert!(store.at_hand("k").is_some());
        store.set("k".to_owned(), large(2)).unwrap();
        assert!(store.at_hand("k").is_none());
        assert_eq!(store.get("k").as_deref(), Some(large(2).as_slice()));
        store.delete("k");
        assert!(store.get("k").is_none());

        // Whoever read a value that was replaced since does not put it in the place of the new one.
        store.set("k".to_owned(), large(3)).unwrap();
        let Some(Value::Disk(before)) = store.shared.lock().values.get("k").cloned() else { panic!("small") };
        store.set("k".to_owned(), large(4)).unwrap();
        assert!(store.shared.lock().keep("k", before, &large(3).into()).is_empty());
        assert_eq!(store.get("k").as_deref(), Some(large(4).as_slice()));
        drop(store);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_store_is_bounded() {
        let folder = folder("bounded");
        let store = Store::open(&folder, 10).unwrap();
        store.set("k".to_owned(), vec![0; 9]).unwrap();
        assert_eq!(store.set("l".to_owned(), Vec::new()), Err(StoreError::Full(10)));
        store.set("k".to_owned(), vec![0; 8]).unwrap();
        store.set("l".to_owned(), Vec::new()).unwrap();
        store.delete("k");
        store.set("l".to_owned(), vec![0; 9]).unwrap();
        let long = "k".repeat(limits::KEY_BYTES_MAX + 1);
        assert_eq!(store.set(long.clone(), Vec::new()), Err(StoreError::Key(long.len())));
        assert_eq!(
            store.set("v".to_owned(), vec![0; limits::VALUE_BYTES_MAX + 1]),
            Err(StoreError::Value(limits::VALUE_BYTES_MAX + 1))
        );
        drop(store);
        fs::remove_dir_all(folder).unwrap();
    }
}
