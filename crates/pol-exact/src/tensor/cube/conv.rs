//! Convolution.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::arithmetic::plus_product;
use super::launch::launch;
use super::sums::tree;
use crate::profile::Profile;
use crate::shape::{ConvShape, images_per_block};

pub(super) fn forward(
    x: CubeTensor,
    w: CubeTensor,
    shape: ConvShape,
    profile: Profile,
) -> CubeTensor {
    let packed = launch!(pack_forward::launch, w; [shape.weight_len()]; shape);
    launch!(forward_kernel::launch, x, packed; shape.output_dims(); 0, shape, profile.fused())
}

pub(super) fn backward_input(
    dy: CubeTensor,
    w: CubeTensor,
    shape: ConvShape,
    profile: Profile,
) -> CubeTensor {
    let packed = launch!(pack_backward::launch, w; [shape.weight_len()]; shape);
    launch!(input_kernel::launch, dy, packed; shape.input_dims(); 0, shape, profile.fused())
}

pub(super) fn backward_weight(
    x: CubeTensor,
    dy: CubeTensor,
    shape: ConvShape,
    profile: Profile,
) -> CubeTensor {
    let [rows, columns] = shape.output();
    let blocks = shape.batch.div_ceil(images_per_block(rows * columns));
    let len = shape.weight_len();
    let partials = launch!(weight_kernel::launch, x, dy; [blocks, len]; 0, shape, profile.fused());
    let sums = tree(partials, len);
    launch!(unpack::launch, sums; shape.weight_dims(); shape)
}

/// `[out, in, taps]` to `[taps, in, out]`.
#[cube(launch)]
fn pack_forward(w: &[f32], packed: &mut [f32], #[comptime] s: ConvShape) {
    if ABSOLUTE_POS < packed.len() {
        let taps = comptime![s.kernel[0] * s.kernel[1]];
        let o = ABSOLUTE_POS % comptime![s.channels_out];
        let i = ABSOLUTE_POS / comptime![s.channels_out] % comptime![s.channels_in];
        let tap = ABSOLUTE_POS / comptime![s.channels_out * s.channels_in];
        packed[ABSOLUTE_POS] = w[(o * comptime![s.channels_in] + i) * taps + tap];
    }
}

/// `[out, in, taps]` to `[taps, out, in]`.
#[cube(launch)]
fn pack_backward(w: &[f32], packed: &mut [f32], #[comptime] s: ConvShape) {
    if ABSOLUTE_POS < packed.len() {
        let taps = comptime![s.kernel[0] * s.kernel[1]];
        let i = ABSOLUTE_POS % comptime![s.channels_in];
        let o = ABSOLUTE_POS / comptime![s.channels_in] % comptime![s.channels_out];
        let tap = ABSOLUTE_POS / comptime![s.channels_out * s.channels_in];
        packed[ABSOLUTE_POS] = w[(o * comptime![s.channels_in] + i) * taps + tap];
    }
}

/// `[taps, in, out]` to `[out, in, taps]`.
#[cube(launch)]
fn unpack(packed: &[f32], w: &mut [f32], #[comptime] s: ConvShape) {
    if ABSOLUTE_POS < w.len() {
        let taps = comptime![s.kernel[0] * s.kernel[1]];
        let tap = ABSOLUTE_POS % taps;
        let i = ABSOLUTE_POS / taps % comptime![s.channels_in];
        let o = ABSOLUTE_POS / (taps * comptime![s.channels_in]);
        w[ABSOLUTE_POS] =
            packed[(tap * comptime![s.channels_in] + i) * comptime![s.channels_out] + o];
    }
}

/// One output. What would be read of the padding is left out: a product with +0 changes no sum.
#[cube(launch)]
fn forward_kernel(
    x: &[f32],
    w: &[f32],
    y: &mut [f32],
    zero: u32,
    #[comptime] s: ConvShape,
    #[comptime] fused: bool,
) {
    if ABSOLUTE_POS < y.len() {
        let outputs = comptime![s.output()];
        let o = ABSOLUTE_POS % comptime![s.channels_out];
        let pixel = ABSOLUTE_POS / comptime![s.channels_out];
        let column = pixel % comptime![outputs[1]] * comptime![s.stride[1]];
        let row = pixel / comptime![outputs[1]] % comptime![outputs[0]] * comptime![s.stride[0]];
        let image = pixel / comptime![outputs[0] * outputs[1]];
        let mut sum = 0.0f32.runtime();
        for kr in 0..comptime![s.kernel[0]] {
            let r = row + kr;
            if r >= comptime![s.padding[0]] && r < comptime![s.input[0] + s.padding[0]] {
                for kc in 0..comptime![s.kernel[1]] {
                    let c = column + kc;
                    if c >= comptime![s.padding[1]] && c < comptime![s.input[1] + s.padding[1]] {
                        let r = image * comptime![s.input[0]] + r - comptime![s.padding[0]];
                        let from = (r * comptime![s.input[1]] + c - comptime![s.padding[1]])
                            * comptime![s.channels_in];
                        let weights = (kr * comptime![s.kernel[1]] + kc)
                            * comptime![s.channels_in * s.channels_out]
                            + o;
                        for i in 0..comptime![s.channels_in] {
                            let weight = w[weights + i * comptime![s.channels_out]];
                            sum = plus_product(sum, x[from + i], weight, zero, fused);
                        }
                    }
                }
            }
        }
        y[ABSOLUTE_POS] = sum;
    }
}

/// The gradient of one input.
#[cube(launch)]
fn input_kernel(
    dy: &[f32],
    w: &[f32],
    dx: &mut [f32],
    zero: u32,
    #[comptime] s: ConvShape,
    #[comptime] fused: bool,
) {
    if ABSOLUTE_POS < dx.len() {
        let outputs = comptime![s.output()];
        let i = ABSOLUTE_POS % comptime![s.channels_in];
        let pixel = ABSOLUTE_POS / comptime![s.channels_in];
        let column = pixel % comptime![s.input[1]] + comptime![s.padding[1]];
        let row = pixel / comptime![s.input[1]] % comptime![s.input[0]] + comptime![s.padding[0]];
        let image = pixel / comptime![s.input[0] * s.input[1]];
        let mut sum = 0.0f32.runtime();
        for step_row in 0..comptime![s.kernel[0]] {
            let kr = comptime![s.kernel[0] - 1] - step_row;
            if row >= kr && (row - kr) % comptime![s.stride[0]] == 0 {
                let r = (row - kr) / comptime![s.stride[0]];
                if r < comptime![outputs[0]] {
                    for step_column in 0..comptime![s.kernel[1]] {
                        let kc = comptime![s.kernel[1] - 1] - step_column;
                        if column >= kc && (column - kc) % comptime![s.stride[1]] == 0 {
                            let c = (column - kc) / comptime![s.stride[1]];
                            if c < comptime![outputs[1]] {
                                let r = image * comptime![outputs[0]] + r;
                                let from =
                                    (r * comptime![outputs[1]] + c) * comptime![s.channels_out];
                                let weights = (kr * comptime![s.kernel[1]] + kc)
                                    * comptime![s.channels_in * s.channels_out]
                                    + i;
                                for o in 0..comptime![s.channels_out] {
                                    let weight = w[weights + o * comptime![s.channels_in]];
                                    sum = plus_product(sum, dy[from + o], weight, zero, fused);
                                }
                            }
                        }
                    }
                }
            }
        }
        dx[ABSOLUTE_POS] = sum;
    }
}

/// One weight's sum over one block of images, `[blocks, taps, in, out]`.
#[cube(launch)]
fn weight_kernel(
    x: &[f32],
    dy: &[f32],
    sums: &mut [f32],
    zero: u32,
    #[comptime] s: ConvShape,
    #[comptime] fused: bool,
) {
    if ABSOLUTE_POS < sums.len() {
        let outputs = comptime![s.output()];
        let images = comptime![images_per_block(outputs[0] * outputs[1])];
        let o = ABSOLUTE_POS % comptime![s.channels_out];
        let i = ABSOLUTE_POS / comptime![s.channels_out] % comptime![s.channels_in];
        let tap = ABSOLUTE_POS / comptime![s.channels_out * s.channels_in];
        let kc = tap % comptime![s.kernel[1]];
        let kr = tap / comptime![s.kernel[1]] % comptime![s.kernel[0]];
        let first = tap / comptime![s.kernel[0] * s.kernel[1]] * images;
        let mut sum = 0.0f32.runtime();
        for image in first..min(first + images, comptime![s.batch]) {
            for row in 0..comptime![outputs[0]] {
                let r = row * comptime![s.stride[0]] + kr;
                if r >= comptime![s.padding[0]] && r < comptime![s.input[0] + s.padding[0]] {
                    let r = image * comptime![s.input[0]] + r - comptime![s.padding[0]];
                    for column in 0..comptime![outputs[1]] {
                        let c = column * comptime![s.stride[1]] + kc;
                        if c >= comptime![s.padding[1]] && c < comptime![s.input[1] + s.padding[1]]
                        {
                            let from = (r * comptime![s.input[1]] + c - comptime![s.padding[1]])
                                * comptime![s.channels_in]
                                + i;
                            let pixel = (image * comptime![outputs[0]] + row)
                                * comptime![outputs[1]]
                                + column;
                            let gradient = dy[pixel * comptime![s.channels_out] + o];
                            sum = plus_product(sum, x[from], gradient, zero, fused);
                        }
                    }
                }
            }
        }
        sums[ABSOLUTE_POS] = sum;
    }
}
