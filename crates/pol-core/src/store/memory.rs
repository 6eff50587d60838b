//! A proof in memory, for tests and short experiments.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Item, Store, StoreError};

/// A proof held in memory, with the same behaviour as a folder.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<BTreeMap<Item, Vec<u8>>>);

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// The items present, in order.
    pub fn items(&self) -> Vec<Item> {
        self.map().keys().copied().collect()
    }

    /// Puts an item in, without a copy of it.
    pub fn put(&self, item: Item, bytes: Vec<u8>) {
        self.map().insert(item, bytes);
    }

    /// Takes an item out.
    pub fn remove(&self, item: Item) -> Option<Vec<u8>> {
        self.map().remove(&item)
    }

    fn map(&self) -> MutexGuard<'_, BTreeMap<Item, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clone for MemoryStore {
    fn clone(&self) -> Self {
        Self(Mutex::new(self.map().clone()))
    }
}

impl Store for MemoryStore {
    fn location(&self) -> String {
        "memory".to_owned()
    }

    fn read(&self, item: Item, limit: u64) -> Result<Vec<u8>, StoreError> {
        let map = self.map();
        let bytes = map
            .get(&item)
            .ok_or_else(|| StoreError::Missing { item: item.path() })?;
        if bytes.len() as u64 > limit {
            return Err(StoreError::TooLarge {
                item: item.path(),
                len: bytes.len() as u64,
                limit,
            });
        }
        Ok(bytes.clone())
    }

    fn length(&self, item: Item) -> Result<u64, StoreError> {
        let map = self.map();
        let bytes = map.get(&item);
        let bytes = bytes.ok_or_else(|| StoreError::Missing { item: item.path() })?;
        Ok(bytes.len() as u64)
    }

    fn write(&self, item: Item, bytes: &[u8]) -> Result<(), StoreError> {
        self.put(item, bytes.to_vec());
        Ok(())
    }

    fn append_journal(&self, bytes: &[u8]) -> Result<(), StoreError> {
        self.map()
            .entry(Item::Journal)
            .or_default()
            .extend_from_slice(bytes);
        Ok(())
    }

    fn truncate_journal(&self, len: u64) -> Result<(), StoreError> {
        if let Some(journal) = self.map().get_mut(&Item::Journal) {
            journal.truncate(len as usize);
        }
        Ok(())
    }

    fn remove_journal(&self) -> Result<(), StoreError> {
        self.remove(Item::Journal);
        Ok(())
    }

    fn contains(&self, item: Item) -> bool {
        self.map().contains_key(&item)
    }

    fn size(&self) -> Result<u64, StoreError> {
        Ok(self.map().values().map(|bytes| bytes.len() as u64).sum())
    }
}
