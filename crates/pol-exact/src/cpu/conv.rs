//! Convolution (NUMERICS.md, "Convolution").

use rayon::prelude::*;

use super::buffers::{Values, any};
use super::frame::Frame;
use super::tree::{BatchPart, end, weight_sum};
use super::winograd;
use crate::profile::Profile;
use crate::shape::ConvShape;
use crate::simd::{Aligned, Convolution, Isa, Outer, Run, WIDTH, accumulate_outer, convolve};

/// Weights that a task moves, at least.
const TASK: usize = 1 << 13;

/// The output, without bias: `y[n, r, c, o] = Σ over kernel row, kernel column, input channel`.
pub fn forward(profile: Profile, x: &[f32], w: &[f32], shape: &ConvShape) -> Values {
    if shape.is_winograd() {
        return winograd::forward(profile, x, w, shape);
    }
    let isa = Isa::current();
    let [rows, columns] = shape.output();
    let [kernel_rows, kernel_columns] = shape.kernel;
    let channels = shape.channels_in;
    let weights = pack(shape.depth(), shape.channels_out, |k, o| {
        let (tap, channel) = (k / channels, k % channels);
        w[(o * channels + channel) * kernel_rows * kernel_columns + tap]
    });
    let frame = Frame {
        rows: shape.input[0],
        columns: shape.input[1],
        channels,
        before: shape.padding,
        after: shape.padding,
    };
    let row = frame.padded_columns() * channels;
    let runs: Vec<_> = (0..kernel_rows)
        .map(|k| Run {
            input: k * row,
            weight: k * kernel_columns * channels,
            len: kernel_columns * channels,
        })
        .collect();
    let mut y = any(shape.output_len());
    let image = rows * columns * shape.channels_out;
    y.par_chunks_mut(image.max(1))
        .zip(x.par_chunks(frame.len().max(1)))
        .for_each_init(
            || frame.scratch(),
            |padded, (y, x)| {
                let job = Convolution {
                    x: frame.pad(x, padded),
                    row_step: shape.stride[0] * row,
                    column_step: shape.stride[1] * channels,
                    runs: &runs,
                    weights: &weights,
                    weights_step: 0,
                    depth: shape.depth(),
                    rows,
                    columns,
                    channels: shape.channels_out,
                    out_row_step: columns * shape.channels_out,
                    out_column_step: shape.channels_out,
                    ends: true,
                };
                convolve(isa, profile.fused(), &job, y);
            },
        );
    y
}

/// The gradient of the input: `Σ over kernel row, kernel column (both from the last), output
/// channel`.
pub fn backward_input(profile: Profile, dy: &[f32], w: &[f32], shape: &ConvShape) -> Values {
    if shape.is_winograd() {
        return winograd::backward_input(profile, dy, w, shape);
    }
    let isa = Isa::current();
    let [rows, columns] = shape.input;
    let [out_rows, out_columns] = shape.output();
    let channels = shape.channels_out;
    let axes = [0, 1].map(|dim| Axis::of(shape, dim));
    let frame = Frame {
        rows: out_rows,
        columns: out_columns,
        channels,
        before: axes.each_ref().map(|axis| axis.before),
        after: axes.each_ref().map(|axis| axis.after),
    };
    let row = frame.padded_columns() * channels;
    // With a stride, inputs of one remainder in each dimension see the same part of the kernel.
    let mut parts = Vec::new();
    for part_row in &axes[0].parts {
        for part_column in &axes[1].parts {
            let (taps_row, taps_column) = (&part_row.taps, &part_column.taps);
            let width = taps_column.len() * channels;
            let weights = pack(taps_row.len() * width, shape.channels_in, |k, i| {
                let (tap_row, rest) = (taps_row[k / width], k % width);
                let (tap_column, o) = (taps_column[rest / channels], rest % channels);
                let [kernel_rows, kernel_columns] = shape.kernel;
                w[((o * shape.channels_in + i) * kernel_rows + tap_row) * kernel_columns
                    + tap_column]
            });
            let start = part_row.start * row + part_column.start * channels;
            let runs: Vec<_> = (0..taps_row.len())
                .map(|k| Run {
                    input: start + k * row,
                    weight: k * width,
                    len: width,
                })
                .collect();
            parts.push((part_row, part_column, weights, runs));
        }
    }
    let mut dx = any(shape.input_len());
    let image = rows * columns * shape.channels_in;
    dx.par_chunks_mut(image.max(1))
        .zip(dy.par_chunks(frame.len().max(1)))
        .for_each_init(
            || frame.scratch(),
            |padded, (dx, dy)| {
                let x = frame.pad(dy, padded);
                for (part_row, part_column, weights, runs) in &parts {
                    let job = Convolution {
                        x,
                        row_step: row,
                        column_step: channels,
                        runs,
                        weights,
                        weights_step: 0,
                        depth: runs.iter().map(|run| run.len).sum(),
                        rows: part_row.count,
                        columns: part_column.count,
                        channels: shape.channels_in,
                        out_row_step: shape.stride[0] * columns * shape.channels_in,
                        out_column_step: shape.stride[1] * shape.channels_in,
                        ends: true,
                    };
                    let first = (part_row.first * columns + part_column.first) * shape.channels_in;
                    if part_row.count > 0 && part_column.count > 0 {
                        convolve(isa, profile.fused(), &job, &mut dx[first..]);
                    }
                }
            },
        );
    dx
}

/// The gradient of the weights: over pixels in ascending order within a block, blocks as a tree.
pub fn backward_weight(profile: Profile, x: &[f32], dy: &[f32], shape: &ConvShape) -> Vec<f32> {
    if dy.is_empty() {
        return vec![0.0; shape.weight_len()];
    }
    if shape.is_winograd() {
        return winograd::backward_weight(profile, x, dy, shape);
    }
    let isa = Isa::current();
    let [rows, columns] = shape.output();
    let [kernel_rows, kernel_columns] = shape.kernel;
    let channels = shape.channels_in;
    let frame = Frame {
        rows: shape.input[0],
        columns: shape.input[1],
        channels,
        before: shape.padding,
        after: shape.padding,
    };
    let row = frame.padded_columns() * channels;
    let groups = shape.channels_out.div_ceil(WIDTH);
    let wide = groups * WIDTH;
    let inputs = kernel_columns * channels;
    let mut sums = weight_sum(shape.batch, shape.output(), 1, &|part: BatchPart| {
        let mut sums = vec![0.0; shape.depth() * wide];
        let mut padded = frame.scratch();
        let pixels = part.rows.len() * columns;
        let is_wide = wide == shape.channels_out;
        let mut widened = vec![0.0; if is_wide { 0 } else { pixels * wide }];
        for image in part.images {
            let x = frame.pad(
                &x[image * frame.len()..(image + 1) * frame.len()],
                &mut padded,
            );
            let first = (image * rows + part.rows.start) * columns;
            let mut gradient = &dy[first * shape.channels_out..][..pixels * shape.channels_out];
            if !is_wide {
                let from = gradient.chunks_exact(shape.channels_out);
                for (to, from) in widened.chunks_exact_mut(wide).zip(from) {
                    to[..from.len()].copy_from_slice(from);
                }
                gradient = &widened;
            }
            for k in 0..kernel_rows {
                let job = Outer {
                    x: &x[(part.rows.start * shape.stride[0] + k) * row..],
                    row_step: shape.stride[0] * row,
                    column_step: shape.stride[1] * channels,
                    inputs,
                    gradient,
                    rows: part.rows.len(),
                    columns,
                    last_columns: columns,
                    groups,
                    channels: shape.channels_out,
                    tree: false,
                };
                let sums = &mut sums[k * inputs * wide..(k + 1) * inputs * wide];
                accumulate_outer(isa, profile.fused(), &job, sums);
            }
        }
        sums
    });
    if profile.fused() {
        end(&mut sums);
    }
    let mut dw = vec![0.0; shape.weight_len()];
    let taps = kernel_rows * kernel_columns;
    let filter = (taps * channels).max(1);
    (dw.par_chunks_mut(filter).enumerate())
        .with_min_len(TASK.div_ceil(filter))
        .for_each(|(o, dw)| {
            for (i, dw) in dw.iter_mut().enumerate() {
                *dw = sums[(i % taps * channels + i / taps) * wide + o];
            }
        });
    dw
}

/// `[⌈channels / 16⌉, depth, 16]`, zero where there is no channel.
pub(super) fn pack(
    depth: usize,
    channels: usize,
    weight: impl Fn(usize, usize) -> f32 + Sync,
) -> Aligned {
    let groups = channels.div_ceil(WIDTH);
    let mut packed = Aligned::zeros(groups * depth * WIDTH);
    let group = (depth * WIDTH).max(1);
    (packed.par_chunks_mut(group).enumerate())
        .with_min_len(TASK.div_ceil(group))
        .for_each(|(group, packed)| {
            for lane in 0..WIDTH.min(channels - group * WIDTH) {
                for k in 0..depth {
                    packed[k * WIDTH + lane] = weight(k, group * WIDTH + lane);
                }
            }
        });
    packed
}

/// How inputs along one dimension see outputs, for the gradient of the input.
struct Axis {
    before: usize,
    after: usize,
    parts: Vec<Part>,
}

/// The inputs `first, first + stride, …` along one dimension.
struct Part {
    first: usize,
    count: usize,
    /// Places in the kernel that these inputs enter, from the last.
    taps: Vec<usize>,
    /// The padded output that the first input's first tap leads to.
    start: usize,
}

impl Axis {
    fn of(shape: &ConvShape, dim: usize) -> Self {
        let (size, outputs) = (shape.input[dim], shape.output()[dim]);
        let (kernel, stride, padding) = (shape.kernel[dim], shape.stride[dim], shape.padding[dim]);
        // Input i enters output (i + padding − tap) / stride through each tap for which that is
        // whole. Outputs that don't exist are zeros of the frame.
        let before = (kernel - 1).saturating_sub(padding).div_ceil(stride);
        let after = ((size + padding - 1) / stride + 1).saturating_sub(outputs);
        let parts = (0..stride.min(size))
            .map(|first| {
                let enters =
                    |tap: &usize| (first + padding + stride * kernel - tap).is_multiple_of(stride);
                let taps: Vec<usize> = (0..kernel).rev().filter(enters).collect();
                let last = taps.first().copied().unwrap_or(0);
                // ≥ 0: the tap is at most kernel − 1, and `before` makes up for it.
                let start = (first + padding + before * stride - last) / stride;
                Part {
                    first,
                    count: (size - first).div_ceil(stride),
                    taps,
                    start,
                }
            })
            .collect();
        Self {
            before,
            after,
            parts,
        }
    }
}
