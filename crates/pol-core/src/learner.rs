//! What the protocol needs of a training: to start from a seed, to take a step, to give its
//! whole state and to go on from one. `PolLearner` is Burn's; a test's may have two parameters.

use crate::random::{Purpose, Seed, Stream};
use crate::records::{Record, Records};
use crate::schedule::BatchPlan;
use crate::state::{Part, State};

/// A training that can be replayed.
pub trait Learner {
    /// Sets the initial state that `seed` determines, at step 0.
    ///
    /// # Errors
    /// If a parameter has no defined initial value.
    fn initialise(&mut self, seed: &Seed) -> Result<(), LearnerError>;

    /// Takes the step that `batch` describes.
    ///
    /// # Errors
    /// If the batch does not belong to the current step or names records that are not there.
    fn step(&mut self, batch: &Batch<'_>) -> Result<(), LearnerError>;

    /// The whole state: all that the next step depends on.
    ///
    /// # Errors
    /// If the device fails.
    fn capture(&mut self) -> Result<State, LearnerError>;

    /// Replaces the whole state. Going on from it equals never having stopped, bit for bit, on
    /// the same backend.
    ///
    /// # Errors
    /// [`LearnerError::Unfit`] if `state` is not a state of this training.
    fn restore(&mut self, state: &State) -> Result<(), LearnerError>;

    /// The part of the state that the entry of this name belongs to.
    fn part(&self, name: &str) -> Part {
        Part::by_prefix(name)
    }

    /// How the initial values of the entry of this name are drawn, where that is known: what a
    /// verifier tests a claimed initial state against.
    fn initial(&self, name: &str) -> Option<Initial> {
        let _ = name;
        None
    }

    /// Whether the order of the records in a batch changes rounding alone. Not so where a dropout
    /// mask belongs to a place in the batch.
    fn order_is_free(&self) -> bool {
        true
    }
}

/// How a parameter's initial values are determined.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Initial {
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Uniform in `[−bound, bound)`.
    Uniform(f64),
    /// One value.
    Constant(f32),
    /// What the module's constructor gives; right only for constructors that draw nothing.
    Keep,
}

/// Why a learner could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LearnerError {
    /// The state is not one of this training: whoever made it is at fault.
    #[error("{0}")]
    Unfit(String),
    /// The recipe asks for something that this learner cannot do.
    #[error("{0}")]
    Unsupported(String),
    /// The device or a library failed.
    #[error("{0}")]
    Device(String),
}

/// One step's records and randomness.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    plan: &'a BatchPlan,
    records: &'a dyn Records,
    seed: &'a Seed,
}

impl<'a> Batch<'a> {
    /// The batch that `plan` takes from `records`.
    ///
    /// # Errors
    /// [`LearnerError::Unfit`] if the plan names a record that is not there.
    pub fn new(
        plan: &'a BatchPlan,
        records: &'a dyn Records,
        seed: &'a Seed,
    ) -> Result<Self, LearnerError> {
        let count = records.len();
        let absent = |index: &&u64| records.record(**index).is_none();
        match plan.records.iter().find(absent) {
            None if plan.records.is_empty() => Err(LearnerError::Unfit(format!(
                "the batch of step {} is empty",
                plan.step
            ))),
            Some(index) => Err(LearnerError::Unfit(format!(
                "the batch of step {} uses record {index}, which is not among the {count}",
                plan.step
            ))),
            None => Ok(Self {
                plan,
                records,
                seed,
            }),
        }
    }

    /// The step, counted from zero.
    pub fn step(&self) -> u64 {
        self.plan.step
    }

    /// The epoch, counted from zero.
    pub fn epoch(&self) -> u64 {
        self.plan.epoch
    }

    /// The number of records.
    pub fn len(&self) -> usize {
        self.plan.records.len()
    }

    /// Whether there are no records; never so for a batch that was made by [`Batch::new`].
    pub fn is_empty(&self) -> bool {
        self.plan.records.is_empty()
    }

    /// The records with their indices, in order.
    pub fn records(&self) -> impl Iterator<Item = (u64, Record<'a>)> + '_ {
        self.plan
            .records
            .iter()
            .filter_map(|&index| Some((index, self.records.record(index)?)))
    }

    /// The random numbers that augment the record at `index` in this epoch.
    pub fn augmentation(&self, index: u64) -> Stream {
        self.seed.stream(Purpose::Augmentation {
            epoch: self.plan.epoch,
            record: index,
        })
    }

    /// A dropout mask of `len` elements for the dropout layer numbered `layer` in this step:
    /// zero with probability `p`, else `1 / (1 − p)`.
    pub fn dropout_mask(&self, layer: u64, len: usize, p: f64) -> Vec<f32> {
        let mut stream = self.seed.stream(Purpose::Dropout {
            step: self.plan.step,
            layer,
        });
        let keep = (1.0 / (1.0 - p)) as f32;
        (0..len)
            .map(|_| if stream.unit() < p { 0.0 } else { keep })
            .collect()
    }
}
