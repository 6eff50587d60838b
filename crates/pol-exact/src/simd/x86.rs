//! Virtual vectors of x86-64.

use std::arch::x86_64::*;

use super::lanes::Lanes;

/// One register of AVX-512F.
#[derive(Clone, Copy)]
pub(super) struct Avx512(__m512);

impl Lanes for Avx512 {
    const REGISTERS: usize = 32;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller vouches for AVX-512F.
        Self(unsafe { _mm512_setzero_ps() })
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller vouches for AVX-512F.
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for AVX-512F and 16 readable values.
        Self(unsafe { _mm512_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for AVX-512F and 16 writable values.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn plus_product<const FUSED: bool>(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller vouches for AVX-512F.
        Self(unsafe {
            if FUSED {
                _mm512_fmadd_ps(a.0, b.0, self.0)
            } else {
                _mm512_add_ps(self.0, _mm512_mul_ps(a.0, b.0))
            }
        })
    }

    #[inline(always)]
    unsafe fn plus(self, b: Self) -> Self {
        // SAFETY: the caller vouches for AVX-512F.
        Self(unsafe { _mm512_add_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn minus(self, b: Self) -> Self {
        // SAFETY: the caller vouches for AVX-512F.
        Self(unsafe { _mm512_sub_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn negative(self) -> Self {
        // SAFETY: the caller vouches for AVX-512F.
        Self(unsafe {
            let sign = _mm512_set1_epi32(i32::MIN);
            _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(self.0), sign))
        })
    }
}

/// Two registers of AVX2 with FMA.
#[derive(Clone, Copy)]
pub(super) struct Avx2([__m256; 2]);

impl Lanes for Avx2 {
    const REGISTERS: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller vouches for AVX2.
        Self(unsafe { [_mm256_setzero_ps(); 2] })
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller vouches for AVX2.
        Self(unsafe { [_mm256_set1_ps(value); 2] })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for AVX2 and 16 readable values.
        Self(unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for AVX2 and 16 writable values.
        unsafe {
            _mm256_storeu_ps(to, self.0[0]);
            _mm256_storeu_ps(to.add(8), self.0[1]);
        }
    }

    #[inline(always)]
    unsafe fn plus_product<const FUSED: bool>(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller vouches for AVX2 and FMA.
        let half = |i: usize| unsafe {
            if FUSED {
                _mm256_fmadd_ps(a.0[i], b.0[i], self.0[i])
            } else {
                _mm256_add_ps(self.0[i], _mm256_mul_ps(a.0[i], b.0[i]))
            }
        };
        Self([half(0), half(1)])
    }

    #[inline(always)]
    unsafe fn plus(self, b: Self) -> Self {
        // SAFETY: the caller vouches for AVX2.
        Self([0, 1].map(|i| unsafe { _mm256_add_ps(self.0[i], b.0[i]) }))
    }

    #[inline(always)]
    unsafe fn minus(self, b: Self) -> Self {
        // SAFETY: the caller vouches for AVX2.
        Self([0, 1].map(|i| unsafe { _mm256_sub_ps(self.0[i], b.0[i]) }))
    }

    #[inline(always)]
    unsafe fn negative(self) -> Self {
        // SAFETY: the caller vouches for AVX2.
        Self([0, 1].map(|i| unsafe { _mm256_xor_ps(self.0[i], _mm256_set1_ps(-0.0)) }))
    }
}

/// One register of AVX2 with FMA: the first half of a virtual vector.
#[derive(Clone, Copy)]
pub(super) struct Avx2Half(__m256);

impl Lanes for Avx2Half {
    const REGISTERS: usize = 16;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller vouches for AVX2.
        Self(unsafe { _mm256_setzero_ps() })
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller vouches for AVX2.
        Self(unsafe { _mm256_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for AVX2 and 8 readable values.
        Self(unsafe { _mm256_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for AVX2 and 8 writable values.
        unsafe { _mm256_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn plus_product<const FUSED: bool>(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller vouches for AVX2 and FMA.
        Self(unsafe {
            if FUSED {
                _mm256_fmadd_ps(a.0, b.0, self.0)
            } else {
                _mm256_add_ps(self.0, _mm256_mul_ps(a.0, b.0))
            }
        })
    }

    #[inline(always)]
    unsafe fn plus(self, b: Self) -> Self {
        // SAFETY: the caller vouches for AVX2.
        Self(unsafe { _mm256_add_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn minus(self, b: Self) -> Self {
        // SAFETY: the caller vouches for AVX2.
        Self(unsafe { _mm256_sub_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn negative(self) -> Self {
        // SAFETY: the caller vouches for AVX2.
        Self(unsafe { _mm256_xor_ps(self.0, _mm256_set1_ps(-0.0)) })
    }
}
