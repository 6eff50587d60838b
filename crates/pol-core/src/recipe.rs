//! The recipe (SPEC.md §9): everything about a training but its seed, with no default left open,
//! so that two parties who hold the same recipe mean the same training.

mod check;
mod learning_rate;

pub use check::{Range, RecipeError, Whole};
pub(crate) use learning_rate::Piece;
pub use learning_rate::{Decay, LearningRate, MAX_MILESTONES};

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

use crate::codec;
use crate::digest::{Digest, tagged};

/// Model, data, optimizer, learning rate, length and numerics of a training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The model and its options.
    pub model: Component,
    /// The data set, its split and its augmentation.
    pub data: Component,
    /// The update rule.
    pub optimizer: Optimizer,
    /// The learning rate of every step.
    pub learning_rate: LearningRate,
    /// Records in a step.
    pub batch_size: u64,
    /// Steps in the whole training.
    pub steps: u64,
    /// Whose kernels compute.
    pub numerics: Numerics,
}

/// A named part of a recipe with its options.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Component {
    /// The name, `resnet20` for example.
    pub name: String,
    /// Options by name.
    pub options: BTreeMap<String, Value>,
}

impl Component {
    /// A component without options.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            options: BTreeMap::new(),
        }
    }

    /// The component with one more option.
    pub fn with(mut self, option: &str, value: impl Into<Value>) -> Self {
        self.options.insert(option.to_owned(), value.into());
        self
    }
}

/// The value of an option.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// A text.
    Text(String),
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

/// The update rule and its constants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Optimizer {
    /// Stochastic gradient descent. Weight decay is coupled: it is added to the gradient.
    Sgd {
        /// μ; no velocity is kept where it is zero.
        momentum: f64,
        /// 0 by default in PyTorch, and in the papers. Needs momentum.
        dampening: f64,
        /// L2 penalty on every parameter.
        weight_decay: f64,
        /// Nesterov's look-ahead. Needs momentum, and no dampening.
        nesterov: bool,
    },
    /// Adam (Kingma & Ba, 2015), with coupled weight decay.
    Adam {
        /// β₁.
        beta1: f64,
        /// β₂.
        beta2: f64,
        /// ε, added to the root of the second moment.
        epsilon: f64,
        /// L2 penalty on every parameter.
        weight_decay: f64,
    },
    /// Adam with decoupled weight decay (Loshchilov & Hutter, 2019).
    AdamW {
        /// β₁.
        beta1: f64,
        /// β₂.
        beta2: f64,
        /// ε, added to the root of the second moment.
        epsilon: f64,
        /// Decay of every parameter, times the learning rate.
        weight_decay: f64,
    },
    /// A library user's own optimizer.
    Custom(Component),
}

/// Whose kernels compute, and so how a replay is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Numerics {
    /// Burn's own kernels: bits may differ between devices.
    Stock,
    /// Kernels with one defined order of operations: the same bits on every device.
    Exact(Profile),
}

/// Which roundings exact kernels make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Every product and every sum is rounded.
    UnfusedV2,
    /// A product that enters a sum is not rounded by itself.
    FmaV2,
}

impl Numerics {
    /// The names, as in recipes; `exact` alone is `exact/unfused-v2` in recipe files.
    pub const NAMES: [&'static str; 3] = ["stock", "exact/unfused-v2", "exact/fma-v2"];

    /// Whether replays are compared by digest, with no tolerance.
    pub const fn is_exact(self) -> bool {
        matches!(self, Self::Exact(_))
    }
}

impl Display for Numerics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stock => Self::NAMES[0],
            Self::Exact(Profile::UnfusedV2) => Self::NAMES[1],
            Self::Exact(Profile::FmaV2) => Self::NAMES[2],
        })
    }
}

impl From<Numerics> for String {
    fn from(numerics: Numerics) -> Self {
        numerics.to_string()
    }
}

impl TryFrom<String> for Numerics {
    type Error = UnknownNumerics;

    fn try_from(name: String) -> Result<Self, UnknownNumerics> {
        match name.as_str() {
            "stock" => Ok(Self::Stock),
            "exact" | "exact/unfused-v2" => Ok(Self::Exact(Profile::UnfusedV2)),
            "exact/fma-v2" => Ok(Self::Exact(Profile::FmaV2)),
            "exact/unfused-v1" | "exact/fma-v1" => Err(UnknownNumerics::Replaced { name }),
            _ => Err(UnknownNumerics::Unknown),
        }
    }
}

/// A name that no numerics have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownNumerics {
    /// There never were any of this name.
    #[error("numerics are `exact` or one of `{}`", Numerics::NAMES.join("`, `"))]
    Unknown,
    /// A first profile of exact numerics, which had other sums.
    #[error(
        "numerics `{name}` were replaced by `exact/unfused-v2` and `exact/fma-v2`, which sum in another order: \
         what was trained with them can only be verified by the program of its time"
    )]
    Replaced {
        /// The name.
        name: String,
    },
}

impl Recipe {
    /// `H("pol.v1.recipe", canonical encoding)`.
    pub fn digest(&self) -> Digest {
        tagged("pol.v1.recipe", &[&codec::encode(self)])
    }

    /// The fields in which `claimed` differs from this recipe, each with both values.
    pub fn differences(&self, claimed: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        // Values are compared by their encoding, not by how they print.
        let mut compare = |field: &str, same: bool, expected: &dyn Display, found: &dyn Display| {
            if !same {
                differences.push(format!(
                    "{field}: expected {expected}, the proof says {found}"
                ));
            }
        };
        macro_rules! compare {
            ($($field:ident),*) => {$(
                let same = codec::encode(&self.$field) == codec::encode(&claimed.$field);
                compare(stringify!($field), same, &self.$field, &claimed.$field);
            )*};
        }
        compare!(
            model,
            data,
            optimizer,
            learning_rate,
            batch_size,
            steps,
            numerics
        );
        differences
    }
}

impl Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        let options = (self.options.iter()).map(|(name, value)| format!("{name} {value}"));
        match options.collect::<Vec<_>>().join(", ") {
            none if none.is_empty() => Ok(()),
            some => write!(f, " ({some})"),
        }
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value:?}"),
            Self::Text(value) => f.write_str(value),
        }
    }
}

impl Display for Optimizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let adam = |f: &mut fmt::Formatter<'_>, name, [beta1, beta2, epsilon, decay]: [f64; 4]| {
            write!(
                f,
                "{name} (beta1 {beta1}, beta2 {beta2}, epsilon {epsilon:e}, weight decay {decay:e})"
            )
        };
        match self {
            Self::Sgd {
                momentum,
                dampening,
                weight_decay,
                nesterov,
            } => write!(
                f,
                "sgd (momentum {momentum}, dampening {dampening}, weight decay {weight_decay:e}{})",
                if *nesterov { ", nesterov" } else { "" }
            ),
            &Self::Adam {
                beta1,
                beta2,
                epsilon,
                weight_decay,
            } => adam(f, "adam", [beta1, beta2, epsilon, weight_decay]),
            &Self::AdamW {
                beta1,
                beta2,
                epsilon,
                weight_decay,
            } => adam(f, "adamw", [beta1, beta2, epsilon, weight_decay]),
            Self::Custom(component) => write!(f, "custom: {component}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_print_alike_are_still_told_apart() {
        let recipe = |hidden: Value| Recipe {
            model: Component::new("m").with("hidden", hidden),
            data: Component::new("d"),
            optimizer: Optimizer::Custom(Component::new("o")),
            learning_rate: LearningRate {
                base: 0.1,
                warmup: 0,
                decay: Decay::Constant,
            },
            batch_size: 1,
            steps: 1,
            numerics: Numerics::Stock,
        };
        let (int, text) = (recipe(1.into()), recipe("1".into()));
        assert_eq!(int.model.to_string(), text.model.to_string());
        assert_eq!(int.differences(&text).len(), 1);
        assert!(int.differences(&int).is_empty());
    }

    /// `exact` is short for a profile in recipe files; a proof has to spell it out.
    #[test]
    fn numerics_have_one_spelling_in_a_proof() {
        let decode = |name: &str| codec::decode::<Numerics>("n", &codec::encode(&name), 100);
        for name in Numerics::NAMES {
            assert_eq!(decode(name).unwrap().to_string(), name);
        }
        assert!(decode("exact").is_err());
        assert!(decode("exact/unfused-v3").is_err());
        let error = decode("exact/unfused-v1").unwrap_err().to_string();
        assert!(error.contains("replaced by `exact/unfused-v2`"), "{error}");
        assert!(Numerics::try_from("exact".to_owned()).is_ok());
    }
}
