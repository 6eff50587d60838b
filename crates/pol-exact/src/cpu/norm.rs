//! Batch normalisation (Ioffe & Szegedy, 2015; NUMERICS.md, "Batch normalisation"), with what
//! usually follows it: the sum with a shortcut, and the rectifier.

use rayon::prelude::*;

use super::buffers::{Values, any, any_from_start};
use super::tree::{tree_sum, tree_sum_of};
use crate::math::plus_product;
use crate::profile::Profile;
use crate::simd::{WIDTH, vectorised};

/// Values that one task of an elementwise loop computes, about.
const TASK: usize = 1 << 14;

/// Values that are rectified before they are summed.
const SUMMED_AT_ONCE: usize = 1 << 11;

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
) -> Values {
    let channels = mean.len();
    let scale: Vec<_> = gamma.iter().zip(inverse).map(|(g, i)| g * i).collect();
    let mut y = any(x.len());
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
    pub x: Values,
    /// Of the shortcut: the output's gradient where the rectifier let it through.
    pub shortcut: Option<Values>,
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
pub fn backward(profile: Profile, dy: &[f32], saved: Saved<'_>, options: Backward) -> Gradients {
    let Backward {
        fixed,
        with_shortcut,
        block,
    } = options;
    let channels = saved.mean.len();
    let count = (dy.len() / channels.max(1)) as f32;
    // What passed the rectifier, written on the way to the sums.
    let writes = saved.rectified.is_some() || with_shortcut;
    let mut passed = match (writes, with_shortcut) {
        (_, true) => any_from_start(dy.len()),
        (true, false) => any(dy.len()),
        (false, false) => any(0),
    };
    let task = block * channels.max(1);
    let sums = |part: usize, passed: Option<&mut [f32]>| {
        let part = part * task..dy.len().min((part + 1) * task);
        let rectified = saved.rectified.map(|y| &y[part.clone()]);
        let (dy, x) = (&dy[part.clone()], &saved.x[part]);
        let mut sums = vec![0.0; 2 * channels];
        // A few rows at a time: what was just written is still at hand.
        let step = SUMMED_AT_ONCE.div_ceil(channels.max(1)) * channels.max(1);
        let mut add = |dz: &[f32], x: &[f32]| {
            let (beta, gamma) = sums.split_at_mut(channels);
            match profile.fused() {
                true => add_gradients_fused(dz, x, saved.mean, beta, gamma),
                false => add_gradients(dz, x, saved.mean, beta, gamma),
            }
        };
        match passed {
            None => add(dy, x),
            Some(passed) => {
                for (index, passed) in passed.chunks_mut(step).enumerate() {
                    let part = index * step..index * step + passed.len();
                    let rectified = rectified.map(|y| &y[part.clone()]);
                    pass_rectified(passed, &dy[part.clone()], rectified);
                    add(passed, &x[part]);
                }
            }
        }
        sums
    };
    let partials: Vec<_> = match writes {
        true => (passed.par_chunks_mut(task).enumerate())
            .map(|(part, passed)| sums(part, Some(passed)))
            .collect(),
        false => (0..dy.len().div_ceil(task))
            .into_par_iter()
            .map(|part| sums(part, None))
            .collect(),
    };
    let sums = tree_sum_of(partials);
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
    let with = Slopes {
        mean: saved.mean,
        scale: &scale,
        mean_gradient: &mean_gradient,
        slope: &slope,
    };

    let task = whole_rows(channels);
    let (mut dx, shortcut) = match (writes, with_shortcut) {
        (true, false) => (passed, None),
        (_, true) => (any(dy.len()), Some(passed)),
        (false, false) => (any(dy.len()), None),
    };
    let dz = match (&shortcut, writes) {
        (Some(shortcut), _) => Some(&**shortcut),
        (None, true) => None,
        (None, false) => Some(dy),
    };
    (dx.par_chunks_mut(task).enumerate()).for_each(|(part, dx)| {
        let part = part * task..part * task + dx.len();
        if let Some(dz) = dz {
            dx.copy_from_slice(&dz[part.clone()]);
        }
        match profile.fused() {
            true => input_gradient_fused(dx, &saved.x[part], with),
            false => input_gradient(dx, &saved.x[part], with),
        }
    });
    Gradients {
        x: dx,
        shortcut,
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

// Adds to `beta` and `gamma`.
profiled! { FUSED, add_gradients_fused, add_gradients, (
    dz: &[f32],
    x: &[f32],
    mean: &[f32],
    beta: &mut [f32],
    gamma: &mut [f32],
) {
    let channels = mean.len();
    let whole = channels / WIDTH * WIDTH;
    for first in (0..whole).step_by(WIDTH) {
        let (mut beta_lanes, mut gamma_lanes) = ([0.0; WIDTH], [0.0; WIDTH]);
        beta_lanes.copy_from_slice(&beta[first..][..WIDTH]);
        gamma_lanes.copy_from_slice(&gamma[first..][..WIDTH]);
        let mut means = [0.0; WIDTH];
        means.copy_from_slice(&mean[first..][..WIDTH]);
        for (dz, x) in dz.chunks_exact(channels).zip(x.chunks_exact(channels)) {
            let (dz, x) = (&dz[first..][..WIDTH], &x[first..][..WIDTH]);
            for lane in 0..WIDTH {
                beta_lanes[lane] += dz[lane];
                gamma_lanes[lane] =
                    plus_product::<FUSED>(gamma_lanes[lane], dz[lane], x[lane] - means[lane]);
            }
        }
        beta[first..][..WIDTH].copy_from_slice(&beta_lanes);
        gamma[first..][..WIDTH].copy_from_slice(&gamma_lanes);
    }
    for c in whole..channels {
        for at in (c..dz.len()).step_by(channels) {
            beta[c] += dz[at];
            gamma[c] = plus_product::<FUSED>(gamma[c], dz[at], x[at] - mean[c]);
        }
    }
}}

/// Channels in steps that a loop over rows takes: a whole group of lanes, so that the compiler knows
/// the length of the inner loop, or one.
macro_rules! rows {
    ($channels:expr, |$c:ident, $lanes:ident| $body:block) => {
        if $channels % WIDTH == 0 {
            const $lanes: usize = WIDTH;
            for $c in (0..$channels).step_by(WIDTH) $body
        } else {
            const $lanes: usize = 1;
            for $c in 0..$channels $body
        }
    };
}

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
        rows!(channels, |c, LANES| {
            let (y, x, added) = (&mut y[c..][..LANES], &x[c..][..LANES], &added[c..][..LANES]);
            let (mean, scale, beta) = (&mean[c..][..LANES], &scale[c..][..LANES], &beta[c..][..LANES]);
            for l in 0..LANES {
                let value = plus_product::<FUSED>(beta[l], x[l] - mean[l], scale[l]);
                let value = if adds { value + added[l] } else { value };
                let passes = !rectified || value > 0.0;
                y[l] = if passes { value } else { 0.0 };
            }
        });
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
    dz: &mut [f32],
    x: &[f32],
    with: Slopes<'_>,
) {
    let channels = with.mean.len();
    for (dz, x) in dz.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
        rows!(channels, |c, LANES| {
            let (dz, x) = (&mut dz[c..][..LANES], &x[c..][..LANES]);
            let (mean, scale) = (&with.mean[c..][..LANES], &with.scale[c..][..LANES]);
            let mean_gradient = &with.mean_gradient[c..][..LANES];
            let slope = &with.slope[c..][..LANES];
            for l in 0..LANES {
                let rest = dz[l] - mean_gradient[l];
                let centred = x[l] - mean[l];
                dz[l] = scale[l] * plus_product::<FUSED>(rest, -centred, slope[l]);
            }
        });
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
