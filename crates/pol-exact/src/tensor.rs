//! The operators on Burn's tensors, with gradients.

mod autodiff;
mod backend;
#[cfg(feature = "cube")]
mod cube;
mod exact;
mod flex;
mod optimizer;

pub use backend::{ExactBackend, Kernels};
pub use exact::{Exact, Normalisation, Running};
pub use optimizer::{ExactAdam, ExactSgd, Jointly, Parameter};
