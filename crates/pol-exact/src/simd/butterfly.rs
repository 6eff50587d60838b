//! The one-dimensional transforms of minimal filtering, on vectors at regular distances.

use super::WIDTH;
use super::isa::{Isa, Set};
use super::lanes::Lanes;
#[cfg(target_arch = "aarch64")]
use super::neon::Neon;
use super::portable::Portable;
#[cfg(target_arch = "x86_64")]
use super::x86::{Avx2, Avx512};

/// Which transform (NUMERICS.md, "Convolution").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transform {
    /// Bᵀ: (a, b, c, d) to (a − c, b + c, c − b, b − d).
    Input,
    /// A: (a, b, ·, ·) to (a, a + b, a − b, −b).
    Gradient,
    /// Aᵀ: (a, b, c, d) to ((a + b) + c, (b − c) − d).
    Output,
}

impl Transform {
    const fn results(self) -> usize {
        match self {
            Self::Input | Self::Gradient => 4,
            Self::Output => 2,
        }
    }
}

/// Where operands and results are: `count` vectors of `len` values.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) count: usize,
    pub(crate) len: usize,
    /// From a vector to the next among operands.
    pub(crate) from_step: usize,
    /// From a vector to the next among results.
    pub(crate) to_step: usize,
    /// From one result of a vector to its next.
    pub(crate) plane: usize,
}

/// Transforms `count` times four vectors; each operand begins with its first vector.
///
/// # Panics
/// If an index would lie outside of its slice.
pub(crate) fn transform(isa: Isa, which: Transform, from: [&[f32]; 4], to: &mut [f32], at: Layout) {
    if at.count == 0 || at.len == 0 {
        return;
    }
    let last = (at.count - 1) * at.from_step + at.len;
    assert!(from.iter().all(|operand| last <= operand.len()), "operands");
    let last = (at.count - 1) * at.to_step + (which.results() - 1) * at.plane + at.len;
    assert!(last <= to.len(), "results");
    match isa.0 {
        // SAFETY: the bounds were checked, and an `Isa` exists only on a processor that has it.
        #[cfg(target_arch = "x86_64")]
        Set::Avx512 => unsafe { transform_avx512(which, from, to, at) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Set::Avx2 => unsafe { transform_avx2(which, from, to, at) },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Set::Neon => unsafe { transform_with::<Neon>(which, from, to, at) },
        // SAFETY: the bounds were checked.
        Set::Portable => unsafe { transform_with::<Portable>(which, from, to, at) },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl")]
fn transform_avx512(which: Transform, from: [&[f32]; 4], to: &mut [f32], at: Layout) {
    // SAFETY: `transform` checked the bounds; this is compiled for the instructions.
    unsafe { transform_with::<Avx512>(which, from, to, at) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn transform_avx2(which: Transform, from: [&[f32]; 4], to: &mut [f32], at: Layout) {
    // SAFETY: as above.
    unsafe { transform_with::<Avx2>(which, from, to, at) }
}

/// # Safety
/// Bounds as checked by [`transform`]; the instructions of `L`.
#[inline(always)]
unsafe fn transform_with<L: Lanes>(
    which: Transform,
    from: [&[f32]; 4],
    to: &mut [f32],
    at: Layout,
) {
    // SAFETY: handed on.
    unsafe {
        match which {
            Transform::Input => each::<L, 4>(from, to, at, |[a, b, c, d]| {
                [a.minus(c), b.plus(c), c.minus(b), b.minus(d)]
            }),
            Transform::Gradient => each::<L, 4>(from, to, at, |[a, b, ..]| {
                [a, a.plus(b), a.minus(b), b.negative()]
            }),
            Transform::Output => each::<L, 2>(from, to, at, |[a, b, c, d]| {
                [a.plus(b).plus(c), b.minus(c).minus(d)]
            }),
        }
    }
}

/// # Safety
/// As [`transform_with`], for `N` results.
#[inline(always)]
unsafe fn each<L: Lanes, const N: usize>(
    from: [&[f32]; 4],
    to: &mut [f32],
    at: Layout,
    results: impl Fn([L; 4]) -> [L; N],
) {
    let from = from.map(<[f32]>::as_ptr);
    let to = to.as_mut_ptr();
    if at.len == WIDTH {
        for vector in 0..at.count {
            // SAFETY: as below.
            unsafe {
                let from = from.map(|operand| L::load(operand.add(vector * at.from_step)));
                let to = to.add(vector * at.to_step);
                let out = results(from);
                each!(n < N => { out[n].store(to.add(n * at.plane)); });
            }
        }
        return;
    }
    let whole = at.len / WIDTH * WIDTH;
    for vector in 0..at.count {
        // SAFETY: every index is below (count − 1) · step + len, which `transform` compared with the
        // length of each slice; the instructions are the caller's.
        unsafe {
            let from = from.map(|operand| operand.add(vector * at.from_step));
            let to = to.add(vector * at.to_step);
            let mut i = 0;
            while i < whole {
                let out = results(from.map(|operand| L::load(operand.add(i))));
                each!(n < N => { out[n].store(to.add(n * at.plane + i)); });
                i += WIDTH;
            }
            if whole < at.len {
                let rest = at.len - whole;
                let padded = from.map(|operand| {
                    let mut lanes = [0.0; WIDTH];
                    operand
                        .add(whole)
                        .copy_to_nonoverlapping(lanes.as_mut_ptr(), rest);
                    L::load(lanes.as_ptr())
                });
                for (n, lanes) in results(padded).into_iter().enumerate() {
                    let mut all = [0.0; WIDTH];
                    lanes.store(all.as_mut_ptr());
                    all.as_ptr()
                        .copy_to_nonoverlapping(to.add(n * at.plane + whole), rest);
                }
            }
        }
    }
}
