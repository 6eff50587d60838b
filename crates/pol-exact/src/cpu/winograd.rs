//! Convolution by minimal filtering, F(2×2, 3×3) (Winograd, 1980; Lavin & Gray, 2016; NUMERICS.md,
//! "Convolution"): 16 products for the 36 of four outputs.
//!
//! Position `4i + j` of a transformed tile is row i, column j. Every transform goes along rows
//! first, then along columns.

use std::ops::Range;

use rayon::prelude::*;

use super::buffers::{Values, any, any_from_start, recycle};
use super::tree::{BatchPart, end, weight_sum};
use crate::profile::Profile;
use crate::shape::{ConvShape, WeightBlock};
use crate::simd::{
    Aligned, Convolution, Isa, Layout, Outer, Run, Transform, WIDTH, accumulate_outer, convolve,
    transform,
};

/// Values of a transformed tile.
const POSITIONS: usize = 16;
/// Tiles transformed and multiplied at a time, at least, so that registers are put to use.
const TILES: usize = 16;
/// The same where sums are kept between times, or weights are many.
const TILES_SUMMED: usize = 64;
/// Transformed weights that a core keeps at hand.
const CACHED: usize = 1 << 17;
/// Products that a task makes, at least.
const TASK: usize = 1 << 20;
/// Transformed values that are kept for a group of blocks.
const GROUP: usize = 1 << 14;

pub(super) fn forward(profile: Profile, x: &[f32], w: &[f32], shape: &ConvShape) -> Values {
    let (inputs, outputs) = (shape.channels_in, shape.channels_out);
    let weights = transformed_weights(inputs, outputs, |o, i, tap| w[(o * inputs + i) * 9 + tap]);
    filtered(profile, x, &weights, shape)
}

pub(super) fn backward_input(profile: Profile, dy: &[f32], w: &[f32], shape: &ConvShape) -> Values {
    let (inputs, outputs) = (shape.channels_in, shape.channels_out);
    let turned = |i: usize, o: usize, tap: usize| w[(o * inputs + i) * 9 + 8 - tap];
    let weights = transformed_weights(outputs, inputs, turned);
    filtered(profile, dy, &weights, &shape.transposed())
}

/// `Aᵀ [(G g Gᵀ) · (Bᵀ d B)] A` for every tile d.
fn filtered(profile: Profile, x: &[f32], weights: &[f32], shape: &ConvShape) -> Values {
    let isa = Isa::current();
    let (inputs, outputs) = (shape.channels_in, shape.channels_out);
    let [rows, columns] = shape.output();
    let [tile_rows, tile_columns] = shape.tiles();
    let tiling = Tiling::of_input(shape);
    // The weights pass by once for all tiles of a task: the larger they are, the more tiles.
    let wanted = match POSITIONS * inputs * outputs > CACHED {
        true => TILES_SUMMED,
        false => TILES,
    };
    let chunk = wanted.div_ceil(tile_columns).min(tile_rows);
    let threads = rayon::current_num_threads().max(1);
    let some_images =
        (wanted / (tile_rows * tile_columns)).clamp(1, shape.batch.div_ceil(threads).max(1));
    let tiles = some_images * chunk * tile_columns;
    let runs = [Run {
        input: 0,
        weight: 0,
        len: inputs,
    }];
    let which = match profile.fused() {
        true => Transform::End,
        false => Transform::Output,
    };
    let mut y = any(shape.output_len());
    let image = rows * columns * outputs;
    let scratch = || {
        let transformed = Aligned::zeros(POSITIONS * tiles * inputs);
        let products = Aligned::zeros(POSITIONS * tiles * outputs);
        let halves = Aligned::zeros(8 * tiles * outputs);
        (tiling.scratch(), transformed, products, halves)
    };
    let groups =
        (y.par_chunks_mut(some_images * image)).zip(x.par_chunks(some_images * tiling.len()));
    groups.for_each_init(
        scratch,
        |(scratch, transformed, products, halves), (y, x)| {
            for first in (0..tile_rows).step_by(chunk) {
                let chunk = first..tile_rows.min(first + chunk);
                let of_image = chunk.len() * tile_columns;
                let used = x.len() / tiling.len() * of_image;
                let plane = used * inputs;
                for (index, x) in x.chunks_exact(tiling.len()).enumerate() {
                    let to = To {
                        values: &mut transformed[index * of_image * inputs..],
                        width: inputs,
                        plane,
                    };
                    tiling.transform(x, chunk.clone(), scratch, to);
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
                    // After the transform: there are fewer outputs than products.
                    ends: false,
                };
                convolve(isa, profile.fused(), &job, products);
                let plane = used * outputs;
                transform_rows_out(&products[..POSITIONS * plane], halves, plane);
                for (index, y) in y.chunks_exact_mut(image).enumerate() {
                    for row in 2 * chunk.start..rows.min(2 * chunk.end) {
                        let half = row % 2 * 4 * plane;
                        let tile = index * of_image + (row / 2 - chunk.start) * tile_columns;
                        let to = &mut y[row * columns * outputs..(row + 1) * columns * outputs];
                        let halves = &halves[half + tile * outputs..];
                        transform_columns_out(which, halves, plane, to, outputs);
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
    let [tile_rows, tile_columns] = shape.tiles();
    let (tiling, gradient_tiling) = (Tiling::of_input(shape), Tiling::of_gradient(shape));
    let groups = outputs.div_ceil(WIDTH);
    let wide_outputs = groups * WIDTH;
    let group = match WeightBlock::of(shape.output()) {
        WeightBlock::Rows(_) => 1,
        WeightBlock::Images(images) => {
            let tiles = images * tile_rows * tile_columns;
            let block = tiles * (inputs + wide_outputs);
            group_of(block, inputs * wide_outputs, shape.batch.div_ceil(images))
        }
    };
    let mut sums = weight_sum(shape.batch, shape.output(), group, &|part: BatchPart| {
        let tile_rows = part.rows.start / 2..part.rows.end.div_ceil(2);
        let tiles_of_image = tile_rows.len() * tile_columns;
        // Tiles of a block. Where several are summed at once, so are they transformed; else a few tiles at a time.
        let block = match WeightBlock::of(shape.output()) {
            WeightBlock::Rows(_) => tiles_of_image,
            WeightBlock::Images(images) => images * tiles_of_image,
        };
        let several = part.images.len() * tiles_of_image > block;
        let some_images = match several {
            true => part.images.len(),
            false => (TILES_SUMMED / tiles_of_image).max(1),
        };
        let some_rows = match several || some_images > 1 {
            true => tile_rows.len(),
            false => TILES_SUMMED.div_ceil(tile_columns).min(tile_rows.len()),
        };
        let most = some_images.min(part.images.len()) * some_rows * tile_columns;
        let mut transformed = any(POSITIONS * most * inputs);
        let mut gradient = any(POSITIONS * most * wide_outputs);
        let (mut scratch, mut gradient_scratch) = (tiling.scratch(), gradient_tiling.scratch());
        let len = inputs * wide_outputs;
        let mut sums = any_from_start(POSITIONS * len).into_parts().0;
        let mut is_first = true;
        for first_image in part.images.clone().step_by(some_images) {
            let images = first_image..part.images.end.min(first_image + some_images);
            for first_row in tile_rows.clone().step_by(some_rows) {
                let tile_rows = first_row..tile_rows.end.min(first_row + some_rows);
                let of_image = tile_rows.len() * tile_columns;
                let tiles = images.len() * of_image;
                let (plane, gradient_plane) = (tiles * inputs, tiles * wide_outputs);
                for (index, image) in images.clone().enumerate() {
                    let x = &x[image * tiling.len()..(image + 1) * tiling.len()];
                    let to = To {
                        values: &mut transformed[index * of_image * inputs..],
                        width: inputs,
                        plane,
                    };
                    tiling.transform(x, tile_rows.clone(), &mut scratch, to);
                    let len = gradient_tiling.len();
                    let to = To {
                        values: &mut gradient[index * of_image * wide_outputs..],
                        width: wide_outputs,
                        plane: gradient_plane,
                    };
                    let dy = &dy[image * len..(image + 1) * len];
                    gradient_tiling.transform(dy, tile_rows.clone(), &mut gradient_scratch, to);
                }
                // A row is a block. A block's first tiles begin its sums, others go on with them.
                let columns = tiles.min(block);
                (sums.par_chunks_mut(len).enumerate())
                    .with_min_len(TASK.div_ceil(tiles * len))
                    .for_each(|(position, sums)| {
                        let job = Outer {
                            x: &transformed[position * plane..(position + 1) * plane],
                            row_step: columns * inputs,
                            column_step: inputs,
                            inputs,
                            gradient: &gradient[position * gradient_plane..][..gradient_plane],
                            rows: tiles.div_ceil(columns),
                            columns,
                            last_columns: (tiles - 1) % columns + 1,
                            groups,
                            channels: shape.channels_out,
                            tree: is_first,
                        };
                        accumulate_outer(isa, profile.fused(), &job, sums);
                    });
                is_first = false;
            }
        }
        recycle(transformed.into_parts().0);
        recycle(gradient.into_parts().0);
        sums
    });
    if profile.fused() {
        end(&mut sums);
    }
    untransformed_weights(&sums, inputs, outputs)
}

/// Blocks of a gradient of `weights` weights that are summed together, a power of two, so that not each of them costs
/// a vector of sums; `block` transformed values of a position belong to each of the `blocks`.
fn group_of(block: usize, weights: usize, blocks: usize) -> usize {
    let most = GROUP.max(2 * weights);
    let mut group = 1;
    while group < blocks && 2 * group * block <= most {
        group *= 2;
    }
    group
}

/// The tiles of an image, of the input or of the output's gradient, and their transform.
struct Tiling {
    which: Transform,
    /// Rows and columns of the image.
    image: [usize; 2],
    channels: usize,
    /// Zeros above and to the left of the image.
    before: [usize; 2],
    tile_columns: usize,
}

/// Where transformed tiles go: position p of tile t to `values[p · plane + t · width ..]`.
struct To<'a> {
    values: &'a mut [f32],
    width: usize,
    plane: usize,
}

/// What a [`Tiling`] works in.
struct Scratch {
    /// Four rows of tiles transformed along rows; zero in the padding.
    wide: Aligned,
    /// A row beyond the image.
    zeros: Aligned,
}

impl Tiling {
    /// `Bᵀ d B` of tiles of 4×4, two apart.
    fn of_input(shape: &ConvShape) -> Self {
        Self {
            which: Transform::Input,
            image: shape.input,
            channels: shape.channels_in,
            before: shape.padding,
            tile_columns: shape.tiles()[1],
        }
    }

    /// `A e Aᵀ` of tiles of 2×2.
    fn of_gradient(shape: &ConvShape) -> Self {
        Self {
            which: Transform::Gradient,
            image: shape.output(),
            channels: shape.channels_out,
            before: [0, 0],
            tile_columns: shape.tiles()[1],
        }
    }

    /// Values of an image.
    const fn len(&self) -> usize {
        self.image[0] * self.image[1] * self.channels
    }

    /// Values of a row of tiles along one row of the image, the padding included.
    const fn wide_len(&self) -> usize {
        let overlap = match self.which {
            Transform::Gradient => 0,
            _ => 2,
        };
        (2 * self.tile_columns + overlap) * self.channels
    }

    fn scratch(&self) -> Scratch {
        Scratch {
            wide: Aligned::zeros(4 * self.wide_len()),
            zeros: Aligned::zeros(self.image[1] * self.channels),
        }
    }

    /// Transforms these rows of tiles.
    fn transform(&self, image: &[f32], tile_rows: Range<usize>, scratch: &mut Scratch, to: To<'_>) {
        let isa = Isa::current();
        let (row_len, wide_len) = (self.image[1] * self.channels, self.wide_len());
        let Scratch { wide, zeros } = scratch;
        let operands = match self.which {
            Transform::Gradient => [0, 1, 0, 1],
            _ => [0, 1, 2, 3],
        };
        let along_rows = Layout {
            count: 1,
            len: row_len,
            from_step: 0,
            to_step: 0,
            plane: wide_len,
        };
        let along_columns = Layout {
            count: self.tile_columns,
            len: self.channels,
            from_step: 2 * self.channels,
            to_step: to.width,
            plane: to.plane,
        };
        for (index, tile_row) in tile_rows.enumerate() {
            let rows = operands.map(|operand| {
                let row = (2 * tile_row + operand).checked_sub(self.before[0]);
                match row.filter(|row| *row < self.image[0]) {
                    Some(row) => &image[row * row_len..(row + 1) * row_len],
                    None => &zeros[..],
                }
            });
            // The padding stays zero: every transform of zeros is.
            let inside = &mut wide[self.before[1] * self.channels..];
            transform(isa, self.which, rows, inside, along_rows);
            let to = &mut to.values[index * self.tile_columns * to.width..];
            for (row, wide) in wide.chunks_exact(wide_len).enumerate() {
                let columns = operands.map(|operand| &wide[operand * self.channels..]);
                let to = &mut to[4 * row * along_columns.plane..];
                transform(isa, self.which, columns, to, along_columns);
            }
        }
    }
}

/// One value of each of 16 filters.
type Lanes = [f32; WIDTH];

/// `G g Gᵀ` of every filter, packed `[16, ⌈outputs / 16⌉, inputs, 16]`.
fn transformed_weights(
    inputs: usize,
    outputs: usize,
    w: impl Fn(usize, usize, usize) -> f32 + Sync,
) -> Aligned {
    let group = inputs * WIDTH;
    let groups = outputs.div_ceil(WIDTH);
    let mut packed = Aligned::zeros(POSITIONS * groups * group);
    let mut planes: Vec<_> = (packed.chunks_exact_mut((groups * group).max(1)))
        .map(|plane| plane.chunks_exact_mut(group))
        .collect();
    let parts: Vec<Vec<&mut [f32]>> = (0..groups)
        .map(|_| planes.iter_mut().filter_map(Iterator::next).collect())
        .collect();
    parts
        .into_par_iter()
        .enumerate()
        .for_each(|(part, mut to)| {
            let first = part * WIDTH;
            let lanes = (outputs - first).min(WIDTH);
            for i in 0..inputs {
                let mut taps = [[0.0; WIDTH]; 9];
                for lane in 0..lanes {
                    for (tap, taps) in taps.iter_mut().enumerate() {
                        taps[lane] = w(first + lane, i, tap);
                    }
                }
                let columns: [[Lanes; 4]; 3] =
                    std::array::from_fn(|c| filter([taps[c], taps[3 + c], taps[6 + c]]));
                for row in 0..4 {
                    let transformed = filter(columns.map(|column| column[row]));
                    for (column, values) in transformed.iter().enumerate() {
                        to[4 * row + column][i * WIDTH..][..WIDTH].copy_from_slice(values);
                    }
                }
            }
        });
    packed
}

/// `Gᵀ s G` of the sums of every filter's positions, `[16, inputs, ⌈outputs / 16⌉ · 16]`.
fn untransformed_weights(sums: &[f32], inputs: usize, outputs: usize) -> Vec<f32> {
    let wide = outputs.next_multiple_of(WIDTH);
    let filters = inputs * 9;
    let mut dw = vec![0.0; outputs * filters];
    let parts = dw.par_chunks_mut((WIDTH * filters).max(1)).enumerate();
    parts.for_each(|(part, dw)| {
        for i in 0..inputs {
            let at = |position: usize| {
                let mut lanes = [0.0; WIDTH];
                let from = (position * inputs + i) * wide + part * WIDTH;
                lanes.copy_from_slice(&sums[from..from + WIDTH]);
                lanes
            };
            let halves: [[Lanes; 3]; 4] =
                std::array::from_fn(|j| filter_gradient([at(j), at(4 + j), at(8 + j), at(12 + j)]));
            let rows: [[Lanes; 3]; 3] =
                std::array::from_fn(|row| filter_gradient(halves.map(|half| half[row])));
            for (lane, dw) in dw.chunks_exact_mut(filters).enumerate() {
                for (tap, dw) in dw[i * 9..i * 9 + 9].iter_mut().enumerate() {
                    *dw = rows[tap / 3][tap % 3][lane];
                }
            }
        }
    });
    dw
}

/// `G g`.
#[inline]
fn filter([a, b, c]: [Lanes; 3]) -> [Lanes; 4] {
    let (mut with, mut without) = ([0.0; WIDTH], [0.0; WIDTH]);
    for i in 0..WIDTH {
        let outer = a[i] + c[i];
        with[i] = (outer + b[i]) * 0.5;
        without[i] = (outer - b[i]) * 0.5;
    }
    [a, with, without, c]
}

/// `Gᵀ s`.
#[inline]
fn filter_gradient([a, b, c, d]: [Lanes; 4]) -> [Lanes; 3] {
    let mut taps = [[0.0; WIDTH]; 3];
    for i in 0..WIDTH {
        let half = (b[i] + c[i]) * 0.5;
        taps[0][i] = a[i] + half;
        taps[1][i] = (b[i] - c[i]) * 0.5;
        taps[2][i] = half + d[i];
    }
    taps
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
fn transform_columns_out(
    which: Transform,
    halves: &[f32],
    plane: usize,
    to: &mut [f32],
    channels: usize,
) {
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
    transform(Isa::current(), which, from(0), to, at(whole));
    if columns % 2 == 1 {
        // The last tile has no right half.
        let mut both = vec![0.0; 2 * channels];
        transform(Isa::current(), which, from(whole), &mut both, at(1));
        to[2 * whole * channels..].copy_from_slice(&both[..channels]);
    }
}
