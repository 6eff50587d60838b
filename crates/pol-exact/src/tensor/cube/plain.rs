//! Kernels with a unit for each value, which share no memory: for devices whose units are not the lanes of a GPU.

pub(super) mod conv;
pub(super) mod linear;
pub(super) mod norm;
pub(super) mod winograd;
