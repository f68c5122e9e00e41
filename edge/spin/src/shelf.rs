//! The cache in the key-value store: looks entries up, puts them where they belong, and reads and writes bodies chunk by
//! chunk.

use std::ops::Range;
use std::rc::Rc;

use futures_util::future::join_all;
use meridian_engine::limits::CACHE_BODY_BYTES_MAX;
use meridian_engine::step::CacheKey;
use spin_sdk::wasip3::spawn;

use crate::cache::{self, Cached, Kept};
use crate::instance::{Memory, now_ms, random};
use crate::limits::{CACHE_CHUNK_BYTES, CACHE_ENTRY_BYTES_MAX};
use crate::message::SendFault;
use crate::place::{Occupant, Place, Shelved, Size, chunks_of, gives_way, open_chunk, read_record, record};

/// The entry of a key, if it is there, of use, and its body as well.
pub async fn look_up(memory: &Memory, key: &CacheKey) -> Option<Cached> {
    let now_ms = now_ms();
    for place in Place::of_entry(&memory.config.hash_key, key) {
        let Some(found) = memory.read(&place.key()).await.and_then(cache::decode) else { continue };
        if found.key != *key {
            continue;
        }
        if found.until_ms <= now_ms {
            return None;
        }
        if let Kept::Shelved(shelved) = &found.body {
            if !is_there(memory, shelved).await {
                return None;
            }
            note_use(memory, shelved.place, now_ms);
        }
        note_use(memory, place, now_ms);
        return Some(found);
    }
    None
}

/// Stores an entry in the better one of its places, with its body in a place of its own where it is too large; whether it
/// is there now.
pub async fn put(memory: &Memory, mut cached: Cached) -> bool {
    let encoded = match (cache::encode(&cached), &mut cached.body) {
        (Some(encoded), _) => encoded,
        (None, Kept::Shelved(_)) => return false,
        (None, Kept::Here(body)) => {
            let body = std::mem::take(body);
            let Some(shelved) = shelve(memory, &cached.key, &body, cached.until_ms).await else {
                return false;
            };
            cached.body = Kept::Shelved(shelved);
            // A head that is too large by itself.
            let Some(encoded) = cache::encode(&cached) else {
                give_up(memory, &shelved).await;
                return false;
            };
            encoded
        }
    };
    // Somebody else may have taken the body's place while its last chunk was written.
    if let Kept::Shelved(shelved) = &cached.body
        && !renew(memory, shelved, cached.until_ms).await
    {
        return false;
    }
    let places = Place::of_entry(&memory.config.hash_key, &cached.key);
    let there = join_all(places.map(|place| async move {
        let there = memory.read(&place.key()).await.and_then(cache::decode)?;
        let used_ms = last_use(memory, place).await;
        Some((Occupant { used_ms: there.stored_ms.max(used_ms), ..there.occupant() }, there))
    }))
    .await;
    let own = there.iter().position(|there| there.as_ref().is_some_and(|(_, there)| there.key == cached.key));
    let occupants: Vec<_> = there.iter().map(|there| there.as_ref().map(|(occupant, _)| *occupant)).collect();
    let chosen = own.unwrap_or_else(|| gives_way(&occupants, now_ms()));
    let Some(place) = places.get(chosen) else { return false };
    if !memory.write(&place.key(), encoded).await {
        return false;
    }
    // Nobody finds the body of who gave way any more.
    let gone = there.into_iter().nth(chosen).flatten().map(|(_, gone)| gone.body);
    if let Some(Kept::Shelved(gone)) = gone.filter(|gone| *gone != cached.body) {
        give_up(memory, &gone).await;
    }
    true
}

/// Forgets an entry.
pub async fn forget(memory: &Memory, key: &CacheKey) {
    for place in Place::of_entry(&memory.config.hash_key, key) {
        let found = memory.read(&place.key()).await.and_then(cache::decode);
        let Some(found) = found.filter(|found| found.key == *key) else { continue };
        memory.delete(&place.key()).await;
        if let Kept::Shelved(shelved) = found.body {
            give_up(memory, &shelved).await;
        }
    }
}

/// A body on its way into the store: what of it is in memory is never much more than a chunk.
pub struct Shelving {
    memory: Rc<Memory>,
    key: CacheKey,
    until_ms: u64,
    pending: Vec<u8>,
    shelved: Option<Shelved>,
}

impl Shelving {
    /// Nothing of it yet. It is the body of this key.
    pub fn new(memory: Rc<Memory>, key: CacheKey, until_ms: u64) -> Self {
        Self { memory, key, until_ms, pending: Vec::new(), shelved: None }
    }

    /// Takes the next bytes; `false` where the body can't be kept, and what was kept is given up.
    pub async fn push(&mut self, bytes: &[u8]) -> bool {
        let kept = self.shelved.map_or(0, |shelved| shelved.bytes) + self.pending.len() as u64;
        let fits = kept + bytes.len() as u64 <= CACHE_BODY_BYTES_MAX;
        // A body that comes slowly is not the one used longest ago.
        if let Some(shelved) = &self.shelved {
            note_use(&self.memory, shelved.place, now_ms());
        }
        let mut rest = bytes;
        while fits && self.pending.len() + rest.len() > CACHE_CHUNK_BYTES {
            let (now, later) = rest.split_at(CACHE_CHUNK_BYTES - self.pending.len());
            self.pending.extend_from_slice(now);
            rest = later;
            if !self.write_chunk().await {
                self.give_up().await;
                return false;
            }
        }
        if fits {
            self.pending.extend_from_slice(rest);
        } else {
            self.give_up().await;
        }
        fits
    }

    /// Where it is written.
    pub fn memory(&self) -> Rc<Memory> {
        Rc::clone(&self.memory)
    }

    /// The body whole; `None` where it can't be kept.
    pub async fn finish(mut self) -> Option<Kept> {
        if self.shelved.is_some() {
            if !self.pending.is_empty() && !self.write_chunk().await {
                self.give_up().await;
            }
            return self.shelved.map(Kept::Shelved);
        }
        if self.pending.len() < CACHE_ENTRY_BYTES_MAX {
            return Some(Kept::Here(self.pending));
        }
        shelve(&self.memory, &self.key, &self.pending, self.until_ms).await.map(Kept::Shelved)
    }

    /// Frees the place that was taken.
    pub async fn give_up(&mut self) {
        if let Some(shelved) = self.shelved.take() {
            give_up(&self.memory, &shelved).await;
        }
        self.pending = Vec::new();
    }

    /// Writes what is pending; `false` where that can't be done, or somebody else has the place by now.
    async fn write_chunk(&mut self) -> bool {
        let mut shelved = match self.shelved {
            Some(shelved) => {
                if !is_there(&self.memory, &shelved).await {
                    return false;
                }
                shelved
            }
            None => {
                let Some(taken) = take_place(&self.memory, &self.key, Size::Large, self.until_ms).await
                else {
                    return false;
                };
                taken
            }
        };
        let index = shelved.bytes / CACHE_CHUNK_BYTES as u64;
        let written = write_chunk(&self.memory, &shelved, index, &self.pending).await;
        shelved.bytes += self.pending.len() as u64;
        self.pending.clear();
        self.shelved = Some(shelved);
        written
    }
}

/// A part of a body in a place of its own, read when it is asked for.
pub struct Reading {
    memory: Rc<Memory>,
    shelved: Shelved,
    chunks: Box<dyn Iterator<Item = (u64, Range<usize>)>>,
}

impl Reading {
    /// So many bytes from the first on.
    pub fn new(memory: Rc<Memory>, shelved: Shelved, first: u64, bytes: u64) -> Self {
        Self { memory, shelved, chunks: Box::new(chunks_of(first, bytes)) }
    }

    /// The next bytes, `None` at the end.
    ///
    /// # Errors
    /// Where a chunk is another body's or gone; this body is then found no more.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, SendFault> {
        let Some((index, part)) = self.chunks.next() else { return Ok(None) };
        let chunk = self.memory.read(&self.shelved.place.chunk_key(index)).await;
        let chunk = chunk.and_then(|chunk| open_chunk(chunk, self.shelved.number));
        let Some(mut chunk) = chunk.filter(|chunk| chunk.len() >= part.end) else {
            give_up(&self.memory, &self.shelved).await;
            return Err(SendFault::Broken("the stored body was evicted while it was read".to_owned()));
        };
        chunk.truncate(part.end);
        chunk.drain(..part.start);
        Ok(Some(chunk))
    }
}

async fn shelve(memory: &Memory, key: &CacheKey, body: &[u8], until_ms: u64) -> Option<Shelved> {
    let taken = take_place(memory, key, Size::Medium, until_ms).await?;
    if write_chunk(memory, &taken, 0, body).await {
        return Some(Shelved { bytes: body.len() as u64, ..taken });
    }
    give_up(memory, &taken).await;
    None
}

async fn write_chunk(memory: &Memory, shelved: &Shelved, index: u64, bytes: &[u8]) -> bool {
    let chunk = [bytes, &shelved.number.to_le_bytes()].concat();
    memory.write(&shelved.place.chunk_key(index), chunk).await
}

/// Takes the place of a body from whoever has it least need of.
async fn take_place(memory: &Memory, key: &CacheKey, size: Size, until_ms: u64) -> Option<Shelved> {
    let now_ms = now_ms();
    let places = Place::of_body(&memory.config.hash_key, key, size, random());
    let occupants = join_all(places.map(|place| async move {
        let (_, occupant) = read_record(&memory.read(&place.key()).await?)?;
        Some(Occupant { used_ms: occupant.used_ms.max(last_use(memory, place).await), ..occupant })
    }))
    .await;
    let place = *places.get(gives_way(&occupants, now_ms))?;
    let number = u64::from_le_bytes(*random().first_chunk()?);
    let record = record(number, Occupant { until_ms, used_ms: now_ms });
    memory.write(&place.key(), record).await.then_some(Shelved { place, number, bytes: 0 })
}

/// Frees a place, if the body is still in it.
async fn give_up(memory: &Memory, shelved: &Shelved) {
    if is_there(memory, shelved).await {
        memory.delete(&shelved.place.key()).await;
    }
}

/// A body that stays is of use for longer; whether it is still there.
async fn renew(memory: &Memory, shelved: &Shelved, until_ms: u64) -> bool {
    let read = memory.read(&shelved.place.key()).await.and_then(|bytes| read_record(&bytes));
    let Some((number, occupant)) = read.filter(|(number, _)| *number == shelved.number) else {
        return false;
    };
    if occupant.until_ms < until_ms {
        memory.write(&shelved.place.key(), record(number, Occupant { until_ms, ..occupant })).await;
    }
    true
}

async fn is_there(memory: &Memory, shelved: &Shelved) -> bool {
    let bytes = memory.read(&shelved.place.key()).await;
    bytes.and_then(|bytes| read_record(&bytes)).is_some_and(|(number, _)| number == shelved.number)
}

async fn last_use(memory: &Memory, place: Place) -> u64 {
    let bytes = memory.read(&place.used_key()).await.unwrap_or_default();
    bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Notes that a place is in use, off the critical path and not again for a while.
fn note_use(memory: &Memory, place: Place, now_ms: u64) {
    if memory.uses.borrow_mut().is_due(place, now_ms)
        && let Some(memory) = Memory::here()
    {
        spawn(async move {
            memory.write(&place.used_key(), now_ms.to_le_bytes().to_vec()).await;
        });
    }
}
