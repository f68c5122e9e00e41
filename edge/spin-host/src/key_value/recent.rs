//! Values that were read last, up to so many bytes.

use std::sync::Arc;

use lru::LruCache;

use crate::limits::KEY_VALUE_RECENT_BYTES_MAX;

/// Values by key; the one that was asked for longest ago goes first.
pub struct Recent {
    values: LruCache<String, Arc<[u8]>>,
    bytes: usize,
}

impl Recent {
    /// None yet.
    pub fn new() -> Self {
        Self { values: LruCache::unbounded(), bytes: 0 }
    }

    /// The value of this key, where it is here.
    pub fn get(&mut self, key: &str) -> Option<Arc<[u8]>> {
        self.values.get(key).cloned()
    }

    /// Puts a value in, unless it is larger than all may be; what had to go for it is for the caller to drop.
    pub fn put(&mut self, key: &str, value: &Arc<[u8]>) -> Vec<Arc<[u8]>> {
        let mut gone = Vec::new();
        self.remove(key);
        if value.len() > KEY_VALUE_RECENT_BYTES_MAX {
            return gone;
        }
        while self.bytes + value.len() > KEY_VALUE_RECENT_BYTES_MAX {
            let Some((_, oldest)) = self.values.pop_lru() else { break };
            self.bytes -= oldest.len();
            gone.push(oldest);
        }
        self.values.put(key.to_owned(), Arc::clone(value));
        self.bytes += value.len();
        gone
    }

    /// Takes the value of this key out.
    pub fn remove(&mut self, key: &str) {
        if let Some(value) = self.values.pop(key) {
            self.bytes -= value.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_were_asked_for_longest_ago_go_first() {
        let mut recent = Recent::new();
        let third: Arc<[u8]> = vec![0; KEY_VALUE_RECENT_BYTES_MAX / 3].into();
        for key in ["a", "b", "c"] {
            assert!(recent.put(key, &third).is_empty());
        }
        assert!(recent.get("a").is_some());
        assert_eq!(recent.put("d", &third).len(), 1);
        assert!(recent.get("b").is_none() && recent.get("a").is_some());
        assert!(recent.bytes <= KEY_VALUE_RECENT_BYTES_MAX);
        // One that is put in again takes no more room than it has.
        assert!(recent.put("d", &third).is_empty());
        assert!(recent.put("e", &vec![0; KEY_VALUE_RECENT_BYTES_MAX + 1].into()).is_empty());
        assert!(recent.get("e").is_none());
        for key in ["a", "c", "d"] {
            recent.remove(key);
        }
        assert_eq!(recent.bytes, 0);
    }
}
