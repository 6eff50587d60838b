//! The operators as functions of tensors.

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use super::backend::{ExactBackend, NormOptions};
use crate::profile::Profile;
use crate::shape::{ConvShape, PoolShape, ShortcutShape};

/// The operators of one profile.
///
/// Images are `[batch, rows, columns, channels]`: see [`Exact::channels_last`]. All operators are
/// differentiable but for those that say otherwise.
///
/// # Panics
/// As Burn's own, an operator panics if shapes don't fit, or if a tensor is on a backend that has no
/// exact kernels or is not of 32-bit floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exact {
    profile: Profile,
}

impl Exact {
    /// The operators of `profile`.
    pub const fn new(profile: Profile) -> Self {
        Self { profile }
    }

    /// The profile.
    pub const fn profile(self) -> Profile {
        self.profile
    }

    /// `[batch, channels, rows, columns]`, as Burn has images, to `[batch, rows, columns, channels]`.
    pub fn channels_last(self, images: Tensor<4>) -> Tensor<4> {
        images.permute([0, 2, 3, 1])
    }

    /// The inverse of [`Exact::channels_last`].
    pub fn channels_first(self, images: Tensor<4>) -> Tensor<4> {
        images.permute([0, 3, 1, 2])
    }

    /// A convolution with zero padding: `w` is `[out, in, kernel rows, kernel columns]`.
    pub fn conv2d(
        self,
        x: Tensor<4>,
        w: Tensor<4>,
        bias: Option<Tensor<1>>,
        stride: [usize; 2],
        padding: [usize; 2],
    ) -> Tensor<4> {
        let [batch, rows, columns, channels_in] = x.dims();
        let [channels_out, inputs, kernel_rows, kernel_columns] = w.dims();
        assert_eq!(
            inputs, channels_in,
            "the weights are for another number of channels"
        );
        let shape = ConvShape {
            batch,
            channels_in,
            input: [rows, columns],
            channels_out,
            kernel: [kernel_rows, kernel_columns],
            stride,
            padding,
        };
        shape.check();
        let y = Dispatch::exact_conv2d(x.into_dispatch(), w.into_dispatch(), shape, self.profile);
        self.biased(Tensor::from_dispatch(y), bias)
    }

    /// `x · w + bias`: `[rows, in] · [in, out]`.
    pub fn linear(self, x: Tensor<2>, w: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
        assert_eq!(
            x.dims()[1],
            w.dims()[0],
            "the weights are for another number of inputs"
        );
        let y = Dispatch::exact_linear(x.into_dispatch(), w.into_dispatch(), self.profile);
        self.biased(Tensor::from_dispatch(y), bias)
    }

    fn biased<const D: usize>(self, y: Tensor<D>, bias: Option<Tensor<1>>) -> Tensor<D> {
        match bias {
            None => y,
            Some(bias) => {
                assert_eq!(
                    bias.dims()[0],
                    y.dims()[D - 1],
                    "the bias has another length"
                );
                let y = Dispatch::exact_add_bias(y.into_dispatch(), bias.into_dispatch());
                Tensor::from_dispatch(y)
            }
        }
    }

    /// `(x − mean) · γ / √(variance + ε) + β` by the mean and the (biased) variance of each channel of `x`, plus the
    /// shortcut if there is one, rectified if asked.
    ///
    /// Also gives the running statistics as these moved them; they are constants for autodiff.
    pub fn batch_norm(
        self,
        x: Tensor<4>,
        [gamma, beta]: [Tensor<1>; 2],
        running: Running,
        shortcut: Option<Tensor<4>>,
        options: Normalisation,
    ) -> (Tensor<4>, Running) {
        check_channels(&x, [&gamma, &beta, &running.mean, &running.variance]);
        let options = self.norm_options(options, shortcut.is_some());
        let shortcut =
            shortcut.map_or_else(|| gamma.clone().into_dispatch(), Tensor::into_dispatch);
        let (y, mean, variance) = Dispatch::exact_batch_norm(
            x.into_dispatch(),
            gamma.into_dispatch(),
            beta.into_dispatch(),
            running.mean.into_dispatch(),
            running.variance.into_dispatch(),
            shortcut,
            options,
        );
        let running = Running {
            mean: Tensor::from_dispatch(mean),
            variance: Tensor::from_dispatch(variance),
        };
        (Tensor::from_dispatch(y), running)
    }

    /// As [`Exact::batch_norm`] by given statistics, through which no gradient flows.
    pub fn batch_norm_fixed(
        self,
        x: Tensor<4>,
        [gamma, beta]: [Tensor<1>; 2],
        statistics: Running,
        shortcut: Option<Tensor<4>>,
        options: Normalisation,
    ) -> Tensor<4> {
        check_channels(&x, [&gamma, &beta, &statistics.mean, &statistics.variance]);
        let options = self.norm_options(options, shortcut.is_some());
        let shortcut =
            shortcut.map_or_else(|| gamma.clone().into_dispatch(), Tensor::into_dispatch);
        Tensor::from_dispatch(Dispatch::exact_batch_norm_fixed(
            x.into_dispatch(),
            gamma.into_dispatch(),
            beta.into_dispatch(),
            statistics.mean.into_dispatch(),
            statistics.variance.into_dispatch(),
            shortcut,
            options,
        ))
    }

    fn norm_options(self, options: Normalisation, adds: bool) -> NormOptions {
        NormOptions {
            epsilon: options.epsilon,
            adds,
            rectified: options.rectified,
            moving: [(1.0 - options.rate) as f32, options.rate as f32],
            profile: self.profile,
        }
    }

    /// `x` where it is positive, else +0.
    pub fn relu<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        Tensor::from_dispatch(Dispatch::exact_relu(x.into_dispatch()))
    }

    /// The greatest value of each window, without padding.
    pub fn max_pool(self, x: Tensor<4>, window: [usize; 2], stride: [usize; 2]) -> Tensor<4> {
        let shape = pool_shape(&x, window, stride);
        Tensor::from_dispatch(Dispatch::exact_max_pool(x.into_dispatch(), shape))
    }

    /// The mean of each window, without padding.
    pub fn average_pool(self, x: Tensor<4>, window: [usize; 2], stride: [usize; 2]) -> Tensor<4> {
        let shape = pool_shape(&x, window, stride);
        Tensor::from_dispatch(Dispatch::exact_average_pool(x.into_dispatch(), shape))
    }

    /// The mean of each image, `[batch, channels]`.
    pub fn global_average_pool(self, x: Tensor<4>) -> Tensor<2> {
        let [batch, rows, columns, channels] = x.dims();
        self.average_pool(x, [rows, columns], [1, 1])
            .reshape([batch, channels])
    }

    /// Every `stride`-th row and column, with zeros for new channels (option A of He et al.,
    /// 2016): half of them ahead, rounded down.
    pub fn shortcut(self, x: Tensor<4>, channels_out: usize, stride: usize) -> Tensor<4> {
        let [batch, rows, columns, channels_in] = x.dims();
        assert!(
            channels_out >= channels_in && stride > 0,
            "a shortcut drops no channel"
        );
        let shape = ShortcutShape {
            batch,
            input: [rows, columns],
            channels_in,
            channels_out,
            stride,
        };
        Tensor::from_dispatch(Dispatch::exact_shortcut(x.into_dispatch(), shape))
    }

    /// `x · mask`, a mask of the same shape that is constant: dropout, where the mask holds 0 or
    /// one over the share that is kept.
    pub fn dropout<const D: usize>(self, x: Tensor<D>, mask: Tensor<D>) -> Tensor<D> {
        assert_eq!(x.dims(), mask.dims(), "the mask has another shape");
        Tensor::from_dispatch(Dispatch::exact_multiply(
            x.into_dispatch(),
            mask.into_dispatch(),
        ))
    }

    /// The mean over the rows of `−Σ target · log softmax(scores)`, both `[rows, classes]`. The
    /// targets are constant.
    pub fn cross_entropy(self, scores: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
        assert_eq!(
            scores.dims(),
            targets.dims(),
            "the targets have another shape"
        );
        let (scores, targets) = (scores.into_dispatch(), targets.into_dispatch());
        Tensor::from_dispatch(Dispatch::exact_cross_entropy(scores, targets, self.profile))
    }
}

/// How [`Exact::batch_norm`] runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalisation {
    /// Added to the variance.
    pub epsilon: f32,
    /// Whether the output is rectified.
    pub rectified: bool,
    /// The share of what is observed in the moved running statistics.
    pub rate: f64,
}

/// Mean and variance of each channel, as batches before have left them.
#[derive(Debug, Clone)]
pub struct Running {
    /// `[channels]`.
    pub mean: Tensor<1>,
    /// `[channels]`.
    pub variance: Tensor<1>,
}

fn check_channels(x: &Tensor<4>, of_channels: [&Tensor<1>; 4]) {
    let channels = x.dims()[3];
    assert!(
        of_channels.iter().all(|tensor| tensor.dims() == [channels]),
        "the parameters are for another number of channels"
    );
}

fn pool_shape(x: &Tensor<4>, window: [usize; 2], stride: [usize; 2]) -> PoolShape {
    let [batch, rows, columns, channels] = x.dims();
    assert!(
        window.iter().chain(&stride).all(|&size| size > 0)
            && window[0] <= rows
            && window[1] <= columns,
        "a window of {window:?} with stride {stride:?} does not fit an image of {rows}×{columns}"
    );
    PoolShape {
        batch,
        channels,
        input: [rows, columns],
        window,
        stride,
    }
}
