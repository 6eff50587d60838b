//! Update rules as constants in binary32.

/// Stochastic gradient descent with the constants of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SgdRule {
    /// Learning rate.
    pub rate: f32,
    /// Added to the gradient, times the weight.
    pub decay: Option<f32>,
    /// The velocity's; without it there is no velocity.
    pub momentum: Option<Momentum>,
}

/// How a velocity follows the gradients.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Momentum {
    /// μ.
    pub kept: f32,
    /// 1 − dampening.
    pub undamped: f32,
    /// Nesterov's look-ahead.
    pub nesterov: bool,
}

/// Adam with the constants of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamRule {
    /// Learning rate.
    pub rate: f32,
    /// β₁.
    pub beta1: f32,
    /// 1 − β₁.
    pub rest1: f32,
    /// β₂.
    pub beta2: f32,
    /// 1 − β₂.
    pub rest2: f32,
    /// √(1 − β₂ᵗ) / (1 − β₁ᵗ).
    pub correction: f32,
    /// ε·√(1 − β₂ᵗ).
    pub epsilon: f32,
    /// Adam: added to the gradient, times the weight.
    pub coupled_decay: Option<f32>,
    /// AdamW: the weight is multiplied by this first; 1 for Adam.
    pub kept: f32,
}

/// The constants of Adam that don't change.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamConstants {
    /// β₁.
    pub beta1: f64,
    /// β₂.
    pub beta2: f64,
    /// ε.
    pub epsilon: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Whether the decay is AdamW's.
    pub decoupled: bool,
}

impl AdamConstants {
    /// The rule of step `time`, from 1, computed in binary64 and rounded once.
    pub fn rule(&self, rate: f64, time: u64) -> AdamRule {
        let correction2 = (1.0 - power(self.beta2, time)).sqrt();
        let decay = self.weight_decay;
        AdamRule {
            rate: rate as f32,
            beta1: self.beta1 as f32,
            rest1: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            rest2: (1.0 - self.beta2) as f32,
            correction: (correction2 / (1.0 - power(self.beta1, time))) as f32,
            epsilon: (self.epsilon * correction2) as f32,
            coupled_decay: (!self.decoupled && decay != 0.0).then_some(decay as f32),
            kept: if self.decoupled {
                (1.0 - rate * decay) as f32
            } else {
                1.0
            },
        }
    }
}

/// `base^exponent` by squaring from the lowest bit: one order of multiplications everywhere.
fn power(base: f64, mut exponent: u64) -> f64 {
    let (mut result, mut square) = (1.0, base);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result *= square;
        }
        square *= square;
        exponent >>= 1;
    }
    result
}
