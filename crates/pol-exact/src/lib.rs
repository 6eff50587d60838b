//! Training kernels with one defined order of operations: the same bits on every device.
//!
//! What every operator computes, to the last bit, is written in NUMERICS.md beside this crate's
//! sources. [`cpu`] computes it on slices, with any instruction set and any
//! number of threads; [`tensor`] on Burn's tensors, with gradients, on the CPU and on CubeCL's
//! devices. [`probe`] shows whether a device complies.

pub mod cpu;
#[cfg(feature = "burn")]
pub mod launches;
pub mod math;
pub mod optim;
#[cfg(feature = "burn")]
pub mod probe;
mod profile;
pub mod shape;
pub mod simd;
#[cfg(feature = "burn")]
pub mod tensor;

pub use profile::{Profile, UnknownProfile};
