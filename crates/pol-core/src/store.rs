//! Where a proof lives: a folder ([`FolderStore`]), one file ([`ArchiveStore`]), or memory
//! ([`MemoryStore`]) in tests (SPEC.md §12). Paths are built from digests and constants alone, never from anything that a
//! proof says.

mod archive;
mod file;
mod folder;
mod memory;

pub use archive::{ArchiveError, ArchiveStore, pack};
pub use file::open_regular;
pub use folder::{Collected, FolderStore};
pub use memory::MemoryStore;

use std::collections::BTreeSet;
use std::io;

use crate::digest::Digest;
use crate::manifest::Checkpoint;
use crate::object::{self, ReadStateError};

/// The most files that are looked at in a folder beside a proof.
const MAX_BESIDE: usize = 100_000;

/// One of the files of a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Item {
    /// `manifest.mp`.
    Manifest,
    /// `journal.mp`, while the training runs.
    Journal,
    /// `model.safetensors`.
    Model,
    /// `objects/ab/cdef…`.
    Object(Digest),
}

impl Item {
    /// The path inside the proof folder.
    pub fn path(&self) -> String {
        match self {
            Self::Manifest => "manifest.mp".to_owned(),
            Self::Journal => "journal.mp".to_owned(),
            Self::Model => "model.safetensors".to_owned(),
            Self::Object(digest) => {
                let hex = digest.to_string();
                let (folder, file) = hex.split_at(2);
                format!("objects/{folder}/{file}")
            }
        }
    }
}

/// What lies beside a proof, in folders of its own, and is not a part of what is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Beside {
    /// `attestations/`: signatures and timestamps.
    Attestations,
    /// `metrics/`: curves and the environment, for people.
    Metrics,
}

impl Beside {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Attestations, Self::Metrics];

    /// The folder's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Attestations => "attestations",
            Self::Metrics => "metrics",
        }
    }

    /// The largest file there, in bytes. A learning curve has a line for each step.
    pub const fn limit(self) -> u64 {
        match self {
            Self::Attestations => 64 << 20,
            Self::Metrics => 1 << 30,
        }
    }

    /// Whether a file there may have this name: up to 64 letters, digits, dots, hyphens and underscores,
    /// the first not a dot.
    pub fn may_be_named(name: &str) -> bool {
        let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        (1..=64).contains(&name.len()) && !name.starts_with('.') && name.chars().all(usual)
    }
}

/// The objects that these checkpoints are made of: their states, as far as they are kept, what those are
/// stored as a difference from, and their lists of batches.
///
/// # Errors
/// If an object cannot be read.
pub fn live_objects(
    store: &dyn Store,
    checkpoints: &[Checkpoint],
) -> Result<BTreeSet<Digest>, ReadStateError> {
    let mut live: BTreeSet<Digest> = checkpoints.iter().filter_map(|c| c.batches).collect();
    for checkpoint in checkpoints {
        let mut next = Some(checkpoint.state);
        if !store.contains(Item::Object(checkpoint.state)) {
            continue;
        }
        // A state that is in already has brought in all that it needs.
        while let Some(name) = next.filter(|name| live.insert(*name)) {
            next = object::base_of(store, &name)?;
        }
    }
    Ok(live)
}

/// Why an item could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// It is not there.
    #[error("{item} is missing")]
    Missing {
        /// Path inside the proof.
        item: String,
    },
    /// It is there, but is a folder, a link, a pipe or a device.
    #[error("{item} is not a regular file")]
    NotAFile {
        /// Path inside the proof.
        item: String,
    },
    /// It is larger than the format allows; nothing of it was read.
    #[error("{item} has {len} bytes; the limit is {limit}")]
    TooLarge {
        /// Path inside the proof.
        item: String,
        /// Its length.
        len: u64,
        /// The limit.
        limit: u64,
    },
    /// Another training writes to this folder.
    #[error("another training is writing to {path}")]
    Locked {
        /// The folder.
        path: String,
    },
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// What was read or written.
        path: String,
        /// The system's error.
        source: io::Error,
    },
}

impl StoreError {
    /// Whether the proof is at fault (something missing or not a file), not the machine.
    pub fn blames_proof(&self) -> bool {
        matches!(
            self,
            Self::Missing { .. } | Self::NotAFile { .. } | Self::TooLarge { .. }
        )
    }
}

/// A place for a proof.
///
/// Writing an item is atomic and durable: after a crash it is there as a whole or not at all.
/// The journal alone grows in place.
pub trait Store: Send + Sync {
    /// Where this is, for messages.
    fn location(&self) -> String;

    /// Reads an item of at most `limit` bytes.
    ///
    /// # Errors
    /// [`StoreError`]; a missing item is [`StoreError::Missing`].
    fn read(&self, item: Item, limit: u64) -> Result<Vec<u8>, StoreError>;

    /// The length of an item in bytes. Nothing of it is read.
    ///
    /// # Errors
    /// As [`Store::read`].
    fn length(&self, item: Item) -> Result<u64, StoreError>;

    /// Writes an item as a whole, replacing it where it exists.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    fn write(&self, item: Item, bytes: &[u8]) -> Result<(), StoreError>;

    /// Keeps other trainings from writing here, until this store is dropped or the journal removed.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while another training writes here.
    fn lock(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Appends to the journal and makes it durable.
    ///
    /// # Errors
    /// [`StoreError::Io`], or [`StoreError::Locked`] while another training writes it.
    fn append_journal(&self, bytes: &[u8]) -> Result<(), StoreError>;

    /// Cuts the journal to its first `len` bytes, dropping a record that was cut off by a crash.
    ///
    /// # Errors
    /// As [`Store::append_journal`].
    fn truncate_journal(&self, len: u64) -> Result<(), StoreError>;

    /// Removes the journal, once the manifest stands.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    fn remove_journal(&self) -> Result<(), StoreError>;

    /// Whether an item is there.
    fn contains(&self, item: Item) -> bool;

    /// The bytes of all items together.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    fn size(&self) -> Result<u64, StoreError>;

    /// The names of what lies beside the proof, in order. What is not a regular file, or has an unusual
    /// name, is left out.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    fn beside(&self, folder: Beside) -> Result<Vec<String>, StoreError> {
        let _ = folder;
        Ok(Vec::new())
    }

    /// Reads a file beside the proof.
    ///
    /// # Errors
    /// As [`Store::read`].
    fn read_beside(&self, folder: Beside, name: &str) -> Result<Vec<u8>, StoreError> {
        let item = format!("{}/{name}", folder.name());
        Err(StoreError::Missing { item })
    }
}
