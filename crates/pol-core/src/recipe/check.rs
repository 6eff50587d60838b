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
