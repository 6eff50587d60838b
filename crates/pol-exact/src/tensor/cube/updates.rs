//! Updates of parameters (NUMERICS.md, "Updates"): those of many tensors in one launch.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::arithmetic::{divide, opaque, plus, plus_product, product, square_root};
use super::launch::{contiguous, cubes, dims, empty};
use crate::optim::{AdamRule, Momentum, SgdRule};
use crate::profile::Profile;

/// Tensors of one launch, at most.
const MOST: usize = 64;

/// Buffers of a kernel that are not tensors: scalars, sizes.
const OTHERS: usize = 2;

/// Tensors of one launch that binds `buffers` for each.
fn group(tensors: &[CubeTensor], buffers: usize) -> usize {
    let of = |tensor: &CubeTensor| tensor.client.properties().hardware.max_bindings as usize;
    let bindings = tensors.first().map_or(0, of);
    (bindings.saturating_sub(OTHERS) / buffers).clamp(1, MOST)
}

/// New tensors beside others.
fn beside(tensors: &[CubeTensor]) -> Vec<CubeTensor> {
    let of = |tensor: &CubeTensor| empty(tensor, &dims(tensor));
    tensors.iter().map(of).collect()
}

fn arguments(tensors: &[CubeTensor]) -> SequenceArg<Box<[f32]>> {
    let of = |tensor: &CubeTensor| tensor.clone().into_buffer_arg();
    tensors.iter().map(of).collect()
}

/// A unit for each value of these tensors.
fn units(tensors: &[CubeTensor]) -> (CubeCount, CubeDim) {
    let of = |tensor: &CubeTensor| tensor.meta.shape().num_elements();
    cubes(&tensors[0], tensors.iter().map(of).sum())
}

/// How an update by gradient descent runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct SgdKind {
    decays: bool,
    has_momentum: bool,
    has_velocity: bool,
    nesterov: bool,
    fused: bool,
}

pub(super) fn sgd(
    weights: Vec<CubeTensor>,
    gradients: Vec<CubeTensor>,
    velocities: Vec<CubeTensor>,
    rule: SgdRule,
    profile: Profile,
) -> [Vec<CubeTensor>; 2] {
    let all = [weights, gradients, velocities];
    let [weights, gradients, velocities] =
        all.map(|tensors| tensors.into_iter().map(contiguous).collect::<Vec<_>>());
    let momentum = rule.momentum.unwrap_or(Momentum {
        kept: 0.0,
        undamped: 0.0,
        nesterov: false,
    });
    let kind = SgdKind {
        decays: rule.decay.is_some(),
        has_momentum: rule.momentum.is_some(),
        has_velocity: !velocities.is_empty(),
        nesterov: momentum.nesterov,
        fused: profile.fused(),
    };
    let mut updated = [vec![], vec![]];
    let size = group(&weights, 5);
    for (index, weights) in weights.chunks(size).enumerate() {
        let first = index * size;
        let part = first..first + weights.len();
        let next = beside(weights);
        let moved = match kind.has_momentum {
            true => beside(weights),
            false => vec![],
        };
        let last = velocities.get(part.clone()).unwrap_or(&[]);
        let (cubes, dim) = units(weights);
        sgd_kernel::launch(
            &weights[0].client.clone(),
            cubes,
            dim,
            arguments(weights),
            arguments(&gradients[part]),
            arguments(last),
            arguments(&next),
            arguments(&moved),
            rule.rate,
            rule.decay.unwrap_or(0.0),
            momentum.kept,
            momentum.undamped,
            0,
            weights.len(),
            kind,
        );
        updated[0].extend(next);
        updated[1].extend(moved);
    }
    updated
}

pub(super) fn adam(
    weights: Vec<CubeTensor>,
    gradients: Vec<CubeTensor>,
    moments: [Vec<CubeTensor>; 2],
    rule: AdamRule,
    profile: Profile,
) -> [Vec<CubeTensor>; 3] {
    let [means, squares] = moments;
    let all = [weights, gradients, means, squares];
    let [weights, gradients, means, squares] =
        all.map(|tensors| tensors.into_iter().map(contiguous).collect::<Vec<_>>());
    let mut updated = [vec![], vec![], vec![]];
    let size = group(&weights, 7);
    for (index, weights) in weights.chunks(size).enumerate() {
        let first = index * size;
        let part = first..first + weights.len();
        let next = [(); 3].map(|()| beside(weights));
        let (cubes, dim) = units(weights);
        adam_kernel::launch(
            &weights[0].client.clone(),
            cubes,
            dim,
            arguments(weights),
            arguments(&gradients[part.clone()]),
            arguments(&means[part.clone()]),
            arguments(&squares[part]),
            arguments(&next[0]),
            arguments(&next[1]),
            arguments(&next[2]),
            rule.rate,
            rule.beta1,
            rule.rest1,
            rule.beta2,
            rule.rest2,
            rule.correction,
            rule.epsilon,
            rule.coupled_decay.unwrap_or(0.0),
            rule.kept,
            0,
            weights.len(),
            rule.coupled_decay.is_some(),
            profile.fused(),
        );
        for (updated, next) in updated.iter_mut().zip(next) {
            updated.extend(next);
        }
    }
    updated
}

#[cube]
fn value(values: &Box<[f32]>, at: usize) -> f32 {
    values[at]
}

#[cube]
fn put(values: &mut Box<[f32]>, at: usize, value: f32) {
    values[at] = value;
}

/// `a·ka ⊕ b·kb`: the first product is rounded, the second enters the sum.
#[cube]
fn blend(a: f32, ka: f32, b: f32, kb: f32, zero: u32, #[comptime] fused: bool) -> f32 {
    // Where ka is 1, the product may become a sum with its −0.
    plus_product(opaque(product(a, ka, zero), zero), b, kb, zero, fused)
}

#[cube(launch)]
fn sgd_kernel(
    weights: Sequence<Box<[f32]>>,
    gradients: Sequence<Box<[f32]>>,
    velocities: Sequence<Box<[f32]>>,
    mut next: Sequence<Box<[f32]>>,
    mut moved: Sequence<Box<[f32]>>,
    rate: f32,
    decay: f32,
    momentum: f32,
    undamped: f32,
    zero: u32,
    #[comptime] count: usize,
    #[comptime] kind: SgdKind,
) {
    // Where the tensor begins, counted in units.
    let mut first = 0usize.runtime();
    #[unroll]
    for i in 0..count {
        let len = weights.index(i).len();
        if ABSOLUTE_POS >= first && ABSOLUTE_POS < first + len {
            let at = ABSOLUTE_POS - first;
            let w = value(weights.index(i), at);
            let mut step = value(gradients.index(i), at);
            if comptime![kind.decays] {
                step = blend(step, 1.0f32, w, decay, zero, kind.fused);
            }
            if comptime![kind.has_momentum] {
                let mut velocity = step;
                if comptime![kind.has_velocity] {
                    velocity = blend(
                        step,
                        undamped,
                        value(velocities.index(i), at),
                        momentum,
                        zero,
                        kind.fused,
                    );
                }
                put(moved.index_mut(i), at, velocity);
                if comptime![kind.nesterov] {
                    step = blend(step, 1.0f32, velocity, momentum, zero, kind.fused);
                } else {
                    step = velocity;
                }
            }
            put(
                next.index_mut(i),
                at,
                blend(w, 1.0f32, step, -rate, zero, kind.fused),
            );
        }
        first += len;
    }
}

#[cube(launch)]
fn adam_kernel(
    weights: Sequence<Box<[f32]>>,
    gradients: Sequence<Box<[f32]>>,
    means: Sequence<Box<[f32]>>,
    squares: Sequence<Box<[f32]>>,
    mut next: Sequence<Box<[f32]>>,
    mut next_means: Sequence<Box<[f32]>>,
    mut next_squares: Sequence<Box<[f32]>>,
    rate: f32,
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    correction: f32,
    epsilon: f32,
    decay: f32,
    kept: f32,
    zero: u32,
    #[comptime] count: usize,
    #[comptime] decays: bool,
    #[comptime] fused: bool,
) {
    let mut first = 0usize.runtime();
    #[unroll]
    for i in 0..count {
        let len = weights.index(i).len();
        if ABSOLUTE_POS >= first && ABSOLUTE_POS < first + len {
            let at = ABSOLUTE_POS - first;
            let w = value(weights.index(i), at);
            let mut g = value(gradients.index(i), at);
            if comptime![decays] {
                g = blend(g, 1.0f32, w, decay, zero, fused);
            }
            let m = blend(value(means.index(i), at), beta1, g, rest1, zero, fused);
            let v = blend(
                value(squares.index(i), at),
                beta2,
                product(g, g, zero),
                rest2,
                zero,
                fused,
            );
            let numerator = product(m, correction, zero);
            let step = divide(numerator, plus(square_root(v), epsilon, zero));
            put(next_means.index_mut(i), at, m);
            put(next_squares.index_mut(i), at, v);
            put(
                next.index_mut(i),
                at,
                blend(w, kept, step, -rate, zero, fused),
            );
        }
        first += len;
    }
}
