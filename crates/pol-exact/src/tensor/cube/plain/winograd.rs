//! Convolution by minimal filtering, with a unit for each value; see `cpu::winograd`, which has the same transforms.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::super::arithmetic::{ended, plus, plus_product, product};
use super::super::launch::launch;
use super::super::sums::tree_of;
use crate::profile::Profile;
use crate::shape::ConvShape;

pub(in crate::tensor::cube) fn forward(
    x: CubeTensor,
    w: CubeTensor,
    shape: ConvShape,
    profile: Profile,
) -> CubeTensor {
    let filters = [16, shape.channels_in, shape.channels_out];
    let weights = launch!(filters_kernel::launch, w; filters; 0, shape, false);
    filtered(x, weights, shape, profile)
}

pub(in crate::tensor::cube) fn backward_input(
    dy: CubeTensor,
    w: CubeTensor,
    shape: ConvShape,
    profile: Profile,
) -> CubeTensor {
    let filters = [16, shape.channels_out, shape.channels_in];
    let weights = launch!(filters_kernel::launch, w; filters; 0, shape, true);
    filtered(dy, weights, shape.transposed(), profile)
}

pub(in crate::tensor::cube) fn backward_weight(
    x: CubeTensor,
    dy: CubeTensor,
    shape: ConvShape,
    profile: Profile,
) -> CubeTensor {
    let [images, blocks] = shape.weight_blocks();
    let (inputs, outputs) = (shape.channels_in, shape.channels_out);
    let x = launch!(input_kernel::launch, x; [16, all_tiles(&shape), inputs]; 0, shape);
    let dy = launch!(gradient_kernel::launch, dy; [16, all_tiles(&shape), outputs]; 0, shape);
    let width = 16 * inputs * outputs;
    let partials = launch!(
        sums_kernel::launch, x, dy; [images * blocks, width];
        0, shape, profile.fused()
    );
    let sums = launch!(tree_kernel::launch, partials; [width]; 0, images, blocks, width);
    launch!(filter_gradients_kernel::launch, sums; shape.weight_dims(); 0, shape)
}

fn filtered(x: CubeTensor, weights: CubeTensor, shape: ConvShape, profile: Profile) -> CubeTensor {
    let transformed =
        launch!(input_kernel::launch, x; [16, all_tiles(&shape), shape.channels_in]; 0, shape);
    let products = launch!(
        products_kernel::launch, transformed, weights; [16, all_tiles(&shape), shape.channels_out];
        0, shape, profile.fused()
    );
    launch!(output_kernel::launch, products; shape.output_dims(); 0, shape)
}

/// Tiles of all images.
const fn all_tiles(shape: &ConvShape) -> usize {
    let [rows, columns] = shape.tiles();
    shape.batch * rows * columns
}

/// The first operand of row `i` of Bᵀ.
#[cube]
fn first_of(i: usize) -> usize {
    let mut first = i;
    if i == 3 {
        first = 1usize.runtime();
    }
    first
}

/// The second operand of row `i` of Bᵀ.
#[cube]
fn second_of(i: usize) -> usize {
    let mut second = 2usize.runtime();
    if i == 2 {
        second = 1usize.runtime();
    } else if i == 3 {
        second = 3usize.runtime();
    }
    second
}

/// `a + b` for row 1 of Bᵀ, else `a − b`.
#[cube]
fn paired(i: usize, a: f32, b: f32, zero: u32) -> f32 {
    let mut second = -b;
    if i == 1 {
        second = b;
    }
    plus(a, second, zero)
}

/// The value of the padded input at a row and a column, or 0 beyond.
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

/// `Bᵀ d B`, `[16, tiles, in]`.
#[cube(launch)]
fn input_kernel(x: &[f32], transformed: &mut [f32], zero: u32, #[comptime] s: ConvShape) {
    if ABSOLUTE_POS < transformed.len() {
        let tiles = comptime![s.tiles()];
        let channel = ABSOLUTE_POS % comptime![s.channels_in];
        let tile = ABSOLUTE_POS / comptime![s.channels_in] % comptime![all_tiles(&s)];
        let position = ABSOLUTE_POS / comptime![all_tiles(&s) * s.channels_in];
        let (i, j) = (position / 4, position % 4);
        let image = tile / comptime![tiles[0] * tiles[1]];
        let row = tile / comptime![tiles[1]] % comptime![tiles[0]] * 2;
        let column = tile % comptime![tiles[1]] * 2;
        let (upper, lower) = (row + first_of(i), row + second_of(i));
        let (left, right) = (column + first_of(j), column + second_of(j));
        let a = padded(x, image, upper, left, channel, s);
        let b = padded(x, image, lower, left, channel, s);
        let first = paired(i, a, b, zero);
        let a = padded(x, image, upper, right, channel, s);
        let b = padded(x, image, lower, right, channel, s);
        let second = paired(i, a, b, zero);
        transformed[ABSOLUTE_POS] = paired(j, first, second, zero);
    }
}

/// Row `i` of `A e`.
#[cube]
fn spread(i: usize, a: f32, b: f32, zero: u32) -> f32 {
    let mut value = a;
    if i == 1 {
        value = plus(a, b, zero);
    } else if i == 2 {
        value = plus(a, -b, zero);
    } else if i == 3 {
        value = -b;
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

/// `A e Aᵀ`, `[16, tiles, out]`.
#[cube(launch)]
fn gradient_kernel(dy: &[f32], transformed: &mut [f32], zero: u32, #[comptime] s: ConvShape) {
    if ABSOLUTE_POS < transformed.len() {
        let tiles = comptime![s.tiles()];
        let channel = ABSOLUTE_POS % comptime![s.channels_out];
        let tile = ABSOLUTE_POS / comptime![s.channels_out] % comptime![all_tiles(&s)];
        let position = ABSOLUTE_POS / comptime![all_tiles(&s) * s.channels_out];
        let (i, j) = (position / 4, position % 4);
        let image = tile / comptime![tiles[0] * tiles[1]];
        let row = tile / comptime![tiles[1]] % comptime![tiles[0]] * 2;
        let column = tile % comptime![tiles[1]] * 2;
        let a = gradient_at(dy, image, row, column, channel, s);
        let b = gradient_at(dy, image, row + 1, column, channel, s);
        let left = spread(i, a, b, zero);
        let a = gradient_at(dy, image, row, column + 1, channel, s);
        let b = gradient_at(dy, image, row + 1, column + 1, channel, s);
        let right = spread(i, a, b, zero);
        transformed[ABSOLUTE_POS] = spread(j, left, right, zero);
    }
}

/// Row `i` of `G g`.
#[cube]
fn filter(i: usize, a: f32, b: f32, c: f32, zero: u32) -> f32 {
    let mut value = a;
    if i == 3 {
        value = c;
    } else if i > 0 {
        let mut middle = b;
        if i == 2 {
            middle = -b;
        }
        value = product(plus(plus(a, c, zero), middle, zero), 0.5f32.runtime(), zero);
    }
    value
}

/// `G g Gᵀ`, `[16, in, out]`; for the gradient of the input `[16, out, in]` with the kernel turned
/// around.
#[cube(launch)]
fn filters_kernel(
    w: &[f32],
    transformed: &mut [f32],
    zero: u32,
    #[comptime] s: ConvShape,
    #[comptime] turned: bool,
) {
    if ABSOLUTE_POS < transformed.len() {
        let plane = comptime![s.channels_in * s.channels_out];
        let position = ABSOLUTE_POS / plane;
        let (row, column) = (position / 4, position % 4);
        let mut i = ABSOLUTE_POS % plane / comptime![s.channels_out];
        let mut o = ABSOLUTE_POS % comptime![s.channels_out];
        if comptime![turned] {
            i = ABSOLUTE_POS % comptime![s.channels_in];
            o = ABSOLUTE_POS % plane / comptime![s.channels_in];
        }
        let first = (o * comptime![s.channels_in] + i) * 9;
        let a = filter_column(w, first, 0usize.runtime(), row, zero, turned);
        let b = filter_column(w, first, 1usize.runtime(), row, zero, turned);
        let c = filter_column(w, first, 2usize.runtime(), row, zero, turned);
        transformed[ABSOLUTE_POS] = filter(column, a, b, c, zero);
    }
}

#[cube]
fn filter_column(
    w: &[f32],
    first: usize,
    column: usize,
    row: usize,
    zero: u32,
    #[comptime] turned: bool,
) -> f32 {
    let mut a = w[first + column];
    let mut b = w[first + 3 + column];
    let mut c = w[first + 6 + column];
    if comptime![turned] {
        a = w[first + 8 - column];
        b = w[first + 5 - column];
        c = w[first + 2 - column];
    }
    filter(row, a, b, c, zero)
}

/// Products of a position, summed over the inputs: `[16, tiles, out]`.
#[cube(launch)]
fn products_kernel(
    transformed: &[f32],
    weights: &[f32],
    products: &mut [f32],
    zero: u32,
    #[comptime] s: ConvShape,
    #[comptime] fused: bool,
) {
    if ABSOLUTE_POS < products.len() {
        let o = ABSOLUTE_POS % comptime![s.channels_out];
        let from = ABSOLUTE_POS / comptime![s.channels_out] * comptime![s.channels_in];
        let position = ABSOLUTE_POS / comptime![all_tiles(&s) * s.channels_out];
        let weights_from = position * comptime![s.channels_in * s.channels_out] + o;
        let mut sum = f32::reinterpret(zero);
        for i in 0..comptime![s.channels_in] {
            let weight = weights[weights_from + i * comptime![s.channels_out]];
            sum = plus_product(sum, transformed[from + i], weight, zero, fused);
        }
        products[ABSOLUTE_POS] = ended(sum, zero);
    }
}

/// Row `i` of `Aᵀ m`.
#[cube]
fn gathered(i: usize, a: f32, b: f32, c: f32, zero: u32) -> f32 {
    // (a + b) + c, or (a − b) − c of the last three.
    let mut second = b;
    let mut third = c;
    if i == 1 {
        second = -b;
        third = -c;
    }
    plus(plus(a, second, zero), third, zero)
}

/// `Aᵀ m A`: one output.
#[cube(launch)]
fn output_kernel(products: &[f32], y: &mut [f32], zero: u32, #[comptime] s: ConvShape) {
    if ABSOLUTE_POS < y.len() {
        let (outputs, tiles) = (comptime![s.output()], comptime![s.tiles()]);
        let channel = ABSOLUTE_POS % comptime![s.channels_out];
        let pixel = ABSOLUTE_POS / comptime![s.channels_out];
        let column = pixel % comptime![outputs[1]];
        let row = pixel / comptime![outputs[1]] % comptime![outputs[0]];
        let image = pixel / comptime![outputs[0] * outputs[1]];
        let tile = (image * comptime![tiles[0]] + row / 2) * comptime![tiles[1]] + column / 2;
        let at = tile * comptime![s.channels_out] + channel;
        let (i, j) = (row % 2, column % 2);
        let a = output_column(products, at, j, i, zero, s);
        let b = output_column(products, at, j + 1, i, zero, s);
        let c = output_column(products, at, j + 2, i, zero, s);
        y[ABSOLUTE_POS] = gathered(j, a, b, c, zero);
    }
}

#[cube]
fn output_column(
    products: &[f32],
    at: usize,
    column: usize,
    i: usize,
    zero: u32,
    #[comptime] s: ConvShape,
) -> f32 {
    let plane = comptime![all_tiles(&s) * s.channels_out];
    let first = (4 * i + column) * plane + at;
    let a = products[first];
    let b = products[first + 4 * plane];
    let c = products[first + 8 * plane];
    gathered(i, a, b, c, zero)
}

/// One position of one filter, summed over the tiles of one block: `[blocks, 16, in, out]`.
#[cube(launch)]
fn sums_kernel(
    x: &[f32],
    dy: &[f32],
    sums: &mut [f32],
    zero: u32,
    #[comptime] s: ConvShape,
    #[comptime] fused: bool,
) {
    if ABSOLUTE_POS < sums.len() {
        let [_, blocks] = comptime![s.weight_blocks()];
        let [most, tiles_of_image] = comptime![s.weight_block_tiles()];
        let o = ABSOLUTE_POS % comptime![s.channels_out];
        let i = ABSOLUTE_POS / comptime![s.channels_out] % comptime![s.channels_in];
        let position = ABSOLUTE_POS / comptime![s.channels_out * s.channels_in] % 16;
        let part = ABSOLUTE_POS / comptime![16 * s.channels_out * s.channels_in];
        let mut first = part * most;
        let mut last = min(first + most, comptime![all_tiles(&s)]);
        if comptime![blocks > 1] {
            first = part / blocks * tiles_of_image + part % blocks * most;
            last = min(first + most, (part / blocks + 1) * tiles_of_image);
        }
        let plane = position * comptime![all_tiles(&s)];
        let mut sum = f32::reinterpret(zero);
        for tile in first..last {
            let input = x[(plane + tile) * comptime![s.channels_in] + i];
            let gradient = dy[(plane + tile) * comptime![s.channels_out] + o];
            sum = plus_product(sum, input, gradient, zero, fused);
        }
        sums[ABSOLUTE_POS] = sum;
    }
}

#[cube(launch)]
fn tree_kernel(
    partials: &[f32],
    sums: &mut [f32],
    zero: u32,
    #[comptime] images: usize,
    #[comptime] blocks: usize,
    #[comptime] width: usize,
) {
    if ABSOLUTE_POS < sums.len() {
        sums[ABSOLUTE_POS] = tree_of(partials, ABSOLUTE_POS, width, zero, images, blocks);
    }
}

/// Row `i` of `Gᵀ s`.
#[cube]
fn filter_gradient(i: usize, a: f32, b: f32, c: f32, d: f32, zero: u32) -> f32 {
    let mut second = c;
    if i == 1 {
        second = -c;
    }
    let half = product(plus(b, second, zero), 0.5f32.runtime(), zero);
    let mut value = half;
    if i == 0 {
        value = plus(a, half, zero);
    } else if i == 2 {
        value = plus(half, d, zero);
    }
    value
}

/// `Gᵀ s G`, `[out, in, 3, 3]`.
#[cube(launch)]
fn filter_gradients_kernel(sums: &[f32], dw: &mut [f32], zero: u32, #[comptime] s: ConvShape) {
    if ABSOLUTE_POS < dw.len() {
        let (row, column) = (ABSOLUTE_POS % 9 / 3, ABSOLUTE_POS % 3);
        let i = ABSOLUTE_POS / 9 % comptime![s.channels_in];
        let o = ABSOLUTE_POS / comptime![9 * s.channels_in];
        let at = i * comptime![s.channels_out] + o;
        let a = sums_column(sums, at, 0usize.runtime(), row, zero, s);
        let b = sums_column(sums, at, 1usize.runtime(), row, zero, s);
        let c = sums_column(sums, at, 2usize.runtime(), row, zero, s);
        let d = sums_column(sums, at, 3usize.runtime(), row, zero, s);
        dw[ABSOLUTE_POS] = filter_gradient(column, a, b, c, d, zero);
    }
}

#[cube]
fn sums_column(
    sums: &[f32],
    at: usize,
    column: usize,
    row: usize,
    zero: u32,
    #[comptime] s: ConvShape,
) -> f32 {
    let plane = comptime![s.channels_in * s.channels_out];
    let first = column * plane + at;
    let a = sums[first];
    let b = sums[first + 4 * plane];
    let c = sums[first + 8 * plane];
    let d = sums[first + 12 * plane];
    filter_gradient(row, a, b, c, d, zero)
}
