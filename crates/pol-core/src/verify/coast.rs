//! Where a model drifts without gradients: by momentum and decay alone.
//!
//! A comparison asks this twice. What did a segment learn, beyond what its start already had in it? And how
//! far will a difference between two states move the model later, one in the optimizer included?

use crate::recipe::{Optimizer, Recipe};
use crate::state::{Entry, State};

/// The share of its momentum that a model still has after the [`horizon`].
const FADED: f64 = 1e-3;
/// The longest horizon, in steps.
const MAX_HORIZON: u64 = 10_000;

/// The values of the parameter `name` after the steps `first..last` with gradients of zero, from
/// `state`, in `f64`. `None` for an update rule that only its own program knows, and where `state`
/// lacks the parameter.
pub(super) fn coast(
    recipe: &Recipe,
    state: &State,
    name: &str,
    (first, last): (u64, u64),
) -> Option<Vec<f64>> {
    let weights = state.entry(name)?;
    let path = name.strip_prefix("model/")?;
    let of_optimizer = |field: &str| state.entry(&format!("optim/{path}/momentum.{field}"));
    let rates = (first..last).map(|step| recipe.learning_rate.at(step, recipe.steps));
    match recipe.optimizer {
        Optimizer::Sgd {
            momentum,
            dampening,
            weight_decay,
            nesterov,
        } => {
            let rule = Sgd {
                momentum,
                undamped: 1.0 - dampening,
                decay: weight_decay,
                nesterov,
            };
            Some(rule.coast(weights, of_optimizer("velocity"), rates))
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
            let decoupled = matches!(recipe.optimizer, Optimizer::AdamW { .. });
            let rule = Adam {
                beta1,
                beta2,
                epsilon,
                coupled: if decoupled { 0.0 } else { weight_decay },
                decoupled: if decoupled { weight_decay } else { 0.0 },
            };
            let made = of_optimizer("time").and_then(|time| time.values().next());
            let moments = (of_optimizer("moment_1"), of_optimizer("moment_2"));
            Some(rule.coast(weights, moments, made.unwrap_or(0.0), rates))
        }
        Optimizer::Custom(_) => None,
    }
}

/// How many steps after a state its momentum has faded to a thousandth. 0 without momentum.
pub(super) fn horizon(optimizer: &Optimizer) -> u64 {
    let fades_by = match *optimizer {
        Optimizer::Sgd { momentum, .. } => momentum,
        // A step is the first moment over the root of the second, and both fade.
        Optimizer::Adam { beta1, beta2, .. } | Optimizer::AdamW { beta1, beta2, .. } => {
            beta1 / beta2.sqrt()
        }
        Optimizer::Custom(_) => 0.0,
    };
    if fades_by <= 0.0 {
        return 0;
    }
    let steps = (FADED.ln() / fades_by.ln()).ceil();
    // Momentum that does not fade, or a factor that is no number.
    match (0.0..MAX_HORIZON as f64).contains(&steps) {
        true => steps as u64,
        false => MAX_HORIZON,
    }
}

struct Sgd {
    momentum: f64,
    undamped: f64,
    decay: f64,
    nesterov: bool,
}

impl Sgd {
    /// The rule is linear without gradients: weight and velocity after any number of steps are sums of
    /// multiples of what they were, the same multiples for every element.
    fn coast(
        &self,
        weights: &Entry,
        velocity: Option<&Entry>,
        rates: impl Iterator<Item = f64>,
    ) -> Vec<f64> {
        // w and v, each as (multiple of the first w, multiple of the first v).
        let (mut w, mut v) = ([1.0, 0.0], [0.0, 1.0]);
        let mut moves = velocity.is_some();
        for rate in rates {
            let next = |g: f64, v: f64| self.momentum * v + self.undamped * g;
            let g = w.map(|multiple| self.decay * multiple);
            v = match moves && self.momentum != 0.0 {
                true => [next(g[0], v[0]), next(g[1], v[1])],
                // The first velocity is the gradient.
                false => g,
            };
            moves = true;
            let ahead = |i: usize| match self.nesterov {
                true => g[i] + self.momentum * v[i],
                false => v[i],
            };
            w = [w[0] - rate * ahead(0), w[1] - rate * ahead(1)];
        }
        match velocity {
            None => weights.values().map(|x| w[0] * x).collect(),
            Some(velocity) => (weights.values().zip(velocity.values()))
                .map(|(x, y)| w[0] * x + w[1] * y)
                .collect(),
        }
    }
}

struct Adam {
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    coupled: f64,
    decoupled: f64,
}

impl Adam {
    /// `made`: the steps that the moments have seen.
    fn coast(
        &self,
        weights: &Entry,
        moments: (Option<&Entry>, Option<&Entry>),
        mut made: f64,
        rates: impl Iterator<Item = f64>,
    ) -> Vec<f64> {
        let values = |entry: Option<&Entry>| match entry {
            Some(entry) => entry.values().collect(),
            None => vec![0.0; weights.values().count()],
        };
        let (mut w, mut m, mut v): (Vec<f64>, _, _) = (
            weights.values().collect(),
            values(moments.0),
            values(moments.1),
        );
        for rate in rates {
            made += 1.0;
            let (unbias1, unbias2) = (
                1.0 / (1.0 - self.beta1.powf(made)),
                1.0 / (1.0 - self.beta2.powf(made)),
            );
            for ((w, m), v) in w.iter_mut().zip(&mut m).zip(&mut v) {
                let g = self.coupled * *w;
                *m = self.beta1 * *m + (1.0 - self.beta1) * g;
                *v = self.beta2 * *v + (1.0 - self.beta2) * g * g;
                let step = *m * unbias1 / ((*v * unbias2).sqrt() + self.epsilon);
                *w = (1.0 - rate * self.decoupled) * *w - rate * step;
            }
        }
        w
    }
}
