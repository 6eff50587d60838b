//! What weight decay alone does to a weight that has no gradient (SPEC.md §16).
//!
//! With s = rate · weight decay, such a weight follows w(t + 1) = τ w(t) − δ w(t − 1), where
//!
//! | update rule | τ | δ |
//! |---|---|---|
//! | SGD, momentum μ, dampening d | 1 + μ − (1 − d) s | μ |
//! | SGD with Nesterov's look-ahead | (1 + μ)(1 − s) | μ (1 − s) |
//! | SGD without momentum, AdamW | 1 − s | 0 |
//!
//! It goes to zero without swinging if both roots of z² − τ z + δ are in [0, 1), which they are if
//! √((1 − d) s) is at most 1 − √μ, with look-ahead if √s is at most (1 − μ) / (1 + μ). The greater root
//! is then the share of the weight that is left after each step.

use crate::recipe::Optimizer;

/// What decay alone does, at one learning rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct DecayAlone {
    /// τ.
    trace: f64,
    /// δ.
    determinant: f64,
    /// The square root of s, or of (1 − d) s.
    pull: f64,
    /// The greatest `pull` without a swing.
    critical: f64,
}

impl DecayAlone {
    /// `None` where this is not known: for a custom rule, and for Adam, whose decay is a part of the
    /// gradient and so divided by that weight's own second moment. It moves a weight that has no
    /// other gradient by about the rate in each step, however small the decay is.
    pub(super) fn of(optimizer: &Optimizer, rate: f64) -> Option<Self> {
        match *optimizer {
            Optimizer::Sgd {
                momentum,
                dampening,
                weight_decay,
                nesterov,
            } => {
                let strength = rate * weight_decay;
                Some(match nesterov {
                    false => {
                        // Without a velocity nothing is dampened.
                        let undampened = if momentum == 0.0 {
                            1.0
                        } else {
                            1.0 - dampening
                        };
                        Self {
                            trace: 1.0 + momentum - undampened * strength,
                            determinant: momentum,
                            pull: (undampened * strength).sqrt(),
                            critical: 1.0 - momentum.sqrt(),
                        }
                    }
                    true => Self {
                        trace: (1.0 + momentum) * (1.0 - strength),
                        determinant: momentum * (1.0 - strength),
                        pull: strength.sqrt(),
                        critical: (1.0 - momentum) / (1.0 + momentum),
                    },
                })
            }
            Optimizer::AdamW { weight_decay, .. } => {
                let strength = rate * weight_decay;
                Some(Self {
                    trace: 1.0 - strength,
                    determinant: 0.0,
                    pull: strength.sqrt(),
                    critical: 1.0,
                })
            }
            Optimizer::Adam { .. } | Optimizer::Custom(_) => None,
        }
    }

    /// The damping ratio: below 1 the weight swings around zero; infinite without decay.
    pub(super) fn damping(&self) -> f64 {
        match self.pull == 0.0 {
            true => f64::INFINITY,
            false => self.critical / self.pull,
        }
    }

    /// The share of the weight that is left after `steps` steps; 0 if it swings.
    pub(super) fn retained(&self, steps: u64) -> f64 {
        if self.pull == 0.0 {
            return 1.0;
        }
        // A damping ratio that is no number retains nothing either.
        if !matches!(self.damping().partial_cmp(&1.0), Some(order) if order.is_ge()) {
            return 0.0;
        }
        let Self {
            trace, determinant, ..
        } = *self;
        // At the critical ratio rounding may leave less than zero.
        let discriminant = (trace * trace - 4.0 * determinant).max(0.0);
        let greater_root = (trace + discriminant.sqrt()) / 2.0;
        libm::pow(greater_root, steps as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sgd(momentum: f64, dampening: f64, weight_decay: f64, nesterov: bool) -> Optimizer {
        Optimizer::Sgd {
            momentum,
            dampening,
            weight_decay,
            nesterov,
        }
    }

    /// The weight after each of `steps` steps of SGD (SPEC.md §9), from 1, at rest, and without any
    /// gradient.
    fn path(optimizer: &Optimizer, rate: f64, steps: u64) -> Vec<f64> {
        let &Optimizer::Sgd {
            momentum,
            dampening,
            weight_decay,
            nesterov,
        } = optimizer
        else {
            panic!("not SGD");
        };
        let (mut w, mut v) = (1.0, 0.0);
        let step = |_| {
            let g = weight_decay * w;
            v = momentum * v + (1.0 - dampening) * g;
            w -= rate * if nesterov { momentum * v + g } else { v };
            w
        };
        (0..steps).map(step).collect()
    }

    proptest! {
        /// By the recursion itself, away from the edge: what is critically damped or more never
        /// changes its sign, and what is not does.
        #[test]
        fn a_weight_swings_if_and_only_if_its_damping_ratio_is_below_one(
            momentum in 0.05f64..0.97,
            dampening in 0.0f64..0.5,
            nesterov in any::<bool>(),
            share in prop_oneof![0.1f64..0.9, 1.2f64..3.0],
        ) {
            let dampening = if nesterov { 0.0 } else { dampening };
            let critical = match nesterov {
                true => (1.0 - momentum) / (1.0 + momentum),
                false => 1.0 - momentum.sqrt(),
            };
            // The pull that is `share` of the critical one, at rate 1.
            let decay = (share * critical).powi(2) / (1.0 - dampening);
            let optimizer = sgd(momentum, dampening, decay, nesterov);
            let alone = DecayAlone::of(&optimizer, 1.0).unwrap();
            prop_assert!((alone.damping() * share - 1.0).abs() < 1e-9);
            let swings = path(&optimizer, 1.0, 5000).iter().any(|w| *w < -1e-200);
            prop_assert_eq!(swings, share > 1.0);
            prop_assert_eq!(alone.retained(1) == 0.0, share > 1.0);
        }

        /// Once the velocity is that of the decay, each step leaves the same share.
        #[test]
        fn the_share_left_is_that_of_the_recursion(
            momentum in 0.0f64..0.95,
            nesterov in any::<bool>(),
            share in 0.05f64..0.9,
        ) {
            let nesterov = nesterov && momentum > 0.0;
            let decay = (share * (1.0 - momentum.sqrt())).powi(2);
            let optimizer = sgd(momentum, 0.0, decay, nesterov);
            let alone = DecayAlone::of(&optimizer, 1.0).unwrap();
            let path = path(&optimizer, 1.0, 400);
            let (before, after) = (path[360], path[370]);
            prop_assume!(before > 1e-200);
            prop_assert!((after / before / alone.retained(10) - 1.0).abs() < 1e-3);
        }
    }

    #[test]
    fn adam_w_decays_without_a_velocity_and_adam_is_not_known() {
        let constants = (0.9, 0.999, 1e-8, 0.5);
        let (beta1, beta2, epsilon, weight_decay) = constants;
        let decoupled = Optimizer::AdamW {
            beta1,
            beta2,
            epsilon,
            weight_decay,
        };
        let alone = DecayAlone::of(&decoupled, 0.1).unwrap();
        assert!((alone.retained(2) - 0.95 * 0.95).abs() < 1e-12);
        assert!((alone.damping() - 1.0 / 0.05f64.sqrt()).abs() < 1e-12);
        let coupled = Optimizer::Adam {
            beta1,
            beta2,
            epsilon,
            weight_decay,
        };
        assert_eq!(DecayAlone::of(&coupled, 0.1), None);
    }

    #[test]
    fn what_is_no_number_retains_nothing() {
        for rate in [f64::NAN, -1.0, f64::INFINITY] {
            let alone = DecayAlone::of(&sgd(0.9, 0.0, 0.1, false), rate).unwrap();
            assert_eq!(alone.retained(1), 0.0, "{rate}");
        }
    }
}
