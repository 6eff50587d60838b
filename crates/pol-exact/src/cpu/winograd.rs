//! Convolution by minimal filtering, F(2×2, 3×3) (Winograd, 1980; Lavin & Gray, 2016; NUMERICS.md,
//! "Convolution"): 16 products for the 36 of four outputs.
//!
//! Position `4i + j` of a transformed tile is row i, column j. Every transform goes along rows
//! first, then along columns.

use rayon::prelude::*;

use super::buffers::any;
use super::frame::Frame;
use super::tree::tree_sum;
use crate::profile::Profile;
use crate::shape::{ConvShape, images_per_block};
use crate::simd::{
    Aligned, Convolution, Isa, Layout, Outer, Run, Transform, WIDTH, accumulate_outer, convolve,
    transform,
};

/// Values of a transformed tile.
const POSITIONS: usize = 16;
/// Tiles transformed and multiplied at a time, at least, so that registers are put to use.
const TILES: usize = 16;
/// The same where sums are kept between times.
const TILES_SUMMED: usize = 64;

pub(super) fn forward(profile: Profile, x: &[f32], w: &[f32], shape: &ConvShape) -> Vec<f32> {
    let (inputs, outputs) = (shape.channels_in, shape.channels_out);
    let weights = transformed_weights(inputs, outputs, |o, i, tap| w[(o * inputs + i) * 9 + tap]);
    filtered(profile, x, &weights, shape)
}

pub(super) fn backward_input(
    profile: Profile,
    dy: &[f32],
    w: &[f32],
    shape: &ConvShape,
) -> Vec<f32> {
    let (inputs, outputs) = (shape.channels_in, shape.channels_out);
    let turned = |i: usize, o: usize, tap: usize| w[(o * inputs + i) * 9 + 8 - tap];
    let weights = transformed_weights(outputs, inputs, turned);
    filtered(profile, dy, &weights, &shape.transposed())
}

/// `Aᵀ [(G g Gᵀ) · (Bᵀ d B)] A` for every tile d.
fn filtered(profile: Profile, x: &[f32], weights: &[f32], shape: &ConvShape) -> Vec<f32> {
    let isa = Isa::current();
    let (inputs, outputs) = (shape.channels_in, shape.channels_out);
    let [rows, columns] = shape.output();
    let [tile_rows, tile_columns] = shape.tiles();
    let frame = input_frame(shape);
    let chunk = TILES.div_ceil(tile_columns).min(tile_rows);
    let tiles = chunk * tile_columns;
    let runs = [Run {
        input: 0,
        weight: 0,
        len: inputs,
    }];
    let mut y = any(shape.output_len());
    let image = rows * columns * outputs;
    let scratch = || {
        let padded = frame.scratch();
        let wide = Aligned::zeros(4 * frame.padded_columns() * inputs);
        let transformed = Aligned::zeros(POSITIONS * tiles * inputs);
        let products = Aligned::zeros(POSITIONS * tiles * outputs);
        let halves = Aligned::zeros(8 * tiles * outputs);
        (padded, wide, transformed, products, halves)
    };
    (y.par_chunks_mut(image.max(1))
        .zip(x.par_chunks(frame.len().max(1))))
    .for_each_init(
        scratch,
        |(padded, wide, transformed, products, halves), (y, x)| {
            let x = frame.pad(x, padded);
            for first in (0..tile_rows).step_by(chunk) {
                let count = chunk.min(tile_rows - first);
                let used = count * tile_columns;
                let plane = used * inputs;
                for row in 0..count {
                    let at = 2 * (first + row) * frame.padded_columns() * inputs;
                    let from = &x[at..at + 4 * frame.padded_columns() * inputs];
                    let to = row * tile_columns * inputs;
                    let to = &mut transformed[to..];
                    let widths = [inputs, inputs];
                    transform_tiles(
                        Transform::Input,
                        from,
                        wide,
                        widths,
                        to,
                        plane,
                        tile_columns,
                    );
                }
                let job = Convolution {
                    x: &transformed[..POSITIONS * plane],
                    row_step: plane,
                    column_step: inputs,
                    runs: &runs,
                    weights,
                    weights_step: outputs.div_ceil(WIDTH) * inputs * WIDTH,
                    depth: inputs,
                    rows: POSITIONS,
                    columns: used,
                    channels: outputs,
                    out_row_step: used * outputs,
                    out_column_step: outputs,
                };
                convolve(isa, profile.fused(), &job, products);
                let plane = used * outputs;
                transform_rows_out(&products[..POSITIONS * plane], halves, plane);
                for row in 0..2 * count {
                    let r = 2 * first + row;
                    if r < rows {
                        let from =
                            &halves[row % 2 * 4 * plane + row / 2 * tile_columns * outputs..];
                        let to = &mut y[r * columns * outputs..(r + 1) * columns * outputs];
                        transform_columns_out(from, plane, to, outputs);
                    }
                }
            }
        },
    );
    y
}

/// `Gᵀ [Σ over tiles of (Bᵀ d B) ⊗ (A e Aᵀ)] G` for input tiles d and gradient tiles e.
pub(super) fn backward_weight(
    profile: Profile,
    x: &[f32],
    dy: &[f32],
    shape: &ConvShape,
) -> Vec<f32> {
    let isa = Isa::current();
    let (inputs, outputs) = (shape.channels_in, shape.channels_out);
    let [rows, columns] = shape.output();
    let [tile_rows, tile_columns] = shape.tiles();
    let frame = input_frame(shape);
    // An output beyond the last has no gradient.
    let gradient_frame = Frame {
        rows,
        columns,
        channels: outputs,
        before: [0, 0],
        after: [2 * tile_rows - rows, 2 * tile_columns - columns],
    };
    let groups = outputs.div_ceil(WIDTH);
    let wide_outputs = groups * WIDTH;
    let chunk = TILES_SUMMED.div_ceil(tile_columns).min(tile_rows);
    let tiles = chunk * tile_columns;
    let images = images_per_block(rows * columns);
    let sums = tree_sum(shape.batch.div_ceil(images), &|block| {
        let mut sums = Aligned::zeros(POSITIONS * inputs * wide_outputs);
        let (mut padded, mut padded_gradient) = (frame.scratch(), gradient_frame.scratch());
        let mut wide = Aligned::zeros(4 * frame.padded_columns() * inputs);
        let mut wide_gradient = Aligned::zeros(4 * gradient_frame.padded_columns() * outputs);
        let mut transformed = Aligned::zeros(POSITIONS * tiles * inputs);
        let mut gradient = Aligned::zeros(POSITIONS * tiles * wide_outputs);
        for image in block * images..shape.batch.min((block + 1) * images) {
            let x = frame.pad(
                &x[image * frame.len()..(image + 1) * frame.len()],
                &mut padded,
            );
            let len = gradient_frame.len();
            let dy = gradient_frame.pad(&dy[image * len..(image + 1) * len], &mut padded_gradient);
            for first in (0..tile_rows).step_by(chunk) {
                let count = chunk.min(tile_rows - first);
                let used = count * tile_columns;
                let (plane, gradient_plane) = (used * inputs, used * wide_outputs);
                for row in 0..count {
                    let at = 2 * (first + row);
                    let from = &x[at * frame.padded_columns() * inputs..];
                    let to = &mut transformed[row * tile_columns * inputs..];
                    let (which, widths) = (Transform::Input, [inputs, inputs]);
                    transform_tiles(which, from, &mut wide, widths, to, plane, tile_columns);
                    let from = &dy[at * gradient_frame.padded_columns() * outputs..];
                    let to = &mut gradient[row * tile_columns * wide_outputs..];
                    let (which, widths) = (Transform::Gradient, [outputs, wide_outputs]);
                    let wide = &mut wide_gradient;
                    transform_tiles(which, from, wide, widths, to, gradient_plane, tile_columns);
                }
                let sums = sums.chunks_exact_mut(inputs * wide_outputs);
                for (position, sums) in sums.enumerate() {
                    let job = Outer {
                        x: &transformed[position * plane..(position + 1) * plane],
                        row_step: 0,
                        column_step: inputs,
                        inputs,
                        gradient: &gradient[position * gradient_plane..][..gradient_plane],
                        rows: 1,
                        columns: used,
                        groups,
                    };
                    accumulate_outer(isa, profile.fused(), &job, sums);
                }
            }
        }
        sums.to_vec()
    });
    let mut dw = vec![0.0; shape.weight_len()];
    for o in 0..outputs {
        for i in 0..inputs {
            let at = |position: usize| sums[(position * inputs + i) * wide_outputs + o];
            let halves: [[f32; 3]; 4] =
                std::array::from_fn(|j| filter_gradient([at(j), at(4 + j), at(8 + j), at(12 + j)]));
            for tap_row in 0..3 {
                let row = filter_gradient(halves.map(|half| half[tap_row]));
                dw[((o * inputs + i) * 3 + tap_row) * 3..][..3].copy_from_slice(&row);
            }
        }
    }
    dw
}

/// Padding, and as much more below and to the right as the last tiles reach.
fn input_frame(shape: &ConvShape) -> Frame {
    let tiles = shape.tiles();
    let after = |dim: usize| 2 * tiles[dim] + 2 - shape.padding[dim] - shape.input[dim];
    Frame {
        rows: shape.input[0],
        columns: shape.input[1],
        channels: shape.channels_in,
        before: shape.padding,
        after: [after(0), after(1)],
    }
}

/// `G g Gᵀ` of every filter, packed `[16, ⌈outputs / 16⌉, inputs, 16]`.
fn transformed_weights(
    inputs: usize,
    outputs: usize,
    w: impl Fn(usize, usize, usize) -> f32,
) -> Aligned {
    let plane = outputs.div_ceil(WIDTH) * inputs * WIDTH;
    let mut packed = Aligned::zeros(POSITIONS * plane);
    for o in 0..outputs {
        for i in 0..inputs {
            let columns: [[f32; 4]; 3] =
                std::array::from_fn(|c| filter([w(o, i, c), w(o, i, 3 + c), w(o, i, 6 + c)]));
            let at = (o / WIDTH * inputs + i) * WIDTH + o % WIDTH;
            for row in 0..4 {
                let transformed = filter(columns.map(|column| column[row]));
                for (column, value) in transformed.into_iter().enumerate() {
                    packed[(4 * row + column) * plane + at] = value;
                }
            }
        }
    }
    packed
}

/// `G g`.
fn filter([a, b, c]: [f32; 3]) -> [f32; 4] {
    let outer = a + c;
    [a, (outer + b) * 0.5, (outer - b) * 0.5, c]
}

/// `Gᵀ s`.
fn filter_gradient([a, b, c, d]: [f32; 4]) -> [f32; 3] {
    let half = (b + c) * 0.5;
    [a + half, (b - c) * 0.5, half + d]
}

/// `Bᵀ d B` of a row of tiles, or `A e Aᵀ`: `from` begins with the tiles' rows of `wide.len() / 4`
/// values. Position p of tile t goes to `to[p · plane + t · widths[1] ..]`; `widths` are the channels
/// in `from` and in `to`.
fn transform_tiles(
    which: Transform,
    from: &[f32],
    wide: &mut [f32],
    widths: [usize; 2],
    to: &mut [f32],
    plane: usize,
    tiles: usize,
) {
    let isa = Isa::current();
    let len = wide.len() / 4;
    let rows = match which {
        Transform::Gradient => [0, 1, 0, 1],
        _ => [0, 1, 2, 3],
    };
    let along_rows = Layout {
        count: 1,
        len,
        from_step: 0,
        to_step: 0,
        plane: len,
    };
    transform(
        isa,
        which,
        rows.map(|r| &from[r * len..(r + 1) * len]),
        wide,
        along_rows,
    );
    let [channels, wide_channels] = widths;
    let along_columns = Layout {
        count: tiles,
        len: channels,
        from_step: 2 * channels,
        to_step: wide_channels,
        plane,
    };
    for (row, wide) in wide.chunks_exact(len).enumerate() {
        let columns = rows.map(|c| &wide[c * channels..]);
        transform(
            isa,
            which,
            columns,
            &mut to[4 * row * plane..],
            along_columns,
        );
    }
}

/// `Aᵀ m` along rows: `[4, 4, plane]` to `[2, 4, plane]`.
fn transform_rows_out(products: &[f32], halves: &mut [f32], plane: usize) {
    let len = 4 * plane;
    let at = Layout {
        count: 1,
        len,
        from_step: 0,
        to_step: 0,
        plane: len,
    };
    let rows = [0, 1, 2, 3].map(|r| &products[r * len..(r + 1) * len]);
    transform(Isa::current(), Transform::Output, rows, halves, at);
}

/// `· A` along columns: one row of outputs of one row of tiles.
fn transform_columns_out(halves: &[f32], plane: usize, to: &mut [f32], channels: usize) {
    let columns = to.len() / channels;
    let whole = columns / 2;
    let at = |count| Layout {
        count,
        len: channels,
        from_step: channels,
        to_step: 2 * channels,
        plane: channels,
    };
    let from = |tile: usize| [0, 1, 2, 3].map(|c| &halves[c * plane + tile * channels..]);
    transform(Isa::current(), Transform::Output, from(0), to, at(whole));
    if columns % 2 == 1 {
        // The last tile has no right half.
        let mut both = vec![0.0; 2 * channels];
        transform(
            Isa::current(),
            Transform::Output,
            from(whole),
            &mut both,
            at(1),
        );
        to[2 * whole * channels..].copy_from_slice(&both[..channels]);
    }
}
