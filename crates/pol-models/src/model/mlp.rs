//! A perceptron with one hidden layer, rectified, with optional dropout.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData};
use pol_core::learner::Batch;
use pol_core::recipe::Component;

use super::{Classifier, ImageShape, ModelError, number};
use crate::layers::Layers;

/// Width and dropout.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MlpConfig {
    /// Hidden units.
    pub hidden: usize,
    /// The probability with which a hidden unit is dropped in a training step.
    pub dropout: f64,
}

impl MlpConfig {
    pub(super) fn of(component: &Component) -> Result<Self, ModelError> {
        let refuse = |option: &str| {
            Err(ModelError::Option {
                model: "mlp".to_owned(),
                option: option.to_owned(),
                help: "its options are `hidden` (1 to 16384) and `dropout` (0 to 0.99)",
            })
        };
        let known = |name: &&String| !["hidden", "dropout"].contains(&name.as_str());
        if let Some(option) = component.options.keys().find(known) {
            return refuse(option);
        }
        let hidden = number(component, "hidden", 128.0);
        let Some(hidden) = hidden.filter(|h| (1.0..=16_384.0).contains(h) && h.fract() == 0.0)
        else {
            return refuse("hidden");
        };
        match number(component, "dropout", 0.0) {
            Some(dropout) if (0.0..=0.99).contains(&dropout) => Ok(Self {
                hidden: hidden as usize,
                dropout,
            }),
            _ => refuse("dropout"),
        }
    }

    /// Builds the model on `device`.
    pub fn init(&self, image: ImageShape, classes: usize, layers: Layers, device: &Device) -> Mlp {
        Mlp {
            hidden: LinearConfig::new(image.len(), self.hidden).init(device),
            output: LinearConfig::new(self.hidden, classes).init(device),
            dropout: self.dropout,
            layers,
        }
    }
}

/// See [`MlpConfig`].
#[derive(Module, Debug)]
pub struct Mlp {
    hidden: Linear,
    output: Linear,
    dropout: f64,
    #[module(skip)]
    layers: Layers,
}

impl Classifier for Mlp {
    fn scores(&self, images: Tensor<4>, batch: Option<&Batch<'_>>) -> Tensor<2> {
        let layers = self.layers;
        let pixels = images.flatten::<2>(1, 3);
        let mut hidden = layers.relu(layers.linear(&self.hidden, pixels)); // [n, hidden]
        if let Some(batch) = batch.filter(|_| self.dropout > 0.0) {
            let shape = hidden.dims();
            let mask = batch.dropout_mask(0, shape[0] * shape[1], self.dropout);
            let mask = Tensor::from_data(TensorData::new(mask, shape), &hidden.device());
            hidden = layers.dropout(hidden, mask);
        }
        layers.linear(&self.output, hidden)
    }

    fn order_is_free(&self) -> bool {
        self.dropout == 0.0
    }
}
