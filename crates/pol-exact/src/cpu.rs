//! The operators on the CPU: plain slices in, new vectors out.
//!
//! Images are `[batch, rows, columns, channels]`; weights of convolutions are
//! `[out, in, kernel rows, kernel columns]` and of linear layers `[in, out]`, as Burn keeps them.

mod buffers;
pub mod conv;
pub mod elementwise;
mod frame;
pub mod linear;
pub mod loss;
pub mod norm;
pub mod pool;
pub mod sums;
mod tree;
pub mod updates;
mod winograd;

pub use buffers::Values;
#[cfg(feature = "burn")]
pub(crate) use buffers::recycle;
