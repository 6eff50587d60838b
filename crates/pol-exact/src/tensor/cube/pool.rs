//! Pooling and the parameter-free shortcut.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::arithmetic::{divide, plus};
use super::launch::launch;
use crate::shape::{PoolShape, ShortcutShape};

pub(super) fn average(x: CubeTensor, shape: PoolShape) -> CubeTensor {
    launch!(average_kernel::launch, x; shape.output_dims(); 0, shape)
}

pub(super) fn average_backward(dy: CubeTensor, shape: PoolShape) -> CubeTensor {
    launch!(average_backward_kernel::launch, dy; shape.input_dims(); 0, shape)
}

pub(super) fn max(x: CubeTensor, shape: PoolShape) -> CubeTensor {
    launch!(max_kernel::launch, x; shape.output_dims(); shape)
}

pub(super) fn max_backward(x: CubeTensor, dy: CubeTensor, shape: PoolShape) -> CubeTensor {
    launch!(max_backward_kernel::launch, x, dy; shape.input_dims(); 0, shape)
}

pub(super) fn shortcut(x: CubeTensor, shape: ShortcutShape) -> CubeTensor {
    launch!(shortcut_kernel::launch, x; shape.output_dims(); shape)
}

pub(super) fn shortcut_backward(dy: CubeTensor, shape: ShortcutShape) -> CubeTensor {
    launch!(shortcut_backward_kernel::launch, dy; shape.input_dims(); shape)
}

/// Where the window of output `at` begins: the index of its first value.
#[cube]
fn window(at: usize, #[comptime] s: PoolShape) -> usize {
    let outputs = comptime![s.output()];
    let channel = at % comptime![s.channels];
    let pixel = at / comptime![s.channels];
    let column = pixel % comptime![outputs[1]] * comptime![s.stride[1]];
    let row = pixel / comptime![outputs[1]] % comptime![outputs[0]] * comptime![s.stride[0]];
    let image = pixel / comptime![outputs[0] * outputs[1]];
    let row = image * comptime![s.input[0]] + row;
    (row * comptime![s.input[1]] + column) * comptime![s.channels] + channel
}

/// The index of the first of the greatest values of the window at `first`.
#[cube]
fn greatest(x: &[f32], first: usize, #[comptime] s: PoolShape) -> usize {
    let mut best = first;
    for r in 0..comptime![s.window[0]] {
        for c in 0..comptime![s.window[1]] {
            let at = first + (r * comptime![s.input[1]] + c) * comptime![s.channels];
            if x[at] > x[best] {
                best = at;
            }
        }
    }
    best
}

#[cube(launch)]
fn average_kernel(x: &[f32], y: &mut [f32], zero: u32, #[comptime] s: PoolShape) {
    if ABSOLUTE_POS < y.len() {
        let first = window(ABSOLUTE_POS, s);
        let mut sum = f32::reinterpret(zero);
        for r in 0..comptime![s.window[0]] {
            for c in 0..comptime![s.window[1]] {
                let at = first + (r * comptime![s.input[1]] + c) * comptime![s.channels];
                sum = plus(sum, x[at], zero);
            }
        }
        y[ABSOLUTE_POS] = divide(sum, comptime![(s.window[0] * s.window[1]) as f32].runtime());
    }
}

#[cube(launch)]
fn max_kernel(x: &[f32], y: &mut [f32], #[comptime] s: PoolShape) {
    if ABSOLUTE_POS < y.len() {
        y[ABSOLUTE_POS] = x[greatest(x, window(ABSOLUTE_POS, s), s)];
    }
}

/// The first window along one dimension that place `at` is in.
#[cube]
fn first_window(at: usize, #[comptime] window: usize, #[comptime] stride: usize) -> usize {
    let mut first = 0usize.runtime();
    if at + stride > window {
        first = (at + stride - window) / stride;
    }
    first
}

#[cube(launch)]
fn average_backward_kernel(dy: &[f32], dx: &mut [f32], zero: u32, #[comptime] s: PoolShape) {
    if ABSOLUTE_POS < dx.len() {
        let outputs = comptime![s.output()];
        let channel = ABSOLUTE_POS % comptime![s.channels];
        let pixel = ABSOLUTE_POS / comptime![s.channels];
        let column = pixel % comptime![s.input[1]];
        let row = pixel / comptime![s.input[1]] % comptime![s.input[0]];
        let image = pixel / comptime![s.input[0] * s.input[1]];
        let count = comptime![(s.window[0] * s.window[1]) as f32].runtime();
        let mut sum = f32::reinterpret(zero);
        let last_row = min(row / comptime![s.stride[0]] + 1, comptime![outputs[0]]);
        let last_column = min(column / comptime![s.stride[1]] + 1, comptime![outputs[1]]);
        for r in first_window(row, comptime![s.window[0]], comptime![s.stride[0]])..last_row {
            let left = first_window(column, comptime![s.window[1]], comptime![s.stride[1]]);
            for c in left..last_column {
                let output = (image * comptime![outputs[0]] + r) * comptime![outputs[1]] + c;
                let share = divide(dy[output * comptime![s.channels] + channel], count);
                sum = plus(sum, share, zero);
            }
        }
        dx[ABSOLUTE_POS] = sum;
    }
}

#[cube(launch)]
fn max_backward_kernel(x: &[f32], dy: &[f32], dx: &mut [f32], zero: u32, #[comptime] s: PoolShape) {
    if ABSOLUTE_POS < dx.len() {
        let outputs = comptime![s.output()];
        let channel = ABSOLUTE_POS % comptime![s.channels];
        let pixel = ABSOLUTE_POS / comptime![s.channels];
        let column = pixel % comptime![s.input[1]];
        let row = pixel / comptime![s.input[1]] % comptime![s.input[0]];
        let image = pixel / comptime![s.input[0] * s.input[1]];
        let mut sum = f32::reinterpret(zero);
        let last_row = min(row / comptime![s.stride[0]] + 1, comptime![outputs[0]]);
        let last_column = min(column / comptime![s.stride[1]] + 1, comptime![outputs[1]]);
        for r in first_window(row, comptime![s.window[0]], comptime![s.stride[0]])..last_row {
            let left = first_window(column, comptime![s.window[1]], comptime![s.stride[1]]);
            for c in left..last_column {
                let output = (image * comptime![outputs[0]] + r) * comptime![outputs[1]] + c;
                let output = output * comptime![s.channels] + channel;
                if greatest(x, window(output, s), s) == ABSOLUTE_POS {
                    sum = plus(sum, dy[output], zero);
                }
            }
        }
        dx[ABSOLUTE_POS] = sum;
    }
}

#[cube(launch)]
fn shortcut_kernel(x: &[f32], y: &mut [f32], #[comptime] s: ShortcutShape) {
    if ABSOLUTE_POS < y.len() {
        let outputs = comptime![s.output()];
        let channel = ABSOLUTE_POS % comptime![s.channels_out];
        let pixel = ABSOLUTE_POS / comptime![s.channels_out];
        let mut value = 0.0f32.runtime();
        if channel >= comptime![s.before()] && channel < comptime![s.before() + s.channels_in] {
            let column = pixel % comptime![outputs[1]] * comptime![s.stride];
            let row = pixel / comptime![outputs[1]] % comptime![outputs[0]] * comptime![s.stride];
            let image = pixel / comptime![outputs[0] * outputs[1]];
            let row = image * comptime![s.input[0]] + row;
            let from = (row * comptime![s.input[1]] + column) * comptime![s.channels_in];
            value = x[from + channel - comptime![s.before()]];
        }
        y[ABSOLUTE_POS] = value;
    }
}

#[cube(launch)]
fn shortcut_backward_kernel(dy: &[f32], dx: &mut [f32], #[comptime] s: ShortcutShape) {
    if ABSOLUTE_POS < dx.len() {
        let outputs = comptime![s.output()];
        let channel = ABSOLUTE_POS % comptime![s.channels_in];
        let pixel = ABSOLUTE_POS / comptime![s.channels_in];
        let column = pixel % comptime![s.input[1]];
        let row = pixel / comptime![s.input[1]] % comptime![s.input[0]];
        let image = pixel / comptime![s.input[0] * s.input[1]];
        let mut value = 0.0f32.runtime();
        if row % comptime![s.stride] == 0 && column % comptime![s.stride] == 0 {
            let r = image * comptime![outputs[0]] + row / comptime![s.stride];
            let output = r * comptime![outputs[1]] + column / comptime![s.stride];
            value = dy[output * comptime![s.channels_out] + channel + comptime![s.before()]];
        }
        dx[ABSOLUTE_POS] = value;
    }
}
