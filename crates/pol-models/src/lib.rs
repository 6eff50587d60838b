//! Models, data sets and recipes for Proof-of-Learning, in Burn.
//!
//! - [`dataset`]: handwritten digits (embedded), MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100.
//! - [`layers`]: what computes: Burn's kernels or exact ones.
//! - [`model`]: MLP, LeNet-5 and residual networks.
//! - [`recipe_file`]: recipes as TOML files, and those that are shipped.
//! - [`image_learner`]: the learner that a recipe describes.

mod augment;
mod classification;
pub mod dataset;
#[cfg(feature = "fetch")]
pub mod fetch;
mod image_learner;
pub mod layers;
pub mod model;
pub mod recipe_file;

pub use augment::Augmentation;
pub use classification::Classification;
pub use image_learner::{
    Evaluation, Gradients, ImageLearner, RecipeMismatch, dataset_of, image_learner, probed,
    unprobed_learner,
};
