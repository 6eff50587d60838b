//! Batch normalisation (Ioffe & Szegedy, 2015; NUMERICS.md, "Batch normalisation"), with what
//! usually follows it: the sum with a shortcut, and the rectifier.

use rayon::prelude::*;

use super::tree::tree_sum;
use crate::math::plus_product;
use crate::profile::Profile;
use crate::simd::{WIDTH, vectorised};

/// Values that one task of an elementwise loop computes, about.
const TASK: usize = 1 << 14;

/// Mean and variance of each channel, and what follows from them.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics {
    /// Σx / m.
    pub mean: Vec<f32>,
    /// Σ(x − mean)² / m: biased.
    pub variance: Vec<f32>,
}

/// 1 / √(variance + ε).
pub fn inverse_deviation(variance: &[f32], epsilon: f32) -> Vec<f32> {
    let of = |variance: &f32| 1.0 / (variance + epsilon).sqrt();
    variance.iter().map(of).collect()
}

/// The sum of each column of `x`, `[rows, width]`: blocks of `block` rows, as a tree.
pub fn column_sums(x: &[f32], width: usize, block: usize) -> Vec<f32> {
    blocks(x.len(), width, block, |part| {
        let mut sums = vec![0.0; width];
        add_rows(&x[part], &mut sums);
        sums
    })
}

/// The statistics of `x`, `[rows, channels]`, in blocks of `block` rows.
pub fn statistics(profile: Profile, x: &[f32], channels: usize, block: usize) -> Statistics {
    let count = (x.len() / channels.max(1)) as f32;
    let mut mean = column_sums(x, channels, block);
    mean.iter_mut().for_each(|sum| *sum /= count);
    let mut variance = blocks(x.len(), channels, block, |part| {
        let mut sums = vec![0.0; channels];
        match profile.fused() {
            true => add_squares_fused(&x[part], &mean, &mut sums),
            false => add_squares(&x[part], &mean, &mut sums),
        }
        sums
    });
    variance.iter_mut().for_each(|sum| *sum /= count);
    Statistics { mean, variance }
}

/// `(x − mean)·γ·inverse + β`, plus the shortcut if there is one, rectified if asked.
#[allow(clippy::too_many_arguments, reason = "the operator has these operands")]
pub fn normalise(
    profile: Profile,
    x: &[f32],
    mean: &[f32],
    inverse: &[f32],
    gamma: &[f32],
    beta: &[f32],
    shortcut: Option<&[f32]>,
    rectified: bool,
) -> Vec<f32> {
    let channels = mean.len();
    let scale: Vec<_> = gamma.iter().zip(inverse).map(|(g, i)| g * i).collect();
    let mut y = vec![0.0; x.len()];
    let task = whole_rows(channels);
    (y.par_chunks_mut(task).enumerate()).for_each(|(part, y)| {
        let part = part * task..part * task + y.len();
        let shortcut = shortcut.map(|shortcut| &shortcut[part.clone()]);
        match profile.fused() {
            true => normalise_rows_fused(y, &x[part], mean, &scale, beta, shortcut, rectified),
            false => normalise_rows(y, &x[part], mean, &scale, beta, shortcut, rectified),
        }
    });
    y
}

/// The gradients of [`normalise`] with the statistics of the batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradients {
    /// Of `x`.
    pub x: Vec<f32>,
    /// Of the shortcut: the output's gradient where the rectifier let it through.
    pub shortcut: Option<Vec<f32>>,
    /// Of γ.
    pub gamma: Vec<f32>,
    /// Of β.
    pub beta: Vec<f32>,
}

/// What the backward pass of [`normalise`] needs of the forward pass.
#[derive(Debug, Clone, Copy)]
pub struct Saved<'a> {
    /// The input.
    pub x: &'a [f32],
    /// The output, if it was rectified.
    pub rectified: Option<&'a [f32]>,
    /// Mean of each channel.
    pub mean: &'a [f32],
    /// 1 / √(variance + ε) of each channel.
    pub inverse: &'a [f32],
    /// γ.
    pub gamma: &'a [f32],
}

/// How the backward pass runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backward {
    /// Whether the statistics were given, and so don't depend on `x`.
    pub fixed: bool,
    /// Whether the gradient of a shortcut is wanted.
    pub with_shortcut: bool,
    /// As for [`statistics`].
    pub block: usize,
}

/// The backward pass of [`normalise`].
pub fn backward(
    profile: Profile,
    dy: &[f32],
    saved: Saved<'_>,
    options: Backward,
) -> Gradients {
    let Backward {
        fixed,
        with_shortcut,
        block,
    } = options;
    let channels = saved.mean.len();
    let count = (dy.len() / channels.max(1)) as f32;
    let sums = blocks(dy.len(), channels, block, |part| {
        let mut sums = vec![0.0; 2 * channels];
        let (beta, gamma) = sums.split_at_mut(channels);
        let rectified = saved.rectified.map(|y| &y[part.clone()]);
        let (dy, x) = (&dy[part.clone()], &saved.x[part]);
        match profile.fused() {
            true => add_gradients_fused(dy, x, rectified, saved.mean, beta, gamma),
            false => add_gradients(dy, x, rectified, saved.mean, beta, gamma),
        }
        sums
    });
    let (beta, raw) = sums.split_at(channels);
    let gamma: Vec<_> = raw.iter().zip(saved.inverse).map(|(r, i)| r * i).collect();
    let scale: Vec<_> = (saved.gamma.iter().zip(saved.inverse))
        .map(|(g, i)| g * i)
        .collect();
    let (mean_gradient, slope) = match fixed {
        true => (vec![0.0; channels], vec![0.0; channels]),
        false => {
            let slopes = gamma.iter().zip(saved.inverse);
            (
                beta.iter().map(|b| b / count).collect(),
                slopes.map(|(g, i)| g * i / count).collect(),
            )
        }
    };

    let mut dx = vec![0.0; dy.len()];
    let mut shortcut = vec![0.0; if with_shortcut { dy.len() } else { 0 }];
    let task = whole_rows(channels);
    let each = |part: usize, dx: &mut [f32], shortcut: Option<&mut [f32]>| {
        let part = part * task..part * task + dx.len();
        let rectified = saved.rectified.map(|y| &y[part.clone()]);
        let (dy, x) = (&dy[part.clone()], &saved.x[part]);
        let with = Slopes {
            mean: saved.mean,
            scale: &scale,
            mean_gradient: &mean_gradient,
            slope: &slope,
        };
        match profile.fused() {
            true => input_gradient_fused(dx, dy, x, rectified, with),
            false => input_gradient(dx, dy, x, rectified, with),
        }
        if let Some(shortcut) = shortcut {
            pass_rectified(shortcut, dy, rectified);
        }
    };
    if with_shortcut {
        let parts = dx.par_chunks_mut(task).zip(shortcut.par_chunks_mut(task));
        (parts.enumerate()).for_each(|(part, (dx, shortcut))| each(part, dx, Some(shortcut)));
    } else {
        (dx.par_chunks_mut(task).enumerate()).for_each(|(part, dx)| each(part, dx, None));
    }
    Gradients {
        x: dx,
        shortcut: with_shortcut.then_some(shortcut),
        gamma,
        beta: beta.to_vec(),
    }
}

fn whole_rows(channels: usize) -> usize {
    (TASK / channels.max(1)).max(1) * channels.max(1)
}

fn blocks(
    len: usize,
    channels: usize,
    block: usize,
    sums: impl Fn(std::ops::Range<usize>) -> Vec<f32> + Sync,
) -> Vec<f32> {
    let block = block * channels.max(1);
    tree_sum(len.div_ceil(block.max(1)), &|index| {
        sums(index * block..len.min((index + 1) * block))
    })
}

vectorised! {
    /// `sums[c] += x[r, c]` for `r` ascending.
    fn add_rows(x: &[f32], sums: &mut [f32]) {
        let channels = sums.len();
        let (groups, rest) = sums.as_chunks_mut::<WIDTH>();
        let whole = groups.len() * WIDTH;
        for (group, sums) in groups.iter_mut().enumerate() {
            let mut lanes = *sums;
            for row in x.chunks_exact(channels) {
                for (sum, x) in lanes.iter_mut().zip(&row[group * WIDTH..][..WIDTH]) {
                    *sum += x;
                }
            }
            *sums = lanes;
        }
        for (c, sum) in rest.iter_mut().enumerate() {
            for row in x.chunks_exact(channels) {
                *sum += row[whole + c];
            }
        }
    }
}

/// Defines a kernel for the profiles with two roundings and with one.
macro_rules! profiled {
    ($fused:ident, $name_fused:ident, $name:ident, ($($arg:ident: $ty:ty),* $(,)?) $body:block) => {
        vectorised! { fn $name($($arg: $ty),*) { const $fused: bool = false; $body } }
        vectorised! { fn $name_fused($($arg: $ty),*) { const $fused: bool = true; $body } }
    };
}

profiled! { FUSED, add_squares_fused, add_squares, (x: &[f32], mean: &[f32], sums: &mut [f32]) {
    let channels = sums.len();
    let (groups, rest) = sums.as_chunks_mut::<WIDTH>();
    let whole = groups.len() * WIDTH;
    for (group, sums) in groups.iter_mut().enumerate() {
        let mut lanes = *sums;
        let mut means = [0.0; WIDTH];
        means.copy_from_slice(&mean[group * WIDTH..][..WIDTH]);
        for row in x.chunks_exact(channels) {
            let row = &row[group * WIDTH..][..WIDTH];
            for ((sum, mean), x) in lanes.iter_mut().zip(means).zip(row) {
                let centred = x - mean;
                *sum = plus_product::<FUSED>(*sum, centred, centred);
            }
        }
        *sums = lanes;
    }
    for (c, sum) in rest.iter_mut().enumerate() {
        for row in x.chunks_exact(channels) {
            let centred = row[whole + c] - mean[whole + c];
            *sum = plus_product::<FUSED>(*sum, centred, centred);
        }
    }
}}

profiled! { FUSED, add_gradients_fused, add_gradients, (
    dy: &[f32],
    x: &[f32],
    rectified: Option<&[f32]>,
    mean: &[f32],
    beta: &mut [f32],
    gamma: &mut [f32],
) {
    let channels = mean.len();
    // Without a rectifier every gradient passes: `dy` stands in for the output, and the test is
    // skipped.
    let (y, all) = (rectified.unwrap_or(dy), rectified.is_none());
    let whole = channels / WIDTH * WIDTH;
    for first in (0..whole).step_by(WIDTH) {
        let (mut beta_lanes, mut gamma_lanes) = ([0.0; WIDTH], [0.0; WIDTH]);
        let mut means = [0.0; WIDTH];
        means.copy_from_slice(&mean[first..][..WIDTH]);
        for ((dy, x), y) in (dy.chunks_exact(channels).zip(x.chunks_exact(channels)))
            .zip(y.chunks_exact(channels))
        {
            let (dy, x, y) = (&dy[first..][..WIDTH], &x[first..][..WIDTH], &y[first..][..WIDTH]);
            for lane in 0..WIDTH {
                let passed = if all || y[lane] > 0.0 { dy[lane] } else { 0.0 };
                beta_lanes[lane] += passed;
                gamma_lanes[lane] =
                    plus_product::<FUSED>(gamma_lanes[lane], passed, x[lane] - means[lane]);
            }
        }
        beta[first..][..WIDTH].copy_from_slice(&beta_lanes);
        gamma[first..][..WIDTH].copy_from_slice(&gamma_lanes);
    }
    for c in whole..channels {
        for at in (c..dy.len()).step_by(channels) {
            let passed = if all || y[at] > 0.0 { dy[at] } else { 0.0 };
            beta[c] += passed;
            gamma[c] = plus_product::<FUSED>(gamma[c], passed, x[at] - mean[c]);
        }
    }
}}

profiled! { FUSED, normalise_rows_fused, normalise_rows, (
    y: &mut [f32],
    x: &[f32],
    mean: &[f32],
    scale: &[f32],
    beta: &[f32],
    shortcut: Option<&[f32]>,
    rectified: bool,
) {
    let channels = mean.len();
    // A shortcut that is not there: `x` stands in, and is not added.
    let (added, adds) = (shortcut.unwrap_or(x), shortcut.is_some());
    let rows = (y.chunks_exact_mut(channels).zip(x.chunks_exact(channels)))
        .zip(added.chunks_exact(channels));
    for ((y, x), added) in rows {
        for c in 0..channels {
            let mut value = plus_product::<FUSED>(beta[c], x[c] - mean[c], scale[c]);
            if adds {
                value += added[c];
            }
            y[c] = if rectified && !(value > 0.0) { 0.0 } else { value };
        }
    }
}}

#[derive(Clone, Copy)]
struct Slopes<'a> {
    mean: &'a [f32],
    scale: &'a [f32],
    mean_gradient: &'a [f32],
    slope: &'a [f32],
}

profiled! { FUSED, input_gradient_fused, input_gradient, (
    dx: &mut [f32],
    dy: &[f32],
    x: &[f32],
    rectified: Option<&[f32]>,
    with: Slopes<'_>,
) {
    let channels = with.mean.len();
    let (y, all) = (rectified.unwrap_or(dy), rectified.is_none());
    let rows = (dx.chunks_exact_mut(channels).zip(dy.chunks_exact(channels)))
        .zip(x.chunks_exact(channels).zip(y.chunks_exact(channels)));
    for ((dx, dy), (x, y)) in rows {
        for c in 0..channels {
            let passed = if all || y[c] > 0.0 { dy[c] } else { 0.0 };
            let centred = x[c] - with.mean[c];
            let rest = passed - with.mean_gradient[c];
            dx[c] = with.scale[c] * plus_product::<FUSED>(rest, -centred, with.slope[c]);
        }
    }
}}

vectorised! {
    fn pass_rectified(to: &mut [f32], dy: &[f32], rectified: Option<&[f32]>) {
        match rectified {
            None => to.copy_from_slice(dy),
            Some(y) => {
                for ((to, dy), y) in to.iter_mut().zip(dy).zip(y) {
                    *to = if *y > 0.0 { *dy } else { 0.0 };
                }
            }
        }
    }
}
