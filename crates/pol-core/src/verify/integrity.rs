//! Integrity: everything about a proof that can be checked without training.
//!
//! Needs no Burn and no device. A service that only stores proofs can use it alone.

mod states;

use std::collections::BTreeMap;
use std::fmt;

use crate::digest::Digest;
use crate::manifest::{Checkpoint, Claim, Manifest, checkpoints_root};
use crate::model_file;
use crate::object::{self, Layout, Limits, MAX_BATCHES_BYTES, ObjectError, ReadStateError};
use crate::schedule::{BatchPlan, BatchSource, Schedule};
use crate::state::{EntryHeader, Part, State};
use crate::store::{Item, MemoryStore, Store, StoreError};

use super::layout::{Layouts, state_fault};
use super::outliers::Stretch;
use super::proof::Proof;
use super::reason::Reason;
use super::{Progress, Resources, VerifyError};

use states::check_objects;
pub(super) use states::check_state;

/// Bytes of memory that a byte of a list of batches takes: a record's index of one byte becomes a number of
/// eight, in a list that grows by doubling.
const PER_BATCHES_BYTE: u64 = 32;

/// A proof, or the opened part of one, whose integrity was checked. It can be made in no other way.
pub struct IntegrityChecked<'a> {
    objects: Objects<'a>,
    resources: Resources,
    claim: Claim,
    commitment: Digest,
    known: Known,
}

/// Where the objects are.
pub(super) enum Objects<'a> {
    /// In the prover's folder.
    Folder(&'a dyn Store),
    /// In an opening.
    Opening(MemoryStore),
}

impl Objects<'_> {
    fn store(&self) -> &dyn Store {
        match self {
            Self::Folder(store) => *store,
            Self::Opening(store) => store,
        }
    }
}

/// What the check found.
#[derive(Default)]
pub(super) struct Known {
    /// All checkpoints of a folder; the opened ones of an opening.
    pub(super) checkpoints: BTreeMap<u64, KnownCheckpoint>,
    /// Names, types and shapes of every state but the initial one, if there is one at hand.
    pub(super) later_layout: Option<Vec<EntryHeader>>,
    /// Those of the initial state, where the verifier knows them.
    pub(super) first_layout: Option<Vec<EntryHeader>>,
    /// The leaves of the final state's tree, where that state itself is not at hand.
    pub(super) final_leaves: Option<Vec<Digest>>,
    /// How far the parameters move between neighbouring states at hand, in order, where that was measured.
    pub(super) stretches: Vec<Stretch>,
    /// l2 distance of the parameters from the first state to the last, where that was measured.
    pub(super) distance: Option<f64>,
}

/// A checkpoint, and what is known of its state.
pub(super) struct KnownCheckpoint {
    pub(super) checkpoint: Checkpoint,
    /// Whether its state is at hand.
    pub(super) kept: bool,
    /// How far the parameters move in the segment that ends here, where that was measured.
    pub(super) movement: Option<f64>,
}

/// The outcome of the check.
pub enum Integrity<'a> {
    /// Everything is there and consistent.
    Holds(Box<IntegrityChecked<'a>>),
    /// It is not.
    Broken {
        /// The commitment, if the manifest could be read.
        commitment: Option<Digest>,
        /// What is wrong.
        reason: Reason,
    },
}

/// The steps between two checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Its index, counted from zero.
    pub index: u64,
    /// Steps made before it.
    pub first: u64,
    /// Steps made after it.
    pub last: u64,
}

impl Segment {
    /// How many steps it has.
    pub const fn steps(&self) -> u64 {
        self.last - self.first
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "segment {} (steps {} to {})",
            self.index, self.first, self.last
        )
    }
}

/// Checks that the chain of checkpoints covers steps 0 to T exactly once, that every digest
/// holds, that no state holds NaN or infinity, and that the final model is the exported one.
///
/// # Errors
/// If the proof could not be read for a reason that is not its own fault.
pub fn check_integrity<'a>(
    store: &'a dyn Store,
    resources: Resources,
    progress: &mut dyn FnMut(Progress),
) -> Result<Integrity<'a>, VerifyError> {
    check_and_measure(store, resources, None, progress)
}

/// As [`check_integrity`]; measures how far each segment moves the parameters, which `measured` tells
/// from buffers.
///
/// # Errors
/// As [`check_integrity`].
pub fn check_and_measure<'a>(
    store: &'a dyn Store,
    resources: Resources,
    measured: Option<&dyn Fn(&str) -> Part>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Integrity<'a>, VerifyError> {
    match Proof::read(store, resources)? {
        Ok(proof) => check_proof(&proof, None, measured, progress),
        Err(reason) => Ok(Integrity::Broken {
            commitment: None,
            reason,
        }),
    }
}

/// As [`check_integrity`], of a proof that was read. States have to have the tensors of `layouts`, where the
/// verifier knows them. Measures how far each segment moves the parameters, which `measured` tells from
/// buffers.
pub(super) fn check_proof<'a>(
    proof: &Proof<'a>,
    layouts: Option<Layouts<'_>>,
    measured: Option<&dyn Fn(&str) -> Part>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Integrity<'a>, VerifyError> {
    let commitment = Some(proof.commitment());
    match check_folder(proof, layouts, measured, progress) {
        Ok(known) => Ok(Integrity::Holds(Box::new(IntegrityChecked::new(
            Objects::Folder(proof.store()),
            proof.resources(),
            proof.claim().clone(),
            known,
        )))),
        Err(Fault::Proof(reason)) => Ok(Integrity::Broken { commitment, reason }),
        Err(Fault::Machine(error)) => Err(error),
    }
}

impl<'a> IntegrityChecked<'a> {
    pub(super) fn new(
        objects: Objects<'a>,
        resources: Resources,
        claim: Claim,
        known: Known,
    ) -> Self {
        Self {
            commitment: claim.commitment(),
            objects,
            resources,
            claim,
            known,
        }
    }

    /// What the proof claims.
    pub fn claim(&self) -> &Claim {
        &self.claim
    }

    /// The commitment to everything that was checked.
    pub fn commitment(&self) -> Digest {
        self.commitment
    }

    /// What is left of the machine beside what the proof takes already.
    pub(super) fn resources(&self) -> Resources {
        self.resources
    }

    /// The number of segments.
    pub fn segments(&self) -> u64 {
        self.claim.terms.segments()
    }

    /// The segment at `index`, which is below [`IntegrityChecked::segments`].
    pub fn segment(&self, index: u64) -> Segment {
        let (first, last) = self.claim.terms.segment_steps(index);
        Segment { index, first, last }
    }

    /// The l2 distance by which the parameters move in a segment; `None` where a state at its ends
    /// is not at hand, or nobody asked for it.
    pub fn movement(&self, index: u64) -> Option<f64> {
        self.known.checkpoints.get(&(index + 1))?.movement
    }

    /// How far the parameters move between neighbouring states at hand, in order; empty for an opening, or
    /// where nobody asked for it.
    pub(super) fn stretches(&self) -> &[Stretch] {
        &self.known.stretches
    }

    /// l2 distance of the parameters from the first state to the last, where that was measured.
    pub(super) fn distance(&self) -> Option<f64> {
        self.known.distance
    }

    /// How many checkpoints have their state at hand. All of a folder's, unless numerics are exact.
    pub fn states_kept(&self) -> u64 {
        let kept = self.known.checkpoints.values().filter(|known| known.kept);
        kept.count() as u64
    }

    /// The epoch in which each segment begins, counted from zero.
    pub fn epoch(&self, index: u64) -> u64 {
        let terms = &self.claim.terms;
        let per_epoch = Schedule::steps_per_epoch(terms.data.records, terms.recipe.batch_size);
        self.segment(index).first / per_epoch.max(1)
    }

    /// Names, types and shapes of every state but the initial one.
    pub(super) fn later_layout(&self) -> Option<&[EntryHeader]> {
        self.known.later_layout.as_deref()
    }

    /// The leaves of the final state's tree, where that state itself is not at hand.
    pub(super) fn final_leaves(&self) -> Option<&[Digest]> {
        self.known.final_leaves.as_deref()
    }

    /// The last checkpoint up to `index` whose state is at hand; for a folder the first always is.
    pub(super) fn kept_at_or_before(&self, index: u64) -> u64 {
        let mut before = self.known.checkpoints.range(..=index);
        let kept = before.rfind(|(_, known)| known.kept);
        kept.map_or(0, |(index, _)| *index)
    }

    /// The digest that is committed to for the checkpoint of this index.
    pub(super) fn digest(&self, index: u64) -> Result<Digest, Fault> {
        self.checkpoint(index).map(|checkpoint| checkpoint.state)
    }

    /// Whether replays are compared by digest alone.
    pub(super) fn is_exact(&self) -> bool {
        self.claim.terms.recipe.numerics.is_exact()
    }

    /// Whether the state of the checkpoint of this index is at hand.
    pub(super) fn is_kept(&self, index: u64) -> bool {
        let known = self.known.checkpoints.get(&index);
        known.is_some_and(|known| known.kept)
    }

    /// The state at the checkpoint of this index, hashed again.
    pub(super) fn state(&self, index: u64) -> Result<State, Fault> {
        let layout = match index {
            0 => self.known.first_layout.as_deref(),
            _ => self.later_layout(),
        };
        let layout = layout.map_or(Layout::Any, Layout::Exactly);
        // It may have been exchanged since it was checked.
        let limits = Limits {
            layout,
            memory: self.resources.allowed(),
        };
        let Checkpoint { step, state, .. } = self.checkpoint(index)?;
        object::read_state_within(self.objects.store(), state, None, limits)
            .map_err(|error| state_fault((*step, *state), layout, error))
    }

    /// The explicit batches of a segment.
    pub(super) fn batches(&self, segment: Segment) -> Result<Option<Vec<BatchPlan>>, Fault> {
        match self.claim.terms.batches {
            BatchSource::Derived => Ok(None),
            BatchSource::Explicit => {
                let listed = self.checkpoint(segment.index + 1)?.batches;
                let name = listed.ok_or_else(|| missing_batches(segment))?;
                read_batches(self.objects.store(), &name, segment, self.resources).map(Some)
            }
        }
    }

    fn checkpoint(&self, index: u64) -> Result<&Checkpoint, Fault> {
        let known = self.known.checkpoints.get(&index);
        known.map(|known| &known.checkpoint).ok_or_else(|| {
            Reason::Withheld(format!("checkpoint {index}, which the replay needs")).into()
        })
    }
}

/// Who is to blame for a failed check.
pub(super) enum Fault {
    Proof(Reason),
    Machine(VerifyError),
}

impl From<Reason> for Fault {
    fn from(reason: Reason) -> Self {
        Self::Proof(reason)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        if error.blames_proof() {
            Self::Proof(Reason::Item(error.to_string()))
        } else {
            Self::Machine(error.into())
        }
    }
}

/// The checks of the manifest alone.
pub(super) fn check_chain(manifest: &Manifest) -> Result<(), Reason> {
    let Manifest { claim, checkpoints } = manifest;
    let terms = &claim.terms;
    terms
        .check()
        .map_err(|error| Reason::Manifest(error.to_string()))?;
    let count = checkpoints.len() as u64;
    if claim.checkpoints != count || terms.segments() + 1 != count {
        return Err(Reason::Chain(format!(
            "the proof lists {count} checkpoints; {} steps with one every {} need {}",
            terms.recipe.steps,
            terms.interval,
            terms.segments() + 1
        )));
    }
    for ((index, checkpoint), due) in (0u64..).zip(checkpoints).zip(terms.checkpoint_steps()) {
        if checkpoint.step != due {
            return Err(Reason::Chain(format!(
                "checkpoint {index} is at step {}, where step {due} is due",
                checkpoint.step
            )));
        }
        let listed = checkpoint.batches.is_some();
        if listed != (terms.batches == BatchSource::Explicit && index > 0) {
            return Err(Reason::Chain(format!(
                "checkpoint {index} {} a list of batches, against the proof's own terms",
                if listed { "has" } else { "lacks" }
            )));
        }
    }
    if checkpoints_root(checkpoints) != claim.checkpoints_root {
        return Err(Reason::Chain(
            "the list of checkpoints is not the one that is committed to".to_owned(),
        ));
    }
    Ok(())
}

fn check_folder(
    proof: &Proof<'_>,
    layouts: Option<Layouts<'_>>,
    measured: Option<&dyn Fn(&str) -> Part>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Known, Fault> {
    let (known, last) = check_objects(proof, layouts, measured, progress)?;
    if let Some(last) = &last {
        check_model(proof, last)?;
    }
    Ok(known)
}

fn missing_batches(segment: Segment) -> Fault {
    Reason::Chain(format!("{segment} lacks its list of batches")).into()
}

pub(super) fn read_batches(
    store: &dyn Store,
    name: &Digest,
    segment: Segment,
    resources: Resources,
) -> Result<Vec<BatchPlan>, Fault> {
    let item = Item::Object(*name);
    let limit = MAX_BATCHES_BYTES.min(resources.allowed() / PER_BATCHES_BYTE);
    let bytes = match store.read(item, limit) {
        Err(StoreError::TooLarge { len, .. }) if len <= MAX_BATCHES_BYTES => {
            resources.admit(&item.path(), PER_BATCHES_BYTE.saturating_mul(len))?;
            return Err(Reason::Item(format!("{} changes while it is read", item.path())).into());
        }
        read => read?,
    };
    let batches = object::decode_batches(name, &bytes).map_err(|source| {
        object_fault(ReadStateError::Object {
            name: *name,
            source,
        })
    })?;
    if (segment.first..segment.last).eq(batches.iter().map(|plan| plan.step)) {
        Ok(batches)
    } else {
        Err(Reason::Chain(format!(
            "the listed batches of {segment} are not one for each of its steps"
        ))
        .into())
    }
}

/// Who is to blame for an object that cannot be had.
pub(super) fn object_fault(error: ReadStateError) -> Fault {
    match error {
        ReadStateError::Store(error) => error.into(),
        ReadStateError::Object {
            name,
            source: ObjectError::Memory { needed, allowed },
        } => Reason::Memory {
            what: Item::Object(name).path(),
            needed,
            allowed,
        }
        .into(),
        error => Reason::Item(error.to_string()).into(),
    }
}

/// The committed model is the final state's, and the exported file holds it.
fn check_model(proof: &Proof<'_>, last: &State) -> Result<(), Fault> {
    if model_file::root(last) != proof.claim().model {
        let problem = "the model that is committed to is not that of the final state";
        return Err(Reason::FinalModel(problem.to_owned()).into());
    }
    proof.check_model(last)
}
