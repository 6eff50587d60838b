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
    /// The same, and `+ (+0)`: the end of the sums that fused products make.
    End,
}

impl Transform {
    const fn results(self) -> usize {
        match self {
            Self::Input | Self::Gradient => 4,
            Self::Output | Self::End => 2,
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
            Transform::Input => each::<L, Input, 4>(from, to, at),
            Transform::Gradient => each::<L, Gradient, 4>(from, to, at),
            Transform::Output => each::<L, Output, 2>(from, to, at),
            Transform::End => each::<L, End, 2>(from, to, at),
        }
    }
}

/// The arithmetic of a [`Transform`] with `N` results. (No closure: the compiler might not inline it, and compiles it
/// without the instructions of its caller.)
trait Butterfly<const N: usize> {
    /// # Safety
    /// The instructions of `L`.
    unsafe fn of<L: Lanes>(operands: [L; 4]) -> [L; N];
}

struct Input;
struct Gradient;
struct Output;
struct End;

impl Butterfly<4> for Input {
    #[inline(always)]
    unsafe fn of<L: Lanes>([a, b, c, d]: [L; 4]) -> [L; 4] {
        // SAFETY: handed on.
        unsafe { [a.minus(c), b.plus(c), c.minus(b), b.minus(d)] }
    }
}

impl Butterfly<4> for Gradient {
    #[inline(always)]
    unsafe fn of<L: Lanes>([a, b, ..]: [L; 4]) -> [L; 4] {
        // SAFETY: handed on.
        unsafe { [a, a.plus(b), a.minus(b), b.negative()] }
    }
}

impl Butterfly<2> for Output {
    #[inline(always)]
    unsafe fn of<L: Lanes>([a, b, c, d]: [L; 4]) -> [L; 2] {
        // SAFETY: handed on.
        unsafe { [a.plus(b).plus(c), b.minus(c).minus(d)] }
    }
}

impl Butterfly<2> for End {
    #[inline(always)]
    unsafe fn of<L: Lanes>(operands: [L; 4]) -> [L; 2] {
        // SAFETY: handed on.
        unsafe {
            let [first, second] = Output::of(operands);
            [first.plus(L::zero()), second.plus(L::zero())]
        }
    }
}

/// # Safety
/// As [`transform_with`], for `N` results.
#[inline(always)]
unsafe fn each<L: Lanes, B: Butterfly<N>, const N: usize>(
    from: [&[f32]; 4],
    to: &mut [f32],
    at: Layout,
) {
    let [a, b, c, d] = from;
    let (a, b, c, d) = (a.as_ptr(), b.as_ptr(), c.as_ptr(), d.as_ptr());
    let to = to.as_mut_ptr();
    let whole = at.len / WIDTH * WIDTH;
    for vector in 0..at.count {
        // SAFETY: every index is below (count − 1) · step + len, which `transform` compared with the
        // length of each slice; the instructions are the caller's.
        unsafe {
            let step = vector * at.from_step;
            let (a, b, c, d) = (a.add(step), b.add(step), c.add(step), d.add(step));
            let to = to.add(vector * at.to_step);
            let mut i = 0;
            while i < whole {
                let operands: [L; 4] = [
                    L::load(a.add(i)),
                    L::load(b.add(i)),
                    L::load(c.add(i)),
                    L::load(d.add(i)),
                ];
                let out = B::of(operands);
                each!(n < N => { out[n].store(to.add(n * at.plane + i)); });
                i += WIDTH;
            }
            if whole < at.len {
                let rest = at.len - whole;
                let operands: [L; 4] = [
                    load_some(a.add(whole), rest),
                    load_some(b.add(whole), rest),
                    load_some(c.add(whole), rest),
                    load_some(d.add(whole), rest),
                ];
                let out = B::of(operands);
                each!(n < N => {
                    let mut all = [0.0; WIDTH];
                    out[n].store(all.as_mut_ptr());
                    (all.as_ptr()).copy_to_nonoverlapping(to.add(n * at.plane + whole), rest);
                });
            }
        }
    }
}

/// Reads the first `count` lanes, or all; the others are zero.
///
/// # Safety
/// `min(count, 16)` values are readable; the instructions of `L`.
#[inline(always)]
pub(super) unsafe fn load_some<L: Lanes>(from: *const f32, count: usize) -> L {
    // SAFETY: handed on; the buffer has 16 values.
    unsafe {
        if count >= WIDTH {
            return L::load(from);
        }
        let mut lanes = [0.0; WIDTH];
        from.copy_to_nonoverlapping(lanes.as_mut_ptr(), count);
        L::load(lanes.as_ptr())
    }
}
