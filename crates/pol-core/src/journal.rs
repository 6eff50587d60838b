//! The journal of a running training (SPEC.md §12): append-only, so that a run killed at any
//! instant goes on from its last checkpoint.

use serde::{Deserialize, Serialize};

use crate::codec;
use crate::digest::{Digest, Tagged};
use crate::manifest::{Checkpoint, MAX_MANIFEST_BYTES, Terms};
use crate::store::{Item, Store, StoreError};

/// The longest record, in bytes.
const MAX_RECORD_BYTES: u64 = 1 << 20;
const CHECK_BYTES: usize = 32;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Record {
    Start(Box<Terms>),
    Checkpoint(Checkpoint),
}

/// What a journal says about a training that was begun.
#[derive(Debug, Clone, PartialEq)]
pub struct Journal {
    /// The terms it began under.
    pub terms: Terms,
    /// The checkpoints written, in order.
    pub checkpoints: Vec<Checkpoint>,
    /// The bytes up to the last whole record; what follows was cut off by a crash.
    pub valid_bytes: u64,
    last_check: Digest,
}

/// A digest that covers a training's terms and its first checkpoints: whoever can show that it
/// existed at some time has shown that they did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// How many checkpoints it covers.
    pub checkpoints: u64,
    /// The check of the last record.
    pub digest: Digest,
}

impl Head {
    /// The head of the journal that a training with these terms had after these checkpoints.
    pub fn of(terms: &Terms, checkpoints: &[Checkpoint]) -> Self {
        let origin = Tagged::new("pol.v1.journal").finish();
        let (_, start) = frame(&origin, &Record::Start(Box::new(terms.clone())));
        let digest = checkpoints.iter().fold(start, |check, checkpoint| {
            frame(&check, &Record::Checkpoint(checkpoint.clone())).1
        });
        Self {
            checkpoints: checkpoints.len() as u64,
            digest,
        }
    }
}

/// Why a journal cannot be continued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// It cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Not even the first record is whole: the run stopped before its first checkpoint.
    #[error("journal.mp holds no whole record; start the training anew")]
    Empty,
}

impl Journal {
    /// Writes the first record of a new journal.
    ///
    /// # Errors
    /// If the store fails.
    pub fn begin(store: &dyn Store, terms: Terms) -> Result<Self, StoreError> {
        let origin = Tagged::new("pol.v1.journal").finish();
        let (bytes, check) = frame(&origin, &Record::Start(Box::new(terms.clone())));
        store.append_journal(&bytes)?;
        Ok(Self {
            terms,
            checkpoints: Vec::new(),
            valid_bytes: bytes.len() as u64,
            last_check: check,
        })
    }

    /// Reads a journal up to the last whole record.
    ///
    /// # Errors
    /// If there is none, or its first record is not whole.
    pub fn open(store: &dyn Store) -> Result<Self, JournalError> {
        let bytes = store.read(Item::Journal, MAX_MANIFEST_BYTES)?;
        let mut check = Tagged::new("pol.v1.journal").finish();
        let (mut terms, mut checkpoints, mut valid) = (None, Vec::new(), 0);
        while let Some((record, next, len)) = read_frame(&check, &bytes[valid..]) {
            match (record, &terms) {
                (Record::Start(start), None) => terms = Some(*start),
                (Record::Checkpoint(checkpoint), Some(_)) => checkpoints.push(checkpoint),
                _ => break,
            }
            check = next;
            valid += len;
        }
        let terms = terms.ok_or(JournalError::Empty)?;
        Ok(Self {
            terms,
            checkpoints,
            valid_bytes: valid as u64,
            last_check: check,
        })
    }

    /// The digest over everything so far.
    pub fn head(&self) -> Head {
        Head {
            checkpoints: self.checkpoints.len() as u64,
            digest: self.last_check,
        }
    }

    /// Appends a checkpoint whose objects are already stored.
    ///
    /// # Errors
    /// If the store fails.
    pub fn append(&mut self, store: &dyn Store, checkpoint: Checkpoint) -> Result<(), StoreError> {
        let (bytes, check) = frame(&self.last_check, &Record::Checkpoint(checkpoint.clone()));
        store.append_journal(&bytes)?;
        self.valid_bytes += bytes.len() as u64;
        self.last_check = check;
        self.checkpoints.push(checkpoint);
        Ok(())
    }

    /// Forgets the checkpoints after the first `keep`, in the store too.
    ///
    /// # Errors
    /// If the store fails.
    pub fn rewind(&mut self, store: &dyn Store, keep: usize) -> Result<(), StoreError> {
        let origin = Tagged::new("pol.v1.journal").finish();
        let (start, mut check) = frame(&origin, &Record::Start(Box::new(self.terms.clone())));
        let mut valid = start.len() as u64;
        self.checkpoints.truncate(keep);
        for checkpoint in &self.checkpoints {
            let (bytes, next) = frame(&check, &Record::Checkpoint(checkpoint.clone()));
            valid += bytes.len() as u64;
            check = next;
        }
        self.valid_bytes = valid;
        self.last_check = check;
        store.truncate_journal(valid)
    }
}

/// `len32(payload) ‖ payload ‖ check`, where each check covers the one before it.
fn frame(previous: &Digest, record: &Record) -> (Vec<u8>, Digest) {
    let payload = codec::encode(record);
    let check = check(previous, &payload);
    let bytes = [
        &(payload.len() as u32).to_le_bytes()[..],
        &payload,
        check.as_bytes(),
    ]
    .concat();
    (bytes, check)
}

fn read_frame(previous: &Digest, bytes: &[u8]) -> Option<(Record, Digest, usize)> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let len = u32::from_le_bytes(*len) as usize;
    let payload = rest.get(..len)?;
    let found = rest.get(len..len + CHECK_BYTES)?;
    let check = check(previous, payload);
    if check.as_bytes() != found {
        return None;
    }
    let record = codec::decode("a journal record", payload, MAX_RECORD_BYTES).ok()?;
    Some((record, check, 4 + len + CHECK_BYTES))
}

fn check(previous: &Digest, payload: &[u8]) -> Digest {
    Tagged::new("pol.v1.journal.record")
        .part(previous.as_bytes())
        .part(payload)
        .finish()
}
