//! Long sums: blocks in order, then a tree over them.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::arithmetic::plus;
use super::launch::{contiguous, dims, launch};

/// The sum of each column over all other dimensions, in blocks of `block` rows.
pub(super) fn column_sums(x: CubeTensor, block: usize) -> CubeTensor {
    let x = contiguous(x);
    let width = dims(&x).last().copied().unwrap_or(1);
    let rows = x.meta.shape().num_elements() / width.max(1);
    let blocks = rows.div_ceil(block).max(1);
    let partials = launch!(block_sums::launch, x; [blocks, width]; rows, 0, width, block);
    tree(partials, width)
}

/// The sum over the first dimension of `[blocks, width]`, `[width]`: neighbours are added until one
/// is left; an odd one waits.
pub(super) fn tree(partials: CubeTensor, width: usize) -> CubeTensor {
    let mut partials = partials;
    let mut blocks = partials.meta.shape().num_elements() / width.max(1);
    while blocks > 1 {
        let pairs = blocks.div_ceil(2);
        partials = launch!(add_neighbours::launch, partials; [pairs, width]; blocks, width);
        blocks = pairs;
    }
    // One block, whatever dimensions it came with.
    CubeTensor::new_contiguous(
        partials.client,
        partials.device,
        vec![width].into(),
        partials.handle,
        partials.dtype,
    )
}

#[cube(launch)]
fn block_sums(
    x: &[f32],
    sums: &mut [f32],
    rows: usize,
    zero: u32,
    #[comptime] width: usize,
    #[comptime] block: usize,
) {
    if ABSOLUTE_POS < sums.len() {
        let column = ABSOLUTE_POS % width;
        let first = ABSOLUTE_POS / width * block;
        let mut sum = 0.0f32.runtime();
        for row in first..min(first + block, rows) {
            sum = plus(sum, x[row * width + column], zero);
        }
        sums[ABSOLUTE_POS] = sum;
    }
}

#[cube(launch)]
fn add_neighbours(partials: &[f32], sums: &mut [f32], blocks: usize, #[comptime] width: usize) {
    if ABSOLUTE_POS < sums.len() {
        let left = ABSOLUTE_POS / width * 2;
        let column = ABSOLUTE_POS % width;
        let mut sum = partials[left * width + column];
        if left + 1 < blocks {
            sum += partials[(left + 1) * width + column];
        }
        sums[ABSOLUTE_POS] = sum;
    }
}
