//! Batch normalisation (Ioffe & Szegedy, 2015; NUMERICS.md, "Batch normalisation"), with what
//! usually follows it: the sum with a shortcut, and the rectifier.

use rayon::prelude::*;

use super::buffers::{Values, any, any_from_start};
use super::sums::{Terms, channel_sums, column_sums, tree_of_pixels};
use super::tree::{end, tree_in_place};
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

/// The statistics of `x`, images of `pixels` pixels.
pub fn statistics(profile: Profile, x: &[f32], channels: usize, pixels: usize) -> Statistics {
    let count = (x.len() / channels.max(1)) as f32;
    // mean = (Σ x) / m
    let mut mean = column_sums(x, channels, pixels);
    mean.iter_mut().for_each(|sum| *sum /= count);
    // variance = (Σ ⊕ (x − mean)·(x − mean)) / m
    let image = pixels * channels;
    let mut variance = channel_sums(x.len(), image, channels, |part, sums| {
        match profile.fused() {
            true => squares_fused(&x[part], &mean, sums),
            false => squares(&x[part], &mean, sums),
        }
    });
    if profile.fused() {
        end(&mut variance);
    }
    variance.iter_mut().for_each(|sum| *sum /= count);
    Statistics { mean, variance }
}

/// A running average that moves towards what was observed: `average·keep ⊕ observed·rate`.
pub fn moved(
    profile: Profile,
    average: &[f32],
    keep: f32,
    observed: &[f32],
    rate: f32,
) -> Vec<f32> {
    let each = average.iter().zip(observed);
    each.map(|(average, observed)| match profile.fused() {
        true => plus_product::<true>(average * keep, *observed, rate),
        false => plus_product::<false>(average * keep, *observed, rate),
    })
    .collect()
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
    /// Of an image.
    pub pixels: usize,
}

/// The backward pass of [`normalise`].
pub fn backward(profile: Profile, dy: &[f32], saved: Saved<'_>, options: Backward) -> Gradients {
    let Backward {
        fixed,
        with_shortcut,
        pixels,
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
    // dβ = Σ dz and dγ / r = Σ ⊕ dz·(x − mean), side by side.
    let image = (pixels * channels).max(1);
    let images = dy.len().div_ceil(image);
    let mut sums = vec![0.0; 2 * channels * images];
    let of = |index: usize, sums: &mut [f32], passed: Option<&mut [f32]>| {
        let part = index * image..dy.len().min((index + 1) * image);
        let (y, dy, x) = (
            saved.rectified.map(|y| &y[part.clone()]),
            &dy[part.clone()],
            &saved.x[part],
        );
        match (profile.fused(), passed) {
            (false, None) => gradients(dy, x, saved.mean, sums),
            (true, None) => gradients_fused(dy, x, saved.mean, sums),
            (false, Some(passed)) => passed_gradients(passed, dy, y, x, saved.mean, sums),
            (true, Some(passed)) => passed_gradients_fused(passed, dy, y, x, saved.mean, sums),
        }
    };
    let sums_of = sums.par_chunks_mut((2 * channels).max(1)).enumerate();
    let least = TASK.div_ceil(image);
    match writes {
        true => sums_of
            .zip(passed.par_chunks_mut(image))
            .with_min_len(least)
            .for_each(|((index, sums), passed)| of(index, sums, Some(passed))),
        false => sums_of
            .with_min_len(least)
            .for_each(|(index, sums)| of(index, sums, None)),
    }
    tree_in_place(&mut sums, 2 * channels);
    sums.truncate(2 * channels);
    if profile.fused() {
        end(&mut sums);
    }
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

/// Defines a kernel for the profiles with two roundings and with one.
macro_rules! profiled {
    ($fused:ident, $name_fused:ident, $name:ident, ($($arg:ident: $ty:ty),* $(,)?) $body:block) => {
        vectorised! { fn $name($($arg: $ty),*) { const $fused: bool = false; $body } }
        vectorised! { fn $name_fused($($arg: $ty),*) { const $fused: bool = true; $body } }
    };
}

/// ⊕ (x − mean)·(x − mean).
struct Squares<'a, const FUSED: bool> {
    x: &'a [f32],
    mean: &'a [f32],
}

impl<const FUSED: bool> Terms<1> for Squares<'_, FUSED> {
    #[inline(always)]
    fn add<const LANES: usize>(&mut self, sums: &mut [[f32; LANES]; 1], at: usize, c: usize) {
        let (x, mean) = (&self.x[at..][..LANES], &self.mean[c..][..LANES]);
        for l in 0..LANES {
            let centred = x[l] - mean[l];
            sums[0][l] = plus_product::<FUSED>(sums[0][l], centred, centred);
        }
    }
}

profiled! { FUSED, squares_fused, squares, (x: &[f32], mean: &[f32], sums: &mut [f32]) {
    tree_of_pixels::<4, 1>(&mut Squares::<FUSED> { x, mean }, x.len(), mean.len(), [sums]);
}}

/// dz, and ⊕ dz·(x − mean).
struct Gradient<'a, const FUSED: bool> {
    dz: &'a [f32],
    x: &'a [f32],
    mean: &'a [f32],
}

impl<const FUSED: bool> Terms<2> for Gradient<'_, FUSED> {
    #[inline(always)]
    fn add<const LANES: usize>(&mut self, sums: &mut [[f32; LANES]; 2], at: usize, c: usize) {
        let (dz, x) = (&self.dz[at..][..LANES], &self.x[at..][..LANES]);
        let mean = &self.mean[c..][..LANES];
        for l in 0..LANES {
            sums[0][l] += dz[l];
            sums[1][l] = plus_product::<FUSED>(sums[1][l], dz[l], x[l] - mean[l]);
        }
    }
}

profiled! { FUSED, gradients_fused, gradients, (
    dz: &[f32],
    x: &[f32],
    mean: &[f32],
    sums: &mut [f32],
) {
    let (beta, gamma) = sums.split_at_mut(mean.len());
    let mut terms = Gradient::<FUSED> { dz, x, mean };
    tree_of_pixels::<2, 2>(&mut terms, x.len(), mean.len(), [beta, gamma]);
}}

/// The same of what passes a rectifier, which is kept; everything passes where there is none.
struct PassedGradient<'a, const FUSED: bool> {
    passed: &'a mut [f32],
    dy: &'a [f32],
    /// The rectifier's output; where there is none anything as long, which is not looked at.
    y: &'a [f32],
    rectified: bool,
    x: &'a [f32],
    mean: &'a [f32],
}

impl<const FUSED: bool> Terms<2> for PassedGradient<'_, FUSED> {
    #[inline(always)]
    fn add<const LANES: usize>(&mut self, sums: &mut [[f32; LANES]; 2], at: usize, c: usize) {
        let (dy, y) = (&self.dy[at..][..LANES], &self.y[at..][..LANES]);
        let (x, mean) = (&self.x[at..][..LANES], &self.mean[c..][..LANES]);
        let passed = &mut self.passed[at..][..LANES];
        for l in 0..LANES {
            let passes = !self.rectified || y[l] > 0.0;
            let dz = if passes { dy[l] } else { 0.0 };
            passed[l] = dz;
            sums[0][l] += dz;
            sums[1][l] = plus_product::<FUSED>(sums[1][l], dz, x[l] - mean[l]);
        }
    }
}

profiled! { FUSED, passed_gradients_fused, passed_gradients, (
    passed: &mut [f32],
    dy: &[f32],
    rectified: Option<&[f32]>,
    x: &[f32],
    mean: &[f32],
    sums: &mut [f32],
) {
    let (beta, gamma) = sums.split_at_mut(mean.len());
    let mut terms = PassedGradient::<FUSED> {
        passed,
        dy,
        y: rectified.unwrap_or(dy),
        rectified: rectified.is_some(),
        x,
        mean,
    };
    tree_of_pixels::<2, 2>(&mut terms, x.len(), mean.len(), [beta, gamma]);
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
