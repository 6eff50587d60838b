//! Virtual vectors without any instruction set in particular: the reference.

use super::WIDTH;
use super::lanes::Lanes;

#[derive(Clone, Copy)]
pub(super) struct Portable([f32; WIDTH]);

impl Lanes for Portable {
    const REGISTERS: usize = 4;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0.0; WIDTH])
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; WIDTH])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for 16 readable values.
        Self(unsafe { from.cast::<[f32; WIDTH]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for 16 writable values.
        unsafe { to.cast::<[f32; WIDTH]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn plus_product<const FUSED: bool>(self, a: Self, b: Self) -> Self {
        let mut sum = self.0;
        for ((sum, a), b) in sum.iter_mut().zip(a.0).zip(b.0) {
            *sum = if FUSED {
                a.mul_add(b, *sum)
            } else {
                *sum + a * b
            };
        }
        Self(sum)
    }

    #[inline(always)]
    unsafe fn plus(self, b: Self) -> Self {
        let mut sum = self.0;
        sum.iter_mut().zip(b.0).for_each(|(sum, b)| *sum += b);
        Self(sum)
    }

    #[inline(always)]
    unsafe fn minus(self, b: Self) -> Self {
        let mut difference = self.0;
        difference
            .iter_mut()
            .zip(b.0)
            .for_each(|(sum, b)| *sum -= b);
        Self(difference)
    }

    #[inline(always)]
    unsafe fn negative(self) -> Self {
        Self(self.0.map(|value| -value))
    }
}
