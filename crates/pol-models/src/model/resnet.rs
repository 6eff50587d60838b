//! Residual networks (He et al., 2016): the thin ones made for CIFAR, with parameter-free
//! shortcuts, and the wide ones made for ImageNet, with the stem that is usual for CIFAR.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::{Device, Tensor};
use pol_core::learner::Batch;

use super::{Classifier, ImageShape};
use crate::layers::Layers;

/// What a block's shortcut does where its input and output differ in shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shortcut {
    /// Option A: every second row and column, new channels zero. No parameters.
    Padding,
    /// Option B: a 1×1 convolution with BatchNorm.
    Projection,
}

/// Depth and width.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResNetConfig {
    stem: usize,
    /// Width and number of blocks of each stage. All stages but the first halve the image.
    stages: Vec<(usize, usize)>,
    /// Whether a block has three convolutions, the last of which has four times the width.
    bottleneck: bool,
    shortcut: Shortcut,
}

impl ResNetConfig {
    /// ResNet-20, 32, 44, 56, 110 (§4.2 of the paper), 18, 34 and 50 (§4.1).
    pub fn named(name: &str) -> Option<Self> {
        let depth: usize = name.strip_prefix("resnet")?.parse().ok()?;
        match depth {
            20 | 32 | 44 | 56 | 110 => {
                let blocks = (depth - 2) / 6;
                Some(Self {
                    stem: 16,
                    stages: [16, 32, 64].map(|width| (width, blocks)).to_vec(),
                    bottleneck: false,
                    shortcut: Shortcut::Padding,
                })
            }
            18 | 34 | 50 => {
                let blocks = if depth == 18 {
                    [2, 2, 2, 2]
                } else {
                    [3, 4, 6, 3]
                };
                Some(Self {
                    stem: 64,
                    stages: [64, 128, 256, 512].into_iter().zip(blocks).collect(),
                    bottleneck: depth == 50,
                    shortcut: Shortcut::Projection,
                })
            }
            _ => None,
        }
    }

    /// The values of one channel that the last BatchNorm sees of an image of this size.
    pub(super) fn values_of_last_channel(&self, image: ImageShape) -> usize {
        let halved = |size: usize| (1..self.stages.len()).fold(size, |size, _| size.div_ceil(2));
        halved(image.height) * halved(image.width)
    }

    /// Builds the model on `device`.
    pub fn init(&self, channels: usize, classes: usize, layers: Layers, device: &Device) -> ResNet {
        let mut width_in = self.stem;
        let mut blocks = Vec::new();
        for (stage, &(width, count)) in self.stages.iter().enumerate() {
            for index in 0..count {
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                let block = Block::init(self, width_in, width, stride, layers, device);
                width_in = block.channels_out;
                blocks.push(block);
            }
        }
        ResNet {
            stem: conv(channels, self.stem, 3, 1, device),
            norm: BatchNormConfig::new(self.stem).init(device),
            blocks,
            head: LinearConfig::new(width_in, classes).init(device),
            layers,
        }
    }
}

/// See [`ResNetConfig`].
#[derive(Module, Debug)]
pub struct ResNet {
    stem: Conv2d,
    norm: BatchNorm,
    blocks: Vec<Block>,
    head: Linear,
    #[module(skip)]
    layers: Layers,
}

impl Classifier for ResNet {
    fn scores(&self, images: Tensor<4>, _batch: Option<&Batch<'_>>) -> Tensor<2> {
        let layers = self.layers;
        let x = layers.conv(&self.stem, layers.images(images));
        let mut x = layers.norm_relu(&self.norm, x);
        for block in &self.blocks {
            x = block.forward(x);
        }
        layers.linear(&self.head, layers.mean(x))
    }
}

/// Two or three convolutions with BatchNorm, added to the input.
#[derive(Module, Debug)]
struct Block {
    conv1: Conv2d,
    norm1: BatchNorm,
    conv2: Conv2d,
    norm2: BatchNorm,
    conv3: Option<Conv2d>,
    norm3: Option<BatchNorm>,
    projection: Option<Conv2d>,
    projection_norm: Option<BatchNorm>,
    channels_in: usize,
    channels_out: usize,
    stride: usize,
    #[module(skip)]
    layers: Layers,
}

impl Block {
    fn init(
        config: &ResNetConfig,
        channels_in: usize,
        width: usize,
        stride: usize,
        layers: Layers,
        device: &Device,
    ) -> Self {
        let norm = |channels| BatchNormConfig::new(channels).init(device);
        let channels_out = if config.bottleneck { 4 * width } else { width };
        let reshapes = stride != 1 || channels_in != channels_out;
        let project = reshapes && config.shortcut == Shortcut::Projection;
        let (conv1, conv2) = if config.bottleneck {
            let narrow = conv(channels_in, width, 1, 1, device);
            (narrow, conv(width, width, 3, stride, device))
        } else {
            let first = conv(channels_in, width, 3, stride, device);
            (first, conv(width, width, 3, 1, device))
        };
        Self {
            conv1,
            norm1: norm(width),
            conv2,
            norm2: norm(width),
            conv3: config
                .bottleneck
                .then(|| conv(width, channels_out, 1, 1, device)),
            norm3: config.bottleneck.then(|| norm(channels_out)),
            projection: project.then(|| conv(channels_in, channels_out, 1, stride, device)),
            projection_norm: project.then(|| norm(channels_out)),
            channels_in,
            channels_out,
            stride,
            layers,
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let layers = self.layers;
        let y = layers.norm_relu(&self.norm1, layers.conv(&self.conv1, x.clone()));
        let y = layers.conv(&self.conv2, y);
        let shortcut = self.shortcut(x);
        match (&self.conv3, &self.norm3) {
            (Some(conv3), Some(norm3)) => {
                let y = layers.conv(conv3, layers.norm_relu(&self.norm2, y));
                layers.norm_add_relu(norm3, y, shortcut)
            }
            _ => layers.norm_add_relu(&self.norm2, y, shortcut),
        }
    }

    fn shortcut(&self, x: Tensor<4>) -> Tensor<4> {
        let layers = self.layers;
        match (&self.projection, &self.projection_norm) {
            (Some(projection), Some(norm)) => layers.norm(norm, layers.conv(projection, x)),
            _ if self.stride == 1 && self.channels_in == self.channels_out => x,
            _ => layers.shortcut(x, self.channels_out, self.stride),
        }
    }
}

/// A convolution that keeps the size, up to its stride. BatchNorm follows, so there is no bias.
fn conv(from: usize, to: usize, kernel: usize, stride: usize, device: &Device) -> Conv2d {
    let pad = kernel / 2;
    Conv2dConfig::new([from, to], [kernel, kernel])
        .with_stride([stride, stride])
        .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
        .with_bias(false)
        .init(device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ImageShape, LeNet5, MlpConfig};

    fn parameters(name: &str, classes: usize) -> usize {
        let device = Device::flex();
        let model = ResNetConfig::named(name)
            .unwrap()
            .init(3, classes, Layers::default(), &device);
        // Running means and variances are visited too, and are as many as γ and β.
        let mut norms = 0;
        let mut count = |norm: &BatchNorm| norms += 2 * norm.gamma.lazy_shape().num_elements();
        count(&model.norm);
        for block in &model.blocks {
            count(&block.norm1);
            count(&block.norm2);
            block.norm3.iter().for_each(&mut count);
            block.projection_norm.iter().for_each(&mut count);
        }
        model.num_params() - norms
    }

    /// He et al. (2016), table 6, gives 0.27, 0.46, 0.66, 0.85 and 1.7 million for CIFAR-10.
    #[test]
    fn thin_networks_have_the_parameters_of_the_paper() {
        assert_eq!(parameters("resnet20", 10), 269_722);
        assert_eq!(parameters("resnet32", 10), 464_154);
        assert_eq!(parameters("resnet44", 10), 658_586);
        assert_eq!(parameters("resnet56", 10), 853_018);
        assert_eq!(parameters("resnet110", 10), 1_727_962);
    }

    /// With a 3×3 stem and no bias before BatchNorm: 11.17, 21.28 and 23.52 million.
    #[test]
    fn wide_networks_have_their_known_parameters() {
        assert_eq!(parameters("resnet18", 10), 11_173_962);
        assert_eq!(parameters("resnet34", 10), 21_282_122);
        assert_eq!(parameters("resnet50", 10), 23_520_842);
        assert_eq!(parameters("resnet50", 100), 23_705_252);
    }

    /// 61,706 for the 32×32 grey image of LeCun et al. (1998) and full connections.
    #[test]
    fn lenet_and_mlp_have_their_known_parameters() {
        let device = Device::flex();
        let square = |channels, size| ImageShape {
            channels,
            height: size,
            width: size,
        };
        let lenet = |image| LeNet5::init(image, 10, Layers::default(), &device).num_params();
        assert_eq!(lenet(square(1, 32)), 61_706);
        assert_eq!(lenet(square(1, 28)), 61_706);
        assert_eq!(lenet(square(3, 32)), 62_006);
        let mlp = MlpConfig {
            hidden: 128,
            dropout: 0.0,
        };
        assert_eq!(
            mlp.init(square(3, 32), 10, Layers::default(), &device)
                .num_params(),
            394_634
        );
    }
}
