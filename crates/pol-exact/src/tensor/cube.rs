//! The kernels on CubeCL's devices: one source for WGSL, SPIR-V and CUDA.
//!
//! Small operators have a unit for each value; products and sums have cubes that share memory. What the compiler of kernels lacks, clippy should not ask for.
#![allow(
    clippy::borrowed_box,
    clippy::manual_is_multiple_of,
    clippy::too_many_arguments
)]

mod arithmetic;
mod conv;
mod elementwise;
mod launch;
mod loss;
mod norm;
mod plain;
mod pool;
mod sums;
mod updates;
mod winograd;

use burn::backend::tensor::FloatTensor;
use burn_cubecl::CubeBackend;

use super::backend::{Kernels, NormGradients, NormOptions, NormSaved, Normalised, forward_only};
use crate::optim::{AdamRule, SgdRule};
use crate::profile::Profile;
use crate::shape::{ConvShape, PoolShape, ShortcutShape};

forward_only!(CubeBackend);

impl Kernels for CubeBackend {
    fn conv2d_forward(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        shape: ConvShape,
        profile: Profile,
    ) -> FloatTensor<Self> {
        match (shape.is_winograd(), launch::shares_memory(&x)) {
            (true, true) => winograd::forward(x, w, shape, profile),
            (false, true) => conv::forward(x, w, shape, profile),
            (true, false) => plain::winograd::forward(x, w, shape, profile),
            (false, false) => plain::conv::forward(x, w, shape, profile),
        }
    }

    fn conv2d_input(
        dy: FloatTensor<Self>,
        w: FloatTensor<Self>,
        shape: ConvShape,
        profile: Profile,
    ) -> FloatTensor<Self> {
        match (shape.is_winograd(), launch::shares_memory(&dy)) {
            (true, true) => winograd::backward_input(dy, w, shape, profile),
            (false, true) => conv::backward_input(dy, w, shape, profile),
            (true, false) => plain::winograd::backward_input(dy, w, shape, profile),
            (false, false) => plain::conv::backward_input(dy, w, shape, profile),
        }
    }

    fn conv2d_weight(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        shape: ConvShape,
        profile: Profile,
    ) -> FloatTensor<Self> {
        match (shape.is_winograd(), launch::shares_memory(&x)) {
            (true, true) => winograd::backward_weight(x, dy, shape, profile),
            (false, true) => conv::backward_weight(x, dy, shape, profile),
            (true, false) => plain::winograd::backward_weight(x, dy, shape, profile),
            (false, false) => plain::conv::backward_weight(x, dy, shape, profile),
        }
    }

    fn linear_forward(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        profile: Profile,
    ) -> FloatTensor<Self> {
        match launch::shares_memory(&x) {
            true => conv::linear(x, w, profile),
            false => plain::linear::forward(x, w, profile),
        }
    }

    fn linear_input(
        dy: FloatTensor<Self>,
        w: FloatTensor<Self>,
        profile: Profile,
    ) -> FloatTensor<Self> {
        match launch::shares_memory(&dy) {
            true => conv::linear_input(dy, w, profile),
            false => plain::linear::backward_input(dy, w, profile),
        }
    }

    fn linear_weight(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        profile: Profile,
    ) -> FloatTensor<Self> {
        match launch::shares_memory(&x) {
            true => conv::linear_weight(x, dy, profile),
            false => plain::linear::backward_weight(x, dy, profile),
        }
    }

    fn add_bias(x: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        elementwise::add_bias(x, bias)
    }

    fn column_sums(x: FloatTensor<Self>) -> FloatTensor<Self> {
        match launch::shares_memory(&x) {
            true => sums::column_sums(x),
            false => plain::norm::column_sums(x),
        }
    }

    fn batch_norm_forward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        running: [FloatTensor<Self>; 2],
        shortcut: Option<FloatTensor<Self>>,
        options: NormOptions,
    ) -> Normalised<FloatTensor<Self>> {
        match launch::shares_memory(&x) {
            true => norm::normalise(x, gamma, beta, running, shortcut, options),
            false => plain::norm::normalise(x, gamma, beta, running, shortcut, options),
        }
    }

    fn batch_norm_fixed_forward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        shortcut: Option<FloatTensor<Self>>,
        options: NormOptions,
    ) -> FloatTensor<Self> {
        plain::norm::normalise_fixed(x, gamma, beta, statistics, shortcut, options)
    }

    fn batch_norm_backward(
        dy: FloatTensor<Self>,
        saved: NormSaved<FloatTensor<Self>>,
        with_shortcut: bool,
        options: NormOptions,
    ) -> NormGradients<FloatTensor<Self>> {
        match launch::shares_memory(&dy) {
            true => norm::backward(dy, saved, with_shortcut, options),
            false => plain::norm::backward(dy, saved, with_shortcut, options),
        }
    }

    fn relu_forward(x: FloatTensor<Self>) -> FloatTensor<Self> {
        elementwise::relu(x)
    }

    fn relu_gradient(dy: FloatTensor<Self>, y: FloatTensor<Self>) -> FloatTensor<Self> {
        elementwise::relu_gradient(dy, y)
    }

    fn max_pool_forward(x: FloatTensor<Self>, shape: PoolShape) -> FloatTensor<Self> {
        pool::max(x, shape)
    }

    fn max_pool_backward(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        shape: PoolShape,
    ) -> FloatTensor<Self> {
        pool::max_backward(x, dy, shape)
    }

    fn average_pool_forward(x: FloatTensor<Self>, shape: PoolShape) -> FloatTensor<Self> {
        pool::average(x, shape)
    }

    fn average_pool_backward(dy: FloatTensor<Self>, shape: PoolShape) -> FloatTensor<Self> {
        pool::average_backward(dy, shape)
    }

    fn shortcut_forward(x: FloatTensor<Self>, shape: ShortcutShape) -> FloatTensor<Self> {
        pool::shortcut(x, shape)
    }

    fn shortcut_backward(dy: FloatTensor<Self>, shape: ShortcutShape) -> FloatTensor<Self> {
        pool::shortcut_backward(dy, shape)
    }

    fn multiply(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        elementwise::multiply(a, b)
    }

    fn cross_entropy_forward(
        scores: FloatTensor<Self>,
        targets: FloatTensor<Self>,
        profile: Profile,
    ) -> FloatTensor<Self> {
        loss::cross_entropy(scores, targets, profile)
    }

    fn cross_entropy_backward(
        scores: FloatTensor<Self>,
        targets: FloatTensor<Self>,
        dloss: FloatTensor<Self>,
        profile: Profile,
    ) -> FloatTensor<Self> {
        loss::cross_entropy_backward(scores, targets, dloss, profile)
    }

    fn sgd(
        weights: Vec<FloatTensor<Self>>,
        gradients: Vec<FloatTensor<Self>>,
        velocities: Vec<FloatTensor<Self>>,
        rule: SgdRule,
        profile: Profile,
    ) -> [Vec<FloatTensor<Self>>; 2] {
        updates::sgd(weights, gradients, velocities, rule, profile)
    }

    fn adam(
        weights: Vec<FloatTensor<Self>>,
        gradients: Vec<FloatTensor<Self>>,
        moments: [Vec<FloatTensor<Self>>; 2],
        rule: AdamRule,
        profile: Profile,
    ) -> [Vec<FloatTensor<Self>>; 3] {
        updates::adam(weights, gradients, moments, rule, profile)
    }
}
