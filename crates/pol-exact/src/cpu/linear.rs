//! Linear layers (NUMERICS.md, "Linear").

use rayon::prelude::*;

use super::conv::pack;
use super::tree::tree_sum;
use crate::profile::Profile;
use crate::shape::BLOCK;
use crate::simd::{Convolution, Isa, Outer, Run, WIDTH, accumulate_outer, convolve};

/// Rows that one task computes.
const ROWS: usize = 32;

/// `x · w`: `[rows, inputs] · [inputs, outputs]`, each value a sum over the inputs in order.
pub fn forward(profile: Profile, x: &[f32], w: &[f32], inputs: usize, outputs: usize) -> Vec<f32> {
    product(
        profile,
        x,
        &pack(inputs, outputs, |i, o| w[i * outputs + o]),
        inputs,
        outputs,
    )
}

/// The gradient of `x`: `dy · wᵀ`, each value a sum over the outputs in order.
pub fn backward_input(
    profile: Profile,
    dy: &[f32],
    w: &[f32],
    inputs: usize,
    outputs: usize,
) -> Vec<f32> {
    product(
        profile,
        dy,
        &pack(outputs, inputs, |o, i| w[i * outputs + o]),
        outputs,
        inputs,
    )
}

/// The gradient of `w`: `xᵀ · dy`, over rows in order within a block, blocks as a tree.
pub fn backward_weight(
    profile: Profile,
    x: &[f32],
    dy: &[f32],
    inputs: usize,
    outputs: usize,
) -> Vec<f32> {
    let isa = Isa::current();
    let rows = dy.len() / outputs.max(1);
    let groups = outputs.div_ceil(WIDTH);
    let wide = groups * WIDTH;
    let sums = tree_sum(rows.div_ceil(BLOCK), &|block| {
        let block = block * BLOCK..rows.min((block + 1) * BLOCK);
        let mut gradient = vec![0.0; block.len() * wide];
        let from = dy[block.start * outputs..block.end * outputs].chunks_exact(outputs.max(1));
        for (to, from) in gradient.chunks_exact_mut(wide.max(1)).zip(from) {
            to[..outputs].copy_from_slice(from);
        }
        let x = &x[block.start * inputs..block.end * inputs];
        let mut sums = vec![0.0; inputs * wide];
        // Each task takes some of the inputs: no sum is split.
        let task = inputs.div_ceil(rayon::current_num_threads().max(1)).max(16);
        (sums.par_chunks_mut((task * wide).max(1)).enumerate()).for_each(|(part, sums)| {
            let job = Outer {
                x: &x[part * task..],
                row_step: 0,
                column_step: inputs,
                inputs: sums.len() / wide,
                gradient: &gradient,
                rows: 1,
                columns: block.len(),
                groups,
                channels: outputs,
            };
            accumulate_outer(isa, profile.fused(), &job, sums);
        });
        sums
    });
    match wide == outputs {
        true => sums,
        false => {
            let rows = sums.chunks_exact(wide.max(1));
            rows.flat_map(|row| &row[..outputs]).copied().collect()
        }
    }
}

fn product(profile: Profile, x: &[f32], weights: &[f32], depth: usize, outputs: usize) -> Vec<f32> {
    let isa = Isa::current();
    let rows = x.len() / depth.max(1);
    let runs = [Run {
        input: 0,
        weight: 0,
        len: depth,
    }];
    let mut y = vec![0.0; rows * outputs];
    (y.par_chunks_mut((ROWS * outputs).max(1)))
        .zip(x.par_chunks((ROWS * depth).max(1)))
        .for_each(|(y, x)| {
            let job = Convolution {
                x,
                row_step: 0,
                column_step: depth,
                runs: &runs,
                weights,
                weights_step: 0,
                depth,
                rows: 1,
                columns: y.len() / outputs,
                channels: outputs,
                out_row_step: 0,
                out_column_step: outputs,
            };
            convolve(isa, profile.fused(), &job, y);
        });
    y
}
