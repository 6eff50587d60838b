//! What a prover discloses for an audit.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::codec::{self, CodecError};
use crate::digest::Digest;
use crate::manifest::{Checkpoint, Claim, Start};
use crate::records::{Record, Records, Salt};

use super::challenge::Challenge;

pub(super) const FORMAT: &str = "pol-opening/v1";
/// The longest file, in bytes.
pub const MAX_OPENING_BYTES: u64 = 4 << 30;

/// The audited segments: their checkpoints, states and records, with proofs that these are the
/// committed ones. What has to be in it follows from claim and challenge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opening {
    pub(super) format: String,
    /// [`Challenge::digest`].
    pub challenge: Digest,
    /// The first checkpoint, the last, and those at the ends of audited segments, in order.
    pub checkpoints: Vec<Checkpoint>,
    /// Their proof of inclusion; see [`crate::merkle::open`].
    pub checkpoint_nodes: Vec<Digest>,
    /// The state objects at the start of audited segments, with stock numerics also at their end.
    pub states: Vec<ByteBuf>,
    /// The leaves of the final state's tree, if that state is not among them.
    pub final_leaves: Option<Vec<Digest>>,
    /// The batch objects of audited segments, where batches are explicit.
    pub batches: Vec<ByteBuf>,
    /// Every record that an audited segment uses, in order of their indices.
    pub records: Vec<OpenedRecord>,
    /// Their proof of inclusion.
    pub record_nodes: Vec<Digest>,
}

/// A disclosed record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenedRecord {
    /// Its place in the data set.
    pub index: u64,
    /// Its class.
    pub label: u32,
    /// Its bytes.
    pub bytes: ByteBuf,
    /// Its salt, where leaves are salted.
    pub salt: Option<Salt>,
}

impl OpenedRecord {
    /// The record itself.
    pub fn record(&self) -> Record<'_> {
        Record {
            label: self.label,
            bytes: &self.bytes,
        }
    }
}

impl Opening {
    /// Bytes of memory that it takes.
    pub(crate) fn held_bytes(&self) -> u64 {
        let held = |bytes: &ByteBuf| bytes.len() as u64;
        let states: u64 = self.states.iter().map(held).sum();
        let batches: u64 = self.batches.iter().map(held).sum();
        let records = self.records.iter().map(|record| held(&record.bytes));
        // A record lies in a list, and later in a map.
        let record = 2 * size_of::<OpenedRecord>() as u64;
        let records: u64 = records.map(|bytes| bytes + record).sum();
        let nodes = self.checkpoint_nodes.len() + self.record_nodes.len();
        let leaves = self.final_leaves.as_ref().map_or(0, Vec::len);
        let digests = (nodes + leaves) as u64 * size_of::<Digest>() as u64;
        states + batches + records + digests
    }

    /// The file.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads the file.
    ///
    /// # Errors
    /// If it is not the canonical form of an opening.
    pub fn decode(bytes: &[u8]) -> Result<Self, OpeningError> {
        let opening: Self = codec::decode("the opening", bytes, MAX_OPENING_BYTES)?;
        match opening.format == FORMAT {
            true => Ok(opening),
            false => Err(OpeningError::Format),
        }
    }
}

/// Why a file is not an opening.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpeningError {
    /// Not canonical MessagePack of one.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Another kind of file, or another version.
    #[error("its format is not `{FORMAT}`")]
    Format,
}

/// What an opening discloses, by claim and challenge. Prover and verifier compute it alike.
pub(crate) struct Disclosed {
    /// The audited segments, ascending.
    pub(crate) segments: Vec<u64>,
    /// Indices of checkpoints.
    pub(crate) checkpoints: BTreeSet<u64>,
    /// Indices of checkpoints whose whole state is disclosed.
    pub(crate) states: BTreeSet<u64>,
}

impl Disclosed {
    pub(crate) fn of(claim: &Claim, challenge: &Challenge) -> Self {
        let segments = challenge.segments(claim);
        let stock = !claim.terms.recipe.numerics.is_exact();
        let mut checkpoints = BTreeSet::from([0, claim.terms.segments()]);
        let mut states = BTreeSet::new();
        if claim.terms.start == Start::Claimed {
            states.insert(0);
        }
        for &segment in &segments {
            checkpoints.extend([segment, segment + 1]);
            states.insert(segment);
            if stock {
                states.insert(segment + 1);
            }
        }
        Self {
            segments,
            checkpoints,
            states,
        }
    }
}

/// Opened records, by their indices.
pub(crate) struct OpenedRecords {
    count: u64,
    records: BTreeMap<u64, OpenedRecord>,
}

impl OpenedRecords {
    pub(crate) fn new(count: u64, records: Vec<OpenedRecord>) -> Self {
        Self {
            count,
            records: (records.into_iter())
                .map(|record| (record.index, record))
                .collect(),
        }
    }

    /// Their indices, ascending.
    pub(crate) fn indices(&self) -> impl Iterator<Item = u64> + '_ {
        self.records.keys().copied()
    }
}

impl Records for OpenedRecords {
    fn len(&self) -> u64 {
        self.count
    }

    fn record(&self, index: u64) -> Option<Record<'_>> {
        self.records.get(&index).map(OpenedRecord::record)
    }
}
