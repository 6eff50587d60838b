//! The integrity of an opening: that it answers the challenge, with what was committed to.

use std::collections::BTreeSet;

use crate::audit::{
    Challenge, Disclosed, Draw, MAX_DRAWN, OpenedRecord, OpenedRecords, Opening, PublicCommitment,
};
use crate::digest::Digest;
use crate::manifest::{Checkpoint, Claim};
use crate::merkle::Tree;
use crate::model_file;
use crate::object;
use crate::records::Records;
use crate::schedule::{BatchSource, Schedule};
use crate::state::EntryHeader;
use crate::store::{Item, MemoryStore, Store};

use super::VerifyError;
use super::integrity::{
    Fault, IntegrityChecked, Known, KnownCheckpoint, Objects, Segment, check_state, read_batches,
};
use super::reason::Reason;

/// An opening whose integrity was checked, and the records that it discloses.
pub(super) struct OpenedProof {
    pub(super) checked: IntegrityChecked<'static>,
    pub(super) records: OpenedRecords,
    /// The audited segments, ascending.
    pub(super) segments: Vec<u64>,
    /// Records for a step whose result does not matter: those of an audited one.
    pub(super) any_batch: Vec<u64>,
}

/// Checks everything about an opening that can be checked without training.
pub(super) fn check_opening(
    public: &PublicCommitment,
    challenge: &Challenge,
    opening: Opening,
) -> Result<Result<OpenedProof, (Digest, Reason)>, VerifyError> {
    match check(&public.claim, challenge, opening) {
        Ok(opened) => Ok(Ok(opened)),
        Err(Fault::Proof(reason)) => Ok(Err((public.digest(), reason))),
        Err(Fault::Machine(error)) => Err(error),
    }
}

fn check(claim: &Claim, challenge: &Challenge, opening: Opening) -> Result<OpenedProof, Fault> {
    if challenge.commitment != claim.commitment() {
        return Err(Reason::Challenge("it is to another commitment".to_owned()).into());
    }
    if opening.challenge != challenge.digest() {
        return Err(Reason::Challenge("the opening answers another one".to_owned()).into());
    }
    if challenge.draw == Draw::All && claim.terms.segments() > MAX_DRAWN {
        let problem = format!("a training of more than {MAX_DRAWN} segments is opened in parts");
        return Err(Reason::Challenge(problem).into());
    }
    let disclosed = Disclosed::of(claim, challenge);
    let mut known = Known::default();
    check_checkpoints(claim, &disclosed, &opening, &mut known)?;
    let objects = MemoryStore::new();
    check_states(claim, &disclosed, &opening, &objects, &mut known)?;
    let lists = store_batches(claim, &disclosed, &opening, &objects, &known)?;
    let used = used_records(claim, &disclosed, lists)?;
    check_records(claim, &used, &opening.records, &opening.record_nodes)?;
    let any_batch = used
        .iter()
        .copied()
        .take(claim.terms.recipe.batch_size as usize);
    Ok(OpenedProof {
        any_batch: any_batch.collect(),
        segments: disclosed.segments,
        records: OpenedRecords::new(claim.terms.data.records, opening.records),
        checked: IntegrityChecked::new(Objects::Opening(objects), claim.clone(), known),
    })
}

fn withheld(what: impl Into<String>) -> Fault {
    Reason::Withheld(what.into()).into()
}

fn check_checkpoints(
    claim: &Claim,
    disclosed: &Disclosed,
    opening: &Opening,
    known: &mut Known,
) -> Result<(), Fault> {
    let (expected, found) = (disclosed.checkpoints.len(), opening.checkpoints.len());
    if expected != found {
        return Err(withheld(format!(
            "{found} checkpoints are opened where the challenge needs {expected}"
        )));
    }
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

fn check_states(
    claim: &Claim,
    disclosed: &Disclosed,
    opening: &Opening,
    objects: &MemoryStore,
    known: &mut Known,
) -> Result<(), Fault> {
    let (expected, found) = (disclosed.states.len(), opening.states.len());
    if expected != found {
        return Err(withheld(format!(
            "{found} states are opened where the challenge needs {expected}"
        )));
    }
    let last = claim.terms.segments();
    let mut layout: Option<Vec<EntryHeader>> = None;
    for (&index, bytes) in disclosed.states.iter().zip(&opening.states) {
        let Some(known) = known.checkpoints.get_mut(&index) else {
            return Err(withheld(format!("checkpoint {index}")));
        };
        let Checkpoint { step, state, .. } = known.checkpoint;
        let decoded = object::decode_state(&state, bytes)
            .map_err(|error| Reason::Item(format!("the state at step {step}: {error}")))?;
        if index == last && model_file::root(&decoded) != claim.model {
            let problem = "the model that is committed to is not that of the final state";
            return Err(Reason::FinalModel(problem.to_owned()).into());
        }
        if index > 0 && layout.is_none() {
            layout = Some(decoded.layout().cloned().collect());
        }
        check_state(index, step, &decoded, layout.as_deref())?;
        objects.write(Item::Object(state), bytes)?;
    }
    known.later_layout = layout;
    let final_state = known
        .checkpoints
        .get(&last)
        .map(|known| known.checkpoint.state);
    match (&opening.final_leaves, disclosed.states.contains(&last)) {
        (None, true) => Ok(()),
        (Some(leaves), false) if Some(Tree::State.root(leaves)) == final_state => {
            known.final_leaves = Some(leaves.clone());
            Ok(())
        }
        (Some(_), false) => {
            Err(Reason::Inclusion("the leaves of the final state".to_owned()).into())
        }
        (None, false) => Err(withheld("the leaves of the final state")),
        (Some(_), true) => {
            Err(Reason::Challenge("the final state is opened twice".to_owned()).into())
        }
    }
}

/// Puts the lists of explicit batches to the objects, and returns which records they name.
fn store_batches(
    claim: &Claim,
    disclosed: &Disclosed,
    opening: &Opening,
    objects: &MemoryStore,
    known: &Known,
) -> Result<Option<BTreeSet<u64>>, Fault> {
    let expected = match claim.terms.batches {
        BatchSource::Derived => 0,
        BatchSource::Explicit => disclosed.segments.len(),
    };
    if opening.batches.len() != expected {
        return Err(withheld("the batches of an audited segment"));
    }
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
        let plans = read_batches(objects, &name, Segment { index, first, last })?;
        used.extend(plans.into_iter().flat_map(|plan| plan.records));
    }
    Ok(Some(used))
}

/// The records that the audited segments use.
fn used_records(
    claim: &Claim,
    disclosed: &Disclosed,
    listed: Option<BTreeSet<u64>>,
) -> Result<BTreeSet<u64>, Fault> {
    if let Some(listed) = listed {
        return Ok(listed);
    }
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
