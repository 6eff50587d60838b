//! Elementary functions as sequences of additions, multiplications and integer operations
//! (NUMERICS.md, "Elementary functions"). `cube::math` is the same for devices.

use crate::profile::Profile;

/// `sum + a·b`, with one rounding or two.
#[inline(always)]
pub(crate) fn plus_product<const FUSED: bool>(sum: f32, a: f32, b: f32) -> f32 {
    if FUSED {
        a.mul_add(b, sum)
    } else {
        sum + a * b
    }
}

/// 1 / ln 2.
pub(crate) const LOG2_E: f32 = f32::from_bits(0x3fb8_aa3b);
/// ln 2 to 15 binary places: its product with a whole number below 2⁹ is exact.
pub(crate) const LN_2_HIGH: f32 = f32::from_bits(0x3f31_7200);
/// The rest of ln 2.
pub(crate) const LN_2_LOW: f32 = f32::from_bits(0x35bf_be8e);

/// Arguments below this give 0: e^x is under half of the least positive number.
pub(crate) const EXP_LEAST: f32 = -104.0;
/// Arguments above this give infinity.
pub(crate) const EXP_MOST: f32 = 89.0;

/// `q` in `e^r ≈ 1 + r + r²·q(r)`, |r| ≤ ln 2 / 2, from the constant term: minimax, error 3.2·10⁻⁹.
pub(crate) const EXP: [f32; 5] = [
    f32::from_bits(0x3f00_0000),
    f32::from_bits(0x3e2a_aa47),
    f32::from_bits(0x3d2a_aa2f),
    f32::from_bits(0x3c09_1dab),
    f32::from_bits(0x3ab6_da15),
];

/// `p` in `ln(1 + f) ≈ f − f²/2 + f³·p(f)`, √½ ≤ 1 + f < √2, from the constant term: minimax,
/// relative error 7.5·10⁻¹⁰.
pub(crate) const LN: [f32; 9] = [
    f32::from_bits(0x3eaa_aaa4),
    f32::from_bits(0xbe80_0003),
    f32::from_bits(0x3e4c_d25b),
    f32::from_bits(0xbe2a_ae27),
    f32::from_bits(0x3e11_9bb4),
    f32::from_bits(0xbdfe_1105),
    f32::from_bits(0x3df3_7835),
    f32::from_bits(0xbdef_1e02),
    f32::from_bits(0x3d8a_2bcb),
];

/// The bits of √2, where the mantissa is halved.
pub(crate) const SQRT_2_MANTISSA: u32 = 0x0035_04f3;

/// e^x, within 1.1 units in the last place.
pub fn exp(profile: Profile, x: f32) -> f32 {
    match profile.fused() {
        true => exp_with::<true>(x),
        false => exp_with::<false>(x),
    }
}

pub(crate) fn exp_with<const FUSED: bool>(x: f32) -> f32 {
    if x < EXP_LEAST {
        return 0.0;
    }
    if x > EXP_MOST {
        return f32::INFINITY;
    }
    let n = plus_product::<FUSED>(0.5, x, LOG2_E).floor();
    let r = plus_product::<FUSED>(plus_product::<FUSED>(x, -n, LN_2_HIGH), -n, LN_2_LOW);
    let q = horner::<FUSED>(&EXP, r);
    let y = 1.0 + plus_product::<FUSED>(r, r * r, q);
    // 2^n in two factors, so that a subnormal result is rounded once.
    let n = n as i32;
    let half = n >> 1;
    y * power_of_two(half) * power_of_two(n - half)
}

/// ln x of a positive, normal x, within 1.1 units in the last place.
pub fn ln(profile: Profile, x: f32) -> f32 {
    match profile.fused() {
        true => ln_with::<true>(x),
        false => ln_with::<false>(x),
    }
}

pub(crate) fn ln_with<const FUSED: bool>(x: f32) -> f32 {
    let bits = x.to_bits();
    let mantissa = bits & 0x007f_ffff;
    let halved = u32::from(mantissa > SQRT_2_MANTISSA);
    let exponent = (bits >> 23) as i32 - 127 + halved as i32;
    let f = f32::from_bits(mantissa | ((127 - halved) << 23)) - 1.0;
    let n = exponent as f32;
    let square = f * f;
    let p = horner::<FUSED>(&LN, f);
    let tail = plus_product::<FUSED>(n * LN_2_LOW, square * f, p);
    let tail = plus_product::<FUSED>(tail, -0.5, square);
    plus_product::<FUSED>(tail + f, n, LN_2_HIGH)
}

fn horner<const FUSED: bool>(coefficients: &[f32], x: f32) -> f32 {
    let highest = coefficients[coefficients.len() - 1];
    let lower = coefficients[..coefficients.len() - 1].iter().rev();
    lower.fold(highest, |sum, &c| plus_product::<FUSED>(c, sum, x))
}

/// 2^n for −126 ≤ n ≤ 127.
fn power_of_two(n: i32) -> f32 {
    f32::from_bits(((n + 127) as u32) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_the_profiles_has_every_constant() {
        let text = include_str!("../NUMERICS.md");
        let constants = [&[LOG2_E, LN_2_HIGH, LN_2_LOW][..], &EXP, &LN].concat();
        let bits = constants.iter().map(|constant| constant.to_bits());
        for bits in bits.chain([SQRT_2_MANTISSA]) {
            let written = format!("{bits:08x}");
            assert!(text.contains(written.trim_start_matches('0')), "{written}");
        }
    }

    /// Distance in units in the last place of the reference rounded to binary32.
    fn ulps(value: f32, reference: f64) -> f64 {
        let rounded = reference as f32;
        let exponent = ((rounded.to_bits() >> 23) & 0xff).max(1) as i32;
        (f64::from(value) - reference).abs() / 2f64.powi(exponent - 127 - 23)
    }

    fn worst(
        bits: impl Iterator<Item = u32>,
        ours: fn(f32) -> f32,
        reference: fn(f64) -> f64,
    ) -> (f64, f32) {
        bits.map(f32::from_bits)
            .map(|x| (ulps(ours(x), reference(f64::from(x))), x))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .unwrap()
    }

    /// Every `step`-th number between two of the same sign.
    fn between(from: f32, to: f32, step: usize) -> impl Iterator<Item = u32> {
        let (from, to) = (from.to_bits(), to.to_bits());
        (from.min(to)..=from.max(to)).step_by(step)
    }

    fn exp_error(step: usize) {
        for (from, to) in [(-1e-30, -103.9), (1e-30, 88.7)] {
            for ours in [exp_with::<false>, exp_with::<true>] {
                let (error, at) = worst(between(from, to, step), ours, f64::exp);
                assert!(error < 1.1, "{error} ulp at {at:e}");
            }
        }
    }

    fn ln_error(step: usize) {
        for ours in [ln_with::<false>, ln_with::<true>] {
            let (error, at) = worst(between(f32::MIN_POSITIVE, f32::MAX, step), ours, f64::ln);
            assert!(error < 1.1, "{error} ulp at {at:e}");
        }
    }

    #[test]
    fn exp_is_within_its_bound_on_a_sample() {
        exp_error(997);
    }

    #[test]
    fn ln_is_within_its_bound_on_a_sample() {
        ln_error(997);
    }

    #[test]
    #[ignore = "a minute"]
    fn exp_is_within_its_bound_on_every_number() {
        exp_error(1);
    }

    #[test]
    #[ignore = "a minute"]
    fn ln_is_within_its_bound_on_every_number() {
        ln_error(1);
    }

    #[test]
    fn exp_has_its_exact_values_and_limits() {
        for exp in [exp_with::<false>, exp_with::<true>] {
            assert_eq!(exp(0.0), 1.0);
            assert_eq!(exp(-0.0), 1.0);
            assert_eq!(exp(-200.0), 0.0);
            assert_eq!(exp(200.0), f32::INFINITY);
            assert!(exp(-103.0) > 0.0 && exp(-103.0) < f32::MIN_POSITIVE);
        }
    }

    #[test]
    fn ln_of_one_is_zero() {
        assert_eq!(ln_with::<false>(1.0).to_bits(), 0);
        assert_eq!(ln_with::<true>(1.0).to_bits(), 0);
    }
}
