//! Every object of a folder, read and hashed on all threads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use crate::digest::Digest;
use crate::manifest::{Manifest, Terms};
use crate::object::{self, Layout, Limits, ReadStateError, WHOLE_EVERY, held_bytes};
use crate::state::{DType, Entry, EntryHeader, Part, STEP_ENTRY, State};
use crate::store::{Item, Store};

use super::super::distance::movement;
use super::super::layout::{Layouts, state_fault};
use super::super::outliers::{Moved, Stretch};
use super::super::proof::Proof;
use super::super::reason::Reason;
use super::super::{Progress, Resources};
use super::{Fault, Known, KnownCheckpoint, Segment, read_batches};

/// What a thread holds at once, at most, in states: a state, the one before, the next one's compressed bytes
/// before and after they are decoded, its values before they are put in order, and one more while they are;
/// and the differences on the way to it.
const STATES_PER_THREAD: u64 = 7;

/// Checks every object. With exact numerics the states between the first and the last may be absent: a
/// replay from the one before gives them. `measured` tells parameters from buffers where movements are
/// asked for. Returns the final state too.
///
/// No state is decompressed that has other tensors than `layouts`, or, where the verifier does not know
/// them, than the first one after the initial state; and none for which there is too little memory.
pub(super) fn check_objects(
    proof: &Proof<'_>,
    layouts: Option<Layouts<'_>>,
    measured: Option<&dyn Fn(&str) -> Part>,
    progress: &mut dyn FnMut(Progress),
) -> Result<(Known, Option<State>), Fault> {
    let (store, manifest, resources) = (proof.store(), proof.manifest(), proof.resources());
    let count = manifest.checkpoints.len() as u64;
    let may_be_absent = |index: u64| {
        manifest.claim.terms.recipe.numerics.is_exact() && index > 0 && index + 1 < count
    };
    let kept: Vec<u64> = ((0u64..).zip(&manifest.checkpoints))
        .filter(|(index, checkpoint)| {
            !may_be_absent(*index) || store.contains(Item::Object(checkpoint.state))
        })
        .map(|(index, _)| index)
        .collect();
    let first_later = kept
        .get(1)
        .map(|&index| &manifest.checkpoints[index as usize]);
    let limits = Limits {
        memory: resources.allowed(),
        ..Limits::NONE
    };
    let layout: Option<Vec<EntryHeader>> = match layouts {
        Some(layouts) => Some(layouts.later.to_vec()),
        // If it cannot be read, that is found again, and said, in its turn.
        None => first_later.and_then(|first| object::layout_of(store, &first.state, limits).ok()),
    };
    let parts: Option<Vec<Part>> = measured.zip(layout.as_ref()).map(|(part, layout)| {
        let part = |header: &EntryHeader| part(&header.name);
        layout.iter().map(part).collect()
    });
    let threads = match &layout {
        Some(layout) => {
            let bytes = STATES_PER_THREAD.saturating_mul(held_bytes(layout));
            resources.admit("a state", bytes)?;
            resources.threads_for(bytes)
        }
        None => 1,
    };
    let pass = Pass {
        store,
        manifest,
        kept: &kept,
        first: layouts.map(|layouts| layouts.first),
        layout: layout.as_deref(),
        resources: Resources {
            threads,
            memory: resources.allowed() / threads as u64,
        },
        parts,
        next: AtomicUsize::new(0),
        failed: AtomicU64::new(u64::MAX),
    };
    let outcome = pass.run(threads, progress)?;
    let distance = match (&pass.parts, &outcome.last) {
        (Some(parts), Some(last)) => {
            let name = manifest.checkpoints[0].state;
            let first = pass.read(0, &name, None);
            moved(
                parts,
                &first.map_err(|error| pass.fault(0, 0, error))?,
                last,
            )
            .parameters
        }
        _ => None,
    };
    let mut known = Known {
        later_layout: layout.clone(),
        first_layout: layouts.map(|layouts| layouts.first.to_vec()),
        stretches: stretches(&manifest.claim.terms, &outcome.movements),
        distance,
        ..Known::default()
    };
    for (index, checkpoint) in (0u64..).zip(&manifest.checkpoints) {
        let checkpoint = KnownCheckpoint {
            checkpoint: checkpoint.clone(),
            kept: false,
            movement: (outcome.movements.get(&index))
                .filter(|(from, _)| from + 1 == index)
                .and_then(|(_, moved)| moved.parameters),
        };
        known.checkpoints.insert(index, checkpoint);
    }
    for index in kept {
        if let Some(checkpoint) = known.checkpoints.get_mut(&index) {
            checkpoint.kept = true;
        }
    }
    Ok((known, outcome.last))
}

/// What all threads share.
struct Pass<'a> {
    store: &'a dyn Store,
    manifest: &'a Manifest,
    /// The checkpoints whose states have to be there, or are.
    kept: &'a [u64],
    /// The tensors of the initial state, where the verifier knows them.
    first: Option<&'a [EntryHeader]>,
    /// Those of every other.
    layout: Option<&'a [EntryHeader]>,
    /// What one thread may take.
    resources: Resources,
    /// What each entry of the layout belongs to; only where movements are measured.
    parts: Option<Vec<Part>>,
    /// The next run of kept states that nobody works on.
    next: AtomicUsize,
    /// The first checkpoint known to be at fault: nothing after it needs to be looked at.
    failed: AtomicU64,
}

/// The stretches between neighbouring kept states, by the checkpoints that end them.
fn stretches(terms: &Terms, movements: &BTreeMap<u64, (u64, Moved)>) -> Vec<Stretch> {
    let stretch = |(&end, &(from, moved)): (&u64, &(u64, Moved))| Stretch {
        segments: from..end,
        steps: terms.segment_steps(end - 1).1 - terms.segment_steps(from).0,
        moved,
    };
    movements.iter().map(stretch).collect()
}

#[derive(Default)]
struct Outcome {
    /// By the checkpoint at the end: the one of the kept state before, and how far it is from there.
    movements: BTreeMap<u64, (u64, Moved)>,
    last: Option<State>,
}

enum Message {
    /// A state is whole. The final one comes along.
    Checked {
        index: u64,
        movement: Option<(u64, Moved)>,
        last: Option<State>,
    },
    Failed(u64, Fault),
}

impl Pass<'_> {
    fn run(&self, threads: usize, progress: &mut dyn FnMut(Progress)) -> Result<Outcome, Fault> {
        let count = self.kept.len() as u64;
        thread::scope(|scope| {
            let (send, messages) = channel();
            for _ in 0..threads {
                let send = send.clone();
                scope.spawn(move || self.work(&send));
            }
            drop(send);
            let mut outcome = Outcome::default();
            let mut fault: Option<(u64, Fault)> = None;
            let mut done = 0;
            for message in messages {
                match message {
                    Message::Checked {
                        index,
                        movement,
                        last,
                    } => {
                        done += 1;
                        progress(Progress::Integrity(done, count));
                        outcome.last = last.or(outcome.last.take());
                        outcome
                            .movements
                            .extend(movement.map(|moved| (index, moved)));
                    }
                    // Whichever thread comes first, the first fault in the proof is the one that is
                    // reported.
                    Message::Failed(index, found) => {
                        if fault.as_ref().is_none_or(|(first, _)| index < *first) {
                            fault = Some((index, found));
                        }
                    }
                }
            }
            match fault {
                Some((_, fault)) => Err(fault),
                None => Ok(outcome),
            }
        })
    }

    /// Takes runs of states, as long as those that start with a whole state, until there are none.
    fn work(&self, send: &Sender<Message>) {
        loop {
            let first = WHOLE_EVERY * self.next.fetch_add(1, Ordering::Relaxed);
            let Some(start) = self.kept.get(first) else {
                return;
            };
            if *start > self.failed.load(Ordering::Relaxed) {
                return;
            }
            if let Err((index, fault)) = self.check_run(first, send) {
                self.failed.fetch_min(index, Ordering::Relaxed);
                // The receiver waits for all threads.
                let _ = send.send(Message::Failed(index, fault));
            }
        }
    }

    fn check_run(&self, first: usize, send: &Sender<Message>) -> Result<(), (u64, Fault)> {
        let checkpoints = &self.manifest.checkpoints;
        let name = |index: u64| checkpoints[index as usize].state;
        let step = |index: u64| checkpoints[index as usize].step;
        let last_kept = checkpoints.len() as u64 - 1;
        let end = (first + WHOLE_EVERY).min(self.kept.len());
        let mut before: Option<(u64, State)> = None;
        if self.parts.is_some() && first > 0 {
            let index = self.kept[first - 1];
            let state = self.read(index, &name(index), None);
            let state = state.map_err(|error| (index, self.fault(index, step(index), error)));
            before = Some((index, state?));
        }
        let mut listed = if first == 0 { 0 } else { self.kept[first - 1] };
        for &index in &self.kept[first..end] {
            let at_fault = |fault| (index, fault);
            self.check_batches(listed, index).map_err(at_fault)?;
            listed = index;
            let known = before.as_ref().map(|(index, state)| (name(*index), state));
            let known = known.as_ref().map(|(name, state)| (name, *state));
            let state = self.read(index, &name(index), known);
            let state = state.map_err(|error| at_fault(self.fault(index, step(index), error)))?;
            let checked = check_state(step(index), &state);
            checked.map_err(|reason| at_fault(reason.into()))?;
            let movement = self.movement(before.as_ref(), &state);
            let last = (index == last_kept).then(|| state.clone());
            before = Some((index, state));
            let _ = send.send(Message::Checked {
                index,
                movement,
                last,
            });
        }
        Ok(())
    }

    /// The state at a checkpoint, if it has the tensors that it has to have.
    fn read(
        &self,
        index: u64,
        name: &Digest,
        known: Option<(&Digest, &State)>,
    ) -> Result<State, ReadStateError> {
        let limits = Limits {
            layout: self.layout_of(index),
            memory: self.resources.memory,
        };
        object::read_state_within(self.store, name, known, limits)
    }

    fn fault(&self, index: u64, step: u64, error: ReadStateError) -> Fault {
        let name = self.manifest.checkpoints[index as usize].state;
        state_fault((step, name), self.layout_of(index), error)
    }

    fn layout_of(&self, index: u64) -> Layout<'_> {
        match (index, self.first, self.layout) {
            (0, Some(first), _) => Layout::Exactly(first),
            // The optimizer may keep nothing yet.
            (0, None, Some(later)) => Layout::ModelOf(later),
            (_, _, Some(later)) => Layout::Exactly(later),
            (_, _, None) => Layout::Any,
        }
    }

    /// The explicit batches of the segments between two checkpoints.
    fn check_batches(&self, from: u64, to: u64) -> Result<(), Fault> {
        let terms: &Terms = &self.manifest.claim.terms;
        for index in from..to {
            let listed = self.manifest.checkpoints[index as usize + 1].batches;
            if let Some(name) = listed {
                let (first, last) = terms.segment_steps(index);
                read_batches(
                    self.store,
                    &name,
                    Segment { index, first, last },
                    self.resources,
                )?;
            }
        }
        Ok(())
    }

    fn movement(&self, before: Option<&(u64, State)>, state: &State) -> Option<(u64, Moved)> {
        let parts = self.parts.as_ref()?;
        let (from, before) = before?;
        Some((*from, moved(parts, before, state)))
    }
}

/// How far two states are apart; `parts` are those of the later one's entries.
fn moved(parts: &[Part], before: &State, state: &State) -> Moved {
    let of = |part: Part, counts: fn(&Entry) -> bool| {
        let entries = state.entries().iter().zip(parts);
        let entries = entries.filter(move |(entry, found)| **found == part && counts(entry));
        movement(entries.filter_map(|(entry, _)| Some((before.entry(entry.name())?, entry))))
    };
    Moved {
        parameters: of(Part::Parameters, |_| true),
        optimizer: of(Part::Optimizer, is_float),
    }
}

fn is_float(entry: &Entry) -> bool {
    use DType::{BF16, F16, F32, F64};
    matches!(entry.header.dtype, F64 | F32 | F16 | BF16)
}

/// The checks of one state's values.
pub(crate) fn check_state(step: u64, state: &State) -> Result<(), Reason> {
    let place = || format!("the state at step {step}");
    if let Some(entry) = state.entries().iter().find(|entry| !entry.is_finite()) {
        return Err(Reason::NotFinite {
            place: place(),
            entry: entry.name().to_owned(),
        });
    }
    let counted = state.entry(STEP_ENTRY).and_then(|entry| entry.to_u64());
    if counted != Some(step) {
        let says = counted.map_or("is missing".to_owned(), |step| format!("says {step}"));
        return Err(Reason::UnfitState {
            place: place(),
            problem: format!("its counter `{STEP_ENTRY}` {says}"),
        });
    }
    Ok(())
}
