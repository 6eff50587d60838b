//! Linear layers, with a unit for each value.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::super::arithmetic::{ended, plus_product};
use super::super::launch::{dims, launch};
use super::super::sums::tree_of;
use crate::profile::Profile;
use crate::shape::WeightBlock;

/// Rows of a block.
const BLOCK: usize = match WeightBlock::of_matrix() {
    WeightBlock::Images(rows) | WeightBlock::Rows(rows) => rows,
};

pub(in crate::tensor::cube) fn forward(
    x: CubeTensor,
    w: CubeTensor,
    profile: Profile,
) -> CubeTensor {
    let (rows, sizes) = (dims(&x)[0], dims(&w));
    launch!(
        forward_kernel::launch, x, w; [rows, sizes[1]];
        0, sizes[0], sizes[1], profile.fused()
    )
}

pub(in crate::tensor::cube) fn backward_input(
    dy: CubeTensor,
    w: CubeTensor,
    profile: Profile,
) -> CubeTensor {
    let (rows, sizes) = (dims(&dy)[0], dims(&w));
    launch!(
        input_kernel::launch, dy, w; [rows, sizes[0]];
        0, sizes[0], sizes[1], profile.fused()
    )
}

pub(in crate::tensor::cube) fn backward_weight(
    x: CubeTensor,
    dy: CubeTensor,
    profile: Profile,
) -> CubeTensor {
    let (rows, inputs, outputs) = (dims(&x)[0], dims(&x)[1], dims(&dy)[1]);
    let blocks = rows.div_ceil(BLOCK).max(1);
    let partials = launch!(
        weight_kernel::launch, x, dy; [blocks, inputs * outputs];
        rows, 0, inputs, outputs, profile.fused()
    );
    launch!(tree_kernel::launch, partials; [inputs, outputs]; 0, blocks, inputs * outputs)
}

#[cube(launch)]
fn tree_kernel(
    partials: &[f32],
    dw: &mut [f32],
    zero: u32,
    #[comptime] blocks: usize,
    #[comptime] width: usize,
) {
    if ABSOLUTE_POS < dw.len() {
        dw[ABSOLUTE_POS] = tree_of(partials, ABSOLUTE_POS, width, zero, blocks, 1usize);
    }
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
        let mut sum = f32::reinterpret(zero);
        for i in 0..inputs {
            sum = plus_product(sum, x[row * inputs + i], w[i * outputs + o], zero, fused);
        }
        y[ABSOLUTE_POS] = ended(sum, zero);
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
        let mut sum = f32::reinterpret(zero);
        for o in 0..outputs {
            sum = plus_product(sum, dy[row * outputs + o], w[i * outputs + o], zero, fused);
        }
        dx[ABSOLUTE_POS] = ended(sum, zero);
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
        let mut sum = f32::reinterpret(zero);
        for row in first..min(first + BLOCK, rows) {
            sum = plus_product(sum, x[row * inputs + i], dy[row * outputs + o], zero, fused);
        }
        sums[ABSOLUTE_POS] = sum;
    }
}
