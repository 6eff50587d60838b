//! Convolution, with a unit for each value.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::super::arithmetic::{ended, plus_product};
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
    let packed = launch!(pack_forward::launch, w; [shape.weight_len()]; shape);
    launch!(forward_kernel::launch, x, packed; shape.output_dims(); 0, shape, profile.fused())
}

pub(in crate::tensor::cube) fn backward_input(
    dy: CubeTensor,
    w: CubeTensor,
    shape: ConvShape,
    profile: Profile,
) -> CubeTensor {
    let packed = launch!(pack_backward::launch, w; [shape.weight_len()]; shape);
    launch!(input_kernel::launch, dy, packed; shape.input_dims(); 0, shape, profile.fused())
}

pub(in crate::tensor::cube) fn backward_weight(
    x: CubeTensor,
    dy: CubeTensor,
    shape: ConvShape,
    profile: Profile,
) -> CubeTensor {
    let [images, blocks] = shape.weight_blocks();
    let partials = [images * blocks, shape.weight_len()];
    let partials = launch!(weight_kernel::launch, x, dy; partials; 0, shape, profile.fused());
    launch!(unpacked_tree::launch, partials; shape.weight_dims(); 0, shape)
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

/// The tree over blocks `[taps, in, out]`, as the weights are.
#[cube(launch)]
fn unpacked_tree(partials: &[f32], dw: &mut [f32], zero: u32, #[comptime] s: ConvShape) {
    if ABSOLUTE_POS < dw.len() {
        let taps = comptime![s.kernel[0] * s.kernel[1]];
        let tap = ABSOLUTE_POS % taps;
        let i = ABSOLUTE_POS / taps % comptime![s.channels_in];
        let o = ABSOLUTE_POS / (taps * comptime![s.channels_in]);
        let from = (tap * comptime![s.channels_in] + i) * comptime![s.channels_out] + o;
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

/// One output. What would be read of the padding is left out (NUMERICS.md, "Zeros").
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
        let mut sum = f32::reinterpret(zero);
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
        y[ABSOLUTE_POS] = ended(sum, zero);
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
        let mut sum = f32::reinterpret(zero);
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
        dx[ABSOLUTE_POS] = ended(sum, zero);
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
        let [_, blocks] = comptime![s.weight_blocks()];
        let [most, image_pixels] = comptime![s.weight_block_pixels()];
        let o = ABSOLUTE_POS % comptime![s.channels_out];
        let i = ABSOLUTE_POS / comptime![s.channels_out] % comptime![s.channels_in];
        let tap = ABSOLUTE_POS / comptime![s.channels_out * s.channels_in];
        let kc = tap % comptime![s.kernel[1]];
        let kr = tap / comptime![s.kernel[1]] % comptime![s.kernel[0]];
        let part = tap / comptime![s.kernel[0] * s.kernel[1]];
        let mut first = part * most;
        let mut last = min(first + most, comptime![s.batch * image_pixels]);
        if comptime![blocks > 1] {
            first = part / blocks * image_pixels + part % blocks * most;
            last = min(first + most, (part / blocks + 1) * image_pixels);
        }
        let mut sum = f32::reinterpret(zero);
        for pixel in first..last {
            let column = pixel % comptime![outputs[1]] * comptime![s.stride[1]] + kc;
            let row =
                pixel / comptime![outputs[1]] % comptime![outputs[0]] * comptime![s.stride[0]] + kr;
            let image = pixel / comptime![outputs[0] * outputs[1]];
            let row_ok =
                row >= comptime![s.padding[0]] && row < comptime![s.input[0] + s.padding[0]];
            let column_ok =
                column >= comptime![s.padding[1]] && column < comptime![s.input[1] + s.padding[1]];
            if row_ok && column_ok {
                let row = image * comptime![s.input[0]] + row - comptime![s.padding[0]];
                let from = row * comptime![s.input[1]] + column - comptime![s.padding[1]];
                let value = x[from * comptime![s.channels_in] + i];
                let gradient = dy[pixel * comptime![s.channels_out] + o];
                sum = plus_product(sum, value, gradient, zero, fused);
            }
        }
        sums[ABSOLUTE_POS] = sum;
    }
}
