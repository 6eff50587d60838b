//! Batch normalisation.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::arithmetic::{divide, plus, plus_product, positive, product, square_root};
use super::elementwise::{multiply_kernel, relu_gradient};
use super::launch::{contiguous, dims, launch};
use super::sums::{column_sums, tree};
use crate::profile::Profile;
use crate::shape::rows_per_block;
use crate::tensor::backend::{NormGradients, NormOptions};

pub(super) fn statistics(x: CubeTensor, profile: Profile) -> CubeTensor {
    let x = contiguous(x);
    let shape = dims(&x);
    let (width, block) = (shape.last().copied().unwrap_or(1), rows_per_block(&shape));
    let rows = x.meta.shape().num_elements() / width.max(1);
    let blocks = rows.div_ceil(block).max(1);
    let sums = column_sums(x.clone(), block);
    let mean = launch!(over_count::launch, sums; [width]; rows as f32);
    let squares = launch!(
        square_sums::launch, x, mean.clone(); [blocks, width];
        rows, 0, width, block, profile.fused()
    );
    let variance = launch!(over_count::launch, tree(squares, width); [width]; rows as f32);
    launch!(joined::launch, mean, variance; [2, width]; width)
}

pub(super) fn normalise(
    x: CubeTensor,
    gamma: CubeTensor,
    beta: CubeTensor,
    statistics: CubeTensor,
    shortcut: Option<CubeTensor>,
    options: NormOptions,
) -> CubeTensor {
    let shape = dims(&x);
    let width = shape.last().copied().unwrap_or(1);
    let factors = factors(gamma, statistics.clone(), options.epsilon, width);
    let adds = shortcut.is_some();
    let added = shortcut.unwrap_or_else(|| x.clone());
    let fused = options.profile.fused();
    launch!(
        normalise_kernel::launch, x, statistics, factors, beta, added; shape;
        0, width, adds, options.rectified, fused
    )
}

pub(super) fn backward(
    dy: CubeTensor,
    x: CubeTensor,
    y: Option<CubeTensor>,
    gamma: CubeTensor,
    statistics: CubeTensor,
    with_shortcut: bool,
    options: NormOptions,
) -> NormGradients<CubeTensor> {
    let (dy, x) = (contiguous(dy), contiguous(x));
    let shape = dims(&x);
    let (width, block) = (shape.last().copied().unwrap_or(1), rows_per_block(&shape));
    let rows = x.meta.shape().num_elements() / width.max(1);
    let blocks = rows.div_ceil(block).max(1);
    let fused = options.profile.fused();
    // Where nothing was rectified, everything passes.
    let dz = match y {
        Some(y) => relu_gradient(dy, y),
        None => dy,
    };
    let factors = factors(gamma, statistics.clone(), options.epsilon, width);
    let beta = column_sums(dz.clone(), block);
    let products = launch!(
        product_sums::launch, dz.clone(), x.clone(), statistics.clone(); [blocks, width];
        rows, 0, width, block, fused
    );
    let raw = tree(products, width);
    let gamma = launch!(multiply_kernel::launch, raw, factors.clone(); [width];);
    let slopes = launch!(
        slopes_kernel::launch, beta.clone(), gamma.clone(), factors.clone(); [2, width];
        rows as f32, 0, width, options.fixed
    );
    let dx = launch!(
        input_kernel::launch, dz.clone(), x, statistics, factors, slopes; shape;
        0, width, fused
    );
    NormGradients {
        x: dx,
        gamma,
        beta,
        shortcut: with_shortcut.then_some(dz),
    }
}

/// `[2, width]`: one over the deviation, and γ times it.
fn factors(gamma: CubeTensor, statistics: CubeTensor, epsilon: f32, width: usize) -> CubeTensor {
    launch!(factors_kernel::launch, gamma, statistics; [2, width]; epsilon, width)
}

#[cube(launch)]
fn over_count(sums: &[f32], means: &mut [f32], count: f32) {
    if ABSOLUTE_POS < means.len() {
        means[ABSOLUTE_POS] = divide(sums[ABSOLUTE_POS], count);
    }
}

#[cube(launch)]
fn joined(first: &[f32], second: &[f32], both: &mut [f32], #[comptime] width: usize) {
    if ABSOLUTE_POS < both.len() {
        let mut value = first[ABSOLUTE_POS % width];
        if ABSOLUTE_POS >= width {
            value = second[ABSOLUTE_POS % width];
        }
        both[ABSOLUTE_POS] = value;
    }
}

#[cube(launch)]
fn square_sums(
    x: &[f32],
    mean: &[f32],
    sums: &mut [f32],
    rows: usize,
    zero: u32,
    #[comptime] width: usize,
    #[comptime] block: usize,
    #[comptime] fused: bool,
) {
    if ABSOLUTE_POS < sums.len() {
        let column = ABSOLUTE_POS % width;
        let first = ABSOLUTE_POS / width * block;
        let mean = mean[column];
        let mut sum = 0.0f32.runtime();
        for row in first..min(first + block, rows) {
            let centred = plus(x[row * width + column], -mean, zero);
            sum = plus_product(sum, centred, centred, zero, fused);
        }
        sums[ABSOLUTE_POS] = sum;
    }
}

#[cube(launch)]
fn product_sums(
    dz: &[f32],
    x: &[f32],
    statistics: &[f32],
    sums: &mut [f32],
    rows: usize,
    zero: u32,
    #[comptime] width: usize,
    #[comptime] block: usize,
    #[comptime] fused: bool,
) {
    if ABSOLUTE_POS < sums.len() {
        let column = ABSOLUTE_POS % width;
        let first = ABSOLUTE_POS / width * block;
        let mean = statistics[column];
        let mut sum = 0.0f32.runtime();
        for row in first..min(first + block, rows) {
            let at = row * width + column;
            sum = plus_product(sum, dz[at], plus(x[at], -mean, zero), zero, fused);
        }
        sums[ABSOLUTE_POS] = sum;
    }
}

#[cube(launch)]
fn factors_kernel(
    gamma: &[f32],
    statistics: &[f32],
    factors: &mut [f32],
    epsilon: f32,
    #[comptime] width: usize,
) {
    if ABSOLUTE_POS < factors.len() {
        let column = ABSOLUTE_POS % width;
        let deviation = square_root(statistics[width + column] + epsilon);
        let mut factor = divide(1.0f32.runtime(), deviation);
        if ABSOLUTE_POS >= width {
            factor *= gamma[column];
        }
        factors[ABSOLUTE_POS] = factor;
    }
}

/// `[2, width]`: the mean of β's gradient, and that of γ's over the deviation.
#[cube(launch)]
fn slopes_kernel(
    beta: &[f32],
    gamma: &[f32],
    factors: &[f32],
    slopes: &mut [f32],
    count: f32,
    zero: u32,
    #[comptime] width: usize,
    #[comptime] fixed: bool,
) {
    if ABSOLUTE_POS < slopes.len() {
        let mut slope = 0.0f32.runtime();
        if comptime![!fixed] {
            let column = ABSOLUTE_POS % width;
            if ABSOLUTE_POS < width {
                slope = divide(beta[column], count);
            } else {
                slope = divide(product(gamma[column], factors[column], zero), count);
            }
        }
        slopes[ABSOLUTE_POS] = slope;
    }
}

#[cube(launch)]
fn normalise_kernel(
    x: &[f32],
    statistics: &[f32],
    factors: &[f32],
    beta: &[f32],
    added: &[f32],
    y: &mut [f32],
    zero: u32,
    #[comptime] width: usize,
    #[comptime] adds: bool,
    #[comptime] rectified: bool,
    #[comptime] fused: bool,
) {
    if ABSOLUTE_POS < y.len() {
        let column = ABSOLUTE_POS % width;
        let centred = plus(x[ABSOLUTE_POS], -statistics[column], zero);
        let mut value = plus_product(beta[column], centred, factors[width + column], zero, fused);
        if comptime![adds] {
            value += added[ABSOLUTE_POS];
        }
        if comptime![rectified] {
            value = positive(value);
        }
        y[ABSOLUTE_POS] = value;
    }
}

#[cube(launch)]
fn input_kernel(
    dz: &[f32],
    x: &[f32],
    statistics: &[f32],
    factors: &[f32],
    slopes: &[f32],
    dx: &mut [f32],
    zero: u32,
    #[comptime] width: usize,
    #[comptime] fused: bool,
) {
    if ABSOLUTE_POS < dx.len() {
        let column = ABSOLUTE_POS % width;
        let centred = plus(x[ABSOLUTE_POS], -statistics[column], zero);
        let rest = plus(dz[ABSOLUTE_POS], -slopes[column], zero);
        let slope = plus_product(rest, -centred, slopes[width + column], zero, fused);
        dx[ABSOLUTE_POS] = factors[width + column] * slope;
    }
}
