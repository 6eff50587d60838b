//! LeNet-5 (LeCun et al., 1998) with rectifiers and max pooling, as is usual today.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::{Device, Tensor};
use pol_core::learner::Batch;

use super::{Classifier, ImageShape};
use crate::layers::Layers;

/// Two 5×5 convolutions, each followed by 2×2 max pooling, and three linear layers.
///
/// The paper's input is 32×32. Smaller images keep their size through a convolution that would
/// otherwise leave too little: 28×28 through the first, as in the paper's padded MNIST, and 8×8
/// through both.
#[derive(Module, Debug)]
pub struct LeNet5 {
    conv1: Conv2d,
    conv2: Conv2d,
    fc1: Linear,
    fc2: Linear,
    fc3: Linear,
    #[module(skip)]
    layers: Layers,
}

impl LeNet5 {
    /// Builds the model for images of at least 8×8.
    pub fn init(image: ImageShape, classes: usize, layers: Layers, device: &Device) -> Self {
        let pad1 = if image.height.min(image.width) < 32 {
            2
        } else {
            0
        };
        let halved = |size: usize, pad: usize| (size + 2 * pad - 4) / 2;
        let (height, width) = (halved(image.height, pad1), halved(image.width, pad1));
        let pad2 = if height.min(width) < 10 { 2 } else { 0 };
        let features = 16 * halved(height, pad2) * halved(width, pad2);
        let conv = |channels, pad| {
            Conv2dConfig::new(channels, [5, 5])
                .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
                .init(device)
        };
        Self {
            conv1: conv([image.channels, 6], pad1),
            conv2: conv([6, 16], pad2),
            fc1: LinearConfig::new(features, 120).init(device),
            fc2: LinearConfig::new(120, 84).init(device),
            fc3: LinearConfig::new(84, classes).init(device),
            layers,
        }
    }
}

impl Classifier for LeNet5 {
    fn scores(&self, images: Tensor<4>, _batch: Option<&Batch<'_>>) -> Tensor<2> {
        let layers = self.layers;
        let x = layers.relu(layers.conv(&self.conv1, layers.images(images)));
        let x = layers.max_pool(x, 2); // 6 channels
        let x = layers.relu(layers.conv(&self.conv2, x));
        let x = layers.max_pool(x, 2); // 16 channels
        let x = layers.relu(layers.linear(&self.fc1, layers.flatten(x))); // [n, 120]
        let x = layers.relu(layers.linear(&self.fc2, x)); // [n, 84]
        layers.linear(&self.fc3, x)
    }
}
