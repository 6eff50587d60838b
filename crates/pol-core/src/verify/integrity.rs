//! Integrity: everything about a proof that can be checked without training.
//!
//! Needs no Burn and no device. A service that only stores proofs can use it alone.

use std::fmt;

use crate::digest::Digest;
use crate::manifest::{MAX_MANIFEST_BYTES, Manifest, ModelFile, checkpoints_root};
use crate::object::{self, MAX_OBJECT_BYTES, MAX_STATE_BYTES, ObjectError};
use crate::schedule::{BatchPlan, BatchSource, Schedule};
use crate::state::{EntryHeader, Part, STEP_ENTRY, State};
use crate::store::{Item, Store, StoreError};

use super::distance::Distances;
use super::report::Reason;
use super::{Progress, VerifyError};

/// A proof whose integrity was checked. It can be made in no other way.
pub struct IntegrityChecked<'a> {
    store: &'a dyn Store,
    manifest: Manifest,
    commitment: Digest,
    states: States,
}

/// What the check of the states found.
struct States {
    /// Names, types and shapes of every state but the initial one.
    later_layout: Vec<EntryHeader>,
    /// How far the parameters move in each segment, where both its states are kept.
    movements: Vec<Option<f64>>,
    /// Whether the state of each checkpoint is kept.
    kept: Vec<bool>,
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
/// `part` tells parameters from buffers; a caller without a model passes [`Part::by_prefix`].
///
/// # Errors
/// If the proof could not be read for a reason that is not its own fault.
pub fn check_integrity<'a>(
    store: &'a dyn Store,
    part: &dyn Fn(&str) -> Part,
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
    match check_states(store, &manifest, part, progress) {
        Ok(states) => Ok(Integrity::Holds(Box::new(IntegrityChecked {
            store,
            manifest,
            commitment,
            states,
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

impl IntegrityChecked<'_> {
    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The commitment to everything that was checked.
    pub fn commitment(&self) -> Digest {
        self.commitment
    }

    /// The number of segments.
    pub fn segments(&self) -> u64 {
        self.manifest.checkpoints.len() as u64 - 1
    }

    /// The segment at `index`, which is below [`IntegrityChecked::segments`].
    pub fn segment(&self, index: u64) -> Segment {
        let checkpoints = &self.manifest.checkpoints[index as usize..];
        Segment {
            index,
            first: checkpoints[0].step,
            last: checkpoints[1].step,
        }
    }

    /// The l2 distance by which the parameters move in each segment; `None` where a state at its
    /// ends is not kept.
    pub fn movements(&self) -> &[Option<f64>] {
        &self.states.movements
    }

    /// How many checkpoints have their state in the proof. All of them, unless numerics are exact.
    pub fn states_kept(&self) -> u64 {
        self.states.kept.iter().filter(|kept| **kept).count() as u64
    }

    /// The epoch in which each segment begins, counted from zero.
    pub fn epoch(&self, index: u64) -> u64 {
        let terms = &self.manifest.claim.terms;
        let per_epoch = Schedule::steps_per_epoch(terms.data.records, terms.recipe.batch_size);
        self.segment(index).first / per_epoch.max(1)
    }

    /// Names, types and shapes of every state but the initial one.
    pub(super) fn later_layout(&self) -> &[EntryHeader] {
        &self.states.later_layout
    }

    /// The last checkpoint up to `index` whose state is kept; the first always is.
    pub(super) fn kept_at_or_before(&self, index: u64) -> u64 {
        let before = &self.states.kept[..=index as usize];
        before.iter().rposition(|kept| *kept).unwrap_or(0) as u64
    }

    /// The digest that is committed to for the checkpoint of this index.
    pub(super) fn digest(&self, index: u64) -> Digest {
        self.manifest.checkpoints[index as usize].state
    }

    /// Whether replays are compared by digest alone.
    pub(super) fn is_exact(&self) -> bool {
        self.manifest.claim.terms.recipe.numerics.is_exact()
    }

    /// As [`IntegrityChecked::state`]; `None` where it is not kept.
    pub(super) fn state_if_kept(&self, index: u64) -> Result<Option<State>, Fault> {
        match self.states.kept[index as usize] {
            true => self.state(index).map(Some),
            false => Ok(None),
        }
    }

    /// The state at the checkpoint of this index, hashed again.
    pub(super) fn state(&self, index: u64) -> Result<State, Fault> {
        let checkpoint = &self.manifest.checkpoints[index as usize];
        read_state(self.store, &checkpoint.state)
    }

    /// The explicit batches of a segment.
    pub(super) fn batches(&self, segment: Segment) -> Result<Option<Vec<BatchPlan>>, Fault> {
        match self.manifest.checkpoints[segment.index as usize + 1].batches {
            Some(name) => read_batches(self.store, &name, segment).map(Some),
            None => Ok(None),
        }
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

/// Reads every object. With exact numerics the states between the first and the last may be
/// absent: a replay from the one before gives them.
fn check_states(
    store: &dyn Store,
    manifest: &Manifest,
    part: &dyn Fn(&str) -> Part,
    progress: &mut dyn FnMut(Progress),
) -> Result<States, Fault> {
    let checkpoints = &manifest.checkpoints;
    let mut layout: Option<Vec<EntryHeader>> = None;
    let mut movements = Vec::with_capacity(checkpoints.len());
    let mut kept = Vec::with_capacity(checkpoints.len());
    let mut previous: Option<State> = None;
    let exact = manifest.claim.terms.recipe.numerics.is_exact();
    let last = checkpoints.len() as u64 - 1;
    for (index, checkpoint) in (0u64..).zip(checkpoints) {
        if let Some(name) = checkpoint.batches.filter(|_| index > 0) {
            let segment = Segment {
                index: index - 1,
                first: checkpoints[index as usize - 1].step,
                last: checkpoint.step,
            };
            read_batches(store, &name, segment)?;
        }
        let may_be_absent = exact && index > 0 && index < last;
        if may_be_absent && !store.contains(Item::Object(checkpoint.state)) {
            kept.push(false);
            movements.push(None);
            previous = None;
            progress(Progress::Integrity(index + 1, checkpoints.len() as u64));
            continue;
        }
        let state = read_state(store, &checkpoint.state)?;
        let place = || format!("the state at step {}", checkpoint.step);
        let unfit = |problem: String| Reason::UnfitState {
            place: place(),
            problem,
        };
        if let Some(entry) = state.entries().iter().find(|entry| !entry.is_finite()) {
            return Err(Reason::NotFinite {
                place: place(),
                entry: entry.name().to_owned(),
            }
            .into());
        }
        let counted = state.entry(STEP_ENTRY).and_then(|entry| entry.to_u64());
        if counted != Some(checkpoint.step) {
            let says = counted.map_or("is missing".to_owned(), |step| format!("says {step}"));
            return Err(unfit(format!("its counter `{STEP_ENTRY}` {says}")).into());
        }
        if index > 0 {
            match &layout {
                None => layout = Some(state.layout().cloned().collect()),
                Some(layout) if layout.iter().eq(state.layout()) => {}
                Some(_) => {
                    return Err(unfit(
                        "its tensors are not those of the other checkpoints".to_owned(),
                    )
                    .into());
                }
            }
        }
        if let Some(previous) = &previous {
            let moved = Distances::between(previous, &state, Part::Parameters, part);
            let moved = moved.ok_or_else(|| {
                unfit("its parameters are not those of the checkpoint before".to_owned())
            })?;
            movements.push(Some(moved.l2));
        } else if index > 0 {
            movements.push(None);
        }
        kept.push(true);
        previous = Some(state);
        progress(Progress::Integrity(index + 1, checkpoints.len() as u64));
    }
    if let Some(last) = &previous {
        check_model(store, &manifest.claim.model, last)?;
    }
    Ok(States {
        later_layout: layout.unwrap_or_default(),
        movements,
        kept,
    })
}

fn read_state(store: &dyn Store, name: &Digest) -> Result<State, Fault> {
    let item = Item::Object(*name);
    let bytes = store.read(item, MAX_OBJECT_BYTES)?;
    object::decode_state(name, &bytes).map_err(|error| object_fault(item, &error))
}

fn read_batches(
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

/// The exported model is the committed file, and its tensors are those of the final state.
fn check_model(store: &dyn Store, expected: &ModelFile, last: &State) -> Result<(), Fault> {
    let wrong = |problem: String| Fault::Proof(Reason::FinalModel(problem));
    let bytes = store.read(Item::Model, MAX_STATE_BYTES)?;
    if ModelFile::of(&bytes) != *expected {
        return Err(wrong("it is not the file that is committed to".to_owned()));
    }
    let file = safetensors::SafeTensors::deserialize(&bytes)
        .map_err(|error| wrong(format!("it cannot be read: {error}")))?;
    let mut in_state = 0;
    for entry in last.entries() {
        let Some(name) = entry.name().strip_prefix("model/") else {
            continue;
        };
        in_state += 1;
        let same = file.tensor(name).is_ok_and(|tensor| {
            let dtype = format!("{:?}", tensor.dtype()).to_lowercase();
            let shape = tensor.shape().iter().map(|&dim| dim as u64);
            dtype == entry.header.dtype.name()
                && shape.eq(entry.header.shape.iter().copied())
                && tensor.data() == entry.bytes
        });
        if !same {
            return Err(wrong(format!(
                "its `{name}` is not that of the final state"
            )));
        }
    }
    if file.len() != in_state {
        return Err(wrong(
            "it has tensors that the final state lacks".to_owned(),
        ));
    }
    Ok(())
}
