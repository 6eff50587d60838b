//! What a backend computes, and Burn's dispatch to it.

use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Backend, DispatchKindConversion, DispatchTensor, TensorMetadata, backend_extension,
};
use burn::tensor::Tensor;

use crate::optim::{AdamRule, SgdRule};
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

    fn exact_batch_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        running_mean: FloatTensor<Self>,
        running_variance: FloatTensor<Self>,
        shortcut: FloatTensor<Self>,
        options: NormOptions,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    fn exact_batch_norm_fixed(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
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
}

/// How a batch normalisation runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormOptions {
    /// Added to the variance.
    pub epsilon: f32,
    /// Whether there is a shortcut. (Without one, another tensor stands in for it, and is not read.)
    pub adds: bool,
    /// Whether the output is rectified.
    pub rectified: bool,
    /// What a running average keeps of itself, and takes of what was observed.
    pub moving: [f32; 2],
    /// The profile.
    pub profile: Profile,
}

/// What [`Kernels::batch_norm_forward`] gives.
pub struct Normalised<T> {
    /// The output.
    pub y: T,
    /// `[2, channels]`: mean and variance of the batch.
    pub statistics: T,
    /// The running mean, moved.
    pub mean: T,
    /// The running variance, moved.
    pub variance: T,
}

/// What the backward pass of a batch normalisation needs of the forward pass.
#[derive(Debug, Clone)]
pub struct NormSaved<T> {
    /// The input.
    pub x: T,
    /// The output, if it was rectified.
    pub rectified: Option<T>,
    /// γ.
    pub gamma: T,
    /// `[2, channels]`: mean and variance.
    pub statistics: T,
    /// Whether the statistics were given, rather than those of the batch.
    pub fixed: bool,
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
    /// By the statistics of the batch, towards which the running ones move.
    fn batch_norm_forward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        running: [FloatTensor<Self>; 2],
        shortcut: Option<FloatTensor<Self>>,
        options: NormOptions,
    ) -> Normalised<FloatTensor<Self>>;
    /// By the given statistics, `[2, channels]`.
    fn batch_norm_fixed_forward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        shortcut: Option<FloatTensor<Self>>,
        options: NormOptions,
    ) -> FloatTensor<Self>;
    fn batch_norm_backward(
        dy: FloatTensor<Self>,
        saved: NormSaved<FloatTensor<Self>>,
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
    /// The next weights, and velocities if the rule has momentum. At the first step there are none yet.
    fn sgd(
        weights: Vec<FloatTensor<Self>>,
        gradients: Vec<FloatTensor<Self>>,
        velocities: Vec<FloatTensor<Self>>,
        rule: SgdRule,
        profile: Profile,
    ) -> [Vec<FloatTensor<Self>>; 2];
    /// The next weights and moments.
    fn adam(
        weights: Vec<FloatTensor<Self>>,
        gradients: Vec<FloatTensor<Self>>,
        moments: [Vec<FloatTensor<Self>>; 2],
        rule: AdamRule,
        profile: Profile,
    ) -> [Vec<FloatTensor<Self>>; 3];
}

/// An update of all parameters of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum UpdateRule {
    /// Of weights, gradients and, from the second step on, velocities.
    Sgd(SgdRule),
    /// Of weights, gradients, first and second moments.
    Adam(AdamRule),
}

/// Applies `rule` to the operands of each parameter, and gives them anew, without the gradient.
///
/// # Panics
/// If the operands are on a backend without exact kernels, or those of a parameter differ in shape.
pub(super) fn updated(
    rule: UpdateRule,
    profile: Profile,
    parameters: Vec<Vec<DispatchTensor>>,
) -> Vec<Vec<DispatchTensor>> {
    // By hand: Burn's macro routes by single tensors, and these are lists.
    #[cfg(all(feature = "cube", not(feature = "fusion")))]
    if is_on::<burn_cubecl::CubeBackend>(&parameters) {
        return updated_on::<burn_cubecl::CubeBackend>(rule, profile, parameters);
    }
    updated_on::<burn_flex::Flex>(rule, profile, parameters)
}

#[cfg(all(feature = "cube", not(feature = "fusion")))]
fn is_on<B: Backend>(parameters: &[Vec<DispatchTensor>]) -> bool
where
    DispatchTensor: DispatchKindConversion<B>,
{
    let first = parameters.first().and_then(|operands| operands.first());
    first.is_some_and(|tensor| {
        (Tensor::<1>::from_dispatch(tensor.clone()).try_into_primitive::<B>()).is_ok()
    })
}

fn updated_on<B: Kernels>(
    rule: UpdateRule,
    profile: Profile,
    parameters: Vec<Vec<DispatchTensor>>,
) -> Vec<Vec<DispatchTensor>>
where
    DispatchTensor: DispatchKindConversion<B>,
{
    let mut lists: [Vec<FloatTensor<B>>; 4] = Default::default();
    let mut updated = vec![vec![]; parameters.len()];
    for operands in parameters {
        let same = operands
            .windows(2)
            .all(|two| two[0].shape() == two[1].shape());
        assert!(
            same,
            "a weight, its gradient and its state have different shapes"
        );
        for (list, operand) in lists.iter_mut().zip(operands) {
            // The rank that Burn's type has is not looked at.
            match Tensor::<1>::from_dispatch(operand).try_into_primitive::<B>() {
                Ok(primitive) => list.push(primitive),
                Err(error) => panic!("there are no exact kernels for this tensor: {error:?}"),
            }
        }
    }
    let [weights, gradients, first, second] = lists;
    let lists = match rule {
        UpdateRule::Sgd(rule) => B::sgd(weights, gradients, first, rule, profile).to_vec(),
        UpdateRule::Adam(rule) => {
            B::adam(weights, gradients, [first, second], rule, profile).to_vec()
        }
    };
    for list in lists {
        for (updated, primitive) in updated.iter_mut().zip(list) {
            updated.push(Tensor::<1>::from_primitive::<B>(primitive).into_dispatch());
        }
    }
    updated
}

/// Mean and variance as one tensor, `[2, channels]`.
pub(super) fn statistics_of<B: Backend>(
    mean: FloatTensor<B>,
    variance: FloatTensor<B>,
) -> FloatTensor<B> {
    let rows = [mean, variance].map(|row| {
        let width = row.shape().num_elements();
        B::float_reshape(row, [1, width].into())
    });
    B::float_cat(rows.into(), 0)
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
            fn exact_batch_norm(
                x: FloatTensor<Self>,
                gamma: FloatTensor<Self>,
                beta: FloatTensor<Self>,
                running_mean: FloatTensor<Self>,
                running_variance: FloatTensor<Self>,
                shortcut: FloatTensor<Self>,
                options: NormOptions,
            ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
                let running = [running_mean, running_variance];
                let shortcut = options.adds.then_some(shortcut);
                let normalised =
                    Self::batch_norm_forward(x, gamma, beta, running, shortcut, options);
                (normalised.y, normalised.mean, normalised.variance)
            }
            fn exact_batch_norm_fixed(
                x: FloatTensor<Self>,
                gamma: FloatTensor<Self>,
                beta: FloatTensor<Self>,
                mean: FloatTensor<Self>,
                variance: FloatTensor<Self>,
                shortcut: FloatTensor<Self>,
                options: NormOptions,
            ) -> FloatTensor<Self> {
                let statistics = $crate::tensor::backend::statistics_of::<Self>(mean, variance);
                let shortcut = options.adds.then_some(shortcut);
                Self::batch_norm_fixed_forward(x, gamma, beta, statistics, shortcut, options)
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
        }
    };
}
pub(super) use forward_only;
