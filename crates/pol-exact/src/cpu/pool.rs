//! Pooling and the parameter-free shortcut (NUMERICS.md, "Pooling").
//!
//! Windows are visited in order, each with all its channels: an input that is in several windows gets
//! their gradients in that order, and what a loop does to neighbouring channels is one vector's work.

use rayon::prelude::*;

use super::buffers::{Values, any};
use crate::shape::PoolShape;
use crate::simd::vectorised;

/// The mean of each window: its values in order from +0, divided by their number.
pub fn average(x: &[f32], shape: &PoolShape) -> Values {
    per_image(x, shape.image(), shape.output_image(), |x, y| {
        average_image(x, y, shape);
    })
}

/// The gradient of [`average`]: for each input the windows it is in, in order.
pub fn average_backward(dy: &[f32], shape: &PoolShape) -> Values {
    per_image(dy, shape.output_image(), shape.image(), |dy, dx| {
        average_image_backward(dy, dx, shape);
    })
}

/// The greatest value of each window, the first of equal ones.
pub fn max(x: &[f32], shape: &PoolShape) -> Values {
    per_image(x, shape.image(), shape.output_image(), |x, y| {
        max_image(x, y, shape);
    })
}

/// The gradient of [`max`]: all of a window's goes to its greatest value, the first of equal ones.
pub fn max_backward(x: &[f32], dy: &[f32], shape: &PoolShape) -> Values {
    let mut dx = any(shape.batch * shape.image());
    (dx.par_chunks_mut(shape.image().max(1)))
        .zip(x.par_chunks(shape.image().max(1)))
        .zip(dy.par_chunks(shape.output_image().max(1)))
        .for_each(|((dx, x), dy)| max_image_backward(x, dy, dx, shape));
    dx
}

/// What `f` makes of each image, of `from` values, in its place among the outputs, of `to` values each.
fn per_image(x: &[f32], from: usize, to: usize, f: impl Fn(&[f32], &mut [f32]) + Sync) -> Values {
    let mut y = any(x.len() / from.max(1) * to);
    (y.par_chunks_mut(to.max(1)))
        .zip(x.par_chunks(from.max(1)))
        .for_each(|(y, x)| f(x, y));
    y
}

/// Runs the body for each place of the window of an output, in order, with where its channels are and its number.
/// Written out: what an iterator's closures are compiled to is not the vector code of the function around them.
macro_rules! each_place {
    ($shape:ident, $output:ident, $channels:ident, ($i:ident, $place:ident) => $body:block) => {
        let columns = $shape.output()[1];
        let row = $output / columns * $shape.stride[0];
        let column = $output % columns * $shape.stride[1];
        let mut next = 0u32;
        for r in row..row + $shape.window[0] {
            for c in column..column + $shape.window[1] {
                let at = (r * $shape.input[1] + c) * $channels;
                let ($i, $place) = (next, at..at + $channels);
                next += 1;
                $body
            }
        }
    };
}

/// Calls `f` with the number of channels compiled in, where it is one of the shipped networks', and the lanes that
/// suit it; 0 stands for any other.
macro_rules! by_channels {
    ($f:ident, $shape:ident, ($($arg:ident),*)) => {
        match $shape.channels {
            6 => $f::<6, 8>($($arg),*, $shape),
            16 => $f::<16, 16>($($arg),*, $shape),
            _ => $f::<0, 16>($($arg),*, $shape),
        }
    };
}

vectorised! {
    fn average_image(x: &[f32], y: &mut [f32], shape: &PoolShape) {
        let count = (shape.window[0] * shape.window[1]) as f32;
        let channels = shape.channels;
        for (output, y) in y.chunks_exact_mut(channels.max(1)).enumerate() {
            y.fill(0.0);
            each_place!(shape, output, channels, (_i, place) => {
                for (y, x) in y.iter_mut().zip(&x[place]) {
                    *y += x;
                }
            });
            for y in y {
                *y /= count;
            }
        }
    }
}

vectorised! {
    fn average_image_backward(dy: &[f32], dx: &mut [f32], shape: &PoolShape) {
        let count = (shape.window[0] * shape.window[1]) as f32;
        let channels = shape.channels;
        dx.fill(0.0);
        for (output, dy) in dy.chunks_exact(channels.max(1)).enumerate() {
            each_place!(shape, output, channels, (_i, place) => {
                for (dx, dy) in dx[place].iter_mut().zip(dy) {
                    *dx += dy / count;
                }
            });
        }
    }
}

vectorised! {
    fn max_image(x: &[f32], y: &mut [f32], shape: &PoolShape) {
        by_channels!(max_of, shape, (x, y));
    }
}

vectorised! {
    fn max_image_backward(x: &[f32], dy: &[f32], dx: &mut [f32], shape: &PoolShape) {
        by_channels!(max_backward_of, shape, (x, dy, dx));
    }
}

/// The first values of a vector of `LANES`; the rest are zeros.
#[inline(always)]
fn load<const LANES: usize>(from: &[f32]) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    lanes[..from.len()].copy_from_slice(from);
    lanes
}

#[inline(always)]
fn max_of<const CHANNELS: usize, const LANES: usize>(x: &[f32], y: &mut [f32], shape: &PoolShape) {
    let channels = shape.channels_or::<CHANNELS>();
    for (output, y) in y.chunks_exact_mut(channels.max(1)).enumerate() {
        for first in (0..channels).step_by(LANES) {
            let some = first..channels.min(first + LANES);
            let mut best = [0.0f32; LANES];
            each_place!(shape, output, channels, (i, place) => {
                let next = load::<LANES>(&x[place][some.clone()]);
                for lane in 0..LANES {
                    let greater = i == 0 || next[lane] > best[lane];
                    best[lane] = if greater { next[lane] } else { best[lane] };
                }
            });
            y[some.clone()].copy_from_slice(&best[..some.len()]);
        }
    }
}

#[inline(always)]
fn max_backward_of<const CHANNELS: usize, const LANES: usize>(
    x: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    shape: &PoolShape,
) {
    let channels = shape.channels_or::<CHANNELS>();
    dx.fill(0.0);
    for (output, dy) in dy.chunks_exact(channels.max(1)).enumerate() {
        for first in (0..channels).step_by(LANES) {
            let some = first..channels.min(first + LANES);
            let (mut best, mut chosen) = ([0.0f32; LANES], [0u32; LANES]);
            each_place!(shape, output, channels, (i, place) => {
                let next = load::<LANES>(&x[place][some.clone()]);
                for lane in 0..LANES {
                    let greater = i == 0 || next[lane] > best[lane];
                    best[lane] = if greater { next[lane] } else { best[lane] };
                    chosen[lane] = if greater { i } else { chosen[lane] };
                }
            });
            let dy = load::<LANES>(&dy[some.clone()]);
            each_place!(shape, output, channels, (i, place) => {
                let dx = &mut dx[place][some.clone()];
                let mut sums = load::<LANES>(dx);
                for lane in 0..LANES {
                    // A sum that begins with +0 is never −0, and +0 changes no other.
                    sums[lane] += if chosen[lane] == i { dy[lane] } else { 0.0 };
                }
                dx.copy_from_slice(&sums[..dx.len()]);
            });
        }
    }
}

/// Every `stride`-th row and column from the first, with zeros for new channels: `before` of them
/// ahead and the rest behind (He et al., 2016, §3.3, option A).
pub fn shortcut(x: &[f32], shape: &ShortcutShape) -> Vec<f32> {
    let [rows, columns] = shape.output();
    let mut y = vec![0.0; shape.batch * rows * columns * shape.channels_out];
    for (output, y) in y.chunks_exact_mut(shape.channels_out.max(1)).enumerate() {
        let from = shape.input_of(output);
        y[shape.before()..][..shape.channels_in]
            .copy_from_slice(&x[from..from + shape.channels_in]);
    }
    y
}

/// The gradient of [`shortcut`]: the same values back in their places, zeros elsewhere.
pub fn shortcut_backward(dy: &[f32], shape: &ShortcutShape) -> Vec<f32> {
    let [rows, columns] = shape.input;
    let mut dx = vec![0.0; shape.batch * rows * columns * shape.channels_in];
    for (output, dy) in dy.chunks_exact(shape.channels_out.max(1)).enumerate() {
        let to = shape.input_of(output);
        dx[to..to + shape.channels_in].copy_from_slice(&dy[shape.before()..][..shape.channels_in]);
    }
    dx
}

pub use crate::shape::ShortcutShape;
