//! Operators on single values (NUMERICS.md, "Elementwise operators").

use rayon::prelude::*;

use super::buffers::{Values, any};
use crate::simd::vectorised;

/// Values that one task computes.
const TASK: usize = 1 << 14;

/// `x` where it is positive, else +0.
pub fn relu(x: &[f32]) -> Values {
    map2(x, x, relu_part)
}

/// The gradient of [`relu`] with output `y`.
pub fn relu_backward(dy: &[f32], y: &[f32]) -> Values {
    map2(dy, y, relu_backward_part)
}

/// `a · b`.
pub fn multiply(a: &[f32], b: &[f32]) -> Values {
    map2(a, b, multiply_part)
}

/// `x[r, c] + bias[c]`.
pub fn add_bias(x: &[f32], bias: &[f32]) -> Vec<f32> {
    let mut y = x.to_vec();
    let rows = (TASK / bias.len().max(1)).max(1) * bias.len().max(1);
    y.par_chunks_mut(rows).for_each(|y| add_bias_part(y, bias));
    y
}

fn map2(a: &[f32], b: &[f32], part: fn(&mut [f32], &[f32], &[f32])) -> Values {
    let mut y = any(a.len());
    (y.par_chunks_mut(TASK))
        .zip(a.par_chunks(TASK).zip(b.par_chunks(TASK)))
        .for_each(|(y, (a, b))| part(y, a, b));
    y
}

vectorised! {
    fn relu_part(y: &mut [f32], x: &[f32], _same: &[f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = if *x > 0.0 { *x } else { 0.0 };
        }
    }
}

vectorised! {
    fn relu_backward_part(dx: &mut [f32], dy: &[f32], y: &[f32]) {
        for ((dx, dy), y) in dx.iter_mut().zip(dy).zip(y) {
            *dx = if *y > 0.0 { *dy } else { 0.0 };
        }
    }
}

vectorised! {
    fn multiply_part(y: &mut [f32], a: &[f32], b: &[f32]) {
        for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
            *y = a * b;
        }
    }
}

vectorised! {
    fn add_bias_part(y: &mut [f32], bias: &[f32]) {
        for row in y.chunks_exact_mut(bias.len()) {
            for (y, bias) in row.iter_mut().zip(bias) {
                *y += bias;
            }
        }
    }
}
