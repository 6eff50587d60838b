//! Convolution and linear layers as products of matrices: `out[m, n] = Σ over k of a(m, k) · b(k, n)`.
//!
//! A cube computes [`ROWS`] × [`COLUMNS`] values, a unit [`TILE`] × [`TILE`] of them in registers. [`SLAB`] steps of k at
//! a time are read into shared memory; k ascends for every value. Padding is read as zeros. A linear layer is a
//! convolution of images of one pixel, but for the layout of its weights.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::arithmetic::{ended, plus_product};
use super::launch::{Tiled, cube_count, dims, launch};
use super::sums::tree_of;
use crate::profile::Profile;
use crate::shape::ConvShape;

/// Rows of a cube's values.
const ROWS: usize = 64;
/// Columns of a cube's values.
const COLUMNS: usize = 16;
/// Rows and columns of a unit's values.
const TILE: usize = 4;
/// Units of a cube.
const UNITS: usize = ROWS * COLUMNS / (TILE * TILE);
/// Steps of k between two fills of shared memory.
const SLAB: usize = 8;

/// Which product, and of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Product {
    which: Which,
    shape: ConvShape,
    /// Whether the weights are a linear layer's, `[in, out]`.
    linear: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Which {
    /// m: pixels of the output, k: kernel row, kernel column and input channel, n: output channels.
    Output,
    /// m: pixels of the input, k: the kernel from its last row and column, and output channel, n: input channels.
    /// With a stride, pixels of one remainder in each dimension see the same part of the kernel: a *class*.
    Input,
    /// For each block of the output's pixels, m: kernel row, kernel column and input channel, k: pixels of the
    /// block, n: output channels.
    Weight,
}

impl Product {
    /// Values in m, of one class or block.
    const fn rows(&self) -> usize {
        let s = &self.shape;
        match self.which {
            Which::Output => {
                let [rows, columns] = s.output();
                s.batch * rows * columns
            }
            Which::Input => {
                let [rows, columns] = self.class_size();
                s.batch * rows * columns
            }
            Which::Weight => s.depth(),
        }
    }

    /// Values in n.
    const fn columns(&self) -> usize {
        match self.which {
            Which::Input => self.shape.channels_in,
            _ => self.shape.channels_out,
        }
    }

    /// Classes, or blocks.
    const fn parts(&self) -> usize {
        let s = &self.shape;
        match self.which {
            Which::Output => 1,
            Which::Input => s.stride[0] * s.stride[1],
            Which::Weight => {
                let [images, blocks] = self.shape.weight_blocks();
                images * blocks
            }
        }
    }

    const fn cubes(&self) -> usize {
        self.rows().div_ceil(ROWS) * self.columns().div_ceil(COLUMNS) * self.parts()
    }

    /// Rows and columns of the largest class.
    const fn class_size(&self) -> [usize; 2] {
        let s = &self.shape;
        [
            s.input[0].div_ceil(s.stride[0]),
            s.input[1].div_ceil(s.stride[1]),
        ]
    }
}

/// The shape that makes a linear layer a convolution.
const fn linear_shape(rows: usize, inputs: usize, outputs: usize) -> ConvShape {
    ConvShape {
        batch: rows,
        channels_in: inputs,
        input: [1, 1],
        channels_out: outputs,
        kernel: [1, 1],
        stride: [1, 1],
        padding: [0, 0],
    }
}

pub(super) fn forward(
    x: CubeTensor,
    w: CubeTensor,
    shape: ConvShape,
    profile: Profile,
) -> CubeTensor {
    product(
        Which::Output,
        x,
        w,
        shape,
        false,
        &shape.output_dims(),
        profile,
    )
}

pub(super) fn backward_input(
    dy: CubeTensor,
    w: CubeTensor,
    shape: ConvShape,
    profile: Profile,
) -> CubeTensor {
    product(
        Which::Input,
        dy,
        w,
        shape,
        false,
        &shape.input_dims(),
        profile,
    )
}

pub(super) fn backward_weight(
    x: CubeTensor,
    dy: CubeTensor,
    shape: ConvShape,
    profile: Profile,
) -> CubeTensor {
    weight(x, dy, shape, false, &shape.weight_dims(), profile)
}

pub(super) fn linear(x: CubeTensor, w: CubeTensor, profile: Profile) -> CubeTensor {
    let (rows, sizes) = (dims(&x)[0], dims(&w));
    let shape = linear_shape(rows, sizes[0], sizes[1]);
    product(Which::Output, x, w, shape, true, &[rows, sizes[1]], profile)
}

pub(super) fn linear_input(dy: CubeTensor, w: CubeTensor, profile: Profile) -> CubeTensor {
    let (rows, sizes) = (dims(&dy)[0], dims(&w));
    let shape = linear_shape(rows, sizes[0], sizes[1]);
    product(Which::Input, dy, w, shape, true, &[rows, sizes[0]], profile)
}

pub(super) fn linear_weight(x: CubeTensor, dy: CubeTensor, profile: Profile) -> CubeTensor {
    let (rows, inputs, outputs) = (dims(&x)[0], dims(&x)[1], dims(&dy)[1]);
    let shape = linear_shape(rows, inputs, outputs);
    weight(x, dy, shape, true, &[inputs, outputs], profile)
}

fn weight(
    x: CubeTensor,
    dy: CubeTensor,
    shape: ConvShape,
    linear: bool,
    dims: &[usize],
    profile: Profile,
) -> CubeTensor {
    let [images, blocks] = shape.weight_blocks();
    let partials = [images * blocks, shape.weight_len()];
    let partials = product(Which::Weight, x, dy, shape, linear, &partials, profile);
    launch!(unpacked_tree::launch, partials; dims; 0, shape, linear)
}

fn product(
    which: Which,
    a: CubeTensor,
    b: CubeTensor,
    shape: ConvShape,
    linear: bool,
    dims: &[usize],
    profile: Profile,
) -> CubeTensor {
    let product = Product {
        which,
        shape,
        linear,
    };
    let tiled = Tiled::of(&a, profile);
    launch!(@
        product_kernel::launch, |out: &CubeTensor, _| cube_count(out, product.cubes(), UNITS),
        a, b; dims; 0, product, tiled
    )
}

/// A value of the padded input, or zero.
#[cube]
fn input_at(
    x: &[f32],
    image: usize,
    row: usize,
    column: usize,
    channel: usize,
    #[comptime] s: ConvShape,
) -> f32 {
    let mut value = 0.0f32.runtime();
    let row_ok = row >= comptime![s.padding[0]] && row < comptime![s.input[0] + s.padding[0]];
    let column_ok =
        column >= comptime![s.padding[1]] && column < comptime![s.input[1] + s.padding[1]];
    if row_ok && column_ok {
        let row = image * comptime![s.input[0]] + row - comptime![s.padding[0]];
        let pixel = row * comptime![s.input[1]] + column - comptime![s.padding[1]];
        value = x[pixel * comptime![s.channels_in] + channel];
    }
    value
}

/// Where the weight of an output, an input and a place in the kernel is.
#[cube]
fn weight_place(o: usize, i: usize, tap: usize, #[comptime] p: Product) -> usize {
    if comptime![p.linear] {
        i * comptime![p.shape.channels_out] + o
    } else {
        (o * comptime![p.shape.channels_in] + i) * comptime![p.shape.kernel[0] * p.shape.kernel[1]]
            + tap
    }
}

/// The part of the kernel along one dimension that inputs of a class see: its last place, and how many places, a stride
/// apart.
#[cube]
fn last_tap(class: usize, #[comptime] p: Product, #[comptime] dim: usize) -> usize {
    let (kernel, stride) = comptime![(p.shape.kernel[dim], p.shape.stride[dim])];
    // The greatest tap < kernel with (class + padding − tap) divisible by the stride; `kernel` for none.
    let remainder = (class + comptime![p.shape.padding[dim]]) % stride;
    let mut last = kernel.runtime();
    for tap in 0..kernel {
        if tap % stride == remainder {
            last = tap;
        }
    }
    last
}

#[cube(launch)]
fn product_kernel(
    a: &[f32],
    b: &[f32],
    out: &mut [f32],
    zero: u32,
    #[comptime] p: Product,
    #[comptime] tiled: Tiled,
) {
    let s = comptime![p.shape];
    let outputs = comptime![s.output()];
    let (rows, columns) = (comptime![p.rows()], comptime![p.columns()]);
    // Cubes beyond the last repeat it.
    let cube = min(CUBE_POS, comptime![p.cubes() - 1]);
    let part = cube / comptime![rows.div_ceil(ROWS) * columns.div_ceil(COLUMNS)];
    let first_row =
        cube / comptime![columns.div_ceil(COLUMNS)] % comptime![rows.div_ceil(ROWS)] * ROWS;
    let first_column = cube % comptime![columns.div_ceil(COLUMNS)] * COLUMNS;

    // What k runs over.
    let mut depth = comptime![s.depth()].runtime();
    let mut first_pixel = 0usize.runtime();
    let (mut last_row_tap, mut last_column_tap) = (0usize.runtime(), 0usize.runtime());
    let mut column_taps = 1usize.runtime();
    let (class_row, class_column) = (part / comptime![s.stride[1]], part % comptime![s.stride[1]]);
    if comptime![matches!(p.which, Which::Input)] {
        last_row_tap = last_tap(class_row, p, 0usize);
        last_column_tap = last_tap(class_column, p, 1usize);
        let mut row_taps = last_row_tap / comptime![s.stride[0]] + 1;
        column_taps = last_column_tap / comptime![s.stride[1]] + 1;
        if last_row_tap == comptime![s.kernel[0]] || last_column_tap == comptime![s.kernel[1]] {
            row_taps = 0usize.runtime();
        }
        depth = row_taps * column_taps * comptime![s.channels_out];
    }
    if comptime![matches!(p.which, Which::Weight)] {
        let [_, blocks] = comptime![s.weight_blocks()];
        let [most, image_pixels] = comptime![s.weight_block_pixels()];
        let image = part / blocks;
        if comptime![blocks > 1] {
            first_pixel = image * image_pixels + part % blocks * most;
            depth = min(most, image_pixels - part % blocks * most);
        } else {
            first_pixel = part * most;
            depth = min(most, comptime![s.batch * image_pixels] - first_pixel);
        }
    }

    let unit = UNIT_POS as usize;
    let tile_row = unit / comptime![COLUMNS / TILE] * TILE;
    let tile_column = unit % comptime![COLUMNS / TILE] * TILE;
    let mut a_slab = Shared::<[f32]>::new_slice(comptime![SLAB * ROWS]);
    let mut b_slab = Shared::<[f32]>::new_slice(comptime![SLAB * COLUMNS]);
    let mut sums = Array::<f32>::new(comptime![TILE * TILE]);
    #[unroll]
    for i in 0..comptime![TILE * TILE] {
        sums[i] = f32::reinterpret(zero);
    }

    for slab in 0..depth.div_ceil(SLAB) {
        let from = slab * SLAB;
        sync_cube();
        for step in 0..comptime![SLAB * ROWS / UNITS] {
            let at = step * UNITS + unit;
            let (k, m) = (from + at % SLAB, first_row + at / SLAB);
            let mut value = 0.0f32.runtime();
            if k < depth && m < rows {
                if comptime![matches!(p.which, Which::Output)] {
                    let (tap, channel) =
                        (k / comptime![s.channels_in], k % comptime![s.channels_in]);
                    let column = m % comptime![outputs[1]];
                    let row = m / comptime![outputs[1]] % comptime![outputs[0]];
                    let image = m / comptime![outputs[0] * outputs[1]];
                    let row = row * comptime![s.stride[0]] + tap / comptime![s.kernel[1]];
                    let column = column * comptime![s.stride[1]] + tap % comptime![s.kernel[1]];
                    value = input_at(a, image, row, column, channel, s);
                } else if comptime![matches!(p.which, Which::Input)] {
                    let size = comptime![p.class_size()];
                    let (tap, channel) =
                        (k / comptime![s.channels_out], k % comptime![s.channels_out]);
                    let column = m % comptime![size[1]] * comptime![s.stride[1]] + class_column;
                    let row = m / comptime![size[1]] % comptime![size[0]] * comptime![s.stride[0]]
                        + class_row;
                    let image = m / comptime![size[0] * size[1]];
                    let row_tap = last_row_tap - tap / column_taps * comptime![s.stride[0]];
                    let column_tap = last_column_tap - tap % column_taps * comptime![s.stride[1]];
                    let (row, column) = (
                        row + comptime![s.padding[0]],
                        column + comptime![s.padding[1]],
                    );
                    if row >= row_tap && column >= column_tap {
                        let row = (row - row_tap) / comptime![s.stride[0]];
                        let column = (column - column_tap) / comptime![s.stride[1]];
                        if row < comptime![outputs[0]] && column < comptime![outputs[1]] {
                            let row = image * comptime![outputs[0]] + row;
                            let pixel = row * comptime![outputs[1]] + column;
                            value = a[pixel * comptime![s.channels_out] + channel];
                        }
                    }
                } else {
                    let (tap, channel) =
                        (m / comptime![s.channels_in], m % comptime![s.channels_in]);
                    let pixel = first_pixel + k;
                    let column = pixel % comptime![outputs[1]];
                    let row = pixel / comptime![outputs[1]] % comptime![outputs[0]];
                    let image = pixel / comptime![outputs[0] * outputs[1]];
                    let row = row * comptime![s.stride[0]] + tap / comptime![s.kernel[1]];
                    let column = column * comptime![s.stride[1]] + tap % comptime![s.kernel[1]];
                    value = input_at(a, image, row, column, channel, s);
                }
            }
            a_slab[at % SLAB * ROWS + at / SLAB] = value;
        }
        for step in 0..comptime![SLAB * COLUMNS / UNITS] {
            let at = step * UNITS + unit;
            let (k, n) = (from + at / COLUMNS, first_column + at % COLUMNS);
            let mut value = 0.0f32.runtime();
            if k < depth && n < columns {
                if comptime![matches!(p.which, Which::Output)] {
                    let (tap, channel) =
                        (k / comptime![s.channels_in], k % comptime![s.channels_in]);
                    value = b[weight_place(n, channel, tap, p)];
                } else if comptime![matches!(p.which, Which::Input)] {
                    let (tap, channel) =
                        (k / comptime![s.channels_out], k % comptime![s.channels_out]);
                    let row_tap = last_row_tap - tap / column_taps * comptime![s.stride[0]];
                    let column_tap = last_column_tap - tap % column_taps * comptime![s.stride[1]];
                    let tap = row_tap * comptime![s.kernel[1]] + column_tap;
                    value = b[weight_place(channel, n, tap, p)];
                } else {
                    value = b[(first_pixel + k) * comptime![s.channels_out] + n];
                }
            }
            b_slab[at] = value;
        }
        sync_cube();
        // Beyond the last k both are zero, which changes no sum.
        #[unroll(tiled.unrolls)]
        for k in 0..SLAB {
            let mut values = Array::<f32>::new(TILE);
            #[unroll]
            for i in 0..TILE {
                values[i] = b_slab[k * COLUMNS + tile_column + i];
            }
            #[unroll]
            for i in 0..TILE {
                let value = a_slab[k * ROWS + tile_row + i];
                #[unroll]
                for j in 0..TILE {
                    sums[i * TILE + j] =
                        plus_product(sums[i * TILE + j], value, values[j], zero, tiled.fused);
                }
            }
        }
    }

    #[unroll]
    for i in 0..TILE {
        let m = first_row + tile_row + i;
        let mut is_there = m < rows;
        let mut place = m;
        if comptime![matches!(p.which, Which::Weight)] {
            place = part * rows + m;
        }
        if comptime![matches!(p.which, Which::Input)] {
            let size = comptime![p.class_size()];
            let column = m % comptime![size[1]] * comptime![s.stride[1]] + class_column;
            let row =
                m / comptime![size[1]] % comptime![size[0]] * comptime![s.stride[0]] + class_row;
            let image = m / comptime![size[0] * size[1]];
            is_there = is_there && row < comptime![s.input[0]] && column < comptime![s.input[1]];
            place = (image * comptime![s.input[0]] + row) * comptime![s.input[1]] + column;
        }
        #[unroll]
        for j in 0..TILE {
            let n = first_column + tile_column + j;
            if is_there && n < columns {
                out[place * columns + n] = ended(sums[i * TILE + j], zero);
            }
        }
    }
}

/// The tree over blocks `[kernel row, kernel column, in, out]`, as the weights are.
#[cube(launch)]
fn unpacked_tree(
    partials: &[f32],
    dw: &mut [f32],
    zero: u32,
    #[comptime] s: ConvShape,
    #[comptime] linear: bool,
) {
    if ABSOLUTE_POS < dw.len() {
        let mut from = ABSOLUTE_POS;
        if comptime![!linear] {
            let taps = comptime![s.kernel[0] * s.kernel[1]];
            let tap = ABSOLUTE_POS % taps;
            let i = ABSOLUTE_POS / taps % comptime![s.channels_in];
            let o = ABSOLUTE_POS / comptime![taps * s.channels_in];
            from = (tap * comptime![s.channels_in] + i) * comptime![s.channels_out] + o;
        }
        let [images, blocks] = comptime![s.weight_blocks()];
        dw[ABSOLUTE_POS] = tree_of(
            partials,
            from,
            comptime![s.weight_len()],
            zero,
            images,
            blocks,
        );
    }
}
