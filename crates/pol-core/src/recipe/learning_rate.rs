//! The learning rate as a function of the step (SPEC.md §9).

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

/// The learning rate as a function of the step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearningRate {
    /// The rate after warm-up, before decay.
    pub base: f64,
    /// Steps of linear warm-up: step `t < warmup` uses `base · (t + 1) / warmup`.
    pub warmup: u64,
    /// What happens after it.
    pub decay: Decay,
}

/// How the learning rate falls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Decay {
    /// Not at all.
    Constant,
    /// Multiplied by `gamma` at each milestone, a step.
    MultiStep {
        /// Steps in ascending order.
        milestones: Vec<u64>,
        /// The factor.
        gamma: f64,
    },
    /// Half a cosine from `base` down to `min` at the last step (Loshchilov & Hutter, 2017).
    Cosine {
        /// The rate at the end.
        min: f64,
    },
}

impl LearningRate {
    /// The rate that `step` of `steps` uses.
    pub fn at(&self, step: u64, steps: u64) -> f64 {
        if step < self.warmup {
            return self.base * (step + 1) as f64 / self.warmup as f64;
        }
        match &self.decay {
            Decay::Constant => self.base,
            Decay::MultiStep { milestones, gamma } => {
                let passed = milestones.iter().filter(|&&m| m <= step).count();
                (0..passed).fold(self.base, |rate, _| rate * gamma)
            }
            Decay::Cosine { min } => {
                let span = steps.saturating_sub(self.warmup).max(1) as f64;
                let done = (step - self.warmup) as f64 / span;
                let half_cosine = 0.5 * (1.0 + libm::cos(std::f64::consts::PI * done));
                min + (self.base - min) * half_cosine
            }
        }
    }
}

impl Display for LearningRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.base)?;
        match &self.decay {
            Decay::Constant => f.write_str(", constant")?,
            Decay::MultiStep { milestones, gamma } => {
                let steps: Vec<_> = milestones.iter().map(ToString::to_string).collect();
                write!(f, ", times {gamma} at steps {}", steps.join(", "))?;
            }
            Decay::Cosine { min } => write!(f, ", along a cosine to {min}")?,
        }
        match self.warmup {
            0 => Ok(()),
            steps => write!(f, ", warmed up over {steps} steps"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(decay: Decay, warmup: u64) -> LearningRate {
        LearningRate {
            base: 0.1,
            warmup,
            decay,
        }
    }

    #[test]
    fn multi_step_falls_at_its_milestones() {
        let rate = rate(
            Decay::MultiStep {
                milestones: vec![10, 20],
                gamma: 0.5,
            },
            0,
        );
        assert_eq!(
            [9, 10, 19, 20].map(|t| rate.at(t, 30)),
            [0.1, 0.05, 0.05, 0.025]
        );
    }

    #[test]
    fn cosine_starts_at_base_and_nears_min() {
        let rate = rate(Decay::Cosine { min: 0.01 }, 0);
        assert_eq!(rate.at(0, 100), 0.1);
        assert!((rate.at(50, 100) - 0.055).abs() < 1e-12);
        assert!(rate.at(99, 100) < 0.0101);
    }

    #[test]
    fn warm_up_is_linear_and_ends_at_base() {
        let rate = rate(Decay::Constant, 4);
        let close = |a: f64, b: f64| (a - b).abs() < 1e-15;
        assert!(close(rate.at(0, 10), 0.025));
        assert!(close(rate.at(3, 10), 0.1));
        assert_eq!(rate.at(4, 10), 0.1);
    }
}
