//! Arithmetic that no compiler can change.
//!
//! A device's compiler may fuse a product with the sum it enters, or regroup a chain of sums (Mesa's
//! does where one of them is a constant). So a product that a sum follows is a fused multiply-add with a −0 that the
//! compiler doesn't know to be one: its rounding is the product's, and it is no product that could be fused again. A
//! sum that something but a product follows is passed through the integers: its bits are combined with a zero that the
//! compiler doesn't know. Sums begin with that zero too: to constants a compiler may add nothing (Mesa's doesn't), and
//! a sum that is left with a product of −0 alone stays −0. Division and square root are done in integers, since devices
//! round them in their own ways. See NUMERICS.md, "Contraction".

use cubecl::prelude::*;

use crate::math;

/// `value`, opaque to the compiler. `zero` is 0.
#[cube]
pub(super) fn opaque(value: f32, zero: u32) -> f32 {
    f32::reinterpret(u32::reinterpret(value) ^ zero)
}

/// `a + b`, rounded. `zero` is 0.
#[cube]
pub(super) fn plus(a: f32, b: f32, zero: u32) -> f32 {
    opaque(a + b, zero)
}

/// `a·b`, rounded. `zero` is 0.
#[cube]
pub(super) fn product(a: f32, b: f32, zero: u32) -> f32 {
    fma(a, b, f32::reinterpret(zero ^ 0x8000_0000u32))
}

/// `sum + a·b`, with one rounding or two. `zero` is 0.
#[cube]
pub(super) fn plus_product(sum: f32, a: f32, b: f32, zero: u32, #[comptime] fused: bool) -> f32 {
    if comptime![fused] {
        fma(a, b, sum)
    } else {
        sum + product(a, b, zero)
    }
}

/// As [`plus_product`], where something else than a product is added next, or a constant was: Mesa regroups such sums.
#[cube]
pub(super) fn firm(sum: f32, a: f32, b: f32, zero: u32, #[comptime] fused: bool) -> f32 {
    opaque(plus_product(sum, a, b, zero, fused), zero)
}

/// The end of a sum, `+ (+0)`: no zero is negative. (A constant zero would be left out: Mesa does.) `zero` is 0.
#[cube]
pub(super) fn ended(sum: f32, zero: u32) -> f32 {
    plus(opaque(sum, zero), f32::reinterpret(zero), zero)
}

/// `value` where it is positive, else +0.
#[cube]
pub(super) fn positive(value: f32) -> f32 {
    if value > 0.0f32 {
        value
    } else {
        0.0f32.runtime()
    }
}

/// `a / b`, correctly rounded, for finite `b` that is not zero.
#[cube]
pub(super) fn divide(a: f32, b: f32) -> f32 {
    let sign = (u32::reinterpret(a) ^ u32::reinterpret(b)) & 0x8000_0000u32;
    let magnitude = u32::reinterpret(a) & 0x7fff_ffffu32;
    let mut remainder = significand_of(magnitude);
    let divisor = significand_of(u32::reinterpret(b) & 0x7fff_ffffu32);
    let mut exponent = exponent_of(magnitude) - exponent_of(u32::reinterpret(b) & 0x7fff_ffffu32);
    if remainder < divisor {
        remainder <<= 1u32;
        exponent -= 1i32;
    }
    // 1 ≤ remainder / divisor < 2: 24 binary places and one more.
    let mut quotient = 0u32.runtime();
    for _ in 0u32..25u32 {
        quotient <<= 1u32;
        if remainder >= divisor {
            remainder -= divisor;
            quotient |= 1u32;
        }
        remainder <<= 1u32;
    }
    if remainder != 0u32 {
        // Anything further is a sticky bit.
        quotient = (quotient << 1u32) | 1u32;
    } else {
        quotient <<= 1u32;
    }
    let mut bits = sign;
    if magnitude >= 0x7f80_0000u32 {
        bits = sign | magnitude;
    } else if magnitude != 0u32 {
        bits = sign | rounded(quotient, exponent);
    }
    f32::reinterpret(bits)
}

/// `√x`, correctly rounded, for finite `x` that is not negative.
#[cube]
pub(super) fn square_root(x: f32) -> f32 {
    let magnitude = u32::reinterpret(x) & 0x7fff_ffffu32;
    let mut radicand = significand_of(magnitude);
    let mut exponent = exponent_of(magnitude);
    if exponent & 1i32 != 0i32 {
        radicand <<= 1u32;
        exponent -= 1i32;
    }
    // Digit by digit, two binary places of the radicand for one of the root.
    let mut root = 0u32.runtime();
    let mut remainder = 0u32.runtime();
    for place in 0u32..25u32 {
        let mut pair = 0u32.runtime();
        if place < 12u32 {
            pair = (radicand >> (23u32 - 2u32 * place)) & 3u32;
        } else if place == 12u32 {
            pair = (radicand << 1u32) & 3u32;
        }
        remainder = (remainder << 2u32) | pair;
        let trial = (root << 2u32) | 1u32;
        root <<= 1u32;
        if remainder >= trial {
            remainder -= trial;
            root |= 1u32;
        }
    }
    // No root of 24 places lies midway between two: the last place decides.
    let mut bits = u32::reinterpret(x);
    if magnitude != 0u32 {
        let half = exponent >> 1i32;
        let significand = (root >> 1u32) + (root & 1u32);
        bits = (u32::cast_from(half + 126i32) << 23u32) + significand;
    }
    f32::reinterpret(bits)
}

/// The significand of a magnitude, shifted to have its leading one in place 23.
#[cube]
fn significand_of(magnitude: u32) -> u32 {
    let mut significand = magnitude & 0x007f_ffffu32;
    if magnitude >= 0x0080_0000u32 {
        significand |= 0x0080_0000u32;
    } else {
        for _ in 0u32..23u32 {
            if significand < 0x0080_0000u32 {
                significand <<= 1u32;
            }
        }
    }
    significand
}

/// The exponent that belongs to [`significand_of`].
#[cube]
fn exponent_of(magnitude: u32) -> i32 {
    let mut exponent = i32::cast_from(magnitude >> 23u32) - 127i32;
    if magnitude < 0x0080_0000u32 {
        let mut significand = magnitude;
        exponent = -126i32;
        for _ in 0u32..23u32 {
            if significand < 0x0080_0000u32 {
                significand <<= 1u32;
                exponent -= 1i32;
            }
        }
    }
    exponent
}

/// The bits of `quotient · 2^(exponent − 25)`, a quotient of 26 places of which the last is sticky,
/// to the nearest and on ties to the even.
#[cube]
fn rounded(quotient: u32, exponent: i32) -> u32 {
    let mut bits = 0u32.runtime();
    if exponent >= -126i32 {
        let mut significand = quotient >> 2u32;
        let rest = quotient & 3u32;
        if rest > 2u32 || (rest == 2u32 && (significand & 1u32) == 1u32) {
            significand += 1u32;
        }
        bits = (u32::cast_from(exponent + 126i32) << 23u32) + significand;
        if bits > 0x7f80_0000u32 {
            bits = 0x7f80_0000u32.runtime();
        }
    } else if exponent >= -150i32 {
        let shift = u32::cast_from(-124i32 - exponent);
        let mut significand = quotient >> shift;
        let rest = quotient & ((1u32 << shift) - 1u32);
        let half = 1u32 << (shift - 1u32);
        if rest > half || (rest == half && (significand & 1u32) == 1u32) {
            significand += 1u32;
        }
        bits = significand;
    }
    bits
}

/// e^x; see `math::exp`.
#[cube]
pub(super) fn exponential(x: f32, zero: u32, #[comptime] fused: bool) -> f32 {
    let mut result = 0.0f32.runtime();
    if x > comptime![math::EXP_MOST] {
        result = f32::reinterpret(0x7f80_0000u32.runtime());
    } else if x >= comptime![math::EXP_LEAST] {
        let n = f32::floor(firm(
            0.5f32,
            x,
            constant(comptime![math::LOG2_E]),
            zero,
            fused,
        ));
        let high = constant(comptime![math::LN_2_HIGH]);
        let low = constant(comptime![math::LN_2_LOW]);
        let r = firm(firm(x, -n, high, zero, fused), -n, low, zero, fused);
        let mut q = constant(comptime![math::EXP[4]]);
        #[unroll]
        for i in 0..4usize {
            q = firm(constant(comptime![math::EXP[3 - i]]), q, r, zero, fused);
        }
        let tail = firm(r, product(r, r, zero), q, zero, fused);
        let y = plus(1.0f32.runtime(), tail, zero);
        let n = i32::cast_from(n);
        let half = n >> 1i32;
        let scaled = product(y, power_of_two(half), zero);
        result = product(scaled, power_of_two(n - half), zero);
    }
    result
}

/// ln x of a positive, normal x; see `math::ln`.
#[cube]
pub(super) fn logarithm(x: f32, zero: u32, #[comptime] fused: bool) -> f32 {
    let bits = u32::reinterpret(x);
    let mantissa = bits & 0x007f_ffffu32;
    let mut halved = 0u32.runtime();
    if mantissa > comptime![math::SQRT_2_MANTISSA] {
        halved = 1u32.runtime();
    }
    let exponent = i32::cast_from(bits >> 23u32) - 127i32 + i32::cast_from(halved);
    let f = plus(
        f32::reinterpret(mantissa | ((127u32 - halved) << 23u32)),
        -1.0f32.runtime(),
        zero,
    );
    let n = f32::cast_from(exponent);
    let square = product(f, f, zero);
    let mut p = constant(comptime![math::LN[8]]);
    #[unroll]
    for i in 0..8usize {
        p = firm(constant(comptime![math::LN[7 - i]]), p, f, zero, fused);
    }
    let low = product(n, constant(comptime![math::LN_2_LOW]), zero);
    let tail = firm(low, product(square, f, zero), p, zero, fused);
    let tail = firm(tail, -0.5f32, square, zero, fused);
    firm(
        plus(tail, f, zero),
        n,
        constant(comptime![math::LN_2_HIGH]),
        zero,
        fused,
    )
}

/// A constant to the last bit, whatever a compiler makes of decimals.
#[cube]
fn constant(#[comptime] value: f32) -> f32 {
    f32::reinterpret(comptime![value.to_bits()].runtime())
}

/// 2^n for −126 ≤ n ≤ 127.
#[cube]
fn power_of_two(n: i32) -> f32 {
    f32::reinterpret(u32::cast_from(n + 127i32) << 23u32)
}
