//! Cross-entropy of scores.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::arithmetic::{divide, ended, exponential, logarithm, plus, plus_product};
use super::launch::{dims, launch, shares_memory};
use super::sums::column_sums;
use crate::profile::Profile;

pub(super) fn cross_entropy(
    scores: CubeTensor,
    targets: CubeTensor,
    profile: Profile,
) -> CubeTensor {
    let (rows, classes) = (dims(&scores)[0], dims(&scores)[1]);
    let losses = launch!(
        row_losses::launch, scores, targets; [rows, 1];
        0, classes, profile.fused()
    );
    let sum = match shares_memory(&losses) {
        true => column_sums(losses),
        false => super::plain::norm::column_sums(losses),
    };
    launch!(negated_mean::launch, sum; [1]; rows as f32)
}

pub(super) fn cross_entropy_backward(
    scores: CubeTensor,
    targets: CubeTensor,
    dloss: CubeTensor,
    profile: Profile,
) -> CubeTensor {
    let shape = dims(&scores);
    launch!(
        gradients::launch, scores, targets, dloss; shape;
        shape[0] as f32, 0, shape[1], profile.fused()
    )
}

#[cube]
fn greatest(scores: &[f32], first: usize, #[comptime] classes: usize) -> f32 {
    let mut best = scores[first];
    for c in 1..classes {
        if scores[first + c] > best {
            best = scores[first + c];
        }
    }
    best
}

#[cube]
fn total(
    scores: &[f32],
    first: usize,
    most: f32,
    zero: u32,
    #[comptime] classes: usize,
    #[comptime] fused: bool,
) -> f32 {
    let mut sum = f32::reinterpret(zero);
    for c in 0..classes {
        let score = plus(scores[first + c], -most, zero);
        sum = plus(sum, exponential(score, zero, fused), zero);
    }
    sum
}

#[cube(launch)]
fn row_losses(
    scores: &[f32],
    targets: &[f32],
    losses: &mut [f32],
    zero: u32,
    #[comptime] classes: usize,
    #[comptime] fused: bool,
) {
    if ABSOLUTE_POS < losses.len() {
        let first = ABSOLUTE_POS * classes;
        let most = greatest(scores, first, classes);
        let log_total = logarithm(
            total(scores, first, most, zero, classes, fused),
            zero,
            fused,
        );
        let mut sum = f32::reinterpret(zero);
        for c in 0..classes {
            let log_share = plus(plus(scores[first + c], -most, zero), -log_total, zero);
            sum = plus_product(sum, log_share, targets[first + c], zero, fused);
        }
        losses[ABSOLUTE_POS] = ended(sum, zero);
    }
}

#[cube(launch)]
fn negated_mean(sum: &[f32], loss: &mut [f32], count: f32) {
    if ABSOLUTE_POS < loss.len() {
        loss[ABSOLUTE_POS] = divide(-sum[ABSOLUTE_POS], count);
    }
}

#[cube(launch)]
fn gradients(
    scores: &[f32],
    targets: &[f32],
    dloss: &[f32],
    gradient: &mut [f32],
    count: f32,
    zero: u32,
    #[comptime] classes: usize,
    #[comptime] fused: bool,
) {
    if ABSOLUTE_POS < gradient.len() {
        let first = ABSOLUTE_POS / classes * classes;
        let most = greatest(scores, first, classes);
        let total = total(scores, first, most, zero, classes, fused);
        let mut mass = f32::reinterpret(zero);
        for c in 0..classes {
            mass = plus(mass, targets[first + c], zero);
        }
        let score = plus(scores[ABSOLUTE_POS], -most, zero);
        let share = divide(exponential(score, zero, fused), total);
        let difference = plus_product(-targets[ABSOLUTE_POS], share, mass, zero, fused);
        gradient[ABSOLUTE_POS] = difference * divide(dloss[0], count);
    }
}
