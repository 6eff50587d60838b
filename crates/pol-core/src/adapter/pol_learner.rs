//! A Burn training as a learner.

use std::collections::BTreeSet;

use burn::module::Module;
use burn::optim::{GradientsParams, Optimizer};
use burn::tensor::{Device, Tensor};

use crate::learner::{Batch, Initial, Learner, LearnerError};
use crate::random::Seed;
use crate::recipe::{LearningRate, Recipe};
use crate::state::{Entry, Part, RATE_ENTRY, STEP_ENTRY, State};

use super::capture::{capture_module, restore_module, survey};
use super::initial::{Drawn, ParameterInfo, initialise};
use super::optimizer::PathOptimizer;

/// A model and the loss of a batch: what is the user's own in a training.
pub trait Task {
    /// The model.
    type Model: Module;

    /// Builds the model. Its weights need not be drawn: the learner replaces them.
    fn build(&self, device: &Device) -> Self::Model;

    /// Runs the model on a batch, forward and backward.
    ///
    /// All randomness has to come from the batch ([`Batch::augmentation`],
    /// [`Batch::dropout_mask`]), or no replay will arrive where the training did.
    ///
    /// # Errors
    /// If a record is not of the kind that the model takes.
    fn step(
        &self,
        model: &Self::Model,
        batch: &Batch<'_>,
        device: &Device,
    ) -> Result<StepOutput, LearnerError>;

    /// How a parameter's initial values are drawn; by default [`Initial::he_normal`].
    fn initial(&self, parameter: &ParameterInfo<'_>) -> Option<Initial> {
        Initial::he_normal(parameter)
    }

    /// Whether the order of the records in a batch changes rounding alone; by default it does.
    fn order_is_free(&self, model: &Self::Model) -> bool {
        let _ = model;
        true
    }
}

/// What a step gives: the gradients, and numbers for people.
pub struct StepOutput {
    /// The gradient of the loss for every parameter.
    pub gradients: GradientsParams,
    /// The loss, still on the device: reading it waits for the step.
    pub loss: Option<Tensor<1>>,
    /// How many records were classified rightly, where that means anything.
    pub correct: Option<Tensor<1>>,
}

impl StepOutput {
    /// Gradients without further numbers.
    pub fn new(gradients: GradientsParams) -> Self {
        Self {
            gradients,
            loss: None,
            correct: None,
        }
    }

    /// Runs backward from `loss`, a tensor of one element.
    pub fn backward<M: Module>(loss: Tensor<1>, model: &M) -> Self {
        Self {
            gradients: GradientsParams::from_grads(loss.backward(), model),
            loss: Some(loss.inner()),
            correct: None,
        }
    }
}

/// Model, optimizer and learning rate on one device.
pub struct PolLearner<T: Task> {
    task: T,
    device: Device,
    model: T::Model,
    optimizer: PathOptimizer,
    rate: LearningRate,
    steps: u64,
    step: u64,
    buffers: BTreeSet<String>,
    parameters: Vec<(String, Vec<u64>)>,
    drawn: Drawn,
    last_loss: Option<Tensor<1>>,
    last_correct: Option<Tensor<1>>,
}

impl<T: Task> PolLearner<T> {
    /// A learner on `device` that follows `recipe`.
    ///
    /// # Errors
    /// [`LearnerError::Unsupported`] if the recipe's optimizer is a custom one or its numerics are
    /// exact: Burn's update rules are neither; see [`PolLearner::with_optimizer`].
    pub fn new(task: T, recipe: &Recipe, device: &Device) -> Result<Self, LearnerError> {
        if recipe.numerics.is_exact() {
            return Err(LearnerError::Unsupported(
                "the recipe asks for exact numerics, and so for an exact optimizer".to_owned(),
            ));
        }
        let optimizer = PathOptimizer::of_recipe(&recipe.optimizer).ok_or_else(|| {
            LearnerError::Unsupported(
                "the recipe names a custom optimizer, which only a program that has it can run"
                    .to_owned(),
            )
        })?;
        Ok(Self::build(task, recipe, device, optimizer))
    }

    /// A learner with an optimizer of the caller's own: one that the recipe names as
    /// [`Custom`](crate::recipe::Optimizer::Custom), or an exact one.
    pub fn with_optimizer(
        task: T,
        recipe: &Recipe,
        device: &Device,
        optimizer: impl Optimizer,
    ) -> Self {
        Self::with_path_optimizer(task, recipe, device, PathOptimizer::new(optimizer))
    }

    /// As [`PolLearner::with_optimizer`], with an optimizer that may update all parameters together.
    pub fn with_path_optimizer(
        task: T,
        recipe: &Recipe,
        device: &Device,
        optimizer: PathOptimizer,
    ) -> Self {
        Self::build(task, recipe, device, optimizer)
    }

    fn build(task: T, recipe: &Recipe, device: &Device, optimizer: PathOptimizer) -> Self {
        let device = device.clone().autodiff();
        let model = task.build(&device);
        let found = survey(&model);
        Self {
            task,
            device,
            model,
            optimizer,
            rate: recipe.learning_rate.clone(),
            steps: recipe.steps,
            step: 0,
            buffers: found.buffers,
            parameters: found.parameters,
            drawn: Drawn::new(),
            last_loss: None,
            last_correct: None,
        }
    }

    /// The current model, in training mode.
    pub fn model(&self) -> &T::Model {
        &self.model
    }

    /// The task.
    pub fn task(&self) -> &T {
        &self.task
    }

    /// The device, with autodiff.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The number of steps made.
    pub fn steps_made(&self) -> u64 {
        self.step
    }

    /// The learning rate of the next step.
    pub fn learning_rate(&self) -> f64 {
        self.rate.at(self.step, self.steps)
    }

    /// The loss of the last step; waits for the device.
    pub fn last_loss(&self) -> Option<f64> {
        read_number(self.last_loss.as_ref()?)
    }

    /// How many records of the last step were classified rightly; waits for the device.
    pub fn last_correct(&self) -> Option<f64> {
        read_number(self.last_correct.as_ref()?)
    }

    fn check_schedule(&self, state: &State, step: u64) -> Result<(), LearnerError> {
        let expected = Entry::f64(RATE_ENTRY, self.rate.at(step, self.steps));
        if state.entry(RATE_ENTRY) == Some(&expected) {
            return Ok(());
        }
        Err(LearnerError::Unfit(format!(
            "`{RATE_ENTRY}` is not the {:e} that the recipe gives for step {step}",
            self.rate.at(step, self.steps)
        )))
    }
}

impl<T: Task> Learner for PolLearner<T> {
    fn initialise(&mut self, seed: &Seed) -> Result<(), LearnerError> {
        let blank = self.task.build(&self.device);
        (self.model, self.drawn) = initialise(blank, seed, &|info| self.task.initial(info))?;
        self.optimizer.reset();
        self.step = 0;
        self.last_loss = None;
        self.last_correct = None;
        Ok(())
    }

    fn step(&mut self, batch: &Batch<'_>) -> Result<(), LearnerError> {
        if batch.step() != self.step {
            return Err(LearnerError::Unfit(format!(
                "the batch is for step {}; the state is at step {}",
                batch.step(),
                self.step
            )));
        }
        let output = self.task.step(&self.model, batch, &self.device)?;
        let rate = self.learning_rate();
        let model = self.model.clone();
        self.model = self.optimizer.step(rate, model, output.gradients);
        self.step += 1;
        self.last_loss = output.loss;
        self.last_correct = output.correct;
        Ok(())
    }

    fn capture(&mut self) -> Result<State, LearnerError> {
        let mut entries = vec![
            Entry::u64(STEP_ENTRY, self.step),
            Entry::f64(RATE_ENTRY, self.learning_rate()),
        ];
        capture_module(&self.model.valid(), &mut entries)?;
        self.optimizer.capture(&mut entries)?;
        State::new(entries).map_err(|error| LearnerError::Unsupported(error.to_string()))
    }

    fn restore(&mut self, state: &State) -> Result<(), LearnerError> {
        let step = state
            .entry(STEP_ENTRY)
            .and_then(Entry::to_u64)
            .ok_or_else(|| LearnerError::Unfit(format!("the state lacks `{STEP_ENTRY}`")))?;
        self.check_schedule(state, step)?;
        // A fresh module: a used one may hold running statistics that are not yet applied.
        let model = restore_module(self.task.build(&self.device), state)?;
        self.optimizer
            .restore(state, &self.parameters, &self.device.clone().inner())?;
        self.model = model;
        self.step = step;
        self.last_loss = None;
        self.last_correct = None;
        Ok(())
    }

    fn part(&self, name: &str) -> Part {
        if self.buffers.contains(name) {
            Part::Buffers
        } else {
            Part::by_prefix(name)
        }
    }

    fn initial(&self, name: &str) -> Option<Initial> {
        self.drawn.get(name.strip_prefix("model/")?).copied()
    }

    fn order_is_free(&self) -> bool {
        self.task.order_is_free(&self.model)
    }
}

fn read_number(tensor: &Tensor<1>) -> Option<f64> {
    let data = tensor.clone().try_into_data_as::<f32>().ok()?;
    data.as_slice::<f32>().ok()?.first().map(|&v| f64::from(v))
}
