//! Fixed values for the probe, from integers alone.

/// What a case's values are like.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// All 24 places, magnitudes up to 1.
    Ordinary,
    /// Few places: sums cancel, and land midway between two numbers.
    Coarse,
    /// Products are subnormal.
    Tiny,
    /// Most products are too small to be represented: zeros of either sign.
    Vanishing,
    /// Zeros of either sign, but for a few.
    Zeros,
    /// Products near the greatest number.
    Huge,
}

impl Kind {
    pub(super) const ALL: [Self; 6] = [
        Self::Ordinary,
        Self::Coarse,
        Self::Tiny,
        Self::Vanishing,
        Self::Zeros,
        Self::Huge,
    ];
}

/// `count` values; `seed` tells the operands of a case apart.
pub(super) fn values(kind: Kind, seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9).wrapping_add(0x7f4a_7c15);
    (0..count)
        .map(|_| {
            // A Weyl sequence, mixed as in MurmurHash3's finaliser.
            state = state.wrapping_add(0x9e37_79b9);
            let mut z = state;
            z = (z ^ (z >> 16)).wrapping_mul(0x85eb_ca6b);
            z = (z ^ (z >> 13)).wrapping_mul(0xc2b2_ae35);
            z ^= z >> 16;
            of_bits(kind, z)
        })
        .collect()
}

fn of_bits(kind: Kind, z: u32) -> f32 {
    let sign = if z & 1 == 1 { -1.0 } else { 1.0 };
    let fraction = (z >> 8) as f32 / (1 << 24) as f32;
    sign * match kind {
        Kind::Ordinary => fraction,
        // 1, 1 + 2⁻¹² and the like, at four scales.
        Kind::Coarse => {
            (1.0 + ((z >> 9) & 3) as f32 / 4096.0) / (1 << (6 * ((z >> 20) & 3))) as f32
        }
        // Around 2⁻⁶⁶: products around 2⁻¹³².
        Kind::Tiny => (0.25 + fraction) * f32::from_bits((127 - 66) << 23),
        // Around 2⁻⁷⁶: products around 2⁻¹⁵², and seldom the least number, 2⁻¹⁴⁹.
        Kind::Vanishing => (0.25 + 2.0 * fraction) * f32::from_bits((127 - 76) << 23),
        Kind::Zeros if z & 0x70 == 0 => fraction,
        Kind::Zeros => 0.0,
        // Up to 2⁶⁰: sums of a hundred products below 2¹²⁷.
        Kind::Huge => fraction * f32::from_bits((127 + 60) << 23),
    }
}
