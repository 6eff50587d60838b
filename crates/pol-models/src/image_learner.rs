//! The learner that a recipe describes.

use burn::tensor::Device;
use pol_core::adapter::{PathOptimizer, PolLearner, device_failure};
use pol_core::learner::{Learner, LearnerError};
use pol_core::recipe::{Numerics, Optimizer, Profile, Recipe, Value};
use pol_core::state::Entry;
use pol_exact::optim::AdamConstants;
use pol_exact::probe::ProbeError;
use pol_exact::tensor::{Exact, ExactAdam, ExactSgd, Jointly, Parameter};

use crate::augment::Augmentation;
use crate::classification::Classification;
use crate::dataset::{DatasetError, DatasetName, Images};
use crate::layers::{Layers, kernels};
use crate::model::{Classifier, LeNet5, ModelError, ModelSpec};

/// A learner of images, with numbers for people.
pub trait ImageLearner: Learner {
    /// The loss of the last step; waits for the device.
    fn last_loss(&self) -> Option<f64>;

    /// How many records of the last step were classified rightly; waits for the device.
    fn last_correct(&self) -> Option<f64>;

    /// The learning rate of the next step.
    fn learning_rate(&self) -> f64;

    /// How the current model does on the first `limit` images.
    ///
    /// # Errors
    /// If an image does not fit the model, or the device fails.
    fn evaluate(&self, images: &Images, limit: u64) -> Result<Evaluation, LearnerError>;

    /// The gradients that a step on these images would use, at the current model and without dropout,
    /// and those of the images themselves. `pixels` has the planar images one after the other, with 1 for the largest
    /// value that a data set can hold; there is a label for each.
    ///
    /// # Errors
    /// If an image does not fit the model, or the device fails.
    fn gradients(&self, pixels: &[f32], labels: &[u32]) -> Result<Gradients, LearnerError>;
}

/// Gradients of a batch's loss.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradients {
    /// The loss: the mean cross-entropy.
    pub loss: f64,
    /// By each trained parameter, named as in states, before weight decay.
    pub parameters: Vec<Entry>,
    /// By each pixel, arranged as the pixels are.
    pub pixels: Vec<f32>,
}

/// How a model does on images it was not trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evaluation {
    /// Images classified rightly.
    pub correct: u64,
    /// Images evaluated.
    pub records: u64,
}

impl Evaluation {
    /// The share classified rightly, from 0 to 1; `None` if there were no images.
    pub fn accuracy(&self) -> Option<f64> {
        (self.records > 0).then(|| self.correct as f64 / self.records as f64)
    }
}

/// A recipe that these models and data sets cannot follow.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeMismatch {
    /// No such model, or not for these images.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// No such data set.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// No such augmentation or other option of the data.
    #[error("the recipe's data option `{option}` is not one this program knows: {problem}")]
    DataOption {
        /// The option.
        option: String,
        /// What is wrong.
        problem: String,
    },
    /// The device does not compute what exact numerics define.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// An optimizer of somebody else's program.
    #[error(transparent)]
    Learner(#[from] LearnerError),
}

/// The data set that a recipe names.
///
/// # Errors
/// If there is none of that name.
pub fn dataset_of(recipe: &Recipe) -> Result<DatasetName, DatasetError> {
    recipe.data.name.parse()
}

/// The learner that follows `recipe` on `device`.
///
/// # Errors
/// If the recipe names something that is not here, or asks for exact numerics that the device does not
/// compute.
pub fn image_learner(
    recipe: &Recipe,
    device: &Device,
) -> Result<Box<dyn ImageLearner>, RecipeMismatch> {
    if let Numerics::Exact(profile) = recipe.numerics {
        probed(device, profile)?;
    }
    unprobed_learner(recipe, device)
}

/// Whether `device` computes what `profile` defines; the answer is kept.
///
/// # Errors
/// If it does not, or fails.
pub fn probed(device: &Device, profile: Profile) -> Result<(), RecipeMismatch> {
    pol_exact::probe::passed(device, kernels(profile)).map_err(|error| match error {
        ProbeError::Fails(reason) => device_failure(&reason).into(),
        other => other.into(),
    })
}

/// As [`image_learner`], on a device of which nobody asked whether it computes what exact numerics define:
/// to time kernels and to look at them, never for a proof.
///
/// # Errors
/// If the recipe names something that is not here.
pub fn unprobed_learner(
    recipe: &Recipe,
    device: &Device,
) -> Result<Box<dyn ImageLearner>, RecipeMismatch> {
    let dataset = dataset_of(recipe)?;
    let augmentation = augmentation_of(recipe)?;
    let spec = ModelSpec::of(&recipe.model)?;
    let (image, classes) = (dataset.image(), dataset.classes());
    spec.check(&recipe.model.name, image)?;
    spec.check_batch(&recipe.model.name, image, recipe.batch_size)?;
    let layers = Layers::of(recipe.numerics);
    Ok(match spec {
        ModelSpec::Mlp(config) => boxed(recipe, device, dataset, augmentation, move |device| {
            config.init(image, classes, layers, device)
        })?,
        ModelSpec::LeNet5 => boxed(recipe, device, dataset, augmentation, move |device| {
            LeNet5::init(image, classes, layers, device)
        })?,
        ModelSpec::ResNet(config) => boxed(recipe, device, dataset, augmentation, move |device| {
            config.init(image.channels, classes, layers, device)
        })?,
    })
}

fn boxed<M: Classifier + 'static>(
    recipe: &Recipe,
    device: &Device,
    dataset: DatasetName,
    augmentation: Augmentation,
    build: impl Fn(&Device) -> M + Send + Sync + 'static,
) -> Result<Box<dyn ImageLearner>, LearnerError> {
    let layers = Layers::of(recipe.numerics);
    let task = Classification::new(dataset, dataset.pixel_offset(), augmentation, layers, build);
    let Numerics::Exact(profile) = recipe.numerics else {
        return Ok(Box::new(PolLearner::new(task, recipe, device)?));
    };
    let exact = Exact::new(kernels(profile));
    Ok(Box::new(match recipe.optimizer {
        Optimizer::Sgd {
            momentum,
            dampening,
            weight_decay,
            nesterov,
        } => {
            let rule = ExactSgd {
                exact,
                momentum,
                dampening,
                weight_decay,
                nesterov,
            };
            PolLearner::with_path_optimizer(task, recipe, device, together(rule))
        }
        Optimizer::Adam {
            beta1,
            beta2,
            epsilon,
            weight_decay,
        }
        | Optimizer::AdamW {
            beta1,
            beta2,
            epsilon,
            weight_decay,
        } => {
            let constants = AdamConstants {
                beta1,
                beta2,
                epsilon,
                weight_decay,
                decoupled: matches!(recipe.optimizer, Optimizer::AdamW { .. }),
            };
            let rule = ExactAdam { exact, constants };
            PolLearner::with_path_optimizer(task, recipe, device, together(rule))
        }
        Optimizer::Custom(_) => {
            return Err(LearnerError::Unsupported(
                "the recipe names a custom optimizer, which only a program that has it can run"
                    .to_owned(),
            ));
        }
    }))
}

/// An exact optimizer, which updates all parameters at once.
fn together(rule: impl Jointly + Clone) -> PathOptimizer {
    let all = rule.clone();
    PathOptimizer::new(rule).together(move |rate, updates| {
        let parameters = updates.into_iter().map(|update| Parameter {
            rank: update.rank,
            weight: update.weight,
            gradient: update.gradient,
            state: update.state,
        });
        (all.step_all(rate, parameters.collect()).into_iter())
            .map(|(weight, state)| (weight, Some(state)))
            .collect()
    })
}

fn augmentation_of(recipe: &Recipe) -> Result<Augmentation, RecipeMismatch> {
    let mut augmentation = Augmentation::None;
    for (option, value) in &recipe.data.options {
        let known = match (option.as_str(), value) {
            ("augmentation", Value::Text(name)) => Augmentation::named(name),
            _ => None,
        };
        augmentation = known.ok_or_else(|| RecipeMismatch::DataOption {
            option: option.clone(),
            problem: format!(
                "{value:?}; `augmentation` is one of {}",
                Augmentation::NAMES.map(|(name, _)| name).join(", ")
            ),
        })?;
    }
    Ok(augmentation)
}

impl<M: Classifier> ImageLearner for PolLearner<Classification<M>> {
    fn last_loss(&self) -> Option<f64> {
        PolLearner::last_loss(self)
    }

    fn last_correct(&self) -> Option<f64> {
        PolLearner::last_correct(self)
    }

    fn learning_rate(&self) -> f64 {
        PolLearner::learning_rate(self)
    }

    fn evaluate(&self, images: &Images, limit: u64) -> Result<Evaluation, LearnerError> {
        self.task()
            .evaluate(self.model(), images, limit, self.device())
    }

    fn gradients(&self, pixels: &[f32], labels: &[u32]) -> Result<Gradients, LearnerError> {
        self.task()
            .gradients(self.model(), pixels, labels, self.device())
    }
}
