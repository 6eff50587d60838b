//! A training strategy for `burn::train` that keeps a proof.
//!
//! `burn::train`'s own `Learner` hides its optimizer, and its data loaders hide which records
//! they deliver and in which order. So the strategy owns both: optimizer, learning rate and
//! initial weights come from the recipe, batches from the seed. Metrics, renderer, validation
//! loader and interrupter are `burn::train`'s.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use burn::data::dataloader::Progress;
use burn::module::Module;
use burn::tensor::Device;
use burn_train::{
    EventProcessorTraining, InferenceStep, Learner as BurnLearner, LearnerEvent, LearnerModel,
    SupervisedLearningStrategy, SupervisedTrainingEventProcessor, TrainLoader, TrainStep,
    TrainingComponents, TrainingItem, ValidLoader,
};

use crate::learner::{Batch, LearnerError};
use crate::recipe::Recipe;
use crate::records::Records;
use crate::schedule::Schedule;
use crate::store::Store;
use crate::training::{Outcome, TrainError, Training};

use super::pol_learner::{PolLearner, StepOutput, Task};

/// A model that implements `burn::train`'s [`TrainStep`], as a [`Task`]. `build` makes the model
/// and `input` turns a batch of committed records into what its training step takes.
pub struct TrainStepTask<M: TrainStep, B, I> {
    build: B,
    input: I,
    output: Mutex<Option<M::Output>>,
}

impl<M, B, I> TrainStepTask<M, B, I>
where
    M: TrainStep + Module,
    B: Fn(&Device) -> M,
    I: Fn(&Batch<'_>, &Device) -> M::Input,
{
    /// A task made of these two functions.
    pub fn new(build: B, input: I) -> Self {
        Self {
            build,
            input,
            output: Mutex::new(None),
        }
    }

    fn take_output(&self) -> Option<M::Output> {
        (self.output.lock().unwrap_or_else(PoisonError::into_inner)).take()
    }
}

impl<M, B, I> Task for TrainStepTask<M, B, I>
where
    M: TrainStep + Module,
    B: Fn(&Device) -> M,
    I: Fn(&Batch<'_>, &Device) -> M::Input,
{
    type Model = M;

    fn build(&self, device: &Device) -> M {
        (self.build)(device)
    }

    fn step(
        &self,
        model: &M,
        batch: &Batch<'_>,
        device: &Device,
    ) -> Result<StepOutput, LearnerError> {
        let trained = TrainStep::step(model, (self.input)(batch, device));
        *self.output.lock().unwrap_or_else(PoisonError::into_inner) = Some(trained.item);
        Ok(StepOutput::new(trained.grads))
    }
}

/// What a [`PolStrategy`] proves.
pub struct Proved<'a> {
    /// The training; it also sets optimizer, learning rate, batch size and number of steps.
    pub recipe: &'a Recipe,
    /// The training records.
    pub records: Arc<dyn Records>,
    /// Chosen by the prover.
    pub nonce: u64,
    /// Steps between checkpoints.
    pub interval: u64,
    /// Where the proof goes.
    pub store: Arc<dyn Store>,
}

/// Trains by a recipe and keeps a proof; for
/// [`TrainingStrategy::Custom`](burn_train::TrainingStrategy::Custom).
///
/// The training loader that `burn::train` is given is not used, nor are the optimizer, scheduler
/// and weights of its `Learner`: all of them have to follow from recipe and seed.
pub struct PolStrategy<B, I> {
    recipe: Recipe,
    records: Arc<dyn Records>,
    nonce: u64,
    interval: u64,
    store: Arc<dyn Store>,
    device: Device,
    build: B,
    input: I,
    outcome: Mutex<Option<Result<Outcome, TrainError>>>,
}

impl<B, I> PolStrategy<B, I> {
    /// A strategy on `device`; `build` and `input` are those of a [`TrainStepTask`].
    pub fn new(proved: Proved<'_>, device: &Device, build: B, input: I) -> Self {
        Self {
            recipe: proved.recipe.clone(),
            records: proved.records,
            nonce: proved.nonce,
            interval: proved.interval,
            store: proved.store,
            device: device.clone(),
            build,
            input,
            outcome: Mutex::new(None),
        }
    }

    /// How the training ended, once `launch` has returned.
    pub fn take_outcome(&self) -> Option<Result<Outcome, TrainError>> {
        (self.outcome.lock().unwrap_or_else(PoisonError::into_inner)).take()
    }
}

impl<M, B, I> SupervisedLearningStrategy<M> for PolStrategy<B, I>
where
    M: LearnerModel,
    B: Fn(&Device) -> M,
    I: Fn(&Batch<'_>, &Device) -> <M as TrainStep>::Input,
{
    fn fit(
        &self,
        components: TrainingComponents<M>,
        learner: BurnLearner<M>,
        _training_loader: TrainLoader<M>,
        validation: ValidLoader<M>,
        _starting_epoch: usize,
    ) -> (M, SupervisedTrainingEventProcessor<M>) {
        let mut epochs = Epochs {
            per_epoch: Schedule::steps_per_epoch(self.records.len(), self.recipe.batch_size),
            batch_size: self.recipe.batch_size,
            validation: validation.to_device(&self.device.clone().inner()),
            components,
        };
        let task = TrainStepTask::<M, _, _>::new(&self.build, &self.input);
        let mut model = learner.model();
        let outcome = PolLearner::new(task, &self.recipe, &self.device)
            .map_err(TrainError::from)
            .and_then(|mut learner| {
                let records = self.records.as_ref();
                let training =
                    Training::new(self.recipe.clone(), records, self.nonce, self.interval);
                let store = Arc::clone(&self.store);
                let outcome = training.run(&mut learner, store, |learner, step| {
                    epochs.after_step(learner, step)
                });
                model = learner.model().clone();
                outcome
            });
        if let Err(error) = &outcome {
            epochs.components.interrupter.stop(Some(&error.to_string()));
        }
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        (model, epochs.components.event_processor)
    }
}

/// Reports to `burn::train` what its own loop would.
struct Epochs<M: LearnerModel> {
    per_epoch: u64,
    batch_size: u64,
    validation: ValidLoader<M>,
    components: TrainingComponents<M>,
}

impl<M: LearnerModel> Epochs<M> {
    fn after_step<B, I>(
        &mut self,
        learner: &mut PolLearner<TrainStepTask<M, B, I>>,
        step: u64,
    ) -> ControlFlow<()>
    where
        B: Fn(&Device) -> M,
        I: Fn(&Batch<'_>, &Device) -> <M as TrainStep>::Input,
    {
        let in_epoch = (step - 1) % self.per_epoch + 1;
        let epoch = ((step - 1) / self.per_epoch + 1) as usize;
        let total = (self.per_epoch * self.batch_size) as usize;
        if in_epoch == 1 {
            self.train(LearnerEvent::StartSplit {
                epoch_number: epoch,
                total_items: total,
            });
        }
        if let Some(output) = learner.task().take_output() {
            let progress = Progress {
                items_processed: (in_epoch * self.batch_size) as usize,
                items_total: total,
                unit: Some("items".to_owned()),
            };
            let rate = learner.learning_rate().into();
            self.train(LearnerEvent::ProcessedItem(TrainingItem::new(
                output,
                progress,
                Some(in_epoch as usize),
                Some(rate),
            )));
        }
        if in_epoch == self.per_epoch {
            self.train(LearnerEvent::EndSplit(epoch));
            self.validate(&learner.model().valid(), epoch);
            self.train(LearnerEvent::EndEpoch(epoch));
        }
        if self.components.interrupter.should_stop() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn train(&mut self, event: LearnerEvent<<M as TrainStep>::Output>) {
        let result = self.components.event_processor.process_train(event);
        self.components.interrupter.fail_on_error(result);
    }

    fn valid(&mut self, event: LearnerEvent<<M as InferenceStep>::Output>) {
        let result = self.components.event_processor.process_valid(event);
        self.components.interrupter.fail_on_error(result);
    }

    fn validate(&mut self, model: &M, epoch: usize) {
        let validation = Arc::clone(&self.validation);
        self.valid(LearnerEvent::StartSplit {
            epoch_number: epoch,
            total_items: validation.num_items(),
        });
        let mut items = validation.iter();
        let mut iteration = 0;
        while let Some(item) = items.next() {
            let item = match item {
                Ok(item) => item,
                Err(error) => {
                    self.components.interrupter.fail(error);
                    return;
                }
            };
            iteration += 1;
            let output = InferenceStep::step(model, item);
            let item = TrainingItem::new(output, items.progress(), Some(iteration), None);
            self.valid(LearnerEvent::ProcessedItem(item));
        }
        self.valid(LearnerEvent::EndSplit(epoch));
    }
}
