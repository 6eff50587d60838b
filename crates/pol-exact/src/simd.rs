//! The vector kernels: the only `unsafe` code of this project.
//!
//! Everything here computes on *virtual vectors* of 16 lanes. An instruction set holds one in one
//! register (AVX-512), two (AVX2), four (NEON) or an array (portable). No lane is ever added to another
//! lane, and no output is split between kernels, so the bits of a result depend neither on the
//! instruction set nor on how outputs are grouped into tiles (NUMERICS.md, "Sums").
//!
//! Soundness rests on two things. A kernel is reached only through a function (`convolve`,
//! `accumulate_outer`, `transform`) that checks every address it can form against the slices it is
//! given, before the first is formed. And a kernel compiled for an instruction set is called only with
//! the [`Isa`] that stands for it, which can be obtained only on a processor that has it.
#![allow(unsafe_code)]

/// Runs the body for `i` from 0 to `n`, at most 24, written out: the compiler keeps an array in
/// registers only if every index is a constant.
macro_rules! each {
    ($i:ident < $n:expr => $body:block) => {
        $crate::simd::each!(@ $i $n, $body, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23)
    };
    (@ $i:ident $n:expr, $body:block, $($k:literal)*) => {
        $(if $k < $n {
            let $i: usize = $k;
            $body
        })*
    };
}

pub(crate) use each;

mod aligned;
mod butterfly;
mod isa;
mod lanes;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
mod tile;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use aligned::Aligned;
pub(crate) use butterfly::{Layout, Transform, transform};
pub use isa::{Isa, UnknownIsa};
pub(crate) use tile::{Convolution, Outer, Run, accumulate_outer, convolve};

/// Lanes of a virtual vector. Channels are grouped by it in packed weights.
pub(crate) const WIDTH: usize = 16;

pub(crate) use isa::{Set, vectorised};
