//! Virtual vectors of AArch64.
// NEON belongs to the target, so some compilers see intrinsics as safe here, and others don't.
#![allow(unused_unsafe)]

use std::arch::aarch64::*;

use super::lanes::Lanes;

/// Four registers of NEON.
#[derive(Clone, Copy)]
pub(super) struct Neon([float32x4_t; 4]);

impl Lanes for Neon {
    const REGISTERS: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: every AArch64 processor that Rust's std runs on has NEON.
        Self(unsafe { [vdupq_n_f32(0.0); 4] })
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: as above.
        Self(unsafe { [vdupq_n_f32(value); 4] })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as above; the caller vouches for 16 readable values.
        Self([0, 4, 8, 12].map(|i| unsafe { vld1q_f32(from.add(i)) }))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        for (i, part) in self.0.into_iter().enumerate() {
            // SAFETY: as above; the caller vouches for 16 writable values.
            unsafe { vst1q_f32(to.add(4 * i), part) }
        }
    }

    #[inline(always)]
    unsafe fn plus_product<const FUSED: bool>(self, a: Self, b: Self) -> Self {
        // SAFETY: as above.
        Self([0, 1, 2, 3].map(|i| unsafe {
            if FUSED {
                vfmaq_f32(self.0[i], a.0[i], b.0[i])
            } else {
                vaddq_f32(self.0[i], vmulq_f32(a.0[i], b.0[i]))
            }
        }))
    }

    #[inline(always)]
    unsafe fn plus(self, b: Self) -> Self {
        // SAFETY: as above.
        Self([0, 1, 2, 3].map(|i| unsafe { vaddq_f32(self.0[i], b.0[i]) }))
    }

    #[inline(always)]
    unsafe fn minus(self, b: Self) -> Self {
        // SAFETY: as above.
        Self([0, 1, 2, 3].map(|i| unsafe { vsubq_f32(self.0[i], b.0[i]) }))
    }

    #[inline(always)]
    unsafe fn negative(self) -> Self {
        // SAFETY: as above.
        Self(self.0.map(|part| unsafe { vnegq_f32(part) }))
    }
}
