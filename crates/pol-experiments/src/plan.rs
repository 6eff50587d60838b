//! The recipes of experiments.

use std::collections::BTreeSet;
use std::fmt;

use pol_core::recipe::{Numerics, Recipe, Value};
use pol_core::records::Records;
use pol_models::dataset::{Dataset, DatasetName};
use pol_models::recipe_file::{Named, RecipeFile};
use serde::Deserialize;

use crate::{ExperimentError, Lab};

/// The shipped recipes, by name.
pub const SHIPPED: [(&str, &str); 7] = [
    (
        "reproduction",
        include_str!("../../../experiments/reproduction.toml"),
    ),
    (
        "reference-distance",
        include_str!("../../../experiments/reference-distance.toml"),
    ),
    ("attacks", include_str!("../../../experiments/attacks.toml")),
    (
        "gradient-matching",
        include_str!("../../../experiments/gradient-matching.toml"),
    ),
    (
        "false-rejections",
        include_str!("../../../experiments/false-rejections.toml"),
    ),
    ("slack", include_str!("../../../experiments/slack.toml")),
    ("cost", include_str!("../../../experiments/cost.toml")),
];

/// The shipped recipe of this name.
pub fn shipped(name: &str) -> Option<Plan> {
    let (name, text) = SHIPPED.iter().find(|(known, _)| *known == name)?;
    Plan::parse(name, text).ok()
}

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// Minutes on two cores.
    Quick,
    /// Hours.
    Full,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quick => "quick",
            Self::Full => "full",
        })
    }
}

/// A recipe of an experiment.
#[derive(Debug, Clone)]
pub struct Plan {
    text: String,
    title: String,
    about: String,
    experiment: Experiment,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanFile<P> {
    #[serde(rename = "experiment")]
    _experiment: String,
    title: String,
    about: String,
    quick: P,
    full: P,
}

#[derive(Deserialize)]
struct Kind {
    experiment: String,
}

/// What is measured.
#[derive(Debug, Clone)]
pub(crate) enum Experiment {
    Reproduction(Sizes<Reproduction>),
    ReferenceDistance(Sizes<ReferenceDistance>),
    Attacks(Sizes<Attacks>),
    GradientMatching(Sizes<GradientMatching>),
    FalseRejections(Sizes<FalseRejections>),
    Slack(Sizes<Slack>),
    Cost(Sizes<Cost>),
}

impl Experiment {
    /// A key of a training, with its recipe, that this kind of experiment does not ask for.
    fn ignored(&self) -> Option<(&str, &'static str)> {
        fn both<P>(sizes: &Sizes<P>, of: impl Fn(&P) -> &[TrainingPlan]) -> Vec<&TrainingPlan> {
            let all = of(&sizes.quick).iter().chain(of(&sizes.full));
            all.collect()
        }
        let (trainings, asked): (_, &[&str]) = match self {
            Self::Reproduction(sizes) => (both(sizes, |plan| &plan.trainings), &[]),
            Self::ReferenceDistance(sizes) => (both(sizes, |plan| &plan.trainings), &[]),
            Self::Attacks(sizes) => (both(sizes, |plan| &plan.trainings), &["only", "intervals"]),
            Self::GradientMatching(sizes) => (both(sizes, |plan| &plan.trainings), &[]),
            Self::FalseRejections(sizes) => (
                both(sizes, |plan| &plan.trainings),
                &["intervals", "settings", "seeds"],
            ),
            Self::Slack(sizes) => (both(sizes, |plan| &plan.trainings), &["intervals"]),
            Self::Cost(sizes) => (both(sizes, |plan| &plan.trainings), &[]),
        };
        trainings.into_iter().find_map(|training| {
            let mut given = training.of_experiments().into_iter();
            let key = given.find(|key| !asked.contains(key))?;
            Some((training.recipe.as_str(), key))
        })
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Sizes<P> {
    quick: P,
    full: P,
}

impl<P> Sizes<P> {
    pub(crate) fn of(&self, size: Size) -> &P {
        match size {
            Size::Quick => &self.quick,
            Size::Full => &self.full,
        }
    }
}

impl Plan {
    /// Reads a recipe; `name` is for messages.
    ///
    /// # Errors
    /// With the line or the key at fault.
    pub fn parse(name: &str, text: &str) -> Result<Self, ExperimentError> {
        let kind: Kind = read(name, text)?;
        fn sizes<P: for<'de> Deserialize<'de>>(
            name: &str,
            text: &str,
            make: impl FnOnce(Sizes<P>) -> Experiment,
        ) -> Result<(String, String, Experiment), ExperimentError> {
            let file: PlanFile<P> = read(name, text)?;
            let (quick, full) = (file.quick, file.full);
            Ok((file.title, file.about, make(Sizes { quick, full })))
        }
        let (title, about, experiment) = match kind.experiment.as_str() {
            "reproduction" => sizes(name, text, Experiment::Reproduction),
            "reference-distance" => sizes(name, text, Experiment::ReferenceDistance),
            "attacks" => sizes(name, text, Experiment::Attacks),
            "gradient-matching" => sizes(name, text, Experiment::GradientMatching),
            "false-rejections" => sizes(name, text, Experiment::FalseRejections),
            "slack" => sizes(name, text, Experiment::Slack),
            "cost" => sizes(name, text, Experiment::Cost),
            _ => {
                let names: Vec<_> = SHIPPED.iter().map(|(name, _)| *name).collect();
                let names = names.join(", ");
                Err(ExperimentError::Plan(format!(
                    "{name}: `experiment` is one of {names}"
                )))
            }
        }?;
        if let Some((training, key)) = experiment.ignored() {
            return Err(ExperimentError::Plan(format!(
                "{name}: the training of `{training}` has `{key}`, which means nothing in the experiment `{}`",
                kind.experiment
            )));
        }
        Ok(Self {
            text: text.to_owned(),
            title,
            about,
            experiment,
        })
    }

    /// What kind of experiment it is.
    pub fn name(&self) -> &'static str {
        match self.experiment {
            Experiment::Reproduction(_) => "reproduction",
            Experiment::ReferenceDistance(_) => "reference-distance",
            Experiment::Attacks(_) => "attacks",
            Experiment::GradientMatching(_) => "gradient-matching",
            Experiment::FalseRejections(_) => "false-rejections",
            Experiment::Slack(_) => "slack",
            Experiment::Cost(_) => "cost",
        }
    }

    /// Its title.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// What it is for.
    pub fn about(&self) -> &str {
        &self.about
    }

    /// The recipe's text.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn experiment(&self) -> &Experiment {
        &self.experiment
    }

    /// The backends beside the CPU that it measures on, where they are present.
    pub fn backends(&self, size: Size) -> Vec<String> {
        let settings = match &self.experiment {
            Experiment::Reproduction(sizes) => sizes.of(size).settings.clone(),
            Experiment::FalseRejections(sizes) => {
                let plan = sizes.of(size);
                let own = plan
                    .trainings
                    .iter()
                    .flat_map(|training| training.settings(&plan.settings));
                own.cloned().collect()
            }
            Experiment::Attacks(sizes) => sizes.of(size).honest.clone(),
            Experiment::ReferenceDistance(_)
            | Experiment::GradientMatching(_)
            | Experiment::Slack(_)
            | Experiment::Cost(_) => Vec::new(),
        };
        let known = ["wgpu", "vulkan", "cuda", "cpu"];
        let named = settings
            .iter()
            .map(|setting| match setting.strip_prefix("from-") {
                Some(backend) => backend,
                None => setting,
            });
        let named = named.filter(|name| known.contains(name));
        let named: BTreeSet<_> = named.map(str::to_owned).collect();
        named.into_iter().collect()
    }
}

fn read<T: for<'de> Deserialize<'de>>(name: &str, text: &str) -> Result<T, ExperimentError> {
    toml::from_str(text).map_err(|error| ExperimentError::Plan(format!("{name}: {error}")))
}

/// A training: a shipped recipe with changes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrainingPlan {
    recipe: String,
    model: Option<String>,
    data: Option<String>,
    augmentation: Option<String>,
    /// Burn's stock kernels unless it is said: most experiments are about their noise.
    numerics: Option<Numerics>,
    steps: Option<u64>,
    batch_size: Option<u64>,
    learning_rate: Option<f64>,
    /// Only these forgeries, where there are forgeries.
    #[serde(default)]
    only: Vec<String>,
    /// Other intervals, settings and numbers of seeds than the experiment's.
    intervals: Option<Vec<u64>>,
    settings: Option<Vec<String>>,
    seeds: Option<u64>,
}

/// A training that can begin.
pub(crate) struct Resolved {
    /// Names it in tables.
    pub(crate) name: String,
    pub(crate) recipe: Recipe,
    pub(crate) data: Dataset,
    shipped: String,
    only: Vec<String>,
    intervals: Option<Vec<u64>>,
}

impl Resolved {
    /// The intervals to measure at: its own, or those of the experiment; none longer than the training.
    pub(crate) fn intervals(&self, of_all: &[u64]) -> Vec<u64> {
        let intervals = self.intervals.as_deref().unwrap_or(of_all).iter();
        intervals.map(|k| (*k).min(self.recipe.steps)).collect()
    }

    /// Whether only some forgeries are to be tried.
    pub(crate) fn is_limited(&self) -> bool {
        !self.only.is_empty()
    }

    /// Whether a forgery is to be tried.
    pub(crate) fn is_tried(&self, attack: &AttackPlan) -> bool {
        let is_listed = self.only.is_empty() || self.only.contains(&attack.name);
        let recipe = attack.recipe.as_ref();
        is_listed && recipe.is_none_or(|only| *only == self.shipped)
    }
}

impl TrainingPlan {
    pub(crate) fn resolve(&self, lab: &Lab<'_>) -> Result<Resolved, ExperimentError> {
        let mut file = RecipeFile::shipped(&self.recipe).ok_or_else(|| {
            ExperimentError::Plan(format!("there is no shipped recipe `{}`", self.recipe))
        })?;
        if let Some(model) = &self.model {
            file.model = Named::new(model);
        }
        if let Some(data) = &self.data {
            file.data = Named::new(data);
        }
        if let Some(augmentation) = &self.augmentation {
            let value = Value::Text(augmentation.clone());
            file.data.options.insert("augmentation".to_owned(), value);
        }
        if let Some(steps) = self.steps {
            (file.steps, file.epochs) = (Some(steps), None);
        }
        file.numerics = self.numerics.unwrap_or(Numerics::Stock);
        file.batch_size = self.batch_size.unwrap_or(file.batch_size);
        file.learning_rate.base = self.learning_rate.unwrap_or(file.learning_rate.base);
        let data = file.data.name.parse::<DatasetName>()?.load(&lab.data)?;
        let recipe = file.resolve(data.train.len())?;
        Ok(Resolved {
            name: format!("{} on {}", recipe.model.name, recipe.data.name),
            recipe,
            data,
            shipped: self.recipe.clone(),
            only: self.only.clone(),
            intervals: self.intervals.clone(),
        })
    }

    /// The keys given that are about an experiment, not about the training.
    fn of_experiments(&self) -> Vec<&'static str> {
        let keys = [
            ("only", !self.only.is_empty()),
            ("intervals", self.intervals.is_some()),
            ("settings", self.settings.is_some()),
            ("seeds", self.seeds.is_some()),
        ];
        let given = keys.into_iter().filter(|(_, is_given)| *is_given);
        given.map(|(key, _)| key).collect()
    }

    /// The settings to measure in: its own, or those of the experiment.
    pub(crate) fn settings<'a>(&'a self, of_all: &'a [String]) -> &'a [String] {
        self.settings.as_deref().unwrap_or(of_all)
    }

    /// The number of seeds: its own, or the experiment's.
    pub(crate) fn seeds(&self, of_all: u64) -> u64 {
        self.seeds.unwrap_or(of_all)
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reproduction {
    pub(crate) trainings: Vec<TrainingPlan>,
    /// Where and how replays are made: `same`, `threads-N`, `order`, `draws`, or a backend.
    pub(crate) settings: Vec<String>,
    pub(crate) intervals: Vec<Interval>,
    /// Steps at which replays begin.
    pub(crate) starts: Vec<u64>,
    /// Trainings from independent seeds, for d_ref.
    pub(crate) references: u64,
}

/// k, or the steps of an epoch.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
pub(crate) enum Interval {
    Steps(u64),
    Epoch(Epoch),
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Epoch {
    Epoch,
}

impl Interval {
    pub(crate) fn steps(self, per_epoch: u64) -> u64 {
        match self {
            Self::Steps(steps) => steps.max(1),
            Self::Epoch(Epoch::Epoch) => per_epoch.max(1),
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReferenceDistance {
    pub(crate) trainings: Vec<TrainingPlan>,
    /// Independent seeds.
    pub(crate) seeds: u64,
    /// Steps at which distances are taken; the last step is one in any case.
    pub(crate) steps: Vec<u64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Attacks {
    pub(crate) trainings: Vec<TrainingPlan>,
    pub(crate) intervals: Vec<u64>,
    pub(crate) policies: Vec<String>,
    /// Settings of the honest runs beside the forgeries.
    pub(crate) honest: Vec<String>,
    pub(crate) attacks: Vec<AttackPlan>,
}

/// A forgery with its options.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AttackPlan {
    pub(crate) name: String,
    /// Only against trainings by this shipped recipe.
    pub(crate) recipe: Option<String>,
    /// Only at this k.
    pub(crate) interval: Option<u64>,
    pub(crate) segments: Option<u64>,
    pub(crate) learning_rate: Option<f64>,
    pub(crate) iterations: Option<u64>,
    pub(crate) access: Option<String>,
    #[serde(default)]
    pub(crate) adaptive: bool,
    pub(crate) sample: Option<u64>,
    pub(crate) nonce: Option<u64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GradientMatching {
    pub(crate) trainings: Vec<TrainingPlan>,
    /// Steps whose states gradients are taken at.
    pub(crate) starts: Vec<u64>,
    /// k, and the number of segments of the line.
    pub(crate) interval: u64,
    pub(crate) segments: u64,
    pub(crate) iterations: Vec<u64>,
    /// Times that costs are measured.
    pub(crate) repeats: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FalseRejections {
    pub(crate) trainings: Vec<TrainingPlan>,
    pub(crate) intervals: Vec<u64>,
    pub(crate) seeds: u64,
    /// `same`, `threads-N`, `resumed`, a backend that verifies, or `from-` one that trains.
    pub(crate) settings: Vec<String>,
    pub(crate) policies: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Slack {
    pub(crate) trainings: Vec<TrainingPlan>,
    pub(crate) intervals: Vec<u64>,
    pub(crate) policies: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cost {
    pub(crate) trainings: Vec<TrainingPlan>,
    pub(crate) intervals: Vec<u64>,
    /// Runs of each kind; medians are reported.
    pub(crate) repeats: u64,
    /// Segments in an audit; all of them is one size in any case.
    pub(crate) audits: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(experiment: &str, key: &str, rest: &str) -> String {
        let training = format!("[[quick.trainings]]\nrecipe = \"digits-lenet\"\n{key}\n");
        let of = |size: &str| format!("[{size}]\n{rest}\n");
        format!(
            "experiment = \"{experiment}\"\ntitle = \"t\"\nabout = \"a\"\n{}{training}{}trainings = []\n",
            of("quick"),
            of("full")
        )
    }

    #[test]
    fn what_an_experiment_does_not_ask_of_a_training_is_refused() {
        let slack = "intervals = [1]\npolicies = []";
        assert!(Plan::parse("p", &plan("slack", "intervals = [2]", slack)).is_ok());
        for key in ["seeds = 3", "settings = [\"same\"]", "only = [\"push\"]"] {
            let error = Plan::parse("p", &plan("slack", key, slack)).unwrap_err();
            let name = key.split(' ').next().unwrap();
            let text = error.to_string();
            assert!(text.contains(name) && text.contains("slack"), "{text}");
        }
        let honest = "intervals = [1]\nseeds = 1\nsettings = []\npolicies = []";
        for key in ["seeds = 3", "settings = [\"same\"]", "intervals = [2]"] {
            assert!(Plan::parse("p", &plan("false-rejections", key, honest)).is_ok());
        }
        let all = SHIPPED.iter().all(|(name, _)| shipped(name).is_some());
        assert!(all, "what is shipped is read");
    }
}
