//! Burn's update rules with a defined order of operations.

use std::collections::BTreeMap;

use burn::backend::DispatchTensor;
use burn::optim::{
    AdamState, AdaptiveMomentumState, DynState, LearningRate, Optimizer, RecordState, StateSink,
    StateSource,
};
use burn::tensor::kind::BridgeTensor;
use burn::tensor::{Device, Tensor};

use super::backend::{UpdateRule, updated};
use super::exact::Exact;
use crate::optim::{AdamConstants, Momentum, SgdRule};

/// A parameter of a model, and what an update of it needs.
pub struct Parameter {
    /// Dimensions of the weight, 1 to 6.
    pub rank: usize,
    /// The weight.
    pub weight: BridgeTensor,
    /// Its gradient.
    pub gradient: BridgeTensor,
    /// What the optimizer keeps of it, from its second update on.
    pub state: Option<DynState>,
}

/// An optimizer that updates all parameters of a model together: on a GPU in a few launches.
pub trait Jointly: Optimizer {
    /// The next weight and state of each parameter, the bits that [`Optimizer::step`] gives.
    ///
    /// # Panics
    /// If a state is another optimizer's, or a rank is not between 1 and 6.
    fn step_all(
        &self,
        rate: LearningRate,
        parameters: Vec<Parameter>,
    ) -> Vec<(BridgeTensor, DynState)>;
}

/// Runs the body with a constant in place of a rank.
macro_rules! with_rank {
    ($rank:expr, $d:ident => $body:expr) => {
        with_rank!(@ $rank, $d, $body, 1 2 3 4 5 6)
    };
    (@ $rank:expr, $d:ident, $body:expr, $($k:literal)*) => {
        match $rank {
            $($k => {
                const $d: usize = $k;
                $body
            })*
            rank => panic!("a parameter has {rank} dimensions"),
        }
    };
}

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

impl ExactSgd {
    fn rule(&self, rate: LearningRate) -> SgdRule {
        SgdRule {
            rate: rate as f32,
            decay: (self.weight_decay != 0.0).then_some(self.weight_decay as f32),
            momentum: (self.momentum != 0.0).then_some(Momentum {
                kept: self.momentum as f32,
                undamped: (1.0 - self.dampening) as f32,
                nesterov: self.nesterov,
            }),
        }
    }

    /// The next weight and velocity of each `[weight, gradient, velocity]`.
    fn update(
        &self,
        rate: LearningRate,
        parameters: Vec<Vec<DispatchTensor>>,
    ) -> Vec<(DispatchTensor, Option<DispatchTensor>)> {
        let rule = UpdateRule::Sgd(self.rule(rate));
        // Those without a velocity are at their first step.
        let next = together(parameters, Vec::len, |_, parameters| {
            updated(rule, self.exact.profile(), parameters)
        });
        let each = next.into_iter().map(Vec::into_iter);
        each.filter_map(|mut tensors| Some((tensors.next()?, tensors.next())))
            .collect()
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
        let velocity = state.and_then(|state| state.velocity);
        let operands = [w, gradient].into_iter().chain(velocity);
        let one = operands.map(Tensor::into_dispatch).collect();
        let mut updated = self.update(rate, vec![one]);
        let (w, velocity) = updated.swap_remove(0);
        let velocity = velocity.map(Tensor::from_dispatch);
        (Tensor::from_dispatch(w), Some(SgdState { velocity }))
    }

    fn to_device<const D: usize>(mut state: SgdState<D>, device: &Device) -> SgdState<D> {
        state.velocity = state.velocity.map(|velocity| velocity.to_device(device));
        state
    }
}

impl Jointly for ExactSgd {
    fn step_all(
        &self,
        rate: LearningRate,
        parameters: Vec<Parameter>,
    ) -> Vec<(BridgeTensor, DynState)> {
        let ranks: Vec<_> = parameters.iter().map(|parameter| parameter.rank).collect();
        let all = parameters.into_iter().map(|parameter| {
            let velocity = parameter.state.and_then(|state| {
                with_rank!(parameter.rank, D => {
                    state.downcast::<SgdState<D>>().velocity.map(Tensor::into_dispatch)
                })
            });
            let operands = [parameter.weight.into(), parameter.gradient.into()];
            operands.into_iter().chain(velocity).collect()
        });
        let updated = self.update(rate, all.collect());
        (updated.into_iter().zip(ranks))
            .map(|((weight, velocity), rank)| {
                let state = with_rank!(rank, D => {
                    let velocity = velocity.map(Tensor::from_dispatch);
                    DynState::create(SgdState::<D> { velocity }, D)
                });
                (BridgeTensor::float(weight), state)
            })
            .collect()
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

/// The moments of a parameter, and how many steps they have seen.
struct Moments {
    time: usize,
    mean: DispatchTensor,
    square: DispatchTensor,
}

impl Moments {
    /// Those of `last`, or none yet.
    fn of<const D: usize>(last: Option<AdamState<D>>, like: &Tensor<D>) -> Self {
        let (time, mean, square) = match last.map(|last| last.momentum) {
            Some(last) => (last.time, last.moment_1, last.moment_2),
            None => (0, Tensor::zeros_like(like), Tensor::zeros_like(like)),
        };
        Self {
            time,
            mean: mean.into_dispatch(),
            square: square.into_dispatch(),
        }
    }

    fn into_state<const D: usize>(self) -> AdamState<D> {
        AdamState::new(AdaptiveMomentumState {
            time: self.time,
            moment_1: Tensor::from_dispatch(self.mean),
            moment_2: Tensor::from_dispatch(self.square),
            max_moment_2: None,
        })
    }
}

impl ExactAdam {
    /// The next weight and moments of each `(weight, gradient, moments)`.
    fn update(
        &self,
        rate: LearningRate,
        parameters: Vec<(DispatchTensor, DispatchTensor, Moments)>,
    ) -> Vec<(DispatchTensor, Moments)> {
        let time_of = |(_, _, moments): &(_, _, Moments)| moments.time + 1;
        together(parameters, time_of, |time, parameters| {
            let rule = UpdateRule::Adam(self.constants.rule(rate, time as u64));
            let operands = (parameters.into_iter())
                .map(|(weight, gradient, last)| vec![weight, gradient, last.mean, last.square]);
            let next = updated(rule, self.exact.profile(), operands.collect());
            let each = next.into_iter().map(Vec::into_iter);
            each.filter_map(|mut tensors| {
                let weight = tensors.next()?;
                let (mean, square) = (tensors.next()?, tensors.next()?);
                Some((weight, Moments { time, mean, square }))
            })
            .collect()
        })
    }
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
        let moments = Moments::of(state, &w);
        let one = vec![(w.into_dispatch(), gradient.into_dispatch(), moments)];
        let mut updated = self.update(rate, one);
        let (w, moments) = updated.swap_remove(0);
        (Tensor::from_dispatch(w), Some(moments.into_state()))
    }

    fn to_device<const D: usize>(mut state: AdamState<D>, device: &Device) -> AdamState<D> {
        state.momentum = state.momentum.to_device(device);
        state
    }
}

impl Jointly for ExactAdam {
    fn step_all(
        &self,
        rate: LearningRate,
        parameters: Vec<Parameter>,
    ) -> Vec<(BridgeTensor, DynState)> {
        let ranks: Vec<_> = parameters.iter().map(|parameter| parameter.rank).collect();
        let all = parameters.into_iter().map(|parameter| {
            with_rank!(parameter.rank, D => {
                let last = parameter.state.map(DynState::downcast::<AdamState<D>>);
                let weight = Tensor::<D>::from_bridge(parameter.weight);
                let moments = Moments::of(last, &weight);
                (weight.into_dispatch(), parameter.gradient.into(), moments)
            })
        });
        let updated = self.update(rate, all.collect());
        (updated.into_iter().zip(ranks))
            .map(|((weight, moments), rank)| {
                let state = with_rank!(rank, D => DynState::create(moments.into_state::<D>(), D));
                (BridgeTensor::float(weight), state)
            })
            .collect()
    }
}

/// Applies `update` to all that have the same key at once; the results are in the order of `all`.
fn together<T, K: Ord, R>(
    all: Vec<T>,
    key: impl Fn(&T) -> K,
    update: impl Fn(K, Vec<T>) -> Vec<R>,
) -> Vec<R> {
    let mut groups: BTreeMap<K, (Vec<usize>, Vec<T>)> = BTreeMap::new();
    for (index, one) in all.into_iter().enumerate() {
        let group = groups.entry(key(&one)).or_default();
        group.0.push(index);
        group.1.push(one);
    }
    let mut updated: Vec<_> = (groups.into_iter())
        .flat_map(|(key, (indices, group))| indices.into_iter().zip(update(key, group)))
        .collect();
    updated.sort_by_key(|(index, _)| *index);
    updated.into_iter().map(|(_, updated)| updated).collect()
}
