//! The learning rate as a function of the step (SPEC.md §9).

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

/// The most milestones of a learning rate. Each costs a multiplication in every step.
pub const MAX_MILESTONES: usize = 1024;

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
        /// Steps in strictly ascending order.
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
                let passed = milestones.partition_point(|milestone| *milestone <= step);
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

    /// The runs of steps, of a training of `steps`, over each of which the rate only rises or only
    /// falls; in order. They take a time that is linear in the milestones.
    pub(crate) fn pieces(&self, steps: u64) -> Vec<Piece> {
        let warm = self.warmup.min(steps);
        let mut pieces = Vec::new();
        if warm > 0 {
            pieces.push(Piece {
                first: 0,
                end: warm,
                rates: (self.at(0, steps), self.at(warm - 1, steps)),
            });
        }
        if warm == steps {
            return pieces;
        }
        let Decay::MultiStep { milestones, gamma } = &self.decay else {
            pieces.push(Piece {
                first: warm,
                end: steps,
                rates: (self.at(warm, steps), self.at(steps - 1, steps)),
            });
            return pieces;
        };
        let (mut first, mut rate) = (warm, self.base);
        for &milestone in milestones.iter().filter(|milestone| **milestone < steps) {
            if milestone > first {
                pieces.push(Piece::constant(first, milestone, rate));
                first = milestone;
            }
            rate *= gamma;
        }
        pieces.push(Piece::constant(first, steps, rate));
        pieces
    }
}

/// A run of steps over which the rate only rises or only falls.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Piece {
    /// Its first step.
    pub(crate) first: u64,
    /// The step after its last.
    pub(crate) end: u64,
    /// The rates of its first and its last step.
    pub(crate) rates: (f64, f64),
}

impl Piece {
    fn constant(first: u64, end: u64, rate: f64) -> Self {
        Self {
            first,
            end,
            rates: (rate, rate),
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
    use proptest::prelude::*;

    fn rate(decay: Decay, warmup: u64) -> LearningRate {
        LearningRate {
            base: 0.1,
            warmup,
            decay,
        }
    }

    proptest! {
        #[test]
        fn pieces_cover_every_step_once_and_have_the_rates_at_their_ends(
            warmup in 0u64..20,
            steps in 1u64..60,
            kind in 0u8..3,
            milestones in prop::collection::btree_set(0u64..80, 0..5),
            x in 0.0f64..1.0,
        ) {
            let decay = match kind {
                0 => Decay::Constant,
                1 => Decay::MultiStep { milestones: milestones.into_iter().collect(), gamma: x },
                _ => Decay::Cosine { min: 0.1 * x },
            };
            let rate = rate(decay, warmup);
            let mut next = 0;
            for Piece { first, end, rates } in rate.pieces(steps) {
                prop_assert_eq!(first, next);
                prop_assert!(end > first);
                prop_assert_eq!(rates, (rate.at(first, steps), rate.at(end - 1, steps)));
                next = end;
            }
            prop_assert_eq!(next, steps);
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
