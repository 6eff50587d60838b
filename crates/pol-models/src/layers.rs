//! The layers of the models, by Burn's kernels or by exact ones.
//!
//! A model is written once. Its modules, and so the names of its parameters, are Burn's in either
//! case; what computes is chosen by the recipe's numerics.

use burn::module::{Module, ModuleMapper, Param, RunningState};
use burn::nn::conv::Conv2d;
use burn::nn::pool::MaxPool2dConfig;
use burn::nn::{BatchNorm, Linear, PaddingConfig2d};
use burn::tensor::Tensor;
use burn::tensor::activation::{log_softmax, relu};
use burn::tensor::kind::BridgeTensor;
use pol_core::recipe::{Numerics, Profile};
use pol_exact::tensor::{Exact, Normalisation, Running};

/// Whose kernels compute. Images between layers are as these want them: `[batch, channels, rows,
/// columns]` for Burn's, channels last for exact ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Layers {
    exact: Option<Exact>,
}

impl Layers {
    /// The layers that a recipe asks for.
    pub fn of(numerics: Numerics) -> Self {
        let exact = match numerics {
            Numerics::Stock => None,
            Numerics::Exact(profile) => Some(Exact::new(kernels(profile))),
        };
        Self { exact }
    }

    /// Images `[batch, channels, rows, columns]`, as the other layers want them.
    pub fn images(self, images: Tensor<4>) -> Tensor<4> {
        match self.exact {
            None => images,
            Some(exact) => exact.channels_last(images),
        }
    }

    /// A convolution with symmetric zero padding.
    pub fn conv(self, conv: &Conv2d, x: Tensor<4>) -> Tensor<4> {
        let Some(exact) = self.exact else {
            return conv.forward(x);
        };
        let padding = match conv.padding {
            PaddingConfig2d::Explicit(top, left, _, _) => [top, left],
            PaddingConfig2d::Same => conv.kernel_size.map(|size| size / 2),
            PaddingConfig2d::Valid => [0, 0],
        };
        let bias = conv.bias.as_ref().map(Param::val);
        exact.conv2d(x, conv.weight.val(), bias, conv.stride, padding)
    }

    /// Batch normalisation.
    pub fn norm(self, norm: &BatchNorm, x: Tensor<4>) -> Tensor<4> {
        match self.exact {
            None => norm.forward(x),
            Some(exact) => exact_norm(exact, norm, x, None, false),
        }
    }

    /// Batch normalisation, rectified.
    pub fn norm_relu(self, norm: &BatchNorm, x: Tensor<4>) -> Tensor<4> {
        match self.exact {
            None => relu(norm.forward(x)),
            Some(exact) => exact_norm(exact, norm, x, None, true),
        }
    }

    /// Batch normalisation plus a shortcut, rectified.
    pub fn norm_add_relu(self, norm: &BatchNorm, x: Tensor<4>, shortcut: Tensor<4>) -> Tensor<4> {
        match self.exact {
            None => relu(norm.forward(x) + shortcut),
            Some(exact) => exact_norm(exact, norm, x, Some(shortcut), true),
        }
    }

    /// The rectifier.
    pub fn relu<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self.exact {
            None => relu(x),
            Some(exact) => exact.relu(x),
        }
    }

    /// The greatest of each `size × size` square.
    pub fn max_pool(self, x: Tensor<4>, size: usize) -> Tensor<4> {
        let window = [size, size];
        match self.exact {
            None => (MaxPool2dConfig::new(window).with_strides(window).init()).forward(x),
            Some(exact) => exact.max_pool(x, window, window),
        }
    }

    /// The mean of each channel of each image, `[batch, channels]`.
    pub fn mean(self, x: Tensor<4>) -> Tensor<2> {
        let Some(exact) = self.exact else {
            let [n, channels, height, width] = x.dims();
            let pooled = x.reshape([n, channels, height * width]).mean_dim(2); // [n, c, 1]
            return pooled.reshape([n, channels]);
        };
        exact.global_average_pool(x)
    }

    /// The values of each image in Burn's order, `[batch, channels · rows · columns]`.
    pub fn flatten(self, x: Tensor<4>) -> Tensor<2> {
        match self.exact {
            None => x.flatten::<2>(1, 3),
            Some(exact) => exact.channels_first(x).flatten::<2>(1, 3),
        }
    }

    /// A linear layer.
    pub fn linear(self, linear: &Linear, x: Tensor<2>) -> Tensor<2> {
        match self.exact {
            None => linear.forward(x),
            Some(exact) => {
                let bias = linear.bias.as_ref().map(Param::val);
                exact.linear(x, linear.weight.val(), bias)
            }
        }
    }

    /// Every `stride`-th row and column from the first, with zeros for new channels on both sides
    /// (He et al., 2016, §3.3, option A). Rows and columns are multiples of the stride.
    pub fn shortcut(self, x: Tensor<4>, channels_out: usize, stride: usize) -> Tensor<4> {
        if let Some(exact) = self.exact {
            return exact.shortcut(x, channels_out, stride);
        }
        let [n, channels, height, width] = x.dims();
        let x = match stride {
            1 => x,
            _ => (x.reshape([
                n * channels,
                height / stride,
                stride,
                width / stride,
                stride,
            ]))
            .narrow(2, 0, 1)
            .narrow(4, 0, 1)
            .reshape([n, channels, height / stride, width / stride]),
        };
        let added = channels_out - channels;
        if added == 0 {
            return x;
        }
        let [_, _, height, width] = x.dims();
        let zeros = |channels| Tensor::zeros([n, channels, height, width], &x.device());
        let (before, after) = (zeros(added / 2), zeros(added - added / 2));
        Tensor::cat(vec![before, x, after], 1)
    }

    /// `x` times a constant mask.
    pub fn dropout(self, x: Tensor<2>, mask: Tensor<2>) -> Tensor<2> {
        match self.exact {
            None => x * mask,
            Some(exact) => exact.dropout(x, mask),
        }
    }

    /// The mean cross-entropy of scores against one-hot targets, both `[batch, classes]`.
    pub fn cross_entropy(self, scores: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
        match self.exact {
            // By sums along single dimensions: no gather, whose backward pass adds with atomics on
            // some devices, and no full sum, which may too.
            None => {
                let count = scores.dims()[0];
                let log_likelihood = (log_softmax(scores, 1) * targets).sum_dim(1); // [n, 1]
                log_likelihood.sum_dim(0).reshape([1]) / -(count as f64)
            }
            Some(exact) => exact.cross_entropy(scores, targets),
        }
    }
}

/// The kernels' name for a recipe's profile.
pub const fn kernels(profile: Profile) -> pol_exact::Profile {
    match profile {
        Profile::UnfusedV2 => pol_exact::Profile::UnfusedV2,
        Profile::FmaV2 => pol_exact::Profile::FmaV2,
    }
}

/// As `BatchNorm::forward`, with what follows it: the batch's statistics while training, which also
/// move the running ones, and these otherwise.
fn exact_norm(
    exact: Exact,
    norm: &BatchNorm,
    x: Tensor<4>,
    shortcut: Option<Tensor<4>>,
    rectified: bool,
) -> Tensor<4> {
    let training = x.device().is_autodiff() && norm.training.is_enabled();
    let options = Normalisation {
        epsilon: norm.epsilon as f32,
        rectified,
        rate: norm.momentum,
    };
    let parameters = [norm.gamma.val(), norm.beta.val()];
    let states = [&norm.running_mean, &norm.running_var];
    if !training {
        let [mean, variance] = states.map(|state| state.value().to_device(&x.device()));
        let running = Running { mean, variance };
        return exact.batch_norm_fixed(x, parameters, running, shortcut, options);
    }
    let [mean, variance] = states.map(RunningState::value);
    let running = Running { mean, variance };
    let (y, moved) = exact.batch_norm(x, parameters, running, shortcut, options);
    put(&norm.running_mean, moved.mean);
    put(&norm.running_var, moved.variance);
    y
}

/// Replaces a running value. (Burn's own `update` divides it by the number of threads that moved it, in a launch.)
fn put(state: &RunningState<Tensor<1>>, value: Tensor<1>) {
    struct Put(BridgeTensor);

    impl ModuleMapper for Put {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let (id, _, mapper) = param.consume();
            Param::from_mapped_value(id, Tensor::from_bridge(self.0.clone()), mapper)
        }
    }

    // A clone shares the value.
    let _shared = state.clone().map(&mut Put(value.detach().into_bridge()));
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Int};

    use super::*;

    #[test]
    fn every_second_row_and_column_is_kept() {
        let device = Device::flex();
        for numerics in [Numerics::Stock, Numerics::Exact(Profile::UnfusedV2)] {
            let layers = Layers::of(numerics);
            let x = Tensor::<1, Int>::arange(0..16, &device).float();
            let x = layers.images(x.reshape([1, 1, 4, 4]));
            let kept = layers.flatten(layers.shortcut(x, 3, 2)).into_data();
            let expected = [0.0, 0.0, 0.0, 0.0, 0.0, 2.0, 8.0, 10.0, 0.0, 0.0, 0.0, 0.0];
            assert_eq!(kept.as_slice::<f32>().unwrap(), expected);
        }
    }
}
