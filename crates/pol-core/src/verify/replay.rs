//! Replaying: restore a logged state, take the steps of its segment.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::digest::Digest;
use crate::learner::{Batch, Learner, LearnerError};
use crate::merkle::Tree;
use crate::model_file::is_model;
use crate::policy::{Calibration, StartRule};
use crate::random::Seed;
use crate::records::Records;
use crate::schedule::{BatchSource, Schedule};
use crate::state::{EntryHeader, Part, State};

use super::calibrated::{Compared, Comparing};
use super::heading::Headings;
use super::integrity::{Fault, IntegrityChecked, Segment};
use super::layout::layout_difference;
use super::noise::{Amplitude, Noise, Perturbation};
use super::own::OwnStates;
use super::reason::Reason;
use super::replayed::{Logged, Replay};
use super::start::{StartReport, VerifiedPrior, check_start};
use super::stop::Stop;

/// What is replayed, and on which data.
#[derive(Clone)]
pub(super) struct Place<'a> {
    pub(super) proof: &'a IntegrityChecked<'a>,
    records: &'a dyn Records,
    schedule: Option<Schedule>,
}

/// Replays the segments of one proof on one learner.
pub(super) struct Replayer<'a, L: ?Sized> {
    place: Place<'a>,
    learner: &'a mut L,
    /// The checkpoint whose state, by its digest, the learner is in, and that state.
    at: Option<(u64, Arc<State>)>,
    state_bytes: u64,
    /// The initial state as the verifier has it; after [`Replayer::prepare`].
    initial: Option<Arc<State>>,
}

/// How the initial state and the shapes of later ones are checked.
pub(super) struct Preparation<'a> {
    pub(super) rule: StartRule,
    pub(super) prior: Option<&'a VerifiedPrior>,
    /// What the learner says that they are, if it could say so.
    pub(super) own: Result<OwnStates, Stop>,
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
        let place = Place {
            proof,
            records,
            schedule,
        };
        let own = with.own?;
        let mut replayer = Self::at(place, learner);
        let (start, initial) = check_start(
            proof,
            &*replayer.learner,
            &own.initial,
            with.rule,
            with.prior,
        )?;
        replayer.initial = Some(Arc::new(initial));
        replayer.state_bytes = own.later_bytes;
        let expected = own.layouts().later;
        let found = proof.later_layout();
        if let Some(found) = found.filter(|found| *found != expected) {
            return Err(Stop::Reject(Reason::UnfitState {
                place: "every state after the first".to_owned(),
                problem: layout_difference(expected, found),
            }));
        }
        if let Some(leaves) = proof.final_leaves() {
            check_model(proof, expected, leaves)?;
        }
        Ok((replayer, start))
    }

    /// Replays of `place` on a learner that was initialised with the proof's seed.
    pub(super) fn at(place: Place<'a>, learner: &'a mut L) -> Self {
        Self {
            place,
            learner,
            at: None,
            state_bytes: 0,
            initial: None,
        }
    }

    /// What other learners need to replay the same.
    pub(super) fn place(&self) -> Place<'a> {
        self.place.clone()
    }

    /// The size of the states after the first.
    pub(super) fn state_bytes(&self) -> u64 {
        self.state_bytes
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
        let proof = self.place.proof;
        let kept = proof.kept_at_or_before(index);
        let (from, mut reached) = match self.at.take() {
            // Going on from there is what the training did.
            Some((at, state)) if kept <= at && at <= index => (at, state),
            _ => {
                let start = proof.state(kept)?;
                self.restore(&start, proof.segment(kept).first)?;
                (kept, Arc::new(start))
            }
        };
        for before in from..index {
            let segment = proof.segment(before);
            let arrived = self.run(segment, None, after_step)?;
            if arrived.digest() != proof.digest(before + 1)? {
                return Err(Stop::Reject(Reason::DigestDiffers {
                    segment: segment.to_string(),
                }));
            }
            reached = Arc::new(arrived);
        }
        let segment = proof.segment(index);
        let replayed = Arc::new(self.run(segment, None, after_step)?);
        let arrived = replayed.digest() == proof.digest(index + 1)?;
        if arrived {
            self.at = Some((index + 1, Arc::clone(&replayed)));
        }
        let logged = match (proof.is_kept(index + 1), arrived) {
            (false, _) => Logged::Absent,
            (true, true) => Logged::Replayed,
            (true, false) => Logged::Other(proof.state(index + 1)?),
        };
        Ok(Replay {
            segment,
            start: proof.is_kept(index).then_some(reached),
            logged,
            replayed,
            arrived,
        })
    }

    /// Compares a replay that did not arrive with the logged state, by what perturbed replays show of
    /// this segment: on this learner, and once on `second`, if there is another.
    pub(super) fn compare(
        &mut self,
        replay: &Replay,
        rule: &Calibration,
        seed: &Seed,
        second: Option<&mut (dyn Learner + '_)>,
        after_step: &mut dyn FnMut(),
    ) -> Result<Compared, Stop> {
        let Some((start, logged)) = replay.differing() else {
            let why = "a state is not kept that the comparison needs";
            return Err(Stop::Inconclusive(format!("{}: {why}", replay.segment)));
        };
        let recipe = &self.place.proof.claim().terms.recipe;
        let headings = Headings::new(recipe, replay.segment, &replay.replayed, &|name| {
            self.learner.part(name)
        });
        let headings = headings.ok_or_else(|| {
            Stop::Inconclusive(format!(
                "{}: bits differ, and what may be tolerated is known for sgd, adam and adamw alone",
                replay.segment
            ))
        })?;
        let comparing = Comparing {
            segment: replay.segment,
            start,
            replayed: &replay.replayed,
            logged,
            headings: &headings,
            rule,
        };
        let of = (rule.replays, Amplitude::Fine);
        let fine = self.noise(&comparing, of, seed, second, after_step)?;
        let (_, times) = comparing.farthest(&fine);
        let coarse = match times <= 1.0 {
            true => None,
            false => {
                let of = (rule.replays, Amplitude::Coarse);
                Some(self.noise(&comparing, of, seed, None, after_step)?)
            }
        };
        Ok(comparing.judge(&fine, coarse.as_ref()))
    }

    /// How far replays of the segment end from the unperturbed one when they are perturbed.
    fn noise(
        &mut self,
        comparing: &Comparing<'_>,
        (replays, amplitude): (u32, Amplitude),
        seed: &Seed,
        second: Option<&mut (dyn Learner + '_)>,
        after_step: &mut dyn FnMut(),
    ) -> Result<Noise, Stop> {
        let Comparing {
            segment,
            start,
            replayed,
            headings,
            ..
        } = *comparing;
        let mut noise = Noise::default();
        let order = self.learner.order_is_free();
        let replays = u64::from(replays);
        // Each has a stream of its own.
        let numbers = match amplitude {
            Amplitude::Fine => 0..replays,
            Amplitude::Coarse => replays..2 * replays,
        };
        for number in numbers {
            let place = (segment.index, number);
            let mut perturbation = Perturbation::new(seed, place, amplitude, order);
            self.restore(&perturbation.start(start), segment.first)?;
            let ended = self.run(segment, Some(&mut perturbation), after_step)?;
            noise.add(replayed, &ended, headings);
        }
        if let Some(second) = second {
            let mut other = Replayer::at(self.place.clone(), second);
            other.restore(start, segment.first)?;
            let ended = other.run(segment, None, after_step)?;
            noise.add(replayed, &ended, headings);
        }
        Ok(noise)
    }

    /// The names of the parameters in the order of a state.
    pub(super) fn parameters(&self) -> Vec<String> {
        let entries = self.initial.iter().flat_map(|state| state.entries());
        let names = entries.map(|entry| entry.name());
        let of_parameters = names.filter(|name| self.part(name) == Part::Parameters);
        of_parameters.map(str::to_owned).collect()
    }

    /// The first and the last state; `None` where the last one is not at hand.
    pub(super) fn ends(&self) -> Result<Option<(Arc<State>, State)>, Stop> {
        let proof = self.place.proof;
        let last = proof.segments();
        match &self.initial {
            Some(initial) if proof.is_kept(last) => {
                Ok(Some((Arc::clone(initial), proof.state(last)?)))
            }
            _ => Ok(None),
        }
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
        mut perturbation: Option<&mut Perturbation>,
        after_step: &mut dyn FnMut(),
    ) -> Result<State, Stop> {
        let seed = self.place.proof.claim().terms.seed;
        let listed = self.place.proof.batches(segment)?;
        for step in segment.first..segment.last {
            let plan = match (&listed, &mut self.place.schedule) {
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
                self.learner
                    .step(&Batch::new(&plan, self.place.records, &seed)?)
            })?;
            after_step();
        }
        guarded(&segment.to_string(), || self.learner.capture())
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
pub(super) fn guarded<T>(
    place: &str,
    action: impl FnOnce() -> Result<T, LearnerError>,
) -> Result<T, Stop> {
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
