//! LeNet-5 (LeCun et al., 1998) with rectifiers and max pooling, as is usual today.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use pol_core::learner::Batch;

use super::{Classifier, ImageShape};

/// Two 5×5 convolutions, each followed by 2×2 max pooling, and three linear layers.
///
/// The paper's input is 32×32. Smaller images keep their size through a convolution that would
/// otherwise leave too little: 28×28 through the first, as in the paper's padded MNIST, and 8×8
/// through both.
#[derive(Module, Debug)]
pub struct LeNet5 {
    conv1: Conv2d,
    conv2: Conv2d,
    pool: MaxPool2d,
    fc1: Linear,
    fc2: Linear,
    fc3: Linear,
}

impl LeNet5 {
    /// Builds the model for images of at least 8×8.
    pub fn init(image: ImageShape, classes: usize, device: &Device) -> Self {
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
            pool: MaxPool2dConfig::new([2, 2]).init(),
            fc1: LinearConfig::new(features, 120).init(device),
            fc2: LinearConfig::new(120, 84).init(device),
            fc3: LinearConfig::new(84, classes).init(device),
        }
    }
}

impl Classifier for LeNet5 {
    fn scores(&self, images: Tensor<4>, _batch: Option<&Batch<'_>>) -> Tensor<2> {
        let x = self.pool.forward(relu(self.conv1.forward(images))); // [n, 6, h/2, w/2]
        let x = self.pool.forward(relu(self.conv2.forward(x))); // [n, 16, h/4, w/4]
        let x = relu(self.fc1.forward(x.flatten::<2>(1, 3))); // [n, 120]
        let x = relu(self.fc2.forward(x)); // [n, 84]
        self.fc3.forward(x)
    }
}
