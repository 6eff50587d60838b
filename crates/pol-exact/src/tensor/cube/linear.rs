//! Linear layers.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::arithmetic::plus_product;
use super::launch::{dims, launch};
use super::sums::tree;
use crate::profile::Profile;
use crate::shape::BLOCK;

pub(super) fn forward(x: CubeTensor, w: CubeTensor, profile: Profile) -> CubeTensor {
    let (rows, sizes) = (dims(&x)[0], dims(&w));
    launch!(
        forward_kernel::launch, x, w; [rows, sizes[1]];
        0, sizes[0], sizes[1], profile.fused()
    )
}

pub(super) fn backward_input(dy: CubeTensor, w: CubeTensor, profile: Profile) -> CubeTensor {
    let (rows, sizes) = (dims(&dy)[0], dims(&w));
    launch!(
        input_kernel::launch, dy, w; [rows, sizes[0]];
        0, sizes[0], sizes[1], profile.fused()
    )
}

pub(super) fn backward_weight(x: CubeTensor, dy: CubeTensor, profile: Profile) -> CubeTensor {
    let (rows, inputs, outputs) = (dims(&x)[0], dims(&x)[1], dims(&dy)[1]);
    let blocks = rows.div_ceil(BLOCK).max(1);
    let partials = launch!(
        weight_kernel::launch, x, dy; [blocks, inputs * outputs];
        rows, 0, inputs, outputs, profile.fused()
    );
    let sums = tree(partials, inputs * outputs);
    CubeTensor::new_contiguous(
        sums.client,
        sums.device,
        vec![inputs, outputs].into(),
        sums.handle,
        sums.dtype,
    )
}

#[cube(launch)]
fn forward_kernel(
    x: &[f32],
    w: &[f32],
    y: &mut [f32],
    zero: u32,
    #[comptime] inputs: usize,
    #[comptime] outputs: usize,
    #[comptime] fused: bool,
) {
    if ABSOLUTE_POS < y.len() {
        let (row, o) = (ABSOLUTE_POS / outputs, ABSOLUTE_POS % outputs);
        let mut sum = 0.0f32.runtime();
        for i in 0..inputs {
            sum = plus_product(sum, x[row * inputs + i], w[i * outputs + o], zero, fused);
        }
        y[ABSOLUTE_POS] = sum;
    }
}

#[cube(launch)]
fn input_kernel(
    dy: &[f32],
    w: &[f32],
    dx: &mut [f32],
    zero: u32,
    #[comptime] inputs: usize,
    #[comptime] outputs: usize,
    #[comptime] fused: bool,
) {
    if ABSOLUTE_POS < dx.len() {
        let (row, i) = (ABSOLUTE_POS / inputs, ABSOLUTE_POS % inputs);
        let mut sum = 0.0f32.runtime();
        for o in 0..outputs {
            sum = plus_product(sum, dy[row * outputs + o], w[i * outputs + o], zero, fused);
        }
        dx[ABSOLUTE_POS] = sum;
    }
}

#[cube(launch)]
fn weight_kernel(
    x: &[f32],
    dy: &[f32],
    sums: &mut [f32],
    rows: usize,
    zero: u32,
    #[comptime] inputs: usize,
    #[comptime] outputs: usize,
    #[comptime] fused: bool,
) {
    if ABSOLUTE_POS < sums.len() {
        let o = ABSOLUTE_POS % outputs;
        let i = ABSOLUTE_POS / outputs % inputs;
        let first = ABSOLUTE_POS / (inputs * outputs) * BLOCK;
        let mut sum = 0.0f32.runtime();
        for row in first..min(first + BLOCK, rows) {
            sum = plus_product(sum, x[row * inputs + i], dy[row * outputs + o], zero, fused);
        }
        sums[ABSOLUTE_POS] = sum;
    }
}
