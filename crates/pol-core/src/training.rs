//! The training loop: schedule, learner and recorder put together.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::learner::{Batch, Learner, LearnerError};
use crate::manifest::{Manifest, Terms};
use crate::recipe::Recipe;
use crate::recorder::{RecordError, Recorder};
use crate::records::{DataCommitment, Records};
use crate::schedule::{BatchPlan, BatchSource, Schedule, ScheduleError};
use crate::store::Store;

/// A training to be proved.
pub struct Training<'a> {
    terms: Terms,
    records: &'a dyn Records,
    batches: Option<&'a [BatchPlan]>,
    keep: u64,
}

/// How a training ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The proof is complete.
    Sealed(Box<Manifest>),
    /// It was interrupted, and can be resumed from this step.
    Interrupted {
        /// The step of the last checkpoint.
        step: u64,
    },
}

/// Why a training stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// No batch can be drawn.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// The learner failed.
    #[error(transparent)]
    Learner(#[from] LearnerError),
    /// The proof could not be written.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl<'a> Training<'a> {
    /// A training by `recipe` on `records`, with a checkpoint every `interval` steps and batches
    /// derived from the seed, which `nonce` is part of.
    pub fn new(recipe: Recipe, records: &'a dyn Records, nonce: u64, interval: u64) -> Self {
        let data = DataCommitment::of(records);
        Self {
            terms: Terms::new(recipe, data, nonce, BatchSource::Derived, interval),
            records,
            batches: None,
            keep: 1,
        }
    }

    /// The same training with the state of every `keep`-th checkpoint only in the proof; see
    /// [`Recorder::keep`].
    pub fn keep(mut self, keep: u64) -> Self {
        self.keep = keep;
        self
    }

    /// The same training with the caller's own batches: one for each step, in order.
    pub fn with_batches(mut self, batches: &'a [BatchPlan]) -> Self {
        self.terms.batches = BatchSource::Explicit;
        self.batches = Some(batches);
        self
    }

    /// The terms that will be committed to.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Trains into an empty store. `observe` is called after every step with the learner and
    /// the number of steps made; it may break off the training, which can then be resumed.
    ///
    /// # Errors
    /// If the learner or the store fails, or the store is not empty.
    pub fn run<L: Learner + ?Sized>(
        &self,
        learner: &mut L,
        store: Arc<dyn Store>,
        observe: impl FnMut(&mut L, u64) -> ControlFlow<()>,
    ) -> Result<Outcome, TrainError> {
        learner.initialise(&self.terms.seed)?;
        let mut recorder = Recorder::start(store, self.terms.clone())?.keep(self.keep)?;
        recorder.record(0, || learner.capture())?;
        self.steps(learner, recorder, 0, observe)
    }

    /// Goes on with the training that the store holds, or begins it. The proof is the one that
    /// an uninterrupted run would have given, bit for bit on a deterministic backend.
    ///
    /// # Errors
    /// As [`Training::run`]; also if the store holds another training, or a finished one.
    pub fn resume<L: Learner + ?Sized>(
        &self,
        learner: &mut L,
        store: Arc<dyn Store>,
        observe: impl FnMut(&mut L, u64) -> ControlFlow<()>,
    ) -> Result<Outcome, TrainError> {
        learner.initialise(&self.terms.seed)?;
        let (recorder, resumed) = Recorder::resume(store, self.terms.clone())?;
        let mut recorder = recorder.keep(self.keep)?;
        let first = match resumed {
            Some(resumed) => {
                learner.restore(&resumed.state)?;
                resumed.step
            }
            None => {
                recorder.record(0, || learner.capture())?;
                0
            }
        };
        self.steps(learner, recorder, first, observe)
    }

    fn steps<L: Learner + ?Sized>(
        &self,
        learner: &mut L,
        mut recorder: Recorder,
        first: u64,
        mut observe: impl FnMut(&mut L, u64) -> ControlFlow<()>,
    ) -> Result<Outcome, TrainError> {
        let Terms { recipe, seed, .. } = &self.terms;
        let mut schedule = match self.batches {
            None => Some(Schedule::new(*seed, self.records.len(), recipe.batch_size)?),
            Some(_) => None,
        };
        for step in first..recipe.steps {
            let plan = match &mut schedule {
                Some(schedule) => schedule.batch(step),
                None => self.explicit_batch(step)?,
            };
            learner.step(&Batch::new(&plan, self.records, seed)?)?;
            recorder.record_batch(&plan);
            recorder.record(step + 1, || learner.capture())?;
            if observe(learner, step + 1).is_break() && step + 1 < recipe.steps {
                let step = recorder.stop()?;
                return Ok(Outcome::Interrupted { step });
            }
        }
        let model = learner.export()?;
        Ok(Outcome::Sealed(Box::new(recorder.seal(&model)?)))
    }

    fn explicit_batch(&self, step: u64) -> Result<BatchPlan, RecordError> {
        self.batches
            .and_then(|plans| plans.get(usize::try_from(step).ok()?))
            .cloned()
            .ok_or(RecordError::MissingBatch(step))
    }
}
