//! The prover's answer to a challenge.

use std::collections::{BTreeMap, BTreeSet};

use serde_bytes::ByteBuf;

use crate::digest::Digest;
use crate::learner::{Batch, Learner, LearnerError};
use crate::manifest::{Checkpoint, Manifest};
use crate::merkle;
use crate::object::{self, MAX_OBJECT_BYTES, ObjectError, ReadStateError};
use crate::records::{Records, SaltSecret, leaves};
use crate::schedule::{BatchPlan, BatchSource, Schedule, ScheduleError};
use crate::state::{Entry, State};
use crate::store::{Item, Store, StoreError};
use crate::verify::{VerifyError, read_claim};

use super::challenge::Challenge;
use super::opening::{Disclosed, FORMAT, OpenedRecord, Opening};

/// Why a prover cannot answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The proof cannot be read.
    #[error(transparent)]
    Unreadable(#[from] VerifyError),
    /// The proof cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The proof is not whole.
    #[error("the proof is not whole: {0}")]
    Broken(String),
    /// A state of the proof is not whole.
    #[error("the state at step {step}: {source}")]
    State {
        /// Which state.
        step: u64,
        /// What is wrong.
        source: ReadStateError,
    },
    /// A list of batches is not whole.
    #[error("the batches from step {step}: {source}")]
    Batches {
        /// The first of its steps.
        step: u64,
        /// What is wrong.
        source: ObjectError,
    },
    /// A challenge to another commitment.
    #[error("the challenge is to the commitment {challenged}; this proof's is {found}")]
    OtherCommitment {
        /// The challenge's.
        challenged: Digest,
        /// The proof's.
        found: Digest,
    },
    /// Not the data that was committed to.
    #[error(
        "these are not the records that were committed to{}",
        if *salted { ", or the secret is another one" } else { "" }
    )]
    OtherData {
        /// Whether leaves are salted.
        salted: bool,
    },
    /// No batch can be drawn.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// A state that the proof does not keep could not be computed.
    #[error("a state that the proof does not keep: {0}")]
    Learner(#[from] LearnerError),
    /// A state that the proof does not keep came out otherwise.
    #[error("replaying does not arrive at the state that was committed to at step {0}")]
    NotArrived(u64),
    /// A state without a file of its own.
    #[error("a state cannot be compressed: {0}")]
    Compress(#[from] std::io::Error),
}

/// Opens what `challenge` asks for of the proof in `store`.
///
/// `secret` is what the data's leaves are salted with, if they are. `learner` is asked for where the
/// proof keeps no state at the start of an audited segment: it is recomputed from the last one that
/// is kept.
///
/// # Errors
/// If the proof is not whole, the challenge is another proof's, or the records are not those that
/// were committed to.
pub fn open(
    store: &dyn Store,
    records: &dyn Records,
    secret: Option<&SaltSecret>,
    challenge: &Challenge,
    learner: &mut dyn FnMut() -> Result<Box<dyn Learner>, LearnerError>,
) -> Result<Opening, OpenError> {
    let manifest = read_claim(store)?.map_err(|reason| OpenError::Broken(reason.to_string()))?;
    let claim = &manifest.claim;
    if claim.commitment() != challenge.commitment {
        return Err(OpenError::OtherCommitment {
            challenged: challenge.commitment,
            found: claim.commitment(),
        });
    }
    let record_leaves = leaves(records, secret);
    let root = merkle::Tree::Records.root(&record_leaves);
    if root != claim.terms.data.root || secret.is_some() != claim.terms.data.salted {
        let salted = claim.terms.data.salted;
        return Err(OpenError::OtherData { salted });
    }
    let disclosed = Disclosed::of(claim, challenge);
    let checkpoints: Vec<Checkpoint> = (disclosed.checkpoints.iter())
        .map(|&index| manifest.checkpoints[index as usize].clone())
        .collect();
    let all: Vec<Digest> = manifest
        .checkpoints
        .iter()
        .map(Checkpoint::digest)
        .collect();
    let indices: Vec<u64> = disclosed.checkpoints.iter().copied().collect();

    let mut replay = Replay {
        store,
        manifest: &manifest,
        records,
        schedule: match claim.terms.batches {
            BatchSource::Explicit => None,
            BatchSource::Derived => {
                let batch_size = claim.terms.recipe.batch_size;
                Some(Schedule::new(claim.terms.seed, records.len(), batch_size)?)
            }
        },
    };
    let mut used = BTreeSet::new();
    let mut batches = Vec::new();
    for &segment in &disclosed.segments {
        for plan in replay.batches(segment)? {
            used.extend(plan.records);
        }
        if let Some(name) = manifest.checkpoints[segment as usize + 1].batches {
            let bytes = store.read(Item::Object(name), MAX_OBJECT_BYTES)?;
            batches.push(ByteBuf::from(bytes));
        }
    }
    let opened = (used.iter()).filter_map(|&index| Some((index, records.record(index)?)));
    let opened = opened.map(|(index, record)| OpenedRecord {
        index,
        label: record.label,
        bytes: ByteBuf::from(record.bytes),
        salt: secret.map(|secret| secret.salt(index)),
    });
    let used: Vec<u64> = used.iter().copied().collect();
    let last = claim.terms.segments();
    let final_leaves = match disclosed.states.contains(&last) {
        true => None,
        false => {
            let state = replay.state(last)?;
            Some(state.entries().iter().map(Entry::digest).collect())
        }
    };
    Ok(Opening {
        format: FORMAT.to_owned(),
        challenge: challenge.digest(),
        checkpoints,
        checkpoint_nodes: merkle::open(&all, &indices),
        states: replay.objects(&disclosed.states, learner)?,
        final_leaves,
        batches,
        records: opened.collect(),
        record_nodes: merkle::open(&record_leaves, &used),
    })
}

/// Reads states of a proof, and recomputes those that it does not keep.
struct Replay<'a> {
    store: &'a dyn Store,
    manifest: &'a Manifest,
    records: &'a dyn Records,
    schedule: Option<Schedule>,
}

impl Replay<'_> {
    /// The states at these checkpoints as objects that hold them as a whole, in order.
    fn objects(
        &mut self,
        indices: &BTreeSet<u64>,
        learner: &mut dyn FnMut() -> Result<Box<dyn Learner>, LearnerError>,
    ) -> Result<Vec<ByteBuf>, OpenError> {
        let missing: BTreeSet<u64> = (indices.iter().copied())
            .filter(|&index| !self.store.contains(self.item(index)))
            .collect();
        let computed = match missing.is_empty() {
            true => BTreeMap::new(),
            false => self.compute(&missing, learner()?.as_mut())?,
        };
        let object = |index: &u64| match computed.get(index) {
            Some(state) => Ok(ByteBuf::from(object::encode_state(state)?)),
            None => Ok(ByteBuf::from(object::encode_state(&self.state(*index)?)?)),
        };
        indices.iter().map(object).collect()
    }

    /// The states at these checkpoints, replayed from the last kept one before each.
    fn compute(
        &mut self,
        missing: &BTreeSet<u64>,
        learner: &mut dyn Learner,
    ) -> Result<BTreeMap<u64, State>, OpenError> {
        learner.initialise(&self.manifest.claim.terms.seed)?;
        let mut computed = BTreeMap::new();
        // The checkpoint whose state the learner is in.
        let mut at = None;
        for &index in missing {
            let kept = (0..index)
                .rev()
                .find(|&i| self.store.contains(self.item(i)));
            let kept = kept.unwrap_or(0);
            let from = match at {
                Some(at) if at >= kept => at,
                _ => {
                    learner.restore(&self.state(kept)?)?;
                    kept
                }
            };
            for segment in from..index {
                for plan in self.batches(segment)? {
                    let seed = &self.manifest.claim.terms.seed;
                    learner.step(&Batch::new(&plan, self.records, seed)?)?;
                }
            }
            at = Some(index);
            let state = learner.capture()?;
            if state.digest() != self.checkpoint(index).state {
                return Err(OpenError::NotArrived(self.checkpoint(index).step));
            }
            computed.insert(index, state);
        }
        Ok(computed)
    }

    fn state(&self, index: u64) -> Result<State, OpenError> {
        let Checkpoint { step, state, .. } = *self.checkpoint(index);
        object::read_state(self.store, &state, None)
            .map_err(|source| OpenError::State { step, source })
    }

    fn batches(&mut self, segment: u64) -> Result<Vec<BatchPlan>, OpenError> {
        let (first, last) = self.manifest.claim.terms.segment_steps(segment);
        if let Some(schedule) = &mut self.schedule {
            return Ok((first..last).map(|step| schedule.batch(step)).collect());
        }
        let Some(name) = self.checkpoint(segment + 1).batches else {
            return Err(OpenError::Broken(format!(
                "segment {segment} lists no batches"
            )));
        };
        let bytes = self.store.read(Item::Object(name), MAX_OBJECT_BYTES)?;
        object::decode_batches(&name, &bytes).map_err(|source| OpenError::Batches {
            step: first,
            source,
        })
    }

    fn checkpoint(&self, index: u64) -> &Checkpoint {
        &self.manifest.checkpoints[index as usize]
    }

    fn item(&self, index: u64) -> Item {
        Item::Object(self.checkpoint(index).state)
    }
}
