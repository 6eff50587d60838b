//! Limits on what a prover may choose.

mod decay;
mod rates;

use serde::{Deserialize, Serialize};

use crate::manifest::Terms;
use crate::recipe::{Decay, Optimizer, Recipe};
use crate::schedule::{BatchSource, Schedule};

use decay::DecayAlone;
use rates::Below;

/// Limits on the terms of a training. What is not set is not limited. Each is compared with the number
/// that the proof has, with its sign; SPEC.md §16 has the formulas.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bounds {
    /// k: steps between checkpoints.
    pub max_interval: Option<u64>,
    /// The smallest rate, but for 5 % of the steps, since schedules end near zero, and for the steps of
    /// a warm-up, which begins there, as far as they are no more than 20 %. A rate near zero lets
    /// states that were never trained pass for trained ones (Fang et al., 2023).
    pub min_learning_rate: Option<f64>,
    /// The largest rate of any step.
    pub max_learning_rate: Option<f64>,
    /// SGD's largest rate · (1 − dampening) / (1 − momentum): what a gradient of 1 that stays moves a
    /// weight by in each step, in the end. A high one carries weights far between two checkpoints.
    pub max_effective_rate: Option<f64>,
    /// The farthest that a step of Adam or AdamW can move a weight, whatever its gradients were:
    /// rate · (1 − β₁) / √((1 − β₂)(1 − β₁² / β₂)). It is infinite where the second moment forgets
    /// sooner than the first: then rounding is carried without limit too.
    pub max_adam_step: Option<f64>,
    /// Records in a step.
    pub min_batch_size: Option<u64>,
    /// Records in a step.
    pub max_batch_size: Option<u64>,
    /// SGD's momentum, Adam's β₁.
    pub max_momentum: Option<f64>,
    /// Adam's β₂: with a long memory one large gradient keeps all later steps small.
    pub max_beta2: Option<f64>,
    /// SGD's dampening: near one, no gradient is left.
    pub max_dampening: Option<f64>,
    /// Weight decay.
    pub max_weight_decay: Option<f64>,
    /// The damping ratio of a weight that decay alone moves, at the largest rate. Below 1 it swings
    /// around zero like a pendulum, with high momentum nearly without loss: small pushes in its time
    /// add up. Not known for Adam, whose decay is a part of the normalised gradient.
    pub min_decay_damping: Option<f64>,
    /// The share of a weight that decay alone leaves after the k steps of a segment, at the largest
    /// rate. Where little is left, a replay ends near zero wherever it began. Not known for Adam.
    pub min_retained: Option<f64>,
    /// Adam's ε: a large one is a small rate.
    pub max_epsilon: Option<f64>,
    /// Steps of the training.
    pub min_steps: Option<u64>,
    /// Steps of the training.
    pub max_steps: Option<u64>,
    /// Passes over the data: steps over steps of an epoch. Records that fill no batch are left out of
    /// an epoch (SPEC.md §7), and do not count against it.
    pub min_epochs: Option<f64>,
    /// Passes over the data.
    pub max_epochs: Option<f64>,
    /// The prover's nonce: it bounds how many seeds there were to choose from.
    pub max_nonce: Option<u64>,
    /// Allowed update rules: `sgd`, `adam`, `adamw`, `custom`.
    pub optimizers: Option<Vec<String>>,
    /// Allowed forms of decay: `constant`, `multistep`, `cosine`.
    pub decays: Option<Vec<String>>,
    /// How batches are determined.
    pub batches: Option<BatchSource>,
}

/// The share of all steps that may be below `min_learning_rate` after the warm-up.
const MAX_SHARE_BELOW: f64 = 0.05;
/// The share of all steps that may be below it within the warm-up.
const MAX_SHARE_WARMING_UP: f64 = 0.2;

/// A bound that terms exceed.
#[derive(Debug, Clone, PartialEq)]
pub struct Exceeded {
    /// The bound's name.
    pub bound: &'static str,
    /// What it allows.
    pub allowed: String,
    /// What the proof has.
    pub found: String,
}

impl Bounds {
    /// Every bound that `terms` exceed.
    pub fn exceeded(&self, terms: &Terms) -> Vec<Exceeded> {
        let recipe = &terms.recipe;
        let rate = &recipe.learning_rate;
        let highest = rates::highest(rate, recipe.steps);
        let constants = Constants::of(&recipe.optimizer, highest);
        let epochs = epochs(recipe, terms.data.records);
        let mut check = Check(Vec::new());
        check.most("max_interval", self.max_interval, terms.interval);
        if let Some(least) = self.min_learning_rate {
            let below = Below::of(rate, recipe.steps, least);
            check.share_below(below.after, recipe.steps, MAX_SHARE_BELOW, least, "");
            let warming_up = " while it warms up";
            let steps = below.warming_up;
            check.share_below(steps, recipe.steps, MAX_SHARE_WARMING_UP, least, warming_up);
        }
        check.most("max_learning_rate", self.max_learning_rate, highest);
        check.most_known(
            "max_effective_rate",
            self.max_effective_rate,
            constants.effective_rate,
        );
        check.most_known("max_adam_step", self.max_adam_step, constants.adam_step);
        check.least("min_batch_size", self.min_batch_size, recipe.batch_size);
        check.most("max_batch_size", self.max_batch_size, recipe.batch_size);
        check.most_known("max_momentum", self.max_momentum, constants.momentum);
        check.most_known("max_beta2", self.max_beta2, constants.beta2);
        check.most_known("max_dampening", self.max_dampening, constants.dampening);
        check.most_known(
            "max_weight_decay",
            self.max_weight_decay,
            constants.weight_decay,
        );
        if let Some(alone) = DecayAlone::of(&recipe.optimizer, highest) {
            let steps = terms.interval.min(recipe.steps);
            check.least("min_decay_damping", self.min_decay_damping, alone.damping());
            check.least("min_retained", self.min_retained, alone.retained(steps));
        }
        check.most_known("max_epsilon", self.max_epsilon, constants.epsilon);
        check.least("min_steps", self.min_steps, recipe.steps);
        check.most("max_steps", self.max_steps, recipe.steps);
        check.least("min_epochs", self.min_epochs, epochs);
        check.most("max_epochs", self.max_epochs, epochs);
        check.most("max_nonce", self.max_nonce, terms.nonce);
        check.one_of("optimizers", &self.optimizers, constants.name);
        check.one_of("decays", &self.decays, decay_name(&rate.decay));
        if let Some(allowed) = self.batches.filter(|allowed| *allowed != terms.batches) {
            check.fail("batches", &allowed.name(), &terms.batches.name());
        }
        check.0
    }
}

/// Passes over the data, of batches as the schedule cuts them. A batch larger than the data is counted
/// by its records: lists of batches may hold one.
fn epochs(recipe: &Recipe, records: u64) -> f64 {
    match Schedule::steps_per_epoch(records, recipe.batch_size) {
        0 => recipe.steps as f64 * recipe.batch_size as f64 / records.max(1) as f64,
        per_epoch => recipe.steps as f64 / per_epoch as f64,
    }
}

struct Check(Vec<Exceeded>);

impl Check {
    // Written so that NaN exceeds every bound.
    fn most<T: PartialOrd + ToString>(&mut self, bound: &'static str, most: Option<T>, found: T) {
        if let Some(most) =
            most.filter(|most| !matches!(found.partial_cmp(most), Some(o) if o.is_le()))
        {
            self.fail(bound, &most, &found);
        }
    }

    fn least<T: PartialOrd + ToString>(&mut self, bound: &'static str, least: Option<T>, found: T) {
        if let Some(least) =
            least.filter(|least| !matches!(found.partial_cmp(least), Some(o) if o.is_ge()))
        {
            self.fail(bound, &least, &found);
        }
    }

    /// As [`Check::most`]; what an update rule does not have is not limited.
    fn most_known(&mut self, bound: &'static str, most: Option<f64>, found: Option<f64>) {
        if let Some(found) = found {
            self.most(bound, most, found);
        }
    }

    /// How many of all steps have a rate below the least one, `when`.
    fn share_below(&mut self, below: u64, steps: u64, share: f64, least: f64, when: &str) {
        let found = below as f64 / steps.max(1) as f64;
        if found > share {
            let found = format!("{:.0} % of its steps below{when}", 100.0 * found);
            self.fail("min_learning_rate", &least, &found);
        }
    }

    fn one_of(&mut self, bound: &'static str, allowed: &Option<Vec<String>>, found: &str) {
        if let Some(allowed) = allowed
            && !allowed.iter().any(|name| name == found)
        {
            self.fail(bound, &allowed.join(", "), &found);
        }
    }

    fn fail(&mut self, bound: &'static str, allowed: &dyn ToString, found: &dyn ToString) {
        self.0.push(Exceeded {
            bound,
            allowed: allowed.to_string(),
            found: found.to_string(),
        });
    }
}

/// An update rule's constants, by what they can be abused for; `None` for what it does not have. A
/// custom rule's are not known: allow it by name only where its program is.
#[derive(Default)]
struct Constants {
    name: &'static str,
    momentum: Option<f64>,
    beta2: Option<f64>,
    dampening: Option<f64>,
    weight_decay: Option<f64>,
    epsilon: Option<f64>,
    effective_rate: Option<f64>,
    adam_step: Option<f64>,
}

impl Constants {
    /// Those of `optimizer` where the highest rate is `rate`.
    fn of(optimizer: &Optimizer, rate: f64) -> Self {
        let adam = |name, beta1: f64, beta2: f64, epsilon, weight_decay| Self {
            name,
            momentum: Some(beta1),
            beta2: Some(beta2),
            epsilon: Some(epsilon),
            weight_decay: Some(weight_decay),
            adam_step: Some(rate * adam_reach(beta1, beta2)),
            ..Self::default()
        };
        match *optimizer {
            Optimizer::Sgd {
                momentum,
                dampening,
                weight_decay,
                ..
            } => Self {
                name: "sgd",
                momentum: Some(momentum),
                dampening: Some(dampening),
                weight_decay: Some(weight_decay),
                effective_rate: Some(rate * (1.0 - dampening) / (1.0 - momentum)),
                ..Self::default()
            },
            Optimizer::Adam {
                beta1,
                beta2,
                epsilon,
                weight_decay,
            } => adam("adam", beta1, beta2, epsilon, weight_decay),
            Optimizer::AdamW {
                beta1,
                beta2,
                epsilon,
                weight_decay,
            } => adam("adamw", beta1, beta2, epsilon, weight_decay),
            Optimizer::Custom(_) => Self {
                name: "custom",
                ..Self::default()
            },
        }
    }
}

/// The largest ratio of Adam's first moment to the root of its second, over all gradients, by the
/// inequality of Cauchy and Schwarz: (Σ β₁ⁱ gᵢ)² ≤ Σ (β₁² / β₂)ⁱ · Σ β₂ⁱ gᵢ².
fn adam_reach(beta1: f64, beta2: f64) -> f64 {
    let memories = match beta1 == 0.0 {
        true => 0.0,
        false => beta1 * beta1 / beta2,
    };
    match memories < 1.0 {
        true => (1.0 - beta1) / ((1.0 - beta2) * (1.0 - memories)).sqrt(),
        false => f64::INFINITY,
    }
}

fn decay_name(decay: &Decay) -> &'static str {
    match decay {
        Decay::Constant => "constant",
        Decay::MultiStep { .. } => "multistep",
        Decay::Cosine { .. } => "cosine",
    }
}
