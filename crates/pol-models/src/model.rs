//! The models, and how a recipe names them.

mod lenet;
mod mlp;
mod resnet;

pub use lenet::LeNet5;
pub use mlp::{Mlp, MlpConfig};
pub use resnet::{ResNet, ResNetConfig};

use burn::module::Module;
use burn::tensor::Tensor;
use pol_core::learner::Batch;
use pol_core::recipe::{Component, Value};

/// A model that gives one score for each class.
pub trait Classifier: Module {
    /// Scores `[batch, classes]` of images `[batch, channels, height, width]`. `batch` is what
    /// dropout masks are drawn from; it is absent when the model is only evaluated.
    fn scores(&self, images: Tensor<4>, batch: Option<&Batch<'_>>) -> Tensor<2>;

    /// Whether the order of the records in a batch changes rounding alone. Dropout masks belong to
    /// places.
    fn order_is_free(&self) -> bool {
        true
    }
}

/// The size of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageShape {
    /// 1 for grey, 3 for RGB.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl ImageShape {
    /// Values in an image.
    pub const fn len(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Whether an image has no values.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A model by name.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelSpec {
    /// A perceptron with one hidden layer.
    Mlp(MlpConfig),
    /// LeCun et al. (1998).
    LeNet5,
    /// A residual network.
    ResNet(ResNetConfig),
}

/// A model that a recipe names wrongly.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// No model has this name.
    #[error("there is no model `{name}`; the models are {}", ModelSpec::NAMES.join(", "))]
    Unknown {
        /// The name asked for.
        name: String,
    },
    /// The model has no such option, or not of this kind.
    #[error("the model `{model}` has no option `{option}` of this kind; {help}")]
    Option {
        /// The model.
        model: String,
        /// The option.
        option: String,
        /// Its options.
        help: &'static str,
    },
    /// The model cannot take images of this size.
    #[error("the model `{model}` cannot take images of {height}×{width}: {problem}")]
    Image {
        /// The model.
        model: String,
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
        /// What it needs.
        problem: &'static str,
    },
    /// A batch that leaves BatchNorm nothing to normalise by.
    #[error(
        "the model `{model}` cannot be trained in batches of 1 on images of {height}×{width}: its last          BatchNorm would see a single value of each channel, and make it zero; take a `batch_size` of at          least 2"
    )]
    SingleValue {
        /// The model.
        model: String,
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
}

impl ModelSpec {
    /// The names of all models.
    pub const NAMES: [&'static str; 10] = [
        "mlp",
        "lenet5",
        "resnet20",
        "resnet32",
        "resnet44",
        "resnet56",
        "resnet110",
        "resnet18",
        "resnet34",
        "resnet50",
    ];

    /// The model that a recipe's component names.
    ///
    /// # Errors
    /// If there is no such model or option.
    pub fn of(component: &Component) -> Result<Self, ModelError> {
        let spec =
            match component.name.as_str() {
                "mlp" => return MlpConfig::of(component).map(Self::Mlp),
                "lenet5" => Self::LeNet5,
                name => ResNetConfig::named(name).map(Self::ResNet).ok_or_else(|| {
                    ModelError::Unknown {
                        name: name.chars().take(40).collect(),
                    }
                })?,
            };
        match component.options.keys().next() {
            Some(option) => Err(ModelError::Option {
                model: component.name.clone(),
                option: option.clone(),
                help: "it has no options",
            }),
            None => Ok(spec),
        }
    }

    /// Checks that the model takes images of this shape.
    ///
    /// # Errors
    /// If it doesn't.
    pub fn check(&self, name: &str, image: ImageShape) -> Result<(), ModelError> {
        let problem = match self {
            Self::Mlp(_) => None,
            Self::LeNet5 => (image.height < 8 || image.width < 8).then_some("it needs 8×8"),
            Self::ResNet(_) => (!image.height.is_multiple_of(4) || !image.width.is_multiple_of(4))
                .then_some("height and width must be multiples of 4"),
        };
        match problem {
            None => Ok(()),
            Some(problem) => Err(ModelError::Image {
                model: name.to_owned(),
                height: image.height,
                width: image.width,
                problem,
            }),
        }
    }

    /// Checks that the model can be trained in batches of this size.
    ///
    /// # Errors
    /// [`ModelError::SingleValue`] if a BatchNorm would normalise single values.
    pub fn check_batch(
        &self,
        name: &str,
        image: ImageShape,
        batch_size: u64,
    ) -> Result<(), ModelError> {
        match self {
            Self::ResNet(config)
                if batch_size == 1 && config.values_of_last_channel(image) == 1 =>
            {
                Err(ModelError::SingleValue {
                    model: name.to_owned(),
                    height: image.height,
                    width: image.width,
                })
            }
            _ => Ok(()),
        }
    }
}

/// A numeric option of a component, or its default.
fn number(component: &Component, option: &str, default: f64) -> Option<f64> {
    match component.options.get(option) {
        None => Some(default),
        Some(Value::Int(value)) => Some(*value as f64),
        Some(Value::Float(value)) => Some(*value),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_leaves_batch_norm_single_values_is_refused() {
        let check = |name: &str, size, batch_size| {
            let image = ImageShape {
                channels: 1,
                height: size,
                width: size,
            };
            let spec = ModelSpec::of(&Component::new(name)).unwrap();
            spec.check_batch(name, image, batch_size)
        };
        // 8×8 is halved thrice in the wide networks, twice in the thin ones.
        let error = check("resnet18", 8, 1).unwrap_err().to_string();
        assert!(error.contains("batch_size"), "{error}");
        assert_eq!(check("resnet18", 8, 2), Ok(()));
        assert_eq!(check("resnet18", 12, 1), Ok(()));
        assert_eq!(check("resnet20", 8, 1), Ok(()));
        assert!(check("resnet20", 4, 1).is_err());
        assert_eq!(check("lenet5", 8, 1), Ok(()));
    }
}
