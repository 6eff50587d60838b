//! Limits on what a prover may choose.

use serde::{Deserialize, Serialize};

use crate::manifest::Terms;
use crate::recipe::{Decay, LearningRate, Optimizer};
use crate::schedule::BatchSource;

/// Limits on the terms of a training. What is not set is not limited.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bounds {
    /// k: steps between checkpoints.
    pub max_interval: Option<u64>,
    /// The smallest rate, of all but one step in twenty, since schedules end near zero: a rate near
    /// zero lets states that were never trained pass for trained ones (Fang et al., 2023).
    pub min_learning_rate: Option<f64>,
    /// The largest rate of any step.
    pub max_learning_rate: Option<f64>,
    /// Records in a step.
    pub min_batch_size: Option<u64>,
    /// Records in a step.
    pub max_batch_size: Option<u64>,
    /// SGD's momentum, Adam's β₁ and β₂.
    pub max_momentum: Option<f64>,
    /// SGD's dampening: near one, no gradient is left.
    pub max_dampening: Option<f64>,
    /// Weight decay.
    pub max_weight_decay: Option<f64>,
    /// Adam's ε: a large one is a small rate.
    pub max_epsilon: Option<f64>,
    /// Steps of the training.
    pub min_steps: Option<u64>,
    /// Steps of the training.
    pub max_steps: Option<u64>,
    /// Passes over the data: steps times batch over records.
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

/// The share of steps that may be below `min_learning_rate`.
const MAX_SHARE_BELOW: f64 = 0.05;

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
        let highest = highest_rate(&recipe.learning_rate, recipe.steps);
        let constants = Constants::of(&recipe.optimizer);
        let epochs =
            recipe.steps as f64 * recipe.batch_size as f64 / terms.data.records.max(1) as f64;
        let mut check = Check(Vec::new());
        check.most("max_interval", self.max_interval, terms.interval);
        if let Some(least) = self.min_learning_rate {
            let below = steps_below(&recipe.learning_rate, recipe.steps, least);
            let share = below as f64 / recipe.steps.max(1) as f64;
            if share > MAX_SHARE_BELOW {
                let found = format!("{:.0} % of its steps below", 100.0 * share);
                check.fail("min_learning_rate", &least, &found);
            }
        }
        check.most("max_learning_rate", self.max_learning_rate, highest);
        check.least("min_batch_size", self.min_batch_size, recipe.batch_size);
        check.most("max_batch_size", self.max_batch_size, recipe.batch_size);
        check.most("max_momentum", self.max_momentum, constants.momentum);
        check.most("max_dampening", self.max_dampening, constants.dampening);
        check.most("max_weight_decay", self.max_weight_decay, constants.decay);
        check.most("max_epsilon", self.max_epsilon, constants.epsilon);
        check.least("min_steps", self.min_steps, recipe.steps);
        check.most("max_steps", self.max_steps, recipe.steps);
        check.least("min_epochs", self.min_epochs, epochs);
        check.most("max_epochs", self.max_epochs, epochs);
        check.most("max_nonce", self.max_nonce, terms.nonce);
        check.one_of("optimizers", &self.optimizers, constants.name);
        check.one_of(
            "decays",
            &self.decays,
            decay_name(&recipe.learning_rate.decay),
        );
        if let Some(allowed) = self.batches.filter(|allowed| *allowed != terms.batches) {
            check.fail("batches", &allowed.name(), &terms.batches.name());
        }
        check.0
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

/// An update rule's constants, by what they can be abused for. A custom rule's are not known: allow
/// it by name only where its program is.
struct Constants {
    name: &'static str,
    momentum: f64,
    dampening: f64,
    decay: f64,
    epsilon: f64,
}

impl Constants {
    fn of(optimizer: &Optimizer) -> Self {
        let adam = |name, beta1: f64, beta2: f64, epsilon: f64, decay: f64| Self {
            name,
            // Of a NaN neither is the greater.
            momentum: if beta1 > beta2 { beta1 } else { beta2 },
            dampening: 0.0,
            decay: decay.abs(),
            epsilon: epsilon.abs(),
        };
        match *optimizer {
            Optimizer::Sgd {
                momentum,
                dampening,
                weight_decay,
                ..
            } => Self {
                name: "sgd",
                momentum: momentum.abs(),
                dampening: dampening.abs(),
                decay: weight_decay.abs(),
                epsilon: 0.0,
            },
            Optimizer::Adam {
                beta1,
                beta2,
                epsilon,
                weight_decay,
            } => adam("adam", beta1.abs(), beta2.abs(), epsilon, weight_decay),
            Optimizer::AdamW {
                beta1,
                beta2,
                epsilon,
                weight_decay,
            } => adam("adamw", beta1.abs(), beta2.abs(), epsilon, weight_decay),
            Optimizer::Custom(_) => Self {
                name: "custom",
                momentum: 0.0,
                dampening: 0.0,
                decay: 0.0,
                epsilon: 0.0,
            },
        }
    }
}

fn decay_name(decay: &Decay) -> &'static str {
    match decay {
        Decay::Constant => "constant",
        Decay::MultiStep { .. } => "multistep",
        Decay::Cosine { .. } => "cosine",
    }
}

/// Where the rate turns or jumps, ascending: it is monotonous from each of these steps to before the
/// next.
fn pieces(rate: &LearningRate, steps: u64) -> Vec<u64> {
    let mut starts = vec![0, rate.warmup];
    if let Decay::MultiStep { milestones, .. } = &rate.decay {
        starts.extend(
            milestones
                .iter()
                .filter(|milestone| **milestone > rate.warmup),
        );
    }
    starts.retain(|start| *start < steps);
    starts.push(steps);
    starts.sort_unstable();
    starts.dedup();
    starts
}

/// The largest rate of any step.
fn highest_rate(rate: &LearningRate, steps: u64) -> f64 {
    let ends = pieces(rate, steps);
    let ends = ends.windows(2).flat_map(|piece| [piece[0], piece[1] - 1]);
    ends.map(|step| rate.at(step, steps))
        .fold(0.0, |high, rate| {
            // A rate that is no number is above all others.
            if rate <= high { high } else { rate }
        })
}

/// How many steps have a rate that is not at least `least`.
fn steps_below(rate: &LearningRate, steps: u64, least: f64) -> u64 {
    let enough = |step: u64| rate.at(step, steps) >= least;
    let ends = pieces(rate, steps);
    let below = ends.windows(2).map(|piece| {
        let (first, end) = (piece[0], piece[1]);
        let (at_first, at_last) = (enough(first), enough(end - 1));
        if at_first == at_last {
            return if at_first { 0 } else { end - first };
        }
        // The first step that is unlike the piece's first.
        let (mut alike, mut unlike) = (first, end - 1);
        while unlike - alike > 1 {
            let middle = alike + (unlike - alike) / 2;
            match enough(middle) == at_first {
                true => alike = middle,
                false => unlike = middle,
            }
        }
        if at_first {
            end - unlike
        } else {
            unlike - first
        }
    });
    below.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rates_are_counted_as_if_one_by_one(
            base in 0.0f64..1.0,
            warmup in 0u64..20,
            steps in 1u64..60,
            kind in 0u8..3,
            milestones in prop::collection::btree_set(0u64..80, 0..5),
            x in 0.0f64..2.0,
            least in 0.0f64..1.0,
        ) {
            let decay = match kind {
                0 => Decay::Constant,
                1 => Decay::MultiStep { milestones: milestones.into_iter().collect(), gamma: x },
                _ => Decay::Cosine { min: x },
            };
            let rate = LearningRate { base, warmup, decay };
            let all: Vec<f64> = (0..steps).map(|step| rate.at(step, steps)).collect();
            let highest = all.iter().copied().fold(0.0, f64::max);
            prop_assert_eq!(highest_rate(&rate, steps), highest);
            let below = all.iter().filter(|rate| **rate < least).count() as u64;
            prop_assert_eq!(steps_below(&rate, steps, least), below);
        }
    }

    #[test]
    fn rates_that_are_no_numbers_exceed_every_bound() {
        let rate = |base| LearningRate {
            base,
            warmup: 0,
            decay: Decay::Constant,
        };
        assert!(highest_rate(&rate(f64::NAN), 5).is_nan());
        assert_eq!(steps_below(&rate(f64::NAN), 5, 0.0), 5);
    }
}
