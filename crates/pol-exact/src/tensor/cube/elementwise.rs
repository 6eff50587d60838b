//! Operators on single values.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::arithmetic::positive;
use super::launch::{dims, launch};

pub(super) fn relu(x: CubeTensor) -> CubeTensor {
    let shape = dims(&x);
    launch!(relu_kernel::launch, x; shape;)
}

pub(super) fn relu_gradient(dy: CubeTensor, y: CubeTensor) -> CubeTensor {
    let shape = dims(&dy);
    launch!(relu_gradient_kernel::launch, dy, y; shape;)
}

pub(super) fn multiply(a: CubeTensor, b: CubeTensor) -> CubeTensor {
    let shape = dims(&a);
    launch!(multiply_kernel::launch, a, b; shape;)
}

pub(super) fn add_bias(x: CubeTensor, bias: CubeTensor) -> CubeTensor {
    let shape = dims(&x);
    let width = shape.last().copied().unwrap_or(1);
    launch!(add_bias_kernel::launch, x, bias; shape; width)
}

#[cube(launch)]
fn relu_kernel(x: &[f32], y: &mut [f32]) {
    if ABSOLUTE_POS < y.len() {
        y[ABSOLUTE_POS] = positive(x[ABSOLUTE_POS]);
    }
}

#[cube(launch)]
fn relu_gradient_kernel(dy: &[f32], y: &[f32], dx: &mut [f32]) {
    if ABSOLUTE_POS < dx.len() {
        let mut passed = 0.0f32.runtime();
        if y[ABSOLUTE_POS] > 0.0f32 {
            passed = dy[ABSOLUTE_POS];
        }
        dx[ABSOLUTE_POS] = passed;
    }
}

#[cube(launch)]
pub(super) fn multiply_kernel(a: &[f32], b: &[f32], y: &mut [f32]) {
    if ABSOLUTE_POS < y.len() {
        y[ABSOLUTE_POS] = a[ABSOLUTE_POS] * b[ABSOLUTE_POS];
    }
}

#[cube(launch)]
fn add_bias_kernel(x: &[f32], bias: &[f32], y: &mut [f32], #[comptime] width: usize) {
    if ABSOLUTE_POS < y.len() {
        y[ABSOLUTE_POS] = x[ABSOLUTE_POS] + bias[ABSOLUTE_POS % width];
    }
}
