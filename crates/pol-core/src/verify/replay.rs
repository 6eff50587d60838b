//! Replaying: restore a logged state, take the steps of its segment, compare whole states.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::digest::Digest;
use crate::learner::{Batch, Learner, LearnerError};
use crate::merkle::Tree;
use crate::model_file::is_model;
use crate::policy::{Calibration, Comparison, Parts, StartRule};
use crate::random::Seed;
use crate::records::Records;
use crate::schedule::{BatchPlan, BatchSource, Schedule};
use crate::state::{EntryHeader, Part, State};

use super::distance::Distances;
use super::integrity::{Fault, IntegrityChecked, Segment};
use super::noise::{Noise, Perturbation};
use super::reason::Reason;
use super::report::{PartReport, SegmentReport};
use super::start::{StartReport, VerifiedPrior, check_start};
use super::stop::Stop;

/// Replays the segments of one proof on one learner.
pub(super) struct Replayer<'a, L: ?Sized> {
    proof: &'a IntegrityChecked<'a>,
    learner: &'a mut L,
    records: &'a dyn Records,
    schedule: Option<Schedule>,
    /// The checkpoint whose state, by its digest, the learner is in. Only with exact numerics.
    at: Option<u64>,
}

/// The states that a replay compares; logged ones only where they are at hand.
pub(super) struct Replay {
    segment: Segment,
    expected: Digest,
    start: Option<State>,
    logged: Option<State>,
    replayed: State,
}

/// How the initial state and the shapes of later ones are checked.
pub(super) struct Preparation<'a> {
    pub(super) rule: StartRule,
    pub(super) prior: Option<&'a VerifiedPrior>,
    /// Records for the step that shows which tensors later states have; whichever there are.
    pub(super) any_batch: Option<Vec<u64>>,
}

impl<'a, L: Learner + ?Sized> Replayer<'a, L> {
    /// Checks the initial state, and that later states have the tensors that this training has after
    /// a step. So no state that is restored later has a shape that the device has not seen.
    pub(super) fn prepare(
        proof: &'a IntegrityChecked<'a>,
        learner: &'a mut L,
        records: &'a dyn Records,
        with: Preparation<'_>,
    ) -> Result<(Self, StartReport), Stop> {
        let terms = &proof.claim().terms;
        let schedule = match Schedule::new(terms.seed, records.len(), terms.recipe.batch_size) {
            Ok(schedule) => Some(schedule),
            Err(_) if terms.batches == BatchSource::Explicit => None,
            Err(error) => return Err(Stop::Reject(Reason::Manifest(error.to_string()))),
        };
        let mut replayer = Self {
            proof,
            learner,
            records,
            schedule,
            at: None,
        };
        let derived = guarded("the initial state", || {
            replayer.learner.initialise(&terms.seed)?;
            replayer.learner.capture()
        })?;
        let start = check_start(proof, &*replayer.learner, &derived, with.rule, with.prior)?;
        replayer.first_step(with.any_batch)?;
        let stepped = guarded("the first step", || replayer.learner.capture())?;
        let expected: Vec<EntryHeader> = stepped.layout().cloned().collect();
        let found = proof.later_layout();
        if let Some(found) = found.filter(|found| *found != expected) {
            return Err(Stop::Reject(Reason::UnfitState {
                place: "every state after the first".to_owned(),
                problem: layout_difference(&expected, found),
            }));
        }
        if let Some(leaves) = proof.final_leaves() {
            check_model(proof, &expected, leaves)?;
        }
        Ok((replayer, start))
    }

    /// A step from the initial state, on whatever records there are.
    fn first_step(&mut self, any_batch: Option<Vec<u64>>) -> Result<(), Stop> {
        let first = Segment {
            index: 0,
            first: 0,
            last: 1,
        };
        let Some(records) = any_batch else {
            return self.steps(self.proof.segment(0), first, None, &mut || {});
        };
        let plan = BatchPlan {
            step: 0,
            epoch: 0,
            records,
        };
        let seed = self.proof.claim().terms.seed;
        guarded("the first step", || {
            self.learner.step(&Batch::new(&plan, self.records, &seed)?)
        })
    }

    /// Replays a segment; `after_step` is called after each step.
    ///
    /// Where the state at its start is not kept, the segments from the last one kept are replayed
    /// first, and have to arrive at their digests.
    pub(super) fn replay(
        &mut self,
        index: u64,
        after_step: &mut dyn FnMut(),
    ) -> Result<Replay, Stop> {
        let mut from = self.proof.kept_at_or_before(index);
        match self.at.take() {
            // Going on from there is what the training did.
            Some(at) if from <= at && at <= index => from = at,
            _ => {
                let start = self.proof.state(from)?;
                self.restore(&start, self.proof.segment(from).first)?;
            }
        }
        for before in from..index {
            let segment = self.proof.segment(before);
            let arrived = self.run(segment, None, after_step)?;
            if arrived.digest() != self.proof.digest(before + 1)? {
                return Err(Stop::Reject(Reason::DigestDiffers {
                    segment: segment.to_string(),
                }));
            }
        }
        let segment = self.proof.segment(index);
        let start = self.proof.state_if_kept(index)?;
        let replayed = self.run(segment, None, after_step)?;
        let expected = self.proof.digest(index + 1)?;
        if self.proof.is_exact() && replayed.digest() == expected {
            self.at = Some(index + 1);
        }
        Ok(Replay {
            segment,
            expected,
            start,
            logged: self.proof.state_if_kept(index + 1)?,
            replayed,
        })
    }

    /// How far replays of the segment end from `replay` when they are perturbed no more than rounding
    /// does: on this learner, and once on `second`, if there is another.
    pub(super) fn noise(
        &mut self,
        replay: &Replay,
        rule: &Calibration,
        seed: &Seed,
        second: Option<&mut (dyn Learner + '_)>,
        after_step: &mut dyn FnMut(),
    ) -> Result<Noise, Stop> {
        let mut noise = Noise::default();
        let Some(start) = &replay.start else {
            return Ok(noise);
        };
        let segment = replay.segment;
        let order = self.learner.order_is_free();
        for number in 0..u64::from(rule.replays) {
            let mut perturbation = Perturbation::new(seed, segment.index, number, order);
            self.restore(&perturbation.start(start), segment.first)?;
            let ended = self.run(segment, Some(&mut perturbation), after_step)?;
            noise.add(&replay.replayed, &ended, &|name| self.learner.part(name));
        }
        if let Some(second) = second {
            let mut other = Replayer {
                proof: self.proof,
                learner: second,
                records: self.records,
                schedule: self.schedule.clone(),
                at: None,
            };
            other.restore(start, segment.first)?;
            let ended = other.run(segment, None, after_step)?;
            noise.add(&replay.replayed, &ended, &|name| self.learner.part(name));
        }
        Ok(noise)
    }

    /// The learner's word on which part an entry belongs to.
    pub(super) fn part(&self, name: &str) -> Part {
        self.learner.part(name)
    }

    fn restore(&mut self, state: &State, step: u64) -> Result<(), Stop> {
        let place = format!("the state at step {step}");
        guarded(&place, || self.learner.restore(state))
    }

    /// Takes the steps of a segment from the state that the learner is in.
    fn run(
        &mut self,
        segment: Segment,
        perturbation: Option<&mut Perturbation>,
        after_step: &mut dyn FnMut(),
    ) -> Result<State, Stop> {
        self.steps(segment, segment, perturbation, after_step)?;
        guarded(&segment.to_string(), || self.learner.capture())
    }

    /// Takes the steps of `range`, which lies in `segment`.
    fn steps(
        &mut self,
        segment: Segment,
        range: Segment,
        mut perturbation: Option<&mut Perturbation>,
        after_step: &mut dyn FnMut(),
    ) -> Result<(), Stop> {
        let seed = self.proof.claim().terms.seed;
        let listed = self.proof.batches(segment)?;
        for step in range.first..range.last {
            let plan = match (&listed, &mut self.schedule) {
                (Some(listed), _) => listed[(step - segment.first) as usize].clone(),
                (None, Some(schedule)) => schedule.batch(step),
                (None, None) => return Err(Stop::Inconclusive("no schedule".to_owned())),
            };
            let plan = match &mut perturbation {
                Some(perturbation) => perturbation.plan(plan),
                None => plan,
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

impl Replay {
    /// Whether the replay arrived at the logged state bit for bit.
    pub(super) fn arrived(&self) -> bool {
        self.replayed.digest() == self.expected
    }

    /// Compares the replayed with the logged state.
    pub(super) fn judge(
        &self,
        rule: &Comparison,
        noise: Option<Noise>,
        reference: Option<f64>,
        part: &dyn Fn(&str) -> Part,
    ) -> SegmentReport {
        let digests_equal = self.arrived();
        let Some(logged) = &self.logged else {
            let reasons = match digests_equal {
                true => vec![],
                false => vec![Reason::DigestDiffers {
                    segment: self.segment.to_string(),
                }],
            };
            return SegmentReport::new(self.segment, digests_equal, [None; 3], reference, reasons);
        };
        let mut reasons = Vec::new();
        let compared = |of: Part| match rule {
            Comparison::Static { parts, .. } => *parts == Parts::All || of == Part::Parameters,
            _ => true,
        };
        let mut compare = |of: Part| {
            let distances = Distances::between(&self.replayed, logged, of, part);
            let movement_l2 = self.movement(logged, of, part);
            let Some(distances) = distances else {
                reasons.push(Reason::NoDistance {
                    segment: self.segment.to_string(),
                    part: of,
                });
                return None;
            };
            let movement = movement_l2.unwrap_or(f64::NAN);
            let exceeded = match (rule, noise) {
                _ if digests_equal || !compared(of) => vec![],
                (Comparison::Static { tolerance, .. }, _) => {
                    tolerance.exceeded(&distances, movement)
                }
                (Comparison::Calibrated(rule), Some(noise)) => {
                    let bound = noise.tolerance(rule, of, movement);
                    let within = distances.l2 <= bound;
                    (!within)
                        .then_some(("l2", distances.l2, bound))
                        .into_iter()
                        .collect()
                }
                // By bits: see below.
                (Comparison::Bits | Comparison::Calibrated(_), _) => vec![],
            };
            for (metric, value, bound) in exceeded {
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
        let by_bits = match rule {
            Comparison::Bits => true,
            Comparison::Calibrated(_) => noise.is_none(),
            Comparison::Static { .. } => false,
        };
        let schedule_agrees = !compared(Part::Schedule) || self.schedule_agrees(logged, part);
        if (by_bits && !digests_equal) || !schedule_agrees {
            reasons.push(Reason::BitsDiffer {
                segment: self.segment.to_string(),
                entry: first_difference(&self.replayed, logged),
                l2: parameters.map(|part| part.distances.l2),
                movement_l2: parameters.and_then(|part| part.movement_l2),
            });
        }
        let mut report = SegmentReport::new(
            self.segment,
            digests_equal,
            [parameters, buffers, optimizer],
            reference,
            reasons,
        );
        if let (Comparison::Calibrated(rule), Some(noise)) = (rule, noise) {
            let movement = parameters.and_then(|part| part.movement_l2).unwrap_or(0.0);
            report.note_noise(self.segment, noise.report(rule, movement), rule);
        }
        report
    }

    /// How far the segment moves a part, in l2; `None` where its start is not kept. An optimizer
    /// that has no state before the first step moves from zero. NaN, which no tolerance admits,
    /// where the two cannot be compared.
    fn movement(&self, logged: &State, of: Part, part: &dyn Fn(&str) -> Part) -> Option<f64> {
        let values = |state: &State| -> Vec<f64> {
            (state.entries().iter())
                .filter(|entry| part(entry.name()) == of)
                .flat_map(|entry| entry.values().collect::<Vec<_>>())
                .collect()
        };
        let start = self.start.as_ref()?;
        if values(start).is_empty() {
            let squares = values(logged).iter().fold(0.0, |sum, v| sum + v * v);
            return Some(squares.sqrt());
        }
        let moved = Distances::between(start, logged, of, part);
        Some(moved.map_or(f64::NAN, |moved| moved.l2))
    }

    /// Counters and learning rate are computed, not learned: no rounding excuses a difference.
    fn schedule_agrees(&self, logged: &State, part: &dyn Fn(&str) -> Part) -> bool {
        let schedule = |state: &State| -> Vec<_> {
            let of_schedule = |name: &str| part(name) == Part::Schedule;
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

/// Checks that the committed model is made of the final state's leaves for `model/…`, whose places
/// the verifier knows from its own learner.
fn check_model(
    proof: &IntegrityChecked<'_>,
    layout: &[EntryHeader],
    leaves: &[Digest],
) -> Result<(), Stop> {
    let of_model = (layout.iter().zip(leaves)).filter(|(header, _)| is_model(&header.name));
    let model: Vec<Digest> = of_model.map(|(_, leaf)| *leaf).collect();
    let fits = layout.len() == leaves.len();
    match fits && Tree::Model.root(&model) == proof.claim().model {
        true => Ok(()),
        false => Err(Stop::Reject(Reason::FinalModel(
            "the model that is committed to is not that of the final state".to_owned(),
        ))),
    }
}

/// The first entry in which two states differ.
pub(super) fn first_difference(a: &State, b: &State) -> String {
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
