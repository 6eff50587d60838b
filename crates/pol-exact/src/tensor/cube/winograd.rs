//! Convolution by minimal filtering; see `cpu::winograd`, which has the same transforms.
//!
//! A cube has [`UNITS`] units: for each of the 16 positions of a transformed tile 16 units, of which each sums 4 × 4
//! products in registers. What they multiply is transformed on its way into shared memory, [`SLAB`] steps at a time.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::arithmetic::{ended, plus, plus_product, product};
use super::launch::{Tiled, cube_count, launch};
use super::sums::tree_of;
use crate::profile::Profile;
use crate::shape::ConvShape;

/// Units of a cube.
const UNITS: usize = 256;
/// Tiles, or channels, that a cube's products are of, on either side.
const SIDE: usize = 16;
/// Steps of a sum between two fills of shared memory.
const SLAB: usize = 8;
/// Values of a transformed tile.
const POSITIONS: usize = 16;
/// Rows and columns of a unit's sums.
const TILE: usize = 4;
/// Values of one side in shared memory: `[16, SLAB, SIDE]`.
const SIDE_LEN: usize = POSITIONS * SLAB * SIDE;

pub(super) fn forward(
    x: CubeTensor,
    w: CubeTensor,
    shape: ConvShape,
    profile: Profile,
) -> CubeTensor {
    filtered(x, w, shape, false, profile)
}

pub(super) fn backward_input(
    dy: CubeTensor,
    w: CubeTensor,
    shape: ConvShape,
    profile: Profile,
) -> CubeTensor {
    filtered(dy, w, shape.transposed(), true, profile)
}

/// With the kernel `turned` around, `w` is that of the transposed convolution.
fn filtered(
    x: CubeTensor,
    w: CubeTensor,
    shape: ConvShape,
    turned: bool,
    profile: Profile,
) -> CubeTensor {
    let cubes = all_tiles(&shape).div_ceil(SIDE) * shape.channels_out.div_ceil(SIDE);
    let tiled = Tiled::of(&x, profile);
    launch!(@
        filtered_kernel::launch, |out: &CubeTensor, _| cube_count(out, cubes, UNITS),
        x, w; shape.output_dims(); 0, shape, turned, tiled
    )
}

pub(super) fn backward_weight(
    x: CubeTensor,
    dy: CubeTensor,
    shape: ConvShape,
    profile: Profile,
) -> CubeTensor {
    let [images, blocks] = shape.weight_blocks();
    let parts = images * blocks;
    let (inputs, outputs) = (shape.channels_in, shape.channels_out);
    let cubes = parts * inputs.div_ceil(SIDE) * outputs.div_ceil(SIDE);
    let tiled = Tiled::of(&x, profile);
    let partials = launch!(@
        sums_kernel::launch, |out: &CubeTensor, _| cube_count(out, cubes, UNITS),
        x, dy; [parts, POSITIONS, inputs, outputs]; 0, shape, tiled
    );
    let cubes = (inputs * outputs).div_ceil(SIDE);
    launch!(@
        filter_gradients_kernel::launch, |out: &CubeTensor, _| cube_count(out, cubes, UNITS),
        partials; shape.weight_dims(); 0, shape
    )
}

/// Tiles of all images.
const fn all_tiles(shape: &ConvShape) -> usize {
    let [rows, columns] = shape.tiles();
    shape.batch * rows * columns
}

/// A value of the padded input, or 0 beyond.
#[cube]
fn padded(
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
        let r = image * comptime![s.input[0]] + row - comptime![s.padding[0]];
        let pixel = r * comptime![s.input[1]] + column - comptime![s.padding[1]];
        value = x[pixel * comptime![s.channels_in] + channel];
    }
    value
}

/// The output's gradient, or 0 beyond it.
#[cube]
fn gradient_at(
    dy: &[f32],
    image: usize,
    row: usize,
    column: usize,
    channel: usize,
    #[comptime] s: ConvShape,
) -> f32 {
    let outputs = comptime![s.output()];
    let mut value = 0.0f32.runtime();
    if row < comptime![outputs[0]] && column < comptime![outputs[1]] {
        let pixel = (image * comptime![outputs[0]] + row) * comptime![outputs[1]] + column;
        value = dy[pixel * comptime![s.channels_out] + channel];
    }
    value
}

/// `Bᵀ d B` of a tile's channel to every position's `at` in `to`; zeros if it is not there.
#[cube]
fn transform_input(
    x: &[f32],
    to: &mut Shared<[f32]>,
    at: usize,
    tile: usize,
    channel: usize,
    is_there: bool,
    zero: u32,
    #[comptime] s: ConvShape,
) {
    let tiles = comptime![s.tiles()];
    let column = tile % comptime![tiles[1]] * 2;
    let row = tile / comptime![tiles[1]] % comptime![tiles[0]] * 2;
    let image = tile / comptime![tiles[0] * tiles[1]];
    let mut halves = Array::<f32>::new(POSITIONS);
    #[unroll]
    for j in 0..4usize {
        let mut d = Array::<f32>::new(4usize);
        #[unroll]
        for i in 0..4usize {
            d[i] = 0.0f32.runtime();
            if is_there {
                d[i] = padded(x, image, row + i, column + j, channel, s);
            }
        }
        halves[j] = plus(d[0], -d[2], zero);
        halves[4 + j] = plus(d[1], d[2], zero);
        halves[8 + j] = plus(d[2], -d[1], zero);
        halves[12 + j] = plus(d[1], -d[3], zero);
    }
    #[unroll]
    for i in 0..4usize {
        let (a, b, c, d) = (
            halves[4 * i],
            halves[4 * i + 1],
            halves[4 * i + 2],
            halves[4 * i + 3],
        );
        let place = at + 4 * i * comptime![SLAB * SIDE];
        to[place] = plus(a, -c, zero);
        to[place + comptime![SLAB * SIDE]] = plus(b, c, zero);
        to[place + comptime![2 * SLAB * SIDE]] = plus(c, -b, zero);
        to[place + comptime![3 * SLAB * SIDE]] = plus(b, -d, zero);
    }
}

/// `A e Aᵀ` likewise.
#[cube]
fn transform_gradient(
    dy: &[f32],
    to: &mut Shared<[f32]>,
    at: usize,
    tile: usize,
    channel: usize,
    is_there: bool,
    zero: u32,
    #[comptime] s: ConvShape,
) {
    let tiles = comptime![s.tiles()];
    let column = tile % comptime![tiles[1]] * 2;
    let row = tile / comptime![tiles[1]] % comptime![tiles[0]] * 2;
    let image = tile / comptime![tiles[0] * tiles[1]];
    let mut halves = Array::<f32>::new(8usize);
    #[unroll]
    for j in 0..2usize {
        let mut a = 0.0f32.runtime();
        let mut b = 0.0f32.runtime();
        if is_there {
            a = gradient_at(dy, image, row, column + j, channel, s);
            b = gradient_at(dy, image, row + 1, column + j, channel, s);
        }
        halves[j] = a;
        halves[2 + j] = plus(a, b, zero);
        halves[4 + j] = plus(a, -b, zero);
        halves[6 + j] = -b;
    }
    #[unroll]
    for i in 0..4usize {
        let (a, b) = (halves[2 * i], halves[2 * i + 1]);
        let place = at + 4 * i * comptime![SLAB * SIDE];
        to[place] = a;
        to[place + comptime![SLAB * SIDE]] = plus(a, b, zero);
        to[place + comptime![2 * SLAB * SIDE]] = plus(a, -b, zero);
        to[place + comptime![3 * SLAB * SIDE]] = -b;
    }
}

/// `((a + c) ± b) · ½`.
#[cube]
fn filter_middle(a: f32, b: f32, c: f32, zero: u32) -> f32 {
    product(plus(plus(a, c, zero), b, zero), 0.5f32.runtime(), zero)
}

/// `G g Gᵀ` of the filter from an input to an output likewise.
#[cube]
fn transform_filter(
    w: &[f32],
    to: &mut Shared<[f32]>,
    at: usize,
    input: usize,
    output: usize,
    is_there: bool,
    zero: u32,
    #[comptime] s: ConvShape,
    #[comptime] turned: bool,
) {
    let mut halves = Array::<f32>::new(12usize);
    #[unroll]
    for j in 0..3usize {
        let mut g = Array::<f32>::new(3usize);
        #[unroll]
        for i in 0..3usize {
            g[i] = 0.0f32.runtime();
            if is_there {
                if comptime![turned] {
                    let filter = input * comptime![s.channels_out] + output;
                    g[i] = w[filter * 9 + comptime![8 - 3 * i - j]];
                } else {
                    let filter = output * comptime![s.channels_in] + input;
                    g[i] = w[filter * 9 + comptime![3 * i + j]];
                }
            }
        }
        halves[j] = g[0];
        halves[3 + j] = filter_middle(g[0], g[1], g[2], zero);
        halves[6 + j] = filter_middle(g[0], -g[1], g[2], zero);
        halves[9 + j] = g[2];
    }
    #[unroll]
    for i in 0..4usize {
        let (a, b, c) = (halves[3 * i], halves[3 * i + 1], halves[3 * i + 2]);
        let place = at + 4 * i * comptime![SLAB * SIDE];
        to[place] = a;
        to[place + comptime![SLAB * SIDE]] = filter_middle(a, b, c, zero);
        to[place + comptime![2 * SLAB * SIDE]] = filter_middle(a, -b, c, zero);
        to[place + comptime![3 * SLAB * SIDE]] = c;
    }
}

/// Adds the products of a slab to this unit's sums: of the left side's 4 from `row` and the right side's 4 from `column`.
#[cube]
fn multiply_slab(
    sums: &mut Array<f32>,
    shared: &Shared<[f32]>,
    row: usize,
    column: usize,
    zero: u32,
    #[comptime] tiled: Tiled,
) {
    let position = UNIT_POS as usize / SIDE * comptime![SLAB * SIDE];
    #[unroll(tiled.unrolls)]
    for k in 0..SLAB {
        let mut values = Array::<f32>::new(TILE);
        #[unroll]
        for j in 0..TILE {
            values[j] = shared[SIDE_LEN + position + k * SIDE + column + j];
        }
        #[unroll]
        for i in 0..TILE {
            let value = shared[position + k * SIDE + row + i];
            #[unroll]
            for j in 0..TILE {
                sums[i * TILE + j] =
                    plus_product(sums[i * TILE + j], value, values[j], zero, tiled.fused);
            }
        }
    }
}

/// `Aᵀ [Σ (G g Gᵀ) ⊙ (Bᵀ d B)] A`.
#[cube(launch)]
fn filtered_kernel(
    x: &[f32],
    w: &[f32],
    y: &mut [f32],
    zero: u32,
    #[comptime] s: ConvShape,
    #[comptime] turned: bool,
    #[comptime] tiled: Tiled,
) {
    let tiles = comptime![all_tiles(&s)];
    let slabs = comptime![s.channels_out.div_ceil(SIDE)];
    // Cubes beyond the last repeat it.
    let cube = min(CUBE_POS, comptime![tiles.div_ceil(SIDE) * slabs - 1]);
    let (first_tile, first_output) = (cube / slabs * SIDE, cube % slabs * SIDE);
    let unit = UNIT_POS as usize;
    let (row, column) = (unit % SIDE / TILE * TILE, unit % TILE * TILE);
    // Tiles, then filters; in the end products.
    let mut shared = Shared::<[f32]>::new_slice(comptime![2 * SIDE_LEN]);
    let mut sums = Array::<f32>::new(comptime![TILE * TILE]);
    #[unroll]
    for i in 0..comptime![TILE * TILE] {
        sums[i] = f32::reinterpret(zero);
    }
    for slab in 0..comptime![s.channels_in.div_ceil(SLAB)] {
        sync_cube();
        if unit < comptime![SLAB * SIDE] {
            let input = slab * SLAB + unit % SLAB;
            let tile = unit / SLAB;
            let is_there = input < comptime![s.channels_in] && first_tile + tile < tiles;
            let at = unit % SLAB * SIDE + tile;
            transform_input(
                x,
                &mut shared,
                at,
                first_tile + tile,
                input,
                is_there,
                zero,
                s,
            );
        } else {
            let at = unit - comptime![SLAB * SIDE];
            let (input, output) = (slab * SLAB + at / SIDE, first_output + at % SIDE);
            let is_there = input < comptime![s.channels_in] && output < comptime![s.channels_out];
            let at = at + SIDE_LEN;
            transform_filter(w, &mut shared, at, input, output, is_there, zero, s, turned);
        }
        sync_cube();
        multiply_slab(&mut sums, &shared, row, column, zero, tiled);
    }
    sync_cube();
    // `[16, tiles, outputs]`.
    let position = unit / SIDE * comptime![SIDE * SIDE];
    #[unroll]
    for i in 0..TILE {
        #[unroll]
        for j in 0..TILE {
            shared[position + (row + i) * SIDE + column + j] = ended(sums[i * TILE + j], zero);
        }
    }
    sync_cube();
    // A unit has one output of one tile.
    let mut halves = Array::<f32>::new(8usize);
    #[unroll]
    for j in 0..4usize {
        let a = shared[comptime![j * SIDE * SIDE] + unit];
        let b = shared[comptime![(4 + j) * SIDE * SIDE] + unit];
        let c = shared[comptime![(8 + j) * SIDE * SIDE] + unit];
        let d = shared[comptime![(12 + j) * SIDE * SIDE] + unit];
        halves[j] = plus(plus(a, b, zero), c, zero);
        halves[4 + j] = plus(plus(b, -c, zero), -d, zero);
    }
    let (tile, output) = (first_tile + unit / SIDE, first_output + unit % SIDE);
    if tile < tiles && output < comptime![s.channels_out] {
        let (outputs, sizes) = (comptime![s.output()], comptime![s.tiles()]);
        let column = tile % comptime![sizes[1]] * 2;
        let row = tile / comptime![sizes[1]] % comptime![sizes[0]] * 2;
        let image = tile / comptime![sizes[0] * sizes[1]];
        #[unroll]
        for i in 0..2usize {
            let (a, b) = (halves[4 * i], halves[4 * i + 1]);
            let (c, d) = (halves[4 * i + 2], halves[4 * i + 3]);
            if row + i < comptime![outputs[0]] {
                let pixel =
                    (image * comptime![outputs[0]] + row + i) * comptime![outputs[1]] + column;
                let at = pixel * comptime![s.channels_out] + output;
                y[at] = plus(plus(a, b, zero), c, zero);
                if column + 1 < comptime![outputs[1]] {
                    y[at + comptime![s.channels_out]] = plus(plus(b, -c, zero), -d, zero);
                }
            }
        }
    }
}

/// `Σ (Bᵀ d B) ⊗ (A e Aᵀ)` over the tiles of one block: `[blocks, 16, in, out]`.
#[cube(launch)]
fn sums_kernel(
    x: &[f32],
    dy: &[f32],
    partials: &mut [f32],
    zero: u32,
    #[comptime] s: ConvShape,
    #[comptime] tiled: Tiled,
) {
    let [images, blocks] = comptime![s.weight_blocks()];
    let [most, tiles_of_image] = comptime![s.weight_block_tiles()];
    let (input_slabs, output_slabs) =
        comptime![(s.channels_in.div_ceil(SIDE), s.channels_out.div_ceil(SIDE))];
    // Cubes beyond the last repeat it.
    let cube = min(
        CUBE_POS,
        comptime![images * blocks * input_slabs * output_slabs - 1],
    );
    let first_output = cube % output_slabs * SIDE;
    let first_input = cube / output_slabs % input_slabs * SIDE;
    let part = cube / comptime![input_slabs * output_slabs];
    let mut first = part * most;
    let mut count = min(
        most,
        comptime![s.batch * tiles_of_image] - min(first, comptime![s.batch * tiles_of_image]),
    );
    if comptime![blocks > 1] {
        let in_image = part % blocks * most;
        first = part / blocks * tiles_of_image + in_image;
        count = min(most, tiles_of_image - in_image);
    }
    let unit = UNIT_POS as usize;
    let (row, column) = (unit % SIDE / TILE * TILE, unit % TILE * TILE);
    // Inputs, then gradients.
    let mut shared = Shared::<[f32]>::new_slice(comptime![2 * SIDE_LEN]);
    let mut sums = Array::<f32>::new(comptime![TILE * TILE]);
    #[unroll]
    for i in 0..comptime![TILE * TILE] {
        sums[i] = f32::reinterpret(zero);
    }
    for slab in 0..count.div_ceil(SLAB) {
        sync_cube();
        let at = unit % comptime![SLAB * SIDE];
        let (tile, channel) = (slab * SLAB + at / SIDE, at % SIDE);
        if unit < comptime![SLAB * SIDE] {
            let channel = first_input + channel;
            let is_there = tile < count && channel < comptime![s.channels_in];
            transform_input(x, &mut shared, at, first + tile, channel, is_there, zero, s);
        } else {
            let channel = first_output + channel;
            let is_there = tile < count && channel < comptime![s.channels_out];
            let at = at + SIDE_LEN;
            transform_gradient(
                dy,
                &mut shared,
                at,
                first + tile,
                channel,
                is_there,
                zero,
                s,
            );
        }
        sync_cube();
        multiply_slab(&mut sums, &shared, row, column, zero, tiled);
    }
    let position = part * POSITIONS + unit / SIDE;
    #[unroll]
    for i in 0..TILE {
        #[unroll]
        for j in 0..TILE {
            let (input, output) = (first_input + row + i, first_output + column + j);
            if input < comptime![s.channels_in] && output < comptime![s.channels_out] {
                let at = position * comptime![s.channels_in] + input;
                partials[at * comptime![s.channels_out] + output] = sums[i * TILE + j];
            }
        }
    }
}

/// `Gᵀ s G`, `[out, in, 3, 3]`, s being the tree over the blocks.
#[cube(launch)]
fn filter_gradients_kernel(partials: &[f32], dw: &mut [f32], zero: u32, #[comptime] s: ConvShape) {
    let filters = comptime![s.channels_in * s.channels_out];
    let [images, blocks] = comptime![s.weight_blocks()];
    let cube = min(CUBE_POS, comptime![filters.div_ceil(SIDE) - 1]);
    let unit = UNIT_POS as usize;
    let (position, filter) = (unit / SIDE, cube * SIDE + unit % SIDE);
    // `[16, filters]`.
    let mut sums = Shared::<[f32]>::new_slice(UNITS);
    if filter < filters {
        let first = position * filters + filter;
        let step = comptime![POSITIONS * filters];
        sums[unit] = tree_of(partials, first, step, zero, images, blocks);
    }
    sync_cube();
    if unit < SIDE && filter < filters {
        let mut halves = Array::<f32>::new(12usize);
        #[unroll]
        for j in 0..4usize {
            let a = sums[comptime![j * SIDE] + unit];
            let b = sums[comptime![(4 + j) * SIDE] + unit];
            let c = sums[comptime![(8 + j) * SIDE] + unit];
            let d = sums[comptime![(12 + j) * SIDE] + unit];
            let half = product(plus(b, c, zero), 0.5f32.runtime(), zero);
            halves[j] = plus(a, half, zero);
            halves[4 + j] = product(plus(b, -c, zero), 0.5f32.runtime(), zero);
            halves[8 + j] = plus(half, d, zero);
        }
        let (input, output) = (
            filter / comptime![s.channels_out],
            filter % comptime![s.channels_out],
        );
        let first = (output * comptime![s.channels_in] + input) * 9;
        #[unroll]
        for i in 0..3usize {
            let (a, b) = (halves[4 * i], halves[4 * i + 1]);
            let (c, d) = (halves[4 * i + 2], halves[4 * i + 3]);
            let half = product(plus(b, c, zero), 0.5f32.runtime(), zero);
            dw[first + 3 * i] = plus(a, half, zero);
            dw[first + 3 * i + 1] = product(plus(b, -c, zero), 0.5f32.runtime(), zero);
            dw[first + 3 * i + 2] = plus(half, d, zero);
        }
    }
}
