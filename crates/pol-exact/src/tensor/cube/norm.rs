//! Batch normalisation.
//!
//! Every kernel has a cube for each image and slab of channels (see [`super::sums`]).

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::arithmetic::{divide, ended, firm, plus, plus_product, positive, product, square_root};
use super::launch::{contiguous, cube_count, dims, empty, launch_cubes};
use super::sums::{
    CHANNELS, LANES, UNITS, collect, cube_image, image_sums, images_tree, lanes_tree, levels, push,
    share, slabs, unit_channel,
};
use crate::shape::{CHANNEL_BLOCK, pixels};
use crate::tensor::backend::{NormGradients, NormOptions, NormSaved, Normalised};

/// Images, their pixels, and channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct NormShape {
    images: usize,
    pixels: usize,
    width: usize,
}

impl NormShape {
    fn of(x: &CubeTensor) -> Self {
        let dims = dims(x);
        Self {
            images: dims.first().copied().unwrap_or(1),
            pixels: pixels(&dims),
            width: dims.last().copied().unwrap_or(1),
        }
    }

    /// Values of a channel.
    const fn count(&self) -> usize {
        self.images * self.pixels
    }

    const fn cubes(&self) -> usize {
        self.images * slabs(self.width)
    }

    /// Blocks of an image.
    const fn blocks(&self) -> usize {
        self.pixels.div_ceil(CHANNEL_BLOCK)
    }
}

pub(super) fn normalise(
    x: CubeTensor,
    gamma: CubeTensor,
    beta: CubeTensor,
    running: [CubeTensor; 2],
    shortcut: Option<CubeTensor>,
    options: NormOptions,
) -> Normalised<CubeTensor> {
    let x = contiguous(x);
    let (s, shape) = (NormShape::of(&x), dims(&x));
    let fused = options.profile.fused();
    let sums = image_sums(x.clone(), s.images, s.pixels, s.width);
    let squares = launch_cubes!(
        squares_kernel::launch, x.clone(), sums.clone(); [s.images, s.width]; s.cubes();
        0, s, fused
    );
    let adds = shortcut.is_some();
    // A shortcut that is not there: something else stands in, and is not read.
    let added = shortcut.map_or_else(|| gamma.clone(), contiguous);
    let [gamma, beta] = [gamma, beta].map(contiguous);
    let [mean, variance] = running.map(contiguous);
    let y = empty(&x, &shape);
    let statistics = empty(&x, &[2, s.width]);
    let moved = [(); 2].map(|()| empty(&x, &[s.width]));
    let (cubes, dim) = cube_count(&x, s.cubes(), UNITS);
    let [keep, rate] = options.moving;
    normalise_kernel::launch(
        &x.client.clone(),
        cubes,
        dim,
        x.into_buffer_arg(),
        sums.into_buffer_arg(),
        squares.into_buffer_arg(),
        gamma.into_buffer_arg(),
        beta.into_buffer_arg(),
        mean.into_buffer_arg(),
        variance.into_buffer_arg(),
        added.into_buffer_arg(),
        y.clone().into_buffer_arg(),
        statistics.clone().into_buffer_arg(),
        moved[0].clone().into_buffer_arg(),
        moved[1].clone().into_buffer_arg(),
        options.epsilon,
        keep,
        rate,
        0,
        s,
        adds,
        options.rectified,
        fused,
    );
    let [mean, variance] = moved;
    Normalised {
        y,
        statistics,
        mean,
        variance,
    }
}

pub(super) fn backward(
    dy: CubeTensor,
    saved: NormSaved<CubeTensor>,
    with_shortcut: bool,
    options: NormOptions,
) -> NormGradients<CubeTensor> {
    let dy = contiguous(dy);
    let [x, gamma, statistics] = [saved.x, saved.gamma, saved.statistics].map(contiguous);
    let y = saved.rectified;
    let s = NormShape::of(&x);
    let rectified = y.is_some();
    let fused = options.profile.fused();
    // An output that is not there: something else stands in, and is not read.
    let y = y.map_or_else(|| gamma.clone(), contiguous);
    let sums = launch_cubes!(
        gradient_sums_kernel::launch, dy.clone(), y.clone(), x.clone(), statistics.clone();
        [s.images, 2, s.width]; s.cubes();
        0, s, rectified, fused
    );
    let dx = empty(&x, &dims(&x));
    let [dgamma, dbeta] = [(); 2].map(|()| empty(&x, &[s.width]));
    let writes = with_shortcut && rectified;
    let dz = empty(&x, &if writes { dims(&x) } else { vec![1] });
    let (cubes, dim) = cube_count(&x, s.cubes(), UNITS);
    input_kernel::launch(
        &x.client.clone(),
        cubes,
        dim,
        dy.clone().into_buffer_arg(),
        y.into_buffer_arg(),
        x.into_buffer_arg(),
        statistics.into_buffer_arg(),
        gamma.into_buffer_arg(),
        sums.into_buffer_arg(),
        dx.clone().into_buffer_arg(),
        dgamma.clone().into_buffer_arg(),
        dbeta.clone().into_buffer_arg(),
        dz.clone().into_buffer_arg(),
        options.epsilon,
        0,
        s,
        rectified,
        writes,
        saved.fixed,
        fused,
    );
    NormGradients {
        x: dx,
        gamma: dgamma,
        beta: dbeta,
        // Where nothing was rectified, everything passes.
        shortcut: with_shortcut.then_some(if rectified { dz } else { dy }),
    }
}

/// (Σ ⊕ (x − mean)·(x − mean)) of each image, from the images' Σ x.
#[cube(launch)]
fn squares_kernel(
    x: &[f32],
    sums: &[f32],
    squares: &mut [f32],
    zero: u32,
    #[comptime] s: NormShape,
    #[comptime] fused: bool,
) {
    let (images, pixels, width) = (comptime![s.images], comptime![s.pixels], comptime![s.width]);
    let (image, channel) = (cube_image(images, width), unit_channel(width));
    let lane = UNIT_POS as usize / CHANNELS;
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let mut means = Shared::<[f32]>::new_slice(CHANNELS);
    let sum = images_tree(
        sums,
        channel,
        width,
        channel < width,
        &mut shared,
        zero,
        images,
    );
    if lane == 0 {
        means[UNIT_POS as usize] = divide(sum, comptime![s.count() as f32].runtime());
    }
    sync_cube();
    let mean = means[UNIT_POS as usize % CHANNELS];
    let blocks = comptime![s.blocks()];
    let share = comptime![share(blocks)];
    let levels = comptime![levels(share)];
    let mut held = Array::<f32>::new(levels);
    let mut count = 0usize.runtime();
    if channel < width {
        for block in lane * share..min((lane + 1) * share, blocks) {
            let mut sum = f32::reinterpret(zero);
            for pixel in block * CHANNEL_BLOCK..min((block + 1) * CHANNEL_BLOCK, pixels) {
                let at = (image * pixels + pixel) * width + channel;
                let centred = plus(x[at], -mean, zero);
                sum = plus_product(sum, centred, centred, zero, fused);
            }
            push(&mut held, count, sum, zero, levels);
            count += 1;
        }
    }
    let value = collect(&held, count, zero, levels);
    let sum = lanes_tree(value, &mut shared, zero, comptime![blocks.div_ceil(share)]);
    if lane == 0 && channel < width {
        squares[image * width + channel] = sum;
    }
}

/// y = β ⊕ (x − mean)·a, then + shortcut, then rectified. From the images' Σ x and Σ ⊕ (x − mean)²: mean and
/// variance, towards which the running ones move.
#[cube(launch)]
fn normalise_kernel(
    x: &[f32],
    sums: &[f32],
    squares: &[f32],
    gamma: &[f32],
    beta: &[f32],
    running_mean: &[f32],
    running_variance: &[f32],
    added: &[f32],
    y: &mut [f32],
    statistics: &mut [f32],
    moved_mean: &mut [f32],
    moved_variance: &mut [f32],
    epsilon: f32,
    keep: f32,
    rate: f32,
    zero: u32,
    #[comptime] s: NormShape,
    #[comptime] adds: bool,
    #[comptime] rectified: bool,
    #[comptime] fused: bool,
) {
    let (images, pixels, width) = (comptime![s.images], comptime![s.pixels], comptime![s.width]);
    let (image, channel) = (cube_image(images, width), unit_channel(width));
    let lane = UNIT_POS as usize / CHANNELS;
    let is_there = channel < width;
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let sum = images_tree(sums, channel, width, is_there, &mut shared, zero, images);
    let square = images_tree(squares, channel, width, is_there, &mut shared, zero, images);
    // The mean and a of each channel.
    let mut of_channel = Shared::<[f32]>::new_slice(comptime![2 * CHANNELS]);
    if lane == 0 && is_there {
        let at = UNIT_POS as usize;
        let count = comptime![s.count() as f32].runtime();
        let mean = divide(sum, count);
        let variance = divide(ended(square, zero), count);
        let deviation = square_root(plus(variance, epsilon, zero));
        let inverse = divide(1.0f32.runtime(), deviation);
        of_channel[at] = mean;
        of_channel[CHANNELS + at] = product(gamma[channel], inverse, zero);
        if image == 0 {
            statistics[channel] = mean;
            statistics[width + channel] = variance;
            let kept = product(running_mean[channel], keep, zero);
            moved_mean[channel] = plus_product(kept, mean, rate, zero, fused);
            let kept = product(running_variance[channel], keep, zero);
            moved_variance[channel] = plus_product(kept, variance, rate, zero, fused);
        }
    }
    sync_cube();
    if is_there {
        let at = UNIT_POS as usize % CHANNELS;
        let (mean, factor) = (of_channel[at], of_channel[CHANNELS + at]);
        let beta = beta[channel];
        for step in 0..comptime![pixels.div_ceil(LANES)] {
            let pixel = step * LANES + lane;
            if pixel < pixels {
                let at = (image * pixels + pixel) * width + channel;
                let centred = plus(x[at], -mean, zero);
                let mut value = firm(beta, centred, factor, zero, fused);
                if comptime![adds] {
                    value = plus(value, added[at], zero);
                }
                if comptime![rectified] {
                    value = positive(value);
                }
                y[at] = value;
            }
        }
    }
}

/// What passes the rectifier, if there is one.
#[cube]
fn passed(dy: &[f32], y: &[f32], at: usize, #[comptime] rectified: bool) -> f32 {
    let mut dz = dy[at];
    if comptime![rectified] {
        dz = passing(dz, y[at]);
    }
    dz
}

#[cube]
fn passing(dy: f32, y: f32) -> f32 {
    let mut dz = 0.0f32.runtime();
    if y > 0.0f32 {
        dz = dy;
    }
    dz
}

/// Σ dz and Σ ⊕ dz·(x − mean) of each image, `[images, 2, width]`.
#[cube(launch)]
fn gradient_sums_kernel(
    dy: &[f32],
    y: &[f32],
    x: &[f32],
    statistics: &[f32],
    sums: &mut [f32],
    zero: u32,
    #[comptime] s: NormShape,
    #[comptime] rectified: bool,
    #[comptime] fused: bool,
) {
    let (images, pixels, width) = (comptime![s.images], comptime![s.pixels], comptime![s.width]);
    let (image, channel) = (cube_image(images, width), unit_channel(width));
    let lane = UNIT_POS as usize / CHANNELS;
    let blocks = comptime![s.blocks()];
    let share = comptime![share(blocks)];
    let levels = comptime![levels(share)];
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let mut held_beta = Array::<f32>::new(levels);
    let mut held_gamma = Array::<f32>::new(levels);
    let mut count = 0usize.runtime();
    if channel < width {
        let mean = statistics[channel];
        for block in lane * share..min((lane + 1) * share, blocks) {
            let mut beta = f32::reinterpret(zero);
            let mut gamma = f32::reinterpret(zero);
            for pixel in block * CHANNEL_BLOCK..min((block + 1) * CHANNEL_BLOCK, pixels) {
                let at = (image * pixels + pixel) * width + channel;
                let dz = passed(dy, y, at, rectified);
                beta = plus(beta, dz, zero);
                gamma = plus_product(gamma, dz, plus(x[at], -mean, zero), zero, fused);
            }
            push(&mut held_beta, count, beta, zero, levels);
            push(&mut held_gamma, count, gamma, zero, levels);
            count += 1;
        }
    }
    let lanes = comptime![blocks.div_ceil(share)];
    let value = collect(&held_beta, count, zero, levels);
    let beta = lanes_tree(value, &mut shared, zero, lanes);
    let value = collect(&held_gamma, count, zero, levels);
    let gamma = lanes_tree(value, &mut shared, zero, lanes);
    if lane == 0 && channel < width {
        sums[image * 2 * width + channel] = beta;
        sums[(image * 2 + 1) * width + channel] = gamma;
    }
}

/// dx, and from the images' sums dγ and dβ; dz if it is asked for.
#[cube(launch)]
fn input_kernel(
    dy: &[f32],
    y: &[f32],
    x: &[f32],
    statistics: &[f32],
    gamma: &[f32],
    sums: &[f32],
    dx: &mut [f32],
    dgamma: &mut [f32],
    dbeta: &mut [f32],
    dz: &mut [f32],
    epsilon: f32,
    zero: u32,
    #[comptime] s: NormShape,
    #[comptime] rectified: bool,
    #[comptime] writes: bool,
    #[comptime] fixed: bool,
    #[comptime] fused: bool,
) {
    let (images, pixels, width) = (comptime![s.images], comptime![s.pixels], comptime![s.width]);
    let (image, channel) = (cube_image(images, width), unit_channel(width));
    let lane = UNIT_POS as usize / CHANNELS;
    let is_there = channel < width;
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let step = comptime![2 * width];
    let beta = images_tree(sums, channel, step, is_there, &mut shared, zero, images);
    let raw = images_tree(
        sums,
        width + channel,
        step,
        is_there,
        &mut shared,
        zero,
        images,
    );
    // a, dβ / m and the slope of each channel.
    let mut of_channel = Shared::<[f32]>::new_slice(comptime![3 * CHANNELS]);
    if lane == 0 && is_there {
        let at = UNIT_POS as usize;
        let deviation = square_root(plus(statistics[width + channel], epsilon, zero));
        let inverse = divide(1.0f32.runtime(), deviation);
        let raw = ended(raw, zero);
        let total = product(raw, inverse, zero);
        of_channel[at] = product(gamma[channel], inverse, zero);
        if comptime![fixed] {
            of_channel[CHANNELS + at] = 0.0f32.runtime();
            of_channel[2 * CHANNELS + at] = 0.0f32.runtime();
        } else {
            let count = comptime![s.count() as f32].runtime();
            of_channel[CHANNELS + at] = divide(beta, count);
            of_channel[2 * CHANNELS + at] = divide(product(total, inverse, zero), count);
        }
        if image == 0 {
            dgamma[channel] = total;
            dbeta[channel] = beta;
        }
    }
    sync_cube();
    if is_there {
        let at = UNIT_POS as usize % CHANNELS;
        let factor = of_channel[at];
        let (mean_gradient, slope) = (of_channel[CHANNELS + at], of_channel[2 * CHANNELS + at]);
        let mean = statistics[channel];
        for step in 0..comptime![pixels.div_ceil(LANES)] {
            let pixel = step * LANES + lane;
            if pixel < pixels {
                let at = (image * pixels + pixel) * width + channel;
                let passes = passed(dy, y, at, rectified);
                if comptime![writes] {
                    dz[at] = passes;
                }
                let centred = plus(x[at], -mean, zero);
                let rest = plus(passes, -mean_gradient, zero);
                let rest = plus_product(rest, -centred, slope, zero, fused);
                dx[at] = product(factor, rest, zero);
            }
        }
    }
}
