//! Burn's update rules with a defined order of operations.

use burn::optim::{
    AdamState, AdaptiveMomentumState, LearningRate, Optimizer, RecordState, StateSink, StateSource,
};
use burn::tensor::{Device, Tensor};

use super::exact::Exact;
use crate::optim::AdamConstants;

/// Stochastic gradient descent with momentum and coupled weight decay, as Burn's `Sgd`
/// (NUMERICS.md, "Updates").
#[derive(Debug, Clone)]
pub struct ExactSgd {
    /// The operators.
    pub exact: Exact,
    /// μ; no velocity is kept where it is zero.
    pub momentum: f64,
    /// Taken off the gradient's share in the velocity.
    pub dampening: f64,
    /// L2 penalty.
    pub weight_decay: f64,
    /// Nesterov's look-ahead.
    pub nesterov: bool,
}

/// The state of [`ExactSgd`], recorded under the names of Burn's `SgdState`.
#[derive(Clone)]
pub struct SgdState<const D: usize> {
    /// Absent without momentum.
    velocity: Option<Tensor<D>>,
}

impl<const D: usize> RecordState for SgdState<D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        if let Some(velocity) = &self.velocity {
            out.push_tensor(prefix, "momentum.velocity", velocity.to_data());
        }
    }

    fn state_unflatten(prefix: &str, src: &mut StateSource, device: &Device) -> Option<Self> {
        let data = src.take_tensor(prefix, "momentum.velocity");
        let velocity = data.map(|data| Tensor::from_data(data, device));
        Some(Self { velocity })
    }
}

impl Optimizer for ExactSgd {
    type State<const D: usize> = SgdState<D>;

    fn step<const D: usize>(
        &self,
        rate: LearningRate,
        w: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<SgdState<D>>,
    ) -> (Tensor<D>, Option<SgdState<D>>) {
        let exact = self.exact;
        let mut step = gradient;
        if self.weight_decay != 0.0 {
            step = exact.blend(step, 1.0, w.clone(), self.weight_decay as f32);
        }
        let mut kept = None;
        if self.momentum != 0.0 {
            let momentum = self.momentum as f32;
            let velocity = match state.and_then(|state| state.velocity) {
                None => step.clone(),
                Some(last) => {
                    let undamped = (1.0 - self.dampening) as f32;
                    exact.blend(step.clone(), undamped, last, momentum)
                }
            };
            step = match self.nesterov {
                true => exact.blend(step, 1.0, velocity.clone(), momentum),
                false => velocity.clone(),
            };
            kept = Some(velocity);
        }
        let w = exact.blend(w, 1.0, step, -(rate as f32));
        (w, Some(SgdState { velocity: kept }))
    }

    fn to_device<const D: usize>(mut state: SgdState<D>, device: &Device) -> SgdState<D> {
        state.velocity = state.velocity.map(|velocity| velocity.to_device(device));
        state
    }
}

/// Adam, with coupled or decoupled weight decay, as Burn's `Adam` and `AdamW` (NUMERICS.md,
/// "Updates").
#[derive(Debug, Clone)]
pub struct ExactAdam {
    /// The operators.
    pub exact: Exact,
    /// The constants.
    pub constants: AdamConstants,
}

impl Optimizer for ExactAdam {
    type State<const D: usize> = AdamState<D>;

    fn step<const D: usize>(
        &self,
        rate: LearningRate,
        w: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<AdamState<D>>,
    ) -> (Tensor<D>, Option<AdamState<D>>) {
        let exact = self.exact;
        let last = state.map(|state| state.momentum);
        let time = last.as_ref().map_or(0, |last| last.time) + 1;
        let rule = self.constants.rule(rate, time as u64);
        let mut g = gradient;
        if rule.coupled_decay != 0.0 {
            g = exact.blend(g, 1.0, w.clone(), rule.coupled_decay);
        }
        let square = exact.multiply(g.clone(), g.clone());
        let (m, v) = match last {
            Some(last) => (last.moment_1, last.moment_2),
            None => (Tensor::zeros_like(&g), Tensor::zeros_like(&g)),
        };
        let m = exact.blend(m, rule.beta1, g, rule.rest1);
        let v = exact.blend(v, rule.beta2, square, rule.rest2);
        let step = exact.adam_step(m.clone(), v.clone(), rule.correction, rule.epsilon);
        let w = exact.blend(w, rule.kept, step, -rule.rate);
        let momentum = AdaptiveMomentumState {
            time,
            moment_1: m,
            moment_2: v,
            max_moment_2: None,
        };
        (w, Some(AdamState::new(momentum)))
    }

    fn to_device<const D: usize>(mut state: AdamState<D>, device: &Device) -> AdamState<D> {
        state.momentum = state.momentum.to_device(device);
        state
    }
}
