//! Burn: the one part of this crate that knows it.
//!
//! [`PolLearner`] makes a [`Learner`](crate::learner::Learner) of a [`Task`]: a Burn module, the
//! loss of a batch, and an optimizer. Its state is keyed by module paths, never by Burn's random
//! parameter ids, and it is restored into a freshly built module, since BatchNorm keeps pending
//! statistics that a restored value would not replace.

mod backend;
mod capture;
mod failure;
mod initial;
mod optimizer;
mod pol_learner;
#[cfg(feature = "train")]
mod strategy;

pub use crate::learner::Initial;
pub use backend::{Backend, BackendError};
pub use capture::gradients_by_entry;
pub use failure::device_failure;
pub use initial::ParameterInfo;
pub use optimizer::{ParameterUpdate, PathOptimizer};
pub use pol_learner::{PolLearner, StepOutput, Task};
#[cfg(feature = "train")]
pub use strategy::{PolStrategy, Proved, TrainStepTask};

/// The entries of a module and of what its optimizer keeps.
#[cfg(all(test, feature = "flex"))]
pub(crate) fn capture_for_tests<M: burn::module::Module>(
    module: &M,
    optimizer: &PathOptimizer,
    entries: &mut Vec<crate::state::Entry>,
) {
    capture::capture_module(module, entries).unwrap();
    optimizer.capture(entries).unwrap();
}
