//! Batch normalisation, with a unit for each value.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::super::arithmetic::{divide, firm, plus, plus_product, positive, product, square_root};
use super::super::elementwise::{multiply_kernel, relu_gradient};
use super::super::launch::{contiguous, dims, launch};
use super::super::sums::{collect, levels, push, tree_of};
use crate::profile::Profile;
use crate::shape::{CHANNEL_BLOCK, pixels};
use crate::tensor::backend::{NormGradients, NormOptions, NormSaved, Normalised};

/// By the statistics of the batch, towards which the running ones move.
pub(in crate::tensor::cube) fn normalise(
    x: CubeTensor,
    gamma: CubeTensor,
    beta: CubeTensor,
    running: [CubeTensor; 2],
    shortcut: Option<CubeTensor>,
    options: NormOptions,
) -> Normalised<CubeTensor> {
    let x = contiguous(x);
    let statistics = statistics(x.clone(), options.profile);
    let [mean, variance] = running;
    let moved = |running: CubeTensor, row: usize| {
        let [keep, rate] = options.moving;
        let (width, fused) = (dims(&running)[0], options.profile.fused());
        launch!(
            moved_kernel::launch, running, statistics.clone(); [width];
            row * width, keep, rate, 0, fused
        )
    };
    let (mean, variance) = (moved(mean, 0), moved(variance, 1));
    Normalised {
        y: normalise_fixed(x, gamma, beta, statistics.clone(), shortcut, options),
        statistics,
        mean,
        variance,
    }
}

/// `[2, width]`: mean and variance.
fn statistics(x: CubeTensor, profile: Profile) -> CubeTensor {
    let shape = dims(&x);
    let (width, pixels) = (shape.last().copied().unwrap_or(1), pixels(&shape));
    let rows = x.meta.shape().num_elements() / width.max(1);
    let images = rows / pixels.max(1);
    let mean = launch!(over_count::launch, column_sums(x.clone()); [width]; rows as f32);
    let squares = launch!(
        square_sums::launch, x, mean.clone(); [images, width];
        0, pixels, width, profile.fused()
    );
    let squares = finished(squares, images, width);
    let variance = launch!(over_count::launch, squares; [width]; rows as f32);
    launch!(joined::launch, mean, variance; [2, width]; width)
}

/// By given statistics, `[2, width]`.
pub(in crate::tensor::cube) fn normalise_fixed(
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

pub(in crate::tensor::cube) fn backward(
    dy: CubeTensor,
    saved: NormSaved<CubeTensor>,
    with_shortcut: bool,
    options: NormOptions,
) -> NormGradients<CubeTensor> {
    let (dy, x) = (contiguous(dy), contiguous(saved.x));
    let (gamma, statistics) = (saved.gamma, saved.statistics);
    let shape = dims(&x);
    let (width, pixels) = (shape.last().copied().unwrap_or(1), pixels(&shape));
    let rows = x.meta.shape().num_elements() / width.max(1);
    let images = rows / pixels.max(1);
    let fused = options.profile.fused();
    // Where nothing was rectified, everything passes.
    let dz = match saved.rectified {
        Some(y) => relu_gradient(dy, y),
        None => dy,
    };
    let factors = factors(gamma, statistics.clone(), options.epsilon, width);
    let beta = column_sums(dz.clone());
    let products = launch!(
        product_sums::launch, dz.clone(), x.clone(), statistics.clone(); [images, width];
        0, pixels, width, fused
    );
    let raw = finished(products, images, width);
    let gamma = launch!(multiply_kernel::launch, raw, factors.clone(); [width];);
    let slopes = launch!(
        slopes_kernel::launch, beta.clone(), gamma.clone(), factors.clone(); [2, width];
        rows as f32, 0, width, saved.fixed
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
fn moved_kernel(
    running: &[f32],
    observed: &[f32],
    moved: &mut [f32],
    first: usize,
    keep: f32,
    rate: f32,
    zero: u32,
    #[comptime] fused: bool,
) {
    if ABSOLUTE_POS < moved.len() {
        let kept = product(running[ABSOLUTE_POS], keep, zero);
        moved[ABSOLUTE_POS] = plus_product(kept, observed[first + ABSOLUTE_POS], rate, zero, fused);
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

/// The sums of `x` over all dimensions but the last.
pub(in crate::tensor::cube) fn column_sums(x: CubeTensor) -> CubeTensor {
    let x = contiguous(x);
    let shape = dims(&x);
    let (width, pixels) = (shape.last().copied().unwrap_or(1), pixels(&shape));
    let images = x.meta.shape().num_elements() / (width * pixels).max(1);
    let sums = launch!(plain_sums::launch, x; [images, width]; 0, pixels, width);
    finished(sums, images, width)
}

/// The tree over the images' sums.
fn finished(sums: CubeTensor, images: usize, width: usize) -> CubeTensor {
    launch!(finish_kernel::launch, sums; [width]; 0, images, width)
}

#[cube(launch)]
fn finish_kernel(
    partials: &[f32],
    sums: &mut [f32],
    zero: u32,
    #[comptime] images: usize,
    #[comptime] width: usize,
) {
    if ABSOLUTE_POS < sums.len() {
        sums[ABSOLUTE_POS] = tree_of(partials, ABSOLUTE_POS, width, zero, images, 1usize);
    }
}

/// The sum of one channel of one image.
#[cube(launch)]
fn plain_sums(
    x: &[f32],
    sums: &mut [f32],
    zero: u32,
    #[comptime] pixels: usize,
    #[comptime] width: usize,
) {
    if ABSOLUTE_POS < sums.len() {
        let (image, column) = (ABSOLUTE_POS / width, ABSOLUTE_POS % width);
        let blocks = comptime![pixels.div_ceil(CHANNEL_BLOCK)];
        let levels = comptime![levels(blocks)];
        let mut held = Array::<f32>::new(levels);
        for block in 0..blocks {
            let mut sum = f32::reinterpret(zero);
            for pixel in block * CHANNEL_BLOCK..min((block + 1) * CHANNEL_BLOCK, pixels) {
                sum = plus(sum, x[(image * pixels + pixel) * width + column], zero);
            }
            push(&mut held, block, sum, zero, levels);
        }
        sums[ABSOLUTE_POS] = collect(&held, blocks.runtime(), zero, levels);
    }
}

#[cube(launch)]
fn square_sums(
    x: &[f32],
    mean: &[f32],
    sums: &mut [f32],
    zero: u32,
    #[comptime] pixels: usize,
    #[comptime] width: usize,
    #[comptime] fused: bool,
) {
    if ABSOLUTE_POS < sums.len() {
        let (image, column) = (ABSOLUTE_POS / width, ABSOLUTE_POS % width);
        let blocks = comptime![pixels.div_ceil(CHANNEL_BLOCK)];
        let levels = comptime![levels(blocks)];
        let mut held = Array::<f32>::new(levels);
        let mean = mean[column];
        for block in 0..blocks {
            let mut sum = f32::reinterpret(zero);
            for pixel in block * CHANNEL_BLOCK..min((block + 1) * CHANNEL_BLOCK, pixels) {
                let centred = plus(x[(image * pixels + pixel) * width + column], -mean, zero);
                sum = plus_product(sum, centred, centred, zero, fused);
            }
            push(&mut held, block, sum, zero, levels);
        }
        sums[ABSOLUTE_POS] = collect(&held, blocks.runtime(), zero, levels);
    }
}

#[cube(launch)]
fn product_sums(
    dz: &[f32],
    x: &[f32],
    statistics: &[f32],
    sums: &mut [f32],
    zero: u32,
    #[comptime] pixels: usize,
    #[comptime] width: usize,
    #[comptime] fused: bool,
) {
    if ABSOLUTE_POS < sums.len() {
        let (image, column) = (ABSOLUTE_POS / width, ABSOLUTE_POS % width);
        let blocks = comptime![pixels.div_ceil(CHANNEL_BLOCK)];
        let levels = comptime![levels(blocks)];
        let mut held = Array::<f32>::new(levels);
        let mean = statistics[column];
        for block in 0..blocks {
            let mut sum = f32::reinterpret(zero);
            for pixel in block * CHANNEL_BLOCK..min((block + 1) * CHANNEL_BLOCK, pixels) {
                let at = (image * pixels + pixel) * width + column;
                sum = plus_product(sum, dz[at], plus(x[at], -mean, zero), zero, fused);
            }
            push(&mut held, block, sum, zero, levels);
        }
        sums[ABSOLUTE_POS] = collect(&held, blocks.runtime(), zero, levels);
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
        let mut value = firm(beta[column], centred, factors[width + column], zero, fused);
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
