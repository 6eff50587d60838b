//! Pooling and the parameter-free shortcut (NUMERICS.md, "Pooling").
//!
//! Windows are visited in order, each with all its channels: an input that is in several windows gets
//! their gradients in that order, and what a loop does to neighbouring channels is one vector's work.

use std::ops::Range;

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

/// The channels of every place of a window, in order; those of the window's output are `output` in all.
fn places(shape: &PoolShape, output: usize) -> impl Iterator<Item = Range<usize>> + use<'_> {
    let columns = shape.output()[1];
    let row = output / columns * shape.stride[0];
    let column = output % columns * shape.stride[1];
    (row..row + shape.window[0]).flat_map(move |r| {
        (column..column + shape.window[1]).map(move |c| {
            let at = (r * shape.input[1] + c) * shape.channels;
            at..at + shape.channels
        })
    })
}

vectorised! {
    fn average_image(x: &[f32], y: &mut [f32], shape: &PoolShape) {
        let count = (shape.window[0] * shape.window[1]) as f32;
        for (output, y) in y.chunks_exact_mut(shape.channels.max(1)).enumerate() {
            y.fill(0.0);
            for place in places(shape, output) {
                for (y, x) in y.iter_mut().zip(&x[place]) {
                    *y += x;
                }
            }
            for y in y {
                *y /= count;
            }
        }
    }
}

vectorised! {
    fn average_image_backward(dy: &[f32], dx: &mut [f32], shape: &PoolShape) {
        let count = (shape.window[0] * shape.window[1]) as f32;
        dx.fill(0.0);
        for (output, dy) in dy.chunks_exact(shape.channels.max(1)).enumerate() {
            for place in places(shape, output) {
                for (dx, dy) in dx[place].iter_mut().zip(dy) {
                    *dx += dy / count;
                }
            }
        }
    }
}

vectorised! {
    fn max_image(x: &[f32], y: &mut [f32], shape: &PoolShape) {
        for (output, y) in y.chunks_exact_mut(shape.channels.max(1)).enumerate() {
            for (i, place) in places(shape, output).enumerate() {
                if i == 0 {
                    y.copy_from_slice(&x[place]);
                    continue;
                }
                for (best, next) in y.iter_mut().zip(&x[place]) {
                    *best = if *next > *best { *next } else { *best };
                }
            }
        }
    }
}

vectorised! {
    fn max_image_backward(x: &[f32], dy: &[f32], dx: &mut [f32], shape: &PoolShape) {
        let mut best = vec![0.0f32; shape.channels];
        let mut chosen = vec![0u32; shape.channels];
        dx.fill(0.0);
        for (output, dy) in dy.chunks_exact(shape.channels.max(1)).enumerate() {
            for (i, place) in (0u32..).zip(places(shape, output)) {
                if i == 0 {
                    best.copy_from_slice(&x[place]);
                    chosen.fill(0);
                    continue;
                }
                for ((best, chosen), next) in best.iter_mut().zip(&mut chosen).zip(&x[place]) {
                    let greater = *next > *best;
                    *best = if greater { *next } else { *best };
                    *chosen = if greater { i } else { *chosen };
                }
            }
            for (i, place) in (0u32..).zip(places(shape, output)) {
                for ((dx, dy), chosen) in dx[place].iter_mut().zip(dy).zip(&chosen) {
                    // A sum that begins with +0 is never −0, and +0 changes no other.
                    *dx += if *chosen == i { *dy } else { 0.0 };
                }
            }
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
