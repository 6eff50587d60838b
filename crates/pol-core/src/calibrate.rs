//! Which interval a training can be proved with on stock kernels: how far rounding carries k steps,
//! against how far training does, for several k and at several points of the training.

use serde::Serialize;

use crate::learner::{Batch, Learner, LearnerError};
use crate::policy::Calibration;
use crate::random::Seed;
use crate::recipe::Recipe;
use crate::records::Records;
use crate::schedule::{BatchPlan, Schedule, ScheduleError};
use crate::state::State;
use crate::verify::{Amplitude, Headings, Perturbation, Segment, total};

/// What was measured from one point over one interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// k.
    pub interval: u64,
    /// Steps made before.
    pub step: u64,
    /// What k steps teach: how far the parameters are heading from where the start was (l2).
    pub learned: f64,
    /// How far perturbed replays are heading from the unperturbed one: the largest (l2).
    pub noise: f64,
    /// How far a replay on the second learner is heading from it, where there is one (l2).
    pub second: Option<f64>,
}

impl Point {
    /// ρ: what is learned over the larger noise.
    pub fn rho(&self) -> f64 {
        let noise = self.noise.max(self.second.unwrap_or(0.0));
        match noise > 0.0 {
            true => self.learned / noise,
            false => f64::MAX,
        }
    }
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrateError {
    /// The learner failed.
    #[error(transparent)]
    Learner(#[from] LearnerError),
    /// No batch can be drawn.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// Momentum of an optimizer that only its own program knows.
    #[error(
        "what a custom optimizer learns is not known: noise is measured for sgd, adam and adamw"
    )]
    Custom,
    /// The training diverged.
    #[error("at step {0} there is no finite distance: the training has diverged")]
    Diverged(u64),
}

/// What to measure.
pub struct Plan<'a> {
    /// The training.
    pub recipe: &'a Recipe,
    /// Its data.
    pub records: &'a dyn Records,
    /// The training's seed, and that of the perturbations.
    pub seed: Seed,
    /// Values of k.
    pub intervals: &'a [u64],
    /// Steps to measure at, ascending.
    pub points: &'a [u64],
    /// How noise is measured.
    pub rule: Calibration,
}

/// Trains along the recipe to the last of the points and measures every interval from each of them.
/// `observe` is told of every step taken.
///
/// # Errors
/// If the learner fails or diverges.
pub fn calibrate(
    plan: &Plan<'_>,
    learner: &mut dyn Learner,
    mut second: Option<&mut dyn Learner>,
    observe: &mut dyn FnMut(),
) -> Result<Vec<Point>, CalibrateError> {
    let Plan {
        recipe,
        records,
        ref seed,
        intervals,
        points,
        rule,
    } = *plan;
    let mut run = Run {
        records,
        schedule: Schedule::new(*seed, records.len(), recipe.batch_size)?,
        seed,
        observe,
    };
    learner.initialise(seed)?;
    if let Some(second) = &mut second {
        second.initialise(seed)?;
    }
    let mut state = learner.capture()?;
    let mut at = 0;
    let mut measured = Vec::new();
    for &point in points {
        learner.restore(&state)?;
        run.steps(learner, at, point, None)?;
        (at, state) = (point, learner.capture()?);
        for &interval in intervals {
            let end = point + interval;
            let straight = run.from(learner, &state, point, end, None)?;
            let order = learner.order_is_free();
            let segment = Segment {
                index: point,
                first: point,
                last: end,
            };
            let headings = Headings::new(recipe, segment, &straight, &|name| learner.part(name));
            let headings = headings.ok_or(CalibrateError::Custom)?;
            let finite = |apart: Vec<f64>| {
                let apart = Some(total(&apart)).filter(|apart| apart.is_finite());
                apart.ok_or(CalibrateError::Diverged(end))
            };
            let learned = finite(headings.learned(&state, &straight))?;
            let mut noise: f64 = 0.0;
            for replay in 0..u64::from(rule.replays) {
                let place = (point, replay);
                let mut perturbation = Perturbation::new(seed, place, Amplitude::Fine, order);
                let start = perturbation.start(&state);
                let ended = run.from(learner, &start, point, end, Some(&mut perturbation))?;
                noise = noise.max(finite(headings.apart(&straight, &ended))?);
            }
            let second = match &mut second {
                None => None,
                Some(second) => {
                    let ended = run.from(*second, &state, point, end, None)?;
                    Some(finite(headings.apart(&straight, &ended))?)
                }
            };
            measured.push(Point {
                interval,
                step: point,
                learned,
                noise,
                second,
            });
        }
    }
    Ok(measured)
}

/// The longest of the measured intervals at which every point has a ρ of at least `min_rho`.
pub fn suggested_interval(points: &[Point], min_rho: f64) -> Option<u64> {
    let holds = |interval: &u64| {
        let mut of = points.iter().filter(|point| point.interval == *interval);
        of.all(|point| point.rho() >= min_rho)
    };
    points
        .iter()
        .map(|point| point.interval)
        .filter(holds)
        .max()
}

struct Run<'a> {
    records: &'a dyn Records,
    schedule: Schedule,
    seed: &'a Seed,
    observe: &'a mut dyn FnMut(),
}

impl Run<'_> {
    fn from(
        &mut self,
        learner: &mut dyn Learner,
        start: &State,
        first: u64,
        end: u64,
        perturbation: Option<&mut Perturbation>,
    ) -> Result<State, LearnerError> {
        learner.restore(start)?;
        self.steps(learner, first, end, perturbation)?;
        learner.capture()
    }

    fn steps(
        &mut self,
        learner: &mut dyn Learner,
        first: u64,
        end: u64,
        mut perturbation: Option<&mut Perturbation>,
    ) -> Result<(), LearnerError> {
        for step in first..end {
            let plan: BatchPlan = self.schedule.batch(step);
            let plan = match &mut perturbation {
                Some(perturbation) => perturbation.plan(plan),
                None => plan,
            };
            learner.step(&Batch::new(&plan, self.records, self.seed)?)?;
            (self.observe)();
        }
        Ok(())
    }
}
