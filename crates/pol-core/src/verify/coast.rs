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

/// Whether all that the optimizer keeps in `state` is what [`coast`] goes by. An update rule that keeps
/// something else may move the model in ways that are not known here.
pub(super) fn knows(recipe: &Recipe, state: &State) -> bool {
    let fields: &[&str] = match recipe.optimizer {
        Optimizer::Sgd { .. } => &["velocity"],
        Optimizer::Adam { .. } | Optimizer::AdamW { .. } => &["time", "moment_1", "moment_2"],
        Optimizer::Custom(_) => return false,
    };
    let kept = state.entries().iter().map(|entry| entry.name());
    let mut kept = kept.filter_map(|name| name.strip_prefix("optim/"));
    kept.all(|name| match name.rsplit_once("/momentum.") {
        Some((path, field)) => {
            fields.contains(&field) && state.entry(&format!("model/{path}")).is_some()
        }
        None => false,
    })
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

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::module::{Module, ModuleMapper, Param};
    use burn::nn::{Linear, LinearConfig};
    use burn::optim::GradientsParams;
    use burn::tensor::{Device, Tensor};

    use super::*;
    use crate::adapter::PathOptimizer;
    use crate::recipe::{Component, Decay, LearningRate, Numerics};

    const RATE: f64 = 0.05;

    /// Gives every parameter the same gradient.
    struct Same {
        value: f32,
        gradients: GradientsParams,
    }

    impl ModuleMapper for Same {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let gradient = param.val().inner().ones_like().mul_scalar(self.value);
            self.gradients.register(param.id, gradient);
            param
        }
    }

    fn step(optimizer: &mut PathOptimizer, module: Linear, value: f32) -> Linear {
        let gradients = GradientsParams::new();
        let mut same = Same { value, gradients };
        let module = module.map(&mut same);
        optimizer.step(RATE, module, same.gradients)
    }

    fn capture(optimizer: &PathOptimizer, module: &Linear) -> State {
        let mut entries = Vec::new();
        crate::adapter::capture_for_tests(&module.valid(), optimizer, &mut entries);
        State::new(entries).unwrap()
    }

    /// Burn's own optimizers, three steps along a gradient and then ten without.
    #[test]
    fn coasting_is_what_burn_s_optimizers_do_without_gradients() {
        let sgd = |momentum, dampening, nesterov| Optimizer::Sgd {
            momentum,
            dampening,
            weight_decay: 1e-2,
            nesterov,
        };
        let (beta1, beta2, epsilon, weight_decay) = (0.9, 0.99, 1e-8, 1e-2);
        for optimizer in [
            sgd(0.0, 0.0, false),
            sgd(0.9, 0.0, false),
            sgd(0.9, 0.3, false),
            sgd(0.9, 0.0, true),
            Optimizer::Adam {
                beta1,
                beta2,
                epsilon,
                weight_decay,
            },
            Optimizer::AdamW {
                beta1,
                beta2,
                epsilon,
                weight_decay,
            },
        ] {
            let recipe = Recipe {
                model: Component::new("linear"),
                data: Component::new("none"),
                optimizer: optimizer.clone(),
                learning_rate: LearningRate {
                    base: RATE,
                    warmup: 0,
                    decay: Decay::Constant,
                },
                batch_size: 1,
                steps: 13,
                numerics: Numerics::Stock,
            };
            let mut rule = PathOptimizer::of_recipe(&optimizer).unwrap();
            let mut module = LinearConfig::new(3, 2).init(&Device::flex().autodiff());
            for pushed in [0, 3] {
                for _ in 0..pushed {
                    module = step(&mut rule, module, 0.5);
                }
                let start = capture(&rule, &module);
                assert!(knows(&recipe, &start));
                let coasted = coast(&recipe, &start, "model/weight", (3, 13)).unwrap();
                for _ in 0..10 {
                    module = step(&mut rule, module, 0.0);
                }
                let end = capture(&rule, &module);
                let end = end.entry("model/weight").unwrap().values();
                for (there, here) in end.zip(coasted) {
                    assert!((there - here).abs() < 1e-5, "{optimizer}: {there} {here}");
                }
                rule.reset();
            }
        }
    }

    #[test]
    fn momentum_fades_within_its_horizon() {
        let sgd = |momentum| Optimizer::Sgd {
            momentum,
            dampening: 0.0,
            weight_decay: 0.0,
            nesterov: false,
        };
        assert_eq!(horizon(&sgd(0.0)), 0);
        assert_eq!(horizon(&sgd(0.9)), 66);
        assert_eq!(horizon(&sgd(1.0)), MAX_HORIZON);
        assert_eq!(horizon(&sgd(f64::NAN)), MAX_HORIZON);
    }
}
