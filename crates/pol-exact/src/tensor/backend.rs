//! What a backend computes, and Burn's dispatch to it.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};

use crate::profile::Profile;
use crate::shape::{ConvShape, PoolShape, ShortcutShape};

/// Operators with gradients. Images are `[batch, rows, columns, channels]`; every value is of 32
/// bits.
///
/// `Dispatch` implements this for the device that a tensor is on.
#[cfg_attr(
    all(feature = "cube", not(feature = "fusion")),
    backend_extension(Autodiff, Flex, Cube)
)]
#[cfg_attr(
    not(all(feature = "cube", not(feature = "fusion"))),
    backend_extension(Autodiff, Flex)
)]
#[allow(
    missing_docs,
    reason = "as the methods of `Exact` and `Kernels` of the same names"
)]
pub trait ExactBackend: Backend {
    fn exact_conv2d(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        shape: ConvShape,
        profile: Profile,
    ) -> FloatTensor<Self>;

    fn exact_linear(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        profile: Profile,
    ) -> FloatTensor<Self>;

    fn exact_add_bias(x: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self>;

    fn exact_statistics(x: FloatTensor<Self>, profile: Profile) -> FloatTensor<Self>;

    fn exact_batch_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        options: NormOptions,
    ) -> FloatTensor<Self>;

    fn exact_batch_norm_add(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        shortcut: FloatTensor<Self>,
        options: NormOptions,
    ) -> FloatTensor<Self>;

    fn exact_relu(x: FloatTensor<Self>) -> FloatTensor<Self>;

    fn exact_max_pool(x: FloatTensor<Self>, shape: PoolShape) -> FloatTensor<Self>;

    fn exact_average_pool(x: FloatTensor<Self>, shape: PoolShape) -> FloatTensor<Self>;

    fn exact_shortcut(x: FloatTensor<Self>, shape: ShortcutShape) -> FloatTensor<Self>;

    fn exact_multiply(x: FloatTensor<Self>, mask: FloatTensor<Self>) -> FloatTensor<Self>;

    fn exact_cross_entropy(
        scores: FloatTensor<Self>,
        targets: FloatTensor<Self>,
        profile: Profile,
    ) -> FloatTensor<Self>;

    fn exact_blend(
        a: FloatTensor<Self>,
        ka: f32,
        b: FloatTensor<Self>,
        kb: f32,
        profile: Profile,
    ) -> FloatTensor<Self>;

    fn exact_adam_step(
        m: FloatTensor<Self>,
        v: FloatTensor<Self>,
        correction: f32,
        epsilon: f32,
    ) -> FloatTensor<Self>;
}

/// How a batch normalisation runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormOptions {
    /// Added to the variance.
    pub epsilon: f32,
    /// Whether the output is rectified.
    pub rectified: bool,
    /// Whether the statistics are given, rather than those of the batch.
    pub fixed: bool,
    /// The profile.
    pub profile: Profile,
}

/// What [`Kernels::batch_norm_backward`] gives.
pub struct NormGradients<T> {
    /// Of the input.
    pub x: T,
    /// Of γ.
    pub gamma: T,
    /// Of β.
    pub beta: T,
    /// Of the shortcut, where it is wanted.
    pub shortcut: Option<T>,
}

/// The kernels of a backend, forward and backward. Tensors may have any layout.
#[allow(
    missing_docs,
    reason = "named after the operator they compute or whose gradient they are"
)]
pub trait Kernels: Backend {
    fn conv2d_forward(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        shape: ConvShape,
        profile: Profile,
    ) -> FloatTensor<Self>;
    fn conv2d_input(
        dy: FloatTensor<Self>,
        w: FloatTensor<Self>,
        shape: ConvShape,
        profile: Profile,
    ) -> FloatTensor<Self>;
    fn conv2d_weight(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        shape: ConvShape,
        profile: Profile,
    ) -> FloatTensor<Self>;
    fn linear_forward(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        profile: Profile,
    ) -> FloatTensor<Self>;
    fn linear_input(
        dy: FloatTensor<Self>,
        w: FloatTensor<Self>,
        profile: Profile,
    ) -> FloatTensor<Self>;
    fn linear_weight(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        profile: Profile,
    ) -> FloatTensor<Self>;
    fn add_bias(x: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self>;
    fn column_sums(x: FloatTensor<Self>) -> FloatTensor<Self>;
    /// `[2, channels]`: mean and variance.
    fn statistics(x: FloatTensor<Self>, profile: Profile) -> FloatTensor<Self>;
    fn batch_norm_forward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        shortcut: Option<FloatTensor<Self>>,
        options: NormOptions,
    ) -> FloatTensor<Self>;
    /// `y` is the output if it was rectified.
    fn batch_norm_backward(
        dy: FloatTensor<Self>,
        x: FloatTensor<Self>,
        y: Option<FloatTensor<Self>>,
        gamma: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        with_shortcut: bool,
        options: NormOptions,
    ) -> NormGradients<FloatTensor<Self>>;
    fn relu_forward(x: FloatTensor<Self>) -> FloatTensor<Self>;
    fn relu_gradient(dy: FloatTensor<Self>, y: FloatTensor<Self>) -> FloatTensor<Self>;
    fn max_pool_forward(x: FloatTensor<Self>, shape: PoolShape) -> FloatTensor<Self>;
    fn max_pool_backward(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        shape: PoolShape,
    ) -> FloatTensor<Self>;
    fn average_pool_forward(x: FloatTensor<Self>, shape: PoolShape) -> FloatTensor<Self>;
    fn average_pool_backward(dy: FloatTensor<Self>, shape: PoolShape) -> FloatTensor<Self>;
    fn shortcut_forward(x: FloatTensor<Self>, shape: ShortcutShape) -> FloatTensor<Self>;
    fn shortcut_backward(dy: FloatTensor<Self>, shape: ShortcutShape) -> FloatTensor<Self>;
    fn multiply(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self>;
    fn cross_entropy_forward(
        scores: FloatTensor<Self>,
        targets: FloatTensor<Self>,
        profile: Profile,
    ) -> FloatTensor<Self>;
    fn cross_entropy_backward(
        scores: FloatTensor<Self>,
        targets: FloatTensor<Self>,
        dloss: FloatTensor<Self>,
        profile: Profile,
    ) -> FloatTensor<Self>;
    fn blend(
        a: FloatTensor<Self>,
        ka: f32,
        b: FloatTensor<Self>,
        kb: f32,
        profile: Profile,
    ) -> FloatTensor<Self>;
    fn adam_step(
        m: FloatTensor<Self>,
        v: FloatTensor<Self>,
        correction: f32,
        epsilon: f32,
    ) -> FloatTensor<Self>;
}

/// An [`ExactBackend`] without gradients is its kernels.
macro_rules! forward_only {
    ($backend:ty) => {
        impl $crate::tensor::backend::ExactBackend for $backend {
            fn exact_conv2d(
                x: FloatTensor<Self>,
                w: FloatTensor<Self>,
                shape: ConvShape,
                profile: Profile,
            ) -> FloatTensor<Self> {
                Self::conv2d_forward(x, w, shape, profile)
            }
            fn exact_linear(
                x: FloatTensor<Self>,
                w: FloatTensor<Self>,
                profile: Profile,
            ) -> FloatTensor<Self> {
                Self::linear_forward(x, w, profile)
            }
            fn exact_add_bias(x: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
                Self::add_bias(x, bias)
            }
            fn exact_statistics(x: FloatTensor<Self>, profile: Profile) -> FloatTensor<Self> {
                Self::statistics(x, profile)
            }
            fn exact_batch_norm(
                x: FloatTensor<Self>,
                gamma: FloatTensor<Self>,
                beta: FloatTensor<Self>,
                statistics: FloatTensor<Self>,
                options: NormOptions,
            ) -> FloatTensor<Self> {
                Self::batch_norm_forward(x, gamma, beta, statistics, None, options)
            }
            fn exact_batch_norm_add(
                x: FloatTensor<Self>,
                gamma: FloatTensor<Self>,
                beta: FloatTensor<Self>,
                statistics: FloatTensor<Self>,
                shortcut: FloatTensor<Self>,
                options: NormOptions,
            ) -> FloatTensor<Self> {
                Self::batch_norm_forward(x, gamma, beta, statistics, Some(shortcut), options)
            }
            fn exact_relu(x: FloatTensor<Self>) -> FloatTensor<Self> {
                Self::relu_forward(x)
            }
            fn exact_max_pool(x: FloatTensor<Self>, shape: PoolShape) -> FloatTensor<Self> {
                Self::max_pool_forward(x, shape)
            }
            fn exact_average_pool(x: FloatTensor<Self>, shape: PoolShape) -> FloatTensor<Self> {
                Self::average_pool_forward(x, shape)
            }
            fn exact_shortcut(x: FloatTensor<Self>, shape: ShortcutShape) -> FloatTensor<Self> {
                Self::shortcut_forward(x, shape)
            }
            fn exact_multiply(x: FloatTensor<Self>, mask: FloatTensor<Self>) -> FloatTensor<Self> {
                Self::multiply(x, mask)
            }
            fn exact_cross_entropy(
                scores: FloatTensor<Self>,
                targets: FloatTensor<Self>,
                profile: Profile,
            ) -> FloatTensor<Self> {
                Self::cross_entropy_forward(scores, targets, profile)
            }
            fn exact_blend(
                a: FloatTensor<Self>,
                ka: f32,
                b: FloatTensor<Self>,
                kb: f32,
                profile: Profile,
            ) -> FloatTensor<Self> {
                Self::blend(a, ka, b, kb, profile)
            }
            fn exact_adam_step(
                m: FloatTensor<Self>,
                v: FloatTensor<Self>,
                correction: f32,
                epsilon: f32,
            ) -> FloatTensor<Self> {
                Self::adam_step(m, v, correction, epsilon)
            }
        }
    };
}
pub(super) use forward_only;
