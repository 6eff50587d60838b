//! Replaying: restore a logged state, take the steps of its segment, compare whole states.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::digest::Digest;
use crate::learner::{Batch, Learner, LearnerError};
use crate::records::Records;
use crate::schedule::Schedule;
use crate::state::{EntryHeader, Part, State};

use super::Stop;
use super::distance::{Distances, Tolerance};
use super::integrity::{Fault, IntegrityChecked, Segment};
use super::report::{PartReport, Reason, SegmentReport};

/// Replays the segments of one proof on one learner.
pub(super) struct Replayer<'a, L: ?Sized> {
    proof: &'a IntegrityChecked<'a>,
    learner: &'a mut L,
    records: &'a dyn Records,
    schedule: Option<Schedule>,
    /// The checkpoint whose state, by its digest, the learner is in. Only with exact numerics.
    at: Option<u64>,
}

/// The states that a replay compares; logged ones only where they are kept.
pub(super) struct Replay<'a> {
    segment: Segment,
    expected: Digest,
    start: Option<State>,
    logged: Option<State>,
    replayed: State,
    part: Box<dyn Fn(&str) -> Part + 'a>,
}

impl<'a, L: Learner + ?Sized> Replayer<'a, L> {
    /// Checks the initial state against the derived one, bit for bit, and that later states have
    /// the tensors that this training has after a step. So no state that is restored later has a
    /// shape that the device has not seen.
    pub(super) fn prepare(
        proof: &'a IntegrityChecked<'a>,
        learner: &'a mut L,
        records: &'a dyn Records,
    ) -> Result<Self, Stop> {
        let terms = &proof.manifest().claim.terms;
        let schedule = match Schedule::new(terms.seed, records.len(), terms.recipe.batch_size) {
            Ok(schedule) => Some(schedule),
            Err(_) if proof.batches(proof.segment(0)).is_ok_and(|b| b.is_some()) => None,
            Err(error) => return Err(Stop::Reject(Reason::Manifest(error.to_string()))),
        };
        let mut replayer = Self {
            proof,
            learner,
            records,
            schedule,
            at: None,
        };
        let place = "the initial state";
        let derived = guarded(place, || {
            replayer.learner.initialise(&terms.seed)?;
            replayer.learner.capture()
        })?;
        let logged = proof.state(0)?;
        if derived.digest() != logged.digest() {
            return Err(Stop::Reject(Reason::InitialState {
                entry: first_difference(&derived, &logged),
            }));
        }
        let first = Segment {
            index: 0,
            first: 0,
            last: 1,
        };
        replayer.steps(proof.segment(0), first, &mut || {})?;
        let stepped = guarded("the first step", || replayer.learner.capture())?;
        let expected: Vec<EntryHeader> = stepped.layout().cloned().collect();
        if expected != proof.later_layout() {
            return Err(Stop::Reject(Reason::UnfitState {
                place: "every state after the first".to_owned(),
                problem: layout_difference(&expected, proof.later_layout()),
            }));
        }
        Ok(replayer)
    }

    /// Replays a segment; `after_step` is called after each step.
    ///
    /// Where the state at its start is not kept, the segments from the last one kept are replayed
    /// first, and have to arrive at their digests.
    pub(super) fn replay(
        &mut self,
        index: u64,
        after_step: &mut dyn FnMut(),
    ) -> Result<Replay<'_>, Stop> {
        let mut from = self.proof.kept_at_or_before(index);
        match self.at.take() {
            // Going on from there is what the training did.
            Some(at) if from <= at && at <= index => from = at,
            _ => {
                let start = self.proof.state(from)?;
                let place = format!("the state at step {}", self.proof.segment(from).first);
                guarded(&place, || self.learner.restore(&start))?;
            }
        }
        for before in from..index {
            let segment = self.proof.segment(before);
            let arrived = self.run(segment, after_step)?;
            if arrived.digest() != self.proof.digest(before + 1) {
                return Err(Stop::Reject(Reason::DigestDiffers {
                    segment: segment.to_string(),
                }));
            }
        }
        let segment = self.proof.segment(index);
        let start = self.proof.state_if_kept(index)?;
        let replayed = self.run(segment, after_step)?;
        let expected = self.proof.digest(index + 1);
        if self.proof.is_exact() && replayed.digest() == expected {
            self.at = Some(index + 1);
        }
        let logged = self.proof.state_if_kept(index + 1)?;
        let learner = &*self.learner;
        Ok(Replay {
            segment,
            expected,
            start,
            logged,
            replayed,
            part: Box::new(|name| learner.part(name)),
        })
    }

    /// Takes the steps of a segment from the state that the learner is in.
    fn run(&mut self, segment: Segment, after_step: &mut dyn FnMut()) -> Result<State, Stop> {
        self.steps(segment, segment, after_step)?;
        guarded(&segment.to_string(), || self.learner.capture())
    }

    /// Takes the steps of `range`, which lies in `segment`.
    fn steps(
        &mut self,
        segment: Segment,
        range: Segment,
        after_step: &mut dyn FnMut(),
    ) -> Result<(), Stop> {
        let seed = self.proof.manifest().claim.terms.seed;
        let listed = self.proof.batches(segment)?;
        for step in range.first..range.last {
            let plan = match (&listed, &mut self.schedule) {
                (Some(listed), _) => listed[(step - segment.first) as usize].clone(),
                (None, Some(schedule)) => schedule.batch(step),
                (None, None) => return Err(Stop::Inconclusive("no schedule".to_owned())),
            };
            let place = format!("step {step}");
            guarded(&place, || {
                self.learner.step(&Batch::new(&plan, self.records, &seed)?)
            })?;
            after_step();
        }
        Ok(())
    }
}

impl Replay<'_> {
    /// Compares the replayed with the logged state.
    pub(super) fn judge(self, tolerance: &Tolerance, reference: Option<f64>) -> SegmentReport {
        let digests_equal = self.replayed.digest() == self.expected;
        let Some(logged) = &self.logged else {
            let reasons = match digests_equal {
                true => vec![],
                false => vec![Reason::DigestDiffers {
                    segment: self.segment.to_string(),
                }],
            };
            return SegmentReport::new(self.segment, digests_equal, [None; 3], None, reasons);
        };
        let mut reasons = Vec::new();
        let mut compare = |of: Part| {
            let distances = Distances::between(&self.replayed, logged, of, &self.part);
            let movement_l2 = self.movement(logged, of);
            let Some(distances) = distances else {
                reasons.push(Reason::NoDistance {
                    segment: self.segment.to_string(),
                    part: of,
                });
                return None;
            };
            let movement = movement_l2.unwrap_or(f64::NAN);
            for (metric, value, bound) in tolerance.exceeded(&distances, movement) {
                reasons.push(Reason::TooFar {
                    segment: self.segment.to_string(),
                    part: of,
                    metric,
                    value,
                    bound,
                });
            }
            Some(PartReport {
                distances,
                movement_l2: movement_l2.filter(|movement| movement.is_finite()),
            })
        };
        let parameters = compare(Part::Parameters);
        let buffers = compare(Part::Buffers);
        let optimizer = compare(Part::Optimizer);
        let bits_must_agree = tolerance.is_exact() && !digests_equal;
        if bits_must_agree || !self.schedule_agrees(logged) {
            reasons.push(Reason::BitsDiffer {
                segment: self.segment.to_string(),
                entry: first_difference(&self.replayed, logged),
                l2: parameters.map(|part| part.distances.l2),
                movement_l2: parameters.and_then(|part| part.movement_l2),
            });
        }
        SegmentReport::new(
            self.segment,
            digests_equal,
            [parameters, buffers, optimizer],
            reference,
            reasons,
        )
    }

    /// How far the segment moves a part, in l2; `None` where its start is not kept. An optimizer
    /// that has no state before the first step moves from zero. NaN, which no tolerance admits,
    /// where the two cannot be compared.
    fn movement(&self, logged: &State, of: Part) -> Option<f64> {
        let values = |state: &State| -> Vec<f64> {
            (state.entries().iter())
                .filter(|entry| (self.part)(entry.name()) == of)
                .flat_map(|entry| entry.values().collect::<Vec<_>>())
                .collect()
        };
        let start = self.start.as_ref()?;
        if values(start).is_empty() {
            let squares: f64 = values(logged).iter().map(|v| v * v).sum();
            return Some(squares.sqrt());
        }
        let moved = Distances::between(start, logged, of, &self.part);
        Some(moved.map_or(f64::NAN, |moved| moved.l2))
    }

    /// Counters and learning rate are computed, not learned: no rounding excuses a difference.
    fn schedule_agrees(&self, logged: &State) -> bool {
        let schedule = |state: &State| -> Vec<_> {
            let of_schedule = |name: &str| (self.part)(name) == Part::Schedule;
            (state.entries().iter())
                .filter(|entry| of_schedule(entry.name()))
                .cloned()
                .collect()
        };
        schedule(&self.replayed) == schedule(logged)
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Proof(reason) => Self::Reject(reason),
            Fault::Machine(error) => Self::Unreadable(error),
        }
    }
}

/// Runs the learner. Burn's backends panic where a driver fails; that is a check that could not
/// be made.
fn guarded<T>(place: &str, action: impl FnOnce() -> Result<T, LearnerError>) -> Result<T, Stop> {
    match catch_unwind(AssertUnwindSafe(action)) {
        Ok(result) => result.map_err(|error| Stop::from_learner(place, error)),
        Err(panic) => {
            let message = (panic.downcast_ref::<String>().map(String::as_str))
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            Err(Stop::Inconclusive(format!(
                "{place}: the backend failed: {message}"
            )))
        }
    }
}

/// The first entry in which two states differ.
fn first_difference(a: &State, b: &State) -> String {
    let names = a.entries().iter().chain(b.entries());
    let mut differing: Vec<&str> = names
        .map(|entry| entry.name())
        .filter(|name| a.entry(name) != b.entry(name))
        .collect();
    differing.sort_unstable();
    differing
        .first()
        .map_or_else(String::new, |name| (*name).to_owned())
}

fn layout_difference(expected: &[EntryHeader], found: &[EntryHeader]) -> String {
    let missing = expected.iter().find(|header| !found.contains(header));
    let extra = found.iter().find(|header| !expected.contains(header));
    let describe = |header: &EntryHeader| {
        format!(
            "`{}` ({} {:?})",
            header.name,
            header.dtype.name(),
            header.shape
        )
    };
    match (missing, extra) {
        (Some(missing), _) => format!("it lacks {}", describe(missing)),
        (None, Some(extra)) => format!("it has {}, which this training has not", describe(extra)),
        (None, None) => "its tensors are in another order".to_owned(),
    }
}
