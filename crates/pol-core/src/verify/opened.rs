//! The integrity of an opening: that it answers the challenge, with what was committed to.

use std::collections::BTreeSet;
use std::mem;

use serde_bytes::ByteBuf;

use crate::audit::{
    Challenge, Disclosed, Draw, MAX_DRAWN, OpenedRecord, OpenedRecords, Opening, PublicCommitment,
};
use crate::digest::Digest;
use crate::manifest::{Checkpoint, Claim};
use crate::merkle::Tree;
use crate::model_file;
use crate::object::{self, Layout, Limits, ObjectError, ReadStateError};
use crate::records::Records;
use crate::schedule::{BatchSource, Schedule};
use crate::state::EntryHeader;
use crate::store::{Item, MemoryStore, Store};

use super::Resources;
use super::integrity::{
    Fault, IntegrityChecked, Known, KnownCheckpoint, Objects, Segment, check_state, read_batches,
};
use super::layout::{Layouts, state_fault};
use super::orders::Orders;
use super::reason::Reason;

/// An opening whose integrity was checked, and the records that it discloses.
pub(super) struct OpenedProof {
    pub(super) checked: IntegrityChecked<'static>,
    pub(super) records: OpenedRecords,
    /// The audited segments, ascending.
    pub(super) segments: Vec<u64>,
}

/// An opening of which everything was checked but the states.
pub(super) struct Disclosure {
    pub(super) records: OpenedRecords,
    /// Records for a step whose result does not matter: those of an audited one.
    pub(super) any_batch: Vec<u64>,
    claim: Claim,
    disclosed: Disclosed,
    states: Vec<ByteBuf>,
    final_leaves: Option<Vec<Digest>>,
    objects: MemoryStore,
    known: Known,
    /// What the opening leaves of the memory that was allowed.
    left: Resources,
}

impl Disclosure {
    /// Checks what an opening holds beside states: that it answers the challenge, with what was committed to.
    /// Numbers come first: nothing is hashed, drawn or decompressed before they are those that claim and
    /// challenge demand. `has_data` is whether the verifier has a copy of the data, of as many records as are
    /// committed to.
    pub(super) fn check(
        public: &PublicCommitment,
        challenge: &Challenge,
        opening: Opening,
        resources: Resources,
        has_data: bool,
    ) -> Result<Self, Fault> {
        let claim = &public.claim;
        if challenge.commitment != claim.commitment() {
            return Err(Reason::Challenge("it is to another commitment".to_owned()).into());
        }
        if opening.challenge != challenge.digest() {
            return Err(Reason::Challenge("the opening answers another one".to_owned()).into());
        }
        if challenge.draw == Draw::All && claim.terms.segments() > MAX_DRAWN {
            let problem =
                format!("a training of more than {MAX_DRAWN} segments is opened in parts");
            return Err(Reason::Challenge(problem).into());
        }
        let held = opening.held_bytes();
        resources.admit("the opening", held)?;
        let left = Resources {
            memory: resources.memory.saturating_sub(held),
            ..resources
        };
        let disclosed = Disclosed::of(claim, challenge);
        check_counts(claim, &disclosed, &opening)?;
        let mut known = Known::default();
        check_checkpoints(claim, &disclosed, &opening, &mut known)?;
        let objects = MemoryStore::new();
        let lists = store_batches(claim, &disclosed, &opening, &objects, &known, left)?;
        let used = match lists {
            Some(listed) => listed,
            None => {
                let orders = Orders::of(claim, &disclosed)?;
                orders.check_records(opening.records.len() as u64)?;
                if !has_data {
                    orders.check_draws(opening.records.len() as u64)?;
                }
                left.admit("the order of the records", Schedule::bytes(orders.records))?;
                used_records(claim, &disclosed)?
            }
        };
        check_records(claim, &used, &opening.records, &opening.record_nodes)?;
        let any_batch = used.iter().copied();
        Ok(Self {
            any_batch: any_batch
                .take(claim.terms.recipe.batch_size as usize)
                .collect(),
            records: OpenedRecords::new(claim.terms.data.records, opening.records),
            claim: claim.clone(),
            disclosed,
            states: opening.states,
            final_leaves: opening.final_leaves,
            objects,
            known,
            left,
        })
    }

    /// Checks the states. They have to have the tensors of `layouts`, where the verifier knows them.
    pub(super) fn check_states(
        mut self,
        layouts: Option<Layouts<'_>>,
    ) -> Result<OpenedProof, Fault> {
        let last = self.claim.terms.segments();
        let mut later: Option<Vec<EntryHeader>> = layouts.map(|layouts| layouts.later.to_vec());
        let states = mem::take(&mut self.states);
        for (&index, bytes) in self.disclosed.states.iter().zip(states) {
            let Some(known) = self.known.checkpoints.get(&index) else {
                return Err(withheld(format!("checkpoint {index}")));
            };
            let Checkpoint { step, state, .. } = known.checkpoint;
            let layout = match (layouts, index, &later) {
                (Some(layouts), ..) => layouts.of(index),
                (None, 1.., Some(later)) => Layout::Exactly(later),
                (None, ..) => Layout::Any,
            };
            let limits = Limits {
                layout,
                memory: self.left.allowed(),
            };
            let decoded = object::decode_state_within(&state, &bytes, limits)
                .map_err(|source| opened_fault(step, layout, state, source))?;
            if index == last && model_file::root(&decoded) != self.claim.model {
                let problem = "the model that is committed to is not that of the final state";
                return Err(Reason::FinalModel(problem.to_owned()).into());
            }
            check_state(step, &decoded)?;
            if index > 0 && later.is_none() {
                later = Some(decoded.layout().cloned().collect());
            }
            self.objects.put(Item::Object(state), bytes.into_vec());
        }
        self.known.later_layout = later;
        self.known.first_layout = layouts.map(|layouts| layouts.first.to_vec());
        if let Some(leaves) = self.final_leaves {
            let final_state = self.known.checkpoints.get(&last);
            let final_state = final_state.map(|known| known.checkpoint.state);
            if Some(Tree::State.root(&leaves)) != final_state {
                return Err(Reason::Inclusion("the leaves of the final state".to_owned()).into());
            }
            self.known.final_leaves = Some(leaves);
        }
        Ok(OpenedProof {
            segments: self.disclosed.segments,
            records: self.records,
            checked: IntegrityChecked::new(
                Objects::Opening(self.objects),
                self.left,
                self.claim,
                self.known,
            ),
        })
    }
}

/// Who is to blame for an opened state that cannot be decoded.
fn opened_fault(step: u64, layout: Layout<'_>, name: Digest, source: ObjectError) -> Fault {
    match source {
        ObjectError::Memory { needed, allowed } => Reason::Memory {
            what: format!("the state at step {step}"),
            needed,
            allowed,
        }
        .into(),
        ObjectError::OtherLayout(_) => state_fault(
            (step, name),
            layout,
            ReadStateError::Object { name, source },
        ),
        source => Reason::Item(format!("the state at step {step}: {source}")).into(),
    }
}

fn withheld(what: impl Into<String>) -> Fault {
    Reason::Withheld(what.into()).into()
}

/// Whether the opening holds as many of everything as claim and challenge demand.
fn check_counts(claim: &Claim, disclosed: &Disclosed, opening: &Opening) -> Result<(), Fault> {
    let counted = |what: &str, expected: usize, found: usize| match expected == found {
        true => Ok(()),
        false => Err(withheld(format!(
            "{what}: {found} are opened where the challenge needs {expected}"
        ))),
    };
    counted(
        "checkpoints",
        disclosed.checkpoints.len(),
        opening.checkpoints.len(),
    )?;
    counted("states", disclosed.states.len(), opening.states.len())?;
    let lists = match claim.terms.batches {
        BatchSource::Derived => 0,
        BatchSource::Explicit => disclosed.segments.len(),
    };
    counted("lists of batches", lists, opening.batches.len())?;
    let last = claim.terms.segments();
    match (&opening.final_leaves, disclosed.states.contains(&last)) {
        (None, true) | (Some(_), false) => Ok(()),
        (None, false) => Err(withheld("the leaves of the final state")),
        (Some(_), true) => {
            Err(Reason::Challenge("the final state is opened twice".to_owned()).into())
        }
    }
}

fn check_checkpoints(
    claim: &Claim,
    disclosed: &Disclosed,
    opening: &Opening,
    known: &mut Known,
) -> Result<(), Fault> {
    let opened: Vec<(u64, Digest)> = (disclosed.checkpoints.iter().copied())
        .zip(opening.checkpoints.iter().map(Checkpoint::digest))
        .collect();
    let count = claim.checkpoints;
    let root = Tree::Checkpoints.root_of_opened(count, &opened, &opening.checkpoint_nodes);
    if root != Some(claim.checkpoints_root) {
        return Err(Reason::Inclusion("the opened checkpoints".to_owned()).into());
    }
    for (&index, checkpoint) in disclosed.checkpoints.iter().zip(&opening.checkpoints) {
        let due = claim
            .terms
            .segment_steps(index)
            .0
            .min(claim.terms.recipe.steps);
        if checkpoint.step != due {
            return Err(Reason::Chain(format!(
                "checkpoint {index} is at step {}, where step {due} is due",
                checkpoint.step
            ))
            .into());
        }
        let known_checkpoint = KnownCheckpoint {
            checkpoint: checkpoint.clone(),
            kept: disclosed.states.contains(&index),
            movement: None,
        };
        known.checkpoints.insert(index, known_checkpoint);
    }
    Ok(())
}

/// Puts the lists of explicit batches to the objects, and returns which records they name.
fn store_batches(
    claim: &Claim,
    disclosed: &Disclosed,
    opening: &Opening,
    objects: &MemoryStore,
    known: &Known,
    resources: Resources,
) -> Result<Option<BTreeSet<u64>>, Fault> {
    if claim.terms.batches == BatchSource::Derived {
        return Ok(None);
    }
    let mut used = BTreeSet::new();
    for (&index, bytes) in disclosed.segments.iter().zip(&opening.batches) {
        let listed = known.checkpoints.get(&(index + 1));
        let Some(name) = listed.and_then(|known| known.checkpoint.batches) else {
            return Err(withheld("the batches of an audited segment"));
        };
        objects.write(Item::Object(name), bytes)?;
        let (first, last) = claim.terms.segment_steps(index);
        let segment = Segment { index, first, last };
        let plans = read_batches(objects, &name, segment, resources)?;
        used.extend(plans.into_iter().flat_map(|plan| plan.records));
    }
    Ok(Some(used))
}

/// The records that the audited segments use, where batches are derived. That takes the order of every epoch
/// that they lie in: see [`Orders`].
fn used_records(claim: &Claim, disclosed: &Disclosed) -> Result<BTreeSet<u64>, Fault> {
    let terms = &claim.terms;
    let schedule = Schedule::new(terms.seed, terms.data.records, terms.recipe.batch_size);
    let mut schedule = schedule.map_err(|error| Reason::Manifest(error.to_string()))?;
    let mut used = BTreeSet::new();
    for &segment in &disclosed.segments {
        let (first, last) = terms.segment_steps(segment);
        for step in first..last {
            used.extend(schedule.batch(step).records);
        }
    }
    Ok(used)
}

fn check_records(
    claim: &Claim,
    used: &BTreeSet<u64>,
    records: &[OpenedRecord],
    nodes: &[Digest],
) -> Result<(), Fault> {
    let data = &claim.terms.data;
    let mut opened = Vec::with_capacity(records.len());
    let mut disclosed = records.iter();
    for &due in used {
        let Some(record) = disclosed.next().filter(|record| record.index == due) else {
            return Err(withheld(format!(
                "record {due}, which an audited step uses"
            )));
        };
        if record.salt.is_some() != data.salted {
            return Err(withheld(format!("the salt of record {due}")));
        }
        opened.push((due, record.record().digest(record.salt.as_ref())));
    }
    if let Some(extra) = disclosed.next() {
        return Err(Reason::Inclusion(format!(
            "record {}, which no audited step uses,",
            extra.index
        ))
        .into());
    }
    match Tree::Records.root_of_opened(data.records, &opened, nodes) {
        Some(root) if root == data.root => Ok(()),
        _ => Err(Reason::Inclusion("the opened records".to_owned()).into()),
    }
}

/// The first opened record that differs from the verifier's own copy.
pub(super) fn first_foreign(opened: &OpenedRecords, own: &dyn Records) -> Option<u64> {
    opened
        .indices()
        .find(|&index| opened.record(index) != own.record(index))
}
