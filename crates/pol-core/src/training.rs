//! The training loop: schedule, learner and recorder put together.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use crate::digest::Digest;
use crate::identity::ProverKey;
use crate::journal::Head;
use crate::learner::{Batch, Learner, LearnerError};
use crate::manifest::{Manifest, Start, Terms};
use crate::recipe::Recipe;
use crate::recorder::{RecordError, Recorder};
use crate::records::{DataCommitment, Records, SaltSecret};
use crate::schedule::{BatchPlan, BatchSource, Schedule, ScheduleError};
use crate::state::State;
use crate::store::Store;

/// A training to be proved.
pub struct Training<'a> {
    terms: Terms,
    records: &'a dyn Records,
    batches: Option<&'a [BatchPlan]>,
    keep: u64,
    start: Option<&'a State>,
    heads: Option<Sender<Head>>,
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
            start: None,
            heads: None,
        }
    }

    /// The same training by the prover with this key: the seed, and so everything random, depends
    /// on it.
    pub fn of_prover(mut self, key: ProverKey) -> Self {
        self.terms = self.terms.of_prover(Some(key));
        self
    }

    /// The same training with a data commitment that tells nothing about the records.
    pub fn with_private_data(mut self, secret: &SaltSecret) -> Self {
        self.terms.data = DataCommitment::with_salts(self.records, Some(secret));
        let key = self.terms.key;
        self.terms = self.terms.of_prover(key);
        self
    }

    /// Fine-tuning: the same training from the model in `state`, the final state of the proof with
    /// this commitment, and with a fresh optimizer.
    pub fn from_prior(mut self, commitment: Digest, state: &'a State) -> Self {
        self.terms = self.terms.from_start(Start::Prior { commitment });
        self.start = Some(state);
        self
    }

    /// The same training from the model in `state`, of which a verifier can only test whether it
    /// looks like a fresh one.
    pub fn from_claimed(mut self, state: &'a State) -> Self {
        self.terms = self.terms.from_start(Start::Claimed);
        self.start = Some(state);
        self
    }

    /// Sends the journal's head after each checkpoint; see [`Recorder::send_heads`].
    pub fn send_heads(mut self, to: Sender<Head>) -> Self {
        self.heads = Some(to);
        self
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
        self.begin(learner)?;
        let mut recorder = self.set_up(Recorder::start(store, self.terms.clone())?)?;
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
        self.begin(learner)?;
        let (recorder, resumed) = Recorder::resume(store, self.terms.clone())?;
        let mut recorder = self.set_up(recorder)?;
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

    /// Puts the learner in the initial state.
    fn begin<L: Learner + ?Sized>(&self, learner: &mut L) -> Result<(), LearnerError> {
        learner.initialise(&self.terms.seed)?;
        match self.start {
            None => Ok(()),
            Some(model) => {
                let initial = learner.capture()?.with_model_of(model)?;
                learner.restore(&initial)
            }
        }
    }

    fn set_up(&self, recorder: Recorder) -> Result<Recorder, RecordError> {
        let recorder = recorder.keep(self.keep)?;
        Ok(match &self.heads {
            None => recorder,
            Some(heads) => recorder.send_heads(heads.clone()),
        })
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
        Ok(Outcome::Sealed(Box::new(recorder.seal()?)))
    }

    fn explicit_batch(&self, step: u64) -> Result<BatchPlan, RecordError> {
        self.batches
            .and_then(|plans| plans.get(usize::try_from(step).ok()?))
            .cloned()
            .ok_or(RecordError::MissingBatch(step))
    }
}
