//! Integrity: everything about a proof that can be checked without training.
//!
//! Needs no Burn and no device. A service that only stores proofs can use it alone.

mod states;

use std::collections::BTreeMap;
use std::fmt;

use crate::digest::Digest;
use crate::manifest::{Checkpoint, Claim, MAX_MANIFEST_BYTES, Manifest, checkpoints_root};
use crate::model_file;
use crate::object::{self, MAX_OBJECT_BYTES, MAX_STATE_BYTES, ObjectError, ReadStateError};
use crate::schedule::{BatchPlan, BatchSource, Schedule};
use crate::state::{EntryHeader, Part, State};
use crate::store::{Item, MemoryStore, Store, StoreError};

use super::outliers::Stretch;
use super::reason::Reason;
use super::{Progress, Resources, VerifyError};

use states::check_objects;
pub(super) use states::check_state;

/// A proof, or the opened part of one, whose integrity was checked. It can be made in no other way.
pub struct IntegrityChecked<'a> {
    objects: Objects<'a>,
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
    let broken = |commitment, fault| match fault {
        Fault::Proof(reason) => Ok(Integrity::Broken { commitment, reason }),
        Fault::Machine(error) => Err(error),
    };
    let manifest = match read_manifest(store) {
        Ok(manifest) => manifest,
        Err(fault) => return broken(None, fault),
    };
    let commitment = manifest.claim.commitment();
    match check_folder(store, &manifest, resources, measured, progress) {
        Ok(known) => Ok(Integrity::Holds(Box::new(IntegrityChecked {
            objects: Objects::Folder(store),
            claim: manifest.claim,
            commitment,
            known,
        }))),
        Err(fault) => broken(Some(commitment), fault),
    }
}

/// Reads what a proof claims, checking only that the manifest does not contradict itself.
///
/// # Errors
/// If the proof could not be read for a reason that is not its own fault.
pub fn read_claim(store: &dyn Store) -> Result<Result<Manifest, Reason>, VerifyError> {
    match read_manifest(store) {
        Ok(manifest) => Ok(Ok(manifest)),
        Err(Fault::Proof(reason)) => Ok(Err(reason)),
        Err(Fault::Machine(error)) => Err(error),
    }
}

impl<'a> IntegrityChecked<'a> {
    pub(super) fn new(objects: Objects<'a>, claim: Claim, known: Known) -> Self {
        Self {
            commitment: claim.commitment(),
            objects,
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
        read_state(self.objects.store(), &self.checkpoint(index)?.state, None)
    }

    /// The explicit batches of a segment.
    pub(super) fn batches(&self, segment: Segment) -> Result<Option<Vec<BatchPlan>>, Fault> {
        match self.claim.terms.batches {
            BatchSource::Derived => Ok(None),
            BatchSource::Explicit => {
                let listed = self.checkpoint(segment.index + 1)?.batches;
                let name = listed.ok_or_else(|| missing_batches(segment))?;
                read_batches(self.objects.store(), &name, segment).map(Some)
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

fn read_manifest(store: &dyn Store) -> Result<Manifest, Fault> {
    if !store.contains(Item::Manifest) && store.contains(Item::Journal) {
        return Err(Reason::Unfinished.into());
    }
    let bytes = store.read(Item::Manifest, MAX_MANIFEST_BYTES)?;
    let manifest = Manifest::decode(&bytes).map_err(|error| Reason::Manifest(error.to_string()))?;
    check_chain(&manifest)?;
    Ok(manifest)
}

/// The checks of the manifest alone.
fn check_chain(manifest: &Manifest) -> Result<(), Reason> {
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
    store: &dyn Store,
    manifest: &Manifest,
    resources: Resources,
    measured: Option<&dyn Fn(&str) -> Part>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Known, Fault> {
    let (known, last) = check_objects(store, manifest, resources, measured, progress)?;
    if let Some(last) = &last {
        check_model(store, &manifest.claim, last)?;
    }
    Ok(known)
}

fn missing_batches(segment: Segment) -> Fault {
    Reason::Chain(format!("{segment} lacks its list of batches")).into()
}

fn read_state(
    store: &dyn Store,
    name: &Digest,
    known: Option<(&Digest, &State)>,
) -> Result<State, Fault> {
    object::read_state(store, name, known).map_err(|error| match error {
        ReadStateError::Store(error) => error.into(),
        error => Reason::Item(error.to_string()).into(),
    })
}

pub(super) fn read_batches(
    store: &dyn Store,
    name: &Digest,
    segment: Segment,
) -> Result<Vec<BatchPlan>, Fault> {
    let item = Item::Object(*name);
    let bytes = store.read(item, MAX_OBJECT_BYTES)?;
    let batches =
        object::decode_batches(name, &bytes).map_err(|error| object_fault(item, &error))?;
    if (segment.first..segment.last).eq(batches.iter().map(|plan| plan.step)) {
        Ok(batches)
    } else {
        Err(Reason::Chain(format!(
            "the listed batches of {segment} are not one for each of its steps"
        ))
        .into())
    }
}

fn object_fault(item: Item, error: &ObjectError) -> Fault {
    Reason::Item(format!("{}: {error}", item.path())).into()
}

/// The committed model is the final state's, and the exported file holds it.
fn check_model(store: &dyn Store, claim: &Claim, last: &State) -> Result<(), Fault> {
    let wrong = |problem: &str| Fault::Proof(Reason::FinalModel(problem.to_owned()));
    if model_file::root(last) != claim.model {
        return Err(wrong(
            "the model that is committed to is not that of the final state",
        ));
    }
    let bytes = store.read(Item::Model, MAX_STATE_BYTES)?;
    match model_file::encode(last) {
        Ok(file) if file == bytes => Ok(()),
        _ => Err(wrong("the file is not that of the final state's model")),
    }
}
