//! Linear layers (NUMERICS.md, "Linear").

use rayon::prelude::*;

use super::buffers::any_from_start;
use super::conv::pack;
use super::tree::{end, tree_sum};
use crate::profile::Profile;
use crate::shape::WeightBlock;
use crate::simd::{Aligned, Convolution, Isa, Outer, Run, WIDTH, accumulate_outer, convolve};

/// Rows that one task computes.
const ROWS: usize = 32;
/// Blocks of rows whose tree one task sums: a power of two.
const GROUP: usize = 1 << 12;
/// Products that a task makes, at least.
const TASK: usize = 1 << 18;
/// Inputs that a kernel takes at a time divide this.
const INPUTS: usize = 24;

/// `x · w`: `[rows, inputs] · [inputs, outputs]`, each value a sum over the inputs in order.
pub fn forward(profile: Profile, x: &[f32], w: &[f32], inputs: usize, outputs: usize) -> Vec<f32> {
    // As `pack`, of weights whose outputs are side by side already.
    let mut packed = Aligned::zeros(outputs.div_ceil(WIDTH) * inputs * WIDTH);
    let groups = packed.par_chunks_mut((inputs * WIDTH).max(1)).enumerate();
    groups.for_each(|(group, packed)| {
        let lanes = WIDTH.min(outputs - group * WIDTH);
        let rows = w.chunks_exact(outputs).map(|row| &row[group * WIDTH..]);
        for (packed, row) in packed.chunks_exact_mut(WIDTH).zip(rows) {
            packed[..lanes].copy_from_slice(&row[..lanes]);
        }
    });
    product(profile, x, &packed, inputs, outputs)
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
    if rows == 0 {
        return vec![0.0; inputs * outputs];
    }
    let groups = outputs.div_ceil(WIDTH);
    let wide = groups * WIDTH;
    let block = match WeightBlock::of_matrix() {
        WeightBlock::Images(rows) | WeightBlock::Rows(rows) => rows,
    };
    let sums = tree_sum(rows.div_ceil(GROUP * block), &|group| {
        let rows = group * GROUP * block..rows.min((group + 1) * GROUP * block);
        let mut gradient = Aligned::zeros(rows.len() * wide);
        let from = dy[rows.start * outputs..rows.end * outputs].chunks_exact(outputs.max(1));
        for (to, from) in gradient.chunks_exact_mut(wide.max(1)).zip(from) {
            to[..outputs].copy_from_slice(from);
        }
        let x = &x[rows.start * inputs..rows.end * inputs];
        let blocks = rows.len().div_ceil(block);
        // Written over: a tree begins with its first row.
        let mut sums = any_from_start(inputs * wide).into_parts().0;
        // Each task takes some of the inputs: no sum is split. They are brought together, since rows far apart would
        // each be in a page of its own.
        let least = TASK.div_ceil((rows.len() * wide).max(1));
        let parts = sums.par_chunks_mut((INPUTS * wide).max(1)).enumerate();
        (parts.with_min_len(least.div_ceil(INPUTS))).for_each_init(
            || Aligned::zeros(rows.len() * INPUTS),
            |together, (part, sums)| {
                let some = sums.len() / wide;
                for (to, row) in together.chunks_exact_mut(some).zip(x.chunks_exact(inputs)) {
                    to.copy_from_slice(&row[part * INPUTS..part * INPUTS + some]);
                }
                let job = Outer {
                    x: &together[..rows.len() * some],
                    row_step: block * some,
                    column_step: some,
                    inputs: some,
                    gradient: &gradient,
                    rows: blocks,
                    columns: block,
                    last_columns: rows.len().saturating_sub(1) % block + 1,
                    groups,
                    channels: outputs,
                    tree: true,
                };
                accumulate_outer(isa, profile.fused(), &job, sums);
            },
        );
        sums
    });
    let mut sums = sums;
    if profile.fused() {
        end(&mut sums);
    }
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
                ends: true,
            };
            convolve(isa, profile.fused(), &job, y);
        });
    y
}
