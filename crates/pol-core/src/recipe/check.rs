//! The numbers that a recipe may hold (SPEC.md §9). Claims, recipe files and flags are all held to this
//! one table, and its ranges are what errors print.

use std::fmt::{self, Display};

use super::{Decay, LearningRate, MAX_MILESTONES, Optimizer, Recipe};
use crate::schedule::{MAX_BATCH, MAX_STEPS};

/// A recipe that no training can follow.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("the recipe's `{field}` {problem}")]
pub struct RecipeError {
    /// The field, by the name that recipe files have for it.
    pub field: &'static str,
    /// What is wrong with it, and what it may be.
    pub problem: String,
}

impl RecipeError {
    fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self {
            field,
            problem: problem.into(),
        }
    }
}

/// The real numbers that a field may hold. A number is judged both as it is and as the `f32` that kernels
/// compute with: a β that rounds to 1 there divides by zero, and an ε that rounds to 0 leaves 0 / 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    field: &'static str,
    least: Edge,
    most: Edge,
}

/// An end of a range.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Edge {
    /// The number itself is in the range.
    With(f64),
    /// The number itself is not.
    Without(f64),
    /// There is none.
    Open,
}

impl Range {
    /// The learning rate after warm-up. A rate of zero trains nothing.
    pub const BASE: Self = Self::above("learning_rate.base", 0.0);
    /// The factor at each milestone.
    pub const GAMMA: Self = Self {
        most: Edge::With(1.0),
        ..Self::above("learning_rate.gamma", 0.0)
    };
    /// The end of a cosine; [`Recipe::check`] also holds it to the base rate.
    pub const MIN: Self = Self::from("learning_rate.min", 0.0);
    /// SGD's momentum: from 1 on, a velocity never ends.
    pub const MOMENTUM: Self = Self::fraction("optimizer.momentum");
    /// SGD's dampening: at 1, no gradient is left.
    pub const DAMPENING: Self = Self::fraction("optimizer.dampening");
    /// Adam's β₁ (Kingma & Ba, 2015, Algorithm 1).
    pub const BETA1: Self = Self::fraction("optimizer.beta1");
    /// Adam's β₂ (Kingma & Ba, 2015, Algorithm 1).
    pub const BETA2: Self = Self::fraction("optimizer.beta2");
    /// Adam's ε: without it, a parameter that has no gradient becomes 0 / 0.
    pub const EPSILON: Self = Self::above("optimizer.epsilon", 0.0);
    /// The weight decay of every update rule.
    pub const WEIGHT_DECAY: Self = Self::from("optimizer.weight_decay", 0.0);

    /// The numbers from `least` on.
    pub const fn from(field: &'static str, least: f64) -> Self {
        Self {
            field,
            least: Edge::With(least),
            most: Edge::Open,
        }
    }

    const fn above(field: &'static str, least: f64) -> Self {
        Self {
            field,
            least: Edge::Without(least),
            most: Edge::Open,
        }
    }

    const fn fraction(field: &'static str) -> Self {
        Self {
            most: Edge::Without(1.0),
            ..Self::from(field, 0.0)
        }
    }

    /// Checks that `value` is in the range.
    ///
    /// # Errors
    /// Names the field, the value and the range.
    pub fn check(&self, value: f64) -> Result<(), RecipeError> {
        let rounded = f64::from(value as f32);
        if self.holds(value) && self.holds(rounded) {
            return Ok(());
        }
        let as_computed = match self.holds(value) {
            true => format!(" ({rounded:?} as `f32`)"),
            false => String::new(),
        };
        let problem = format!("is {value:?}{as_computed}; it must be {self}");
        Err(RecipeError::new(self.field, problem))
    }

    fn holds(&self, value: f64) -> bool {
        let above = match self.least {
            Edge::With(least) => value >= least,
            Edge::Without(least) => value > least,
            Edge::Open => true,
        };
        let below = match self.most {
            Edge::With(most) => value <= most,
            Edge::Without(most) => value < most,
            Edge::Open => true,
        };
        value.is_finite() && above && below
    }
}

impl Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a finite number")?;
        match self.least {
            Edge::With(least) => write!(f, " that is at least {least}")?,
            Edge::Without(least) => write!(f, " above {least}")?,
            Edge::Open => {}
        }
        match self.most {
            Edge::With(most) => write!(f, " and at most {most}"),
            Edge::Without(most) => write!(f, " and below {most}"),
            Edge::Open => Ok(()),
        }
    }
}

/// The whole numbers that a field may hold, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole {
    field: &'static str,
    least: u64,
    most: u64,
}

impl Whole {
    /// Steps of a training.
    pub const STEPS: Self = Self::new("steps", 1, MAX_STEPS);
    /// Records in a step.
    pub const BATCH_SIZE: Self = Self::new("batch_size", 1, MAX_BATCH);

    /// The whole numbers from `least` to `most`.
    pub const fn new(field: &'static str, least: u64, most: u64) -> Self {
        Self { field, least, most }
    }

    /// Checks that `value` is in the range.
    ///
    /// # Errors
    /// Names the field, the value and the range.
    pub fn check(&self, value: u64) -> Result<(), RecipeError> {
        let Self { field, least, most } = *self;
        if (least..=most).contains(&value) {
            return Ok(());
        }
        let problem = format!("is {value}; it must be from {least} to {most}");
        Err(RecipeError::new(field, problem))
    }
}

impl Recipe {
    /// Checks that every number is one that a training can have.
    ///
    /// # Errors
    /// Names the first field at fault, what it holds and what it may hold.
    pub fn check(&self) -> Result<(), RecipeError> {
        Whole::STEPS.check(self.steps)?;
        Whole::BATCH_SIZE.check(self.batch_size)?;
        self.learning_rate.check(self.steps)?;
        self.optimizer.check()
    }
}

impl LearningRate {
    /// Checks the rate of a training of `steps` steps.
    ///
    /// # Errors
    /// As [`Recipe::check`].
    pub fn check(&self, steps: u64) -> Result<(), RecipeError> {
        Range::BASE.check(self.base)?;
        if self.warmup > steps {
            let warmup = self.warmup;
            let problem =
                format!("is {warmup} steps; it must be at most the {steps} steps of the training");
            return Err(RecipeError::new("learning_rate.warmup", problem));
        }
        match &self.decay {
            Decay::Constant => Ok(()),
            Decay::MultiStep { milestones, gamma } => {
                Range::GAMMA.check(*gamma)?;
                check_milestones(milestones)
            }
            Decay::Cosine { min } => {
                Range::MIN.check(*min)?;
                if *min > self.base {
                    let base = self.base;
                    let problem = format!("is {min:?}; it must be at most the base rate, {base:?}");
                    return Err(RecipeError::new("learning_rate.min", problem));
                }
                Ok(())
            }
        }
    }
}

/// The count first: a claim may list millions.
fn check_milestones(milestones: &[u64]) -> Result<(), RecipeError> {
    let fail = |problem| Err(RecipeError::new("learning_rate.milestones", problem));
    if milestones.len() > MAX_MILESTONES {
        return fail(format!(
            "are {}; there may be at most {MAX_MILESTONES}",
            milestones.len()
        ));
    }
    match milestones.windows(2).find(|pair| pair[0] >= pair[1]) {
        None => Ok(()),
        Some(pair) => fail(format!(
            "must ascend strictly; step {} follows step {}",
            pair[1], pair[0]
        )),
    }
}

impl Optimizer {
    /// Checks the update rule's constants. Those of a custom rule are its program's to check.
    ///
    /// # Errors
    /// As [`Recipe::check`].
    pub fn check(&self) -> Result<(), RecipeError> {
        match *self {
            Self::Sgd {
                momentum,
                dampening,
                weight_decay,
                nesterov,
            } => {
                Range::MOMENTUM.check(momentum)?;
                Range::DAMPENING.check(dampening)?;
                Range::WEIGHT_DECAY.check(weight_decay)?;
                // Without a velocity neither does anything; looking ahead along a dampened one is
                // no published rule. PyTorch refuses the same.
                let needs = |field, what| Err(RecipeError::new(field, what));
                if dampening > 0.0 && momentum == 0.0 {
                    return needs("optimizer.dampening", "needs a momentum above 0");
                }
                if nesterov && momentum == 0.0 {
                    return needs("optimizer.nesterov", "needs a momentum above 0");
                }
                if nesterov && dampening > 0.0 {
                    return needs("optimizer.nesterov", "needs a dampening of 0");
                }
                Ok(())
            }
            Self::Adam {
                beta1,
                beta2,
                epsilon,
                weight_decay,
            }
            | Self::AdamW {
                beta1,
                beta2,
                epsilon,
                weight_decay,
            } => {
                Range::BETA1.check(beta1)?;
                Range::BETA2.check(beta2)?;
                Range::EPSILON.check(epsilon)?;
                Range::WEIGHT_DECAY.check(weight_decay)
            }
            Self::Custom(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Component, Numerics};

    fn recipe() -> Recipe {
        Recipe {
            model: Component::new("m"),
            data: Component::new("d"),
            optimizer: Optimizer::Custom(Component::new("o")),
            learning_rate: LearningRate {
                base: 0.1,
                warmup: 0,
                decay: Decay::Constant,
            },
            batch_size: 4,
            steps: 100,
            numerics: Numerics::Stock,
        }
    }

    /// The field at fault, or an empty text.
    fn fault(change: impl FnOnce(&mut Recipe)) -> &'static str {
        let mut recipe = recipe();
        change(&mut recipe);
        recipe.check().err().map_or("", |error| error.field)
    }

    const NO_NUMBERS: [f64; 3] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    /// The greatest number below 1, as `f32`.
    const BELOW_ONE: f64 = 1.0 - f32::EPSILON as f64 / 2.0;

    #[test]
    fn every_constant_holds_at_its_edge_and_is_refused_beyond_it() {
        let sgd = |momentum, dampening, weight_decay| Optimizer::Sgd {
            momentum,
            dampening,
            weight_decay,
            nesterov: false,
        };
        let adam = |beta1, beta2, epsilon, weight_decay| Optimizer::Adam {
            beta1,
            beta2,
            epsilon,
            weight_decay,
        };
        let adam_w = |beta1, beta2, epsilon, weight_decay| Optimizer::AdamW {
            beta1,
            beta2,
            epsilon,
            weight_decay,
        };
        type Rule<'a> = &'a dyn Fn(f64) -> Optimizer;
        let fractions: [(&str, Rule<'_>); 6] = [
            ("optimizer.momentum", &|x| sgd(x, 0.0, 0.0)),
            ("optimizer.dampening", &|x| sgd(0.9, x, 0.0)),
            ("optimizer.beta1", &|x| adam(x, 0.9, 1e-8, 0.0)),
            ("optimizer.beta2", &|x| adam(0.9, x, 1e-8, 0.0)),
            ("optimizer.beta1", &|x| adam_w(x, 0.9, 1e-8, 0.0)),
            ("optimizer.beta2", &|x| adam_w(0.9, x, 1e-8, 0.0)),
        ];
        let decays: [(&str, Rule<'_>); 3] = [
            ("optimizer.weight_decay", &|x| sgd(0.9, 0.0, x)),
            ("optimizer.weight_decay", &|x| adam(0.9, 0.9, 1e-8, x)),
            ("optimizer.weight_decay", &|x| adam_w(0.9, 0.9, 1e-8, x)),
        ];
        let epsilons: [(&str, Rule<'_>); 2] = [
            ("optimizer.epsilon", &|x| adam(0.9, 0.9, x, 0.0)),
            ("optimizer.epsilon", &|x| adam_w(0.9, 0.9, x, 0.0)),
        ];
        let check = |rules: &[(&'static str, Rule<'_>)], fine: &[f64], wrong: &[f64]| {
            for (field, rule) in rules {
                for &x in fine {
                    assert_eq!(fault(|r| r.optimizer = rule(x)), "", "{field} {x}");
                }
                for &x in wrong.iter().chain(&NO_NUMBERS) {
                    assert_eq!(fault(|r| r.optimizer = rule(x)), *field, "{x}");
                }
            }
        };
        // 1 - 1e-12 is below 1, but not as `f32`.
        let beyond = [-0.1, -1e-30, 1.0, 1.0 - 1e-12, 3.0];
        check(&fractions, &[0.0, 0.5, BELOW_ONE], &beyond);
        check(&decays, &[0.0, 1e-4, 3.0], &[-1e-30, 1e39]);
        check(&epsilons, &[1e-45, 1e-8, 1.0], &[0.0, -1e-8, 1e-60]);
    }

    #[test]
    fn every_number_of_a_learning_rate_holds_at_its_edge_and_is_refused_beyond_it() {
        let decayed = |decay| fault(|r| r.learning_rate.decay = decay);
        let based = |base| fault(|r| r.learning_rate.base = base);
        assert_eq!((based(1e-30), based(1e3)), ("", ""));
        for base in [0.0, -0.1, 1e-60].iter().chain(&NO_NUMBERS) {
            assert_eq!(based(*base), "learning_rate.base", "{base}");
        }
        let falls = |milestones: &[u64], gamma| {
            decayed(Decay::MultiStep {
                milestones: milestones.to_vec(),
                gamma,
            })
        };
        assert_eq!((falls(&[], 1.0), falls(&[0, 7], 1e-9)), ("", ""));
        for gamma in [0.0, -1e8, 1.0 + 1e-6].iter().chain(&NO_NUMBERS) {
            assert_eq!(falls(&[5], *gamma), "learning_rate.gamma", "{gamma}");
        }
        assert_eq!(falls(&[5, 5], 0.1), "learning_rate.milestones");
        assert_eq!(falls(&[5, 4], 0.1), "learning_rate.milestones");
        let many: Vec<u64> = (0..=MAX_MILESTONES as u64).collect();
        assert_eq!(falls(&many[1..], 0.1), "");
        assert_eq!(falls(&many, 0.1), "learning_rate.milestones");
        let ends = |min| decayed(Decay::Cosine { min });
        assert_eq!((ends(0.0), ends(0.1)), ("", ""));
        for min in [-1e-9, 0.11].iter().chain(&NO_NUMBERS) {
            assert_eq!(ends(*min), "learning_rate.min", "{min}");
        }
        let warmed = |warmup| fault(|r| r.learning_rate.warmup = warmup);
        assert_eq!((warmed(100), warmed(101)), ("", "learning_rate.warmup"));
    }

    #[test]
    fn what_needs_a_velocity_is_refused_without_one() {
        let sgd = |momentum, dampening, nesterov| {
            fault(|r| {
                r.optimizer = Optimizer::Sgd {
                    momentum,
                    dampening,
                    weight_decay: 0.0,
                    nesterov,
                }
            })
        };
        assert_eq!((sgd(0.9, 0.0, true), sgd(0.9, 0.5, false)), ("", ""));
        assert_eq!(sgd(0.0, 0.0, true), "optimizer.nesterov");
        assert_eq!(sgd(0.9, 0.5, true), "optimizer.nesterov");
        assert_eq!(sgd(0.0, 0.5, false), "optimizer.dampening");
    }

    #[test]
    fn steps_and_batches_hold_at_their_edges_and_are_refused_beyond_them() {
        let steps = |steps| fault(|r| r.steps = steps);
        let batch = |size| fault(|r| r.batch_size = size);
        assert_eq!((steps(1), steps(MAX_STEPS)), ("", ""));
        assert_eq!((steps(0), steps(MAX_STEPS + 1)), ("steps", "steps"));
        assert_eq!((batch(1), batch(MAX_BATCH)), ("", ""));
        assert_eq!(
            (batch(0), batch(MAX_BATCH + 1)),
            ("batch_size", "batch_size")
        );
    }

    #[test]
    fn an_error_names_the_field_the_value_and_the_range() {
        let text = |range: Range, value: f64| range.check(value).unwrap_err().to_string();
        assert_eq!(
            text(Range::MOMENTUM, -3.0),
            "the recipe's `optimizer.momentum` is -3.0; it must be a finite number that is at least \
             0 and below 1"
        );
        assert_eq!(
            text(Range::BETA2, 1.0 - 1e-12),
            "the recipe's `optimizer.beta2` is 0.999999999999 (1.0 as `f32`); it must be a finite \
             number that is at least 0 and below 1"
        );
    }
}
