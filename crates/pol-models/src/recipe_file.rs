//! Recipes as TOML files. A file leaves to their defaults what the canonical
//! [`Recipe`] spells out, and counts in epochs where that counts in steps.

use std::collections::BTreeMap;

use pol_core::recipe::{
    Component, Decay, LearningRate, Numerics, Optimizer, Profile, Range, Recipe, RecipeError,
    Value, Whole,
};
use pol_core::schedule::{MAX_STEPS, Schedule};
use serde::{Deserialize, Serialize};

/// A recipe file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipeFile {
    /// The model: `name`, and its options.
    pub model: Named,
    /// The data set: `name`, and its options.
    pub data: Named,
    /// Records in a step.
    pub batch_size: u64,
    /// Passes over the data; or `steps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u64>,
    /// Steps in all; or `epochs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Steps between checkpoints. Not a part of the recipe itself: a proof of the same training
    /// may be finer or coarser.
    #[serde(default = "default_interval")]
    pub interval: u64,
    /// Checkpoints to a kept state; more than 1 only with exact numerics. Not a part of the recipe
    /// either.
    #[serde(default = "default_keep")]
    pub keep: u64,
    /// Whose kernels compute: exact ones, unless it says otherwise.
    #[serde(default = "default_numerics")]
    pub numerics: Numerics,
    /// The update rule.
    pub optimizer: OptimizerFile,
    /// The learning rate.
    pub learning_rate: LearningRateFile,
}

/// A name with options beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Named {
    /// The name.
    pub name: String,
    /// All other keys; whoever the name belongs to refuses those it does not know.
    #[serde(flatten)]
    pub options: BTreeMap<String, Value>,
}

/// The update rule, with the usual defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
#[expect(missing_docs, reason = "fields as in `pol_core::recipe::Optimizer`")]
pub enum OptimizerFile {
    /// Stochastic gradient descent.
    Sgd {
        #[serde(default)]
        momentum: f64,
        #[serde(default)]
        dampening: f64,
        #[serde(default)]
        weight_decay: f64,
        #[serde(default)]
        nesterov: bool,
    },
    /// Adam.
    Adam {
        #[serde(default = "default_beta1")]
        beta1: f64,
        #[serde(default = "default_beta2")]
        beta2: f64,
        #[serde(default = "default_epsilon")]
        epsilon: f64,
        #[serde(default)]
        weight_decay: f64,
    },
    /// AdamW.
    AdamW {
        #[serde(default = "default_beta1")]
        beta1: f64,
        #[serde(default = "default_beta2")]
        beta2: f64,
        #[serde(default = "default_epsilon")]
        epsilon: f64,
        #[serde(default = "default_decay")]
        weight_decay: f64,
    },
}

/// The learning rate. Milestones and warm-up are in epochs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearningRateFile {
    /// The rate after warm-up, before decay.
    pub base: f64,
    /// Epochs of linear warm-up; fractions are rounded to whole steps.
    #[serde(default)]
    pub warmup_epochs: f64,
    /// How it falls.
    #[serde(default)]
    pub schedule: ScheduleName,
    /// Epochs at which a multi-step rate falls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub milestones: Vec<f64>,
    /// The factor by which a multi-step rate falls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gamma: Option<f64>,
    /// The rate at the end of a cosine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
}

/// How the learning rate falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleName {
    /// Not at all.
    #[default]
    Constant,
    /// At each milestone.
    MultiStep,
    /// Along half a cosine.
    Cosine,
}

fn default_interval() -> u64 {
    50
}

fn default_keep() -> u64 {
    1
}

fn default_numerics() -> Numerics {
    Numerics::Exact(Profile::UnfusedV2)
}

fn default_beta1() -> f64 {
    0.9
}

fn default_beta2() -> f64 {
    0.999
}

fn default_epsilon() -> f64 {
    1e-8
}

fn default_decay() -> f64 {
    1e-2
}

/// Why a file is not a recipe.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeFileError {
    /// Not TOML, or not these keys.
    #[error("{name}: {source}")]
    Toml {
        /// The file.
        name: String,
        /// Position and complaint.
        source: Box<toml::de::Error>,
    },
    /// Keys that contradict each other.
    #[error("the recipe's `{field}` {problem}")]
    Field {
        /// The key.
        field: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A number out of range in the file.
    #[error("{name}: {source}")]
    Range {
        /// The file.
        name: String,
        /// The field, and what it may be.
        source: RecipeError,
    },
    /// A number out of range, of the file or of what was put in its place.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
}

/// Epochs of warm-up.
const WARMUP_EPOCHS: Range = Range::from("learning_rate.warmup_epochs", 0.0);
/// The epoch of a milestone.
const MILESTONE: Range = Range::from("learning_rate.milestones", 0.0);
/// Passes over the data.
const EPOCHS: Whole = Whole::new("epochs", 1, MAX_STEPS);
/// Steps between checkpoints.
const INTERVAL: Whole = Whole::new("interval", 1, MAX_STEPS);
/// Checkpoints to a kept state.
const KEEP: Whole = Whole::new("keep", 1, MAX_STEPS);

/// The shipped recipes, by name.
pub const SHIPPED: [(&str, &str); 7] = [
    (
        "digits-lenet",
        include_str!("../../../recipes/digits-lenet.toml"),
    ),
    (
        "digits-mlp",
        include_str!("../../../recipes/digits-mlp.toml"),
    ),
    (
        "fashion-lenet",
        include_str!("../../../recipes/fashion-lenet.toml"),
    ),
    (
        "cifar10-resnet20",
        include_str!("../../../recipes/cifar10-resnet20.toml"),
    ),
    (
        "cifar10-resnet18",
        include_str!("../../../recipes/cifar10-resnet18.toml"),
    ),
    (
        "cifar100-resnet50",
        include_str!("../../../recipes/cifar100-resnet50.toml"),
    ),
    (
        "cifar100-resnet18",
        include_str!("../../../recipes/cifar100-resnet18.toml"),
    ),
];

impl RecipeFile {
    /// Reads a recipe file; `name` is for messages.
    ///
    /// # Errors
    /// With the line at fault, or the field and what it may be.
    pub fn parse(name: &str, text: &str) -> Result<Self, RecipeFileError> {
        let file: Self = toml::from_str(text).map_err(|source| RecipeFileError::Toml {
            name: name.to_owned(),
            source: Box::new(source),
        })?;
        file.check().map_err(|source| RecipeFileError::Range {
            name: name.to_owned(),
            source,
        })?;
        Ok(file)
    }

    /// Checks the numbers that mean the same for any data set.
    fn check(&self) -> Result<(), RecipeError> {
        Whole::BATCH_SIZE.check(self.batch_size)?;
        self.epochs.map_or(Ok(()), |epochs| EPOCHS.check(epochs))?;
        (self.steps).map_or(Ok(()), |steps| Whole::STEPS.check(steps))?;
        INTERVAL.check(self.interval)?;
        KEEP.check(self.keep)?;
        let rate = &self.learning_rate;
        Range::BASE.check(rate.base)?;
        WARMUP_EPOCHS.check(rate.warmup_epochs)?;
        (rate.milestones.iter()).try_for_each(|milestone| MILESTONE.check(*milestone))?;
        rate.gamma
            .map_or(Ok(()), |gamma| Range::GAMMA.check(gamma))?;
        rate.min.map_or(Ok(()), |min| Range::MIN.check(min))?;
        self.optimizer.canonical().check()
    }

    /// The shipped recipe of this name.
    pub fn shipped(name: &str) -> Option<Self> {
        let (name, text) = SHIPPED.iter().find(|(known, _)| *known == name)?;
        Self::parse(name, text).ok()
    }

    /// The canonical recipe for a data set of so many training records.
    ///
    /// # Errors
    /// If keys contradict each other or a number is out of range.
    pub fn resolve(&self, records: u64) -> Result<Recipe, RecipeFileError> {
        let field = |field, problem: &str| {
            Err(RecipeFileError::Field {
                field,
                problem: problem.to_owned(),
            })
        };
        // Fields may have been set after the file was read.
        self.check()?;
        let per_epoch = Schedule::steps_per_epoch(records, self.batch_size);
        if per_epoch == 0 {
            return field(
                "batch_size",
                &format!("is {}, with {records} training records", self.batch_size),
            );
        }
        let steps = match (self.epochs, self.steps) {
            (Some(epochs), None) => epochs.saturating_mul(per_epoch),
            (None, Some(steps)) => steps,
            _ => return field("epochs", "or `steps` must be given, and not both"),
        };
        let rate = &self.learning_rate;
        let in_steps = |epochs: f64| (epochs * per_epoch as f64).round() as u64;
        let warmup = in_steps(rate.warmup_epochs);
        if warmup > steps {
            return field(
                "learning_rate.warmup_epochs",
                &format!(
                    "are {warmup} steps, of a training of {steps}: warm up for less, or train longer"
                ),
            );
        }
        let decay = match rate.schedule {
            ScheduleName::Constant => Decay::Constant,
            ScheduleName::MultiStep => Decay::MultiStep {
                milestones: rate.milestones.iter().map(|&m| in_steps(m)).collect(),
                gamma: rate.gamma.unwrap_or(0.1),
            },
            ScheduleName::Cosine => Decay::Cosine {
                min: rate.min.unwrap_or(0.0),
            },
        };
        if rate.schedule != ScheduleName::MultiStep
            && (rate.gamma.is_some() || !rate.milestones.is_empty())
        {
            return field(
                "learning_rate",
                "has milestones or gamma without `multi-step`",
            );
        }
        if rate.schedule != ScheduleName::Cosine && rate.min.is_some() {
            return field("learning_rate", "has a minimum without `cosine`");
        }
        let recipe = Recipe {
            model: self.model.component(),
            data: self.data.component(),
            optimizer: self.optimizer.canonical(),
            learning_rate: LearningRate {
                base: rate.base,
                warmup,
                decay,
            },
            batch_size: self.batch_size,
            steps,
            numerics: self.numerics,
        };
        recipe.check()?;
        Ok(recipe)
    }
}

impl Named {
    /// A name without options.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            options: BTreeMap::new(),
        }
    }

    fn component(&self) -> Component {
        Component {
            name: self.name.clone(),
            options: self.options.clone(),
        }
    }
}

impl OptimizerFile {
    fn canonical(&self) -> Optimizer {
        match *self {
            Self::Sgd {
                momentum,
                dampening,
                weight_decay,
                nesterov,
            } => Optimizer::Sgd {
                momentum,
                dampening,
                weight_decay,
                nesterov,
            },
            Self::Adam {
                beta1,
                beta2,
                epsilon,
                weight_decay,
            } => Optimizer::Adam {
                beta1,
                beta2,
                epsilon,
                weight_decay,
            },
            Self::AdamW {
                beta1,
                beta2,
                epsilon,
                weight_decay,
            } => Optimizer::AdamW {
                beta1,
                beta2,
                epsilon,
                weight_decay,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::DatasetName;
    use crate::model::ModelSpec;

    #[test]
    fn every_shipped_recipe_names_a_model_and_a_data_set() {
        for (name, text) in SHIPPED {
            let recipe = RecipeFile::parse(name, text)
                .unwrap()
                .resolve(50_000)
                .unwrap();
            let dataset: DatasetName = recipe.data.name.parse().unwrap();
            let spec = ModelSpec::of(&recipe.model).unwrap();
            spec.check(name, dataset.image()).unwrap();
        }
    }

    #[test]
    fn epochs_are_steps_of_the_data_at_hand() {
        let file = RecipeFile::shipped("cifar10-resnet20").unwrap();
        let recipe = file.resolve(50_000).unwrap();
        assert_eq!(recipe.steps, file.epochs.unwrap() * (50_000 / 128));
        let Decay::MultiStep { milestones, .. } = recipe.learning_rate.decay else {
            panic!("the paper's rate falls in steps");
        };
        assert_eq!(milestones[0], 82 * (50_000 / 128));
    }

    #[test]
    fn unknown_and_contradicting_keys_are_refused() {
        let (_, text) = SHIPPED[0];
        let parse = |text: &str| RecipeFile::parse("r.toml", text);
        for line in [
            "colour = 1\n",
            "[optimizer]\nname = \"sgd\"\nmomemtum = 0.9\n",
        ] {
            let error = parse(&format!("{line}{text}")).unwrap_err().to_string();
            assert!(error.contains("r.toml"), "{error}");
        }
        let mut file = parse(text).unwrap();
        file.steps = Some(3);
        assert!(
            file.resolve(1000)
                .unwrap_err()
                .to_string()
                .contains("epochs")
        );
        file.epochs = None;
        file.batch_size = 2000;
        assert!(
            file.resolve(1000)
                .unwrap_err()
                .to_string()
                .contains("batch_size")
        );
    }
}
