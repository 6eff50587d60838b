//! How one entry differs between two states, so that no element pays for another.
//!
//! A sum of squares lets one large element hide what all the others do. So beside it the sizes of
//! the differences are kept in order, the largest first, in absolute terms and in units in the last
//! place: a difference is within another if it is so at every rank.

use crate::state::{DType, Entry};

/// The differences of an entry's elements, by rank.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Differences {
    /// √Σ(aᵢ − bᵢ)².
    pub(super) l2: f64,
    /// The 1st, 2nd, 4th, 8th … largest |aᵢ − bᵢ|, and the smallest.
    sizes: Vec<f64>,
    /// The same of the numbers of representable values between aᵢ and bᵢ.
    units: Vec<f64>,
}

impl Differences {
    /// The differences between `a` and `b`, entries of one type and shape.
    pub(super) fn between(a: &Entry, b: &Entry) -> Self {
        let sizes: Vec<f64> = (a.values().zip(b.values()))
            .map(|(x, y)| (x - y).abs())
            .collect();
        let apart = |((_, i), (_, j)): ((u64, i64), (u64, i64))| i.abs_diff(j) as f64;
        let units = elements(a).zip(elements(b)).map(apart).collect();
        Self {
            l2: sizes.iter().map(|size| size * size).sum::<f64>().sqrt(),
            sizes: ranks(sizes),
            units: ranks(units),
        }
    }

    /// Takes the larger of both, in each figure.
    pub(super) fn widen(&mut self, other: &Self) {
        if self.sizes.is_empty() {
            self.clone_from(other);
            return;
        }
        let widen = |mine: &mut f64, other: &f64| *mine = larger(*mine, *other);
        widen(&mut self.l2, &other.l2);
        (self.sizes.iter_mut().zip(&other.sizes)).for_each(|(a, b)| widen(a, b));
        (self.units.iter_mut().zip(&other.units)).for_each(|(a, b)| widen(a, b));
    }

    /// The largest multiple of `noise` that these differences reach, at any rank: they are within
    /// `multiple` of it if this is at most `multiple`. Noise counts as one unit in the last place at least,
    /// of `entry` as a whole. Differences at one rank may be `coarser` before they count the same. NaN where
    /// there is no such number.
    pub(super) fn over(&self, noise: &Self, entry: &Entry, coarser: Coarser) -> f64 {
        let unit = unit_l2(entry);
        let mean = unit / (entry.values().count().max(1) as f64).sqrt();
        let over = |mine: f64, noise: f64, least: f64| match mine == 0.0 {
            true => 0.0,
            false => mine / larger(noise, least),
        };
        let pairs = |mine: &[f64], noise: &[f64]| -> Vec<(f64, f64)> {
            // Nothing was measured: all of it is beyond.
            let noise = noise.iter().copied().chain(std::iter::repeat(0.0));
            mine.iter().copied().zip(noise).collect()
        };
        let sizes = pairs(&self.sizes, &noise.sizes).into_iter();
        let units = pairs(&self.units, &noise.units).into_iter();
        let ratios = sizes
            .map(|(mine, noise)| over(mine, noise, mean) / coarser.sizes)
            .chain(units.map(|(mine, noise)| over(mine, noise, 1.0) / coarser.units));
        ratios.fold(over(self.l2, noise.l2, unit), larger)
    }
}

/// How many times larger differences at one rank may be than those of all elements together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Coarser {
    pub(super) sizes: f64,
    pub(super) units: f64,
}

/// The larger of two numbers; NaN is the largest of all.
pub(super) fn larger(a: f64, b: f64) -> f64 {
    match a.is_nan() || a > b {
        true => a,
        false => b,
    }
}

/// The values at the ranks 1, 2, 4, … from the largest, and the smallest.
fn ranks(mut values: Vec<f64>) -> Vec<f64> {
    let mut found = Vec::new();
    let mut end = values.len();
    if end == 0 {
        return found;
    }
    let smallest = values
        .iter()
        .copied()
        .reduce(|a, b| if larger(a, b) == a { b } else { a });
    found.extend(smallest);
    let mut rank = 1 << end.ilog2();
    while rank > 0 {
        // NaN sorts as the largest.
        let descending = |a: &f64, b: &f64| b.total_cmp(a);
        let (_, value, _) = values[..end].select_nth_unstable_by(rank - 1, descending);
        found.push(*value);
        (end, rank) = (rank, rank / 2);
    }
    found.reverse();
    found
}

/// The spacing of floats around each element of an entry, √Σ of its squares: what one unit in the
/// last place comes to. 0 for whole numbers.
pub(super) fn unit_l2(entry: &Entry) -> f64 {
    let digits = match entry.header.dtype {
        DType::F64 => f64::EPSILON,
        DType::F32 => f64::from(f32::EPSILON),
        DType::F16 => f64::exp2(-10.0),
        DType::BF16 => f64::exp2(-7.0),
        _ => return 0.0,
    };
    // Within a factor of two of the spacing, which is constant between powers of two.
    let squares = entry.values().map(|x| (x * digits).powi(2));
    squares.sum::<f64>().sqrt()
}

/// Whether rounding may change this entry: it holds floats that are computed, not counted.
pub(super) fn is_rounded(entry: &Entry) -> bool {
    use DType::{BF16, F16, F32, F64};
    matches!(entry.header.dtype, F64 | F32 | F16 | BF16) && !entry.name().starts_with("schedule/")
}

/// The elements of an entry of floats, each with its place among all floats of its type: neighbours
/// differ by one, and both zeros are the same.
pub(super) fn elements(entry: &Entry) -> impl Iterator<Item = (u64, i64)> + '_ {
    let size = entry.header.dtype.size();
    entry.bytes.chunks_exact(size).map(move |bytes| {
        let mut pattern = [0; 8];
        pattern[..size].copy_from_slice(bytes);
        let pattern = u64::from_le_bytes(pattern);
        (pattern, order(pattern, size))
    })
}

/// The place of a float of `size` bytes among all of its type, by its bits.
fn order(pattern: u64, size: usize) -> i64 {
    let sign = 1 << (8 * size - 1);
    let magnitude = (pattern & (sign - 1)) as i64;
    if pattern & sign == 0 {
        magnitude
    } else {
        -magnitude
    }
}

/// The bits of the float of `size` bytes at this place.
pub(super) fn at_order(order: i64, size: usize) -> u64 {
    let sign = 1 << (8 * size - 1);
    order.unsigned_abs() | if order < 0 { sign } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVEN: Coarser = Coarser {
        sizes: 1.0,
        units: 1.0,
    };
    const COARSE: Coarser = Coarser {
        sizes: 8.0,
        units: 256.0,
    };

    fn entry(values: &[f32]) -> Entry {
        Entry::f32("model/w", vec![values.len() as u64], values)
    }

    fn between(a: &[f32], b: &[f32]) -> Differences {
        Differences::between(&entry(a), &entry(b))
    }

    #[test]
    fn ranks_are_those_of_a_sorted_list() {
        let values = vec![3.0, 9.0, 1.0, 7.0, 5.0];
        assert_eq!(ranks(values), [9.0, 7.0, 3.0, 1.0]);
        assert_eq!(ranks(vec![2.0]), [2.0, 2.0]);
        assert!(ranks(vec![]).is_empty());
        assert!(ranks(vec![1.0, f64::NAN])[0].is_nan());
    }

    /// The pendulum: one element whose noise is large, and another that moves in its stead.
    #[test]
    fn a_large_element_does_not_pay_for_the_others() {
        let still = [1.0; 64];
        let (mut swings, mut pushed) = (still, still);
        swings[0] = 2.0;
        pushed[1..].fill(1.1);
        let (noise, push) = (between(&still, &swings), between(&still, &pushed));
        assert!(push.l2 < noise.l2, "a sum of squares does not tell");
        assert!(push.over(&noise, &entry(&still), EVEN) > 1e5);
    }

    /// Adam's second moments: tiny ones, on which the length of a step hangs, beside large ones.
    #[test]
    fn a_tiny_element_does_not_change_by_its_own_size() {
        let moments = [1.0, 1.0, 1e-9, 1e-9];
        let noise = between(
            &moments,
            &[1.0 + 1e-6, 1.0 - 1e-6, 1e-9 + 1e-15, 1e-9 - 1e-15],
        );
        let zeroed = between(&moments, &[1.0, 1.0, 0.0, 0.0]);
        assert!(zeroed.l2 < noise.l2);
        assert!(zeroed.over(&noise, &entry(&moments), COARSE) > 1e3);
    }

    #[test]
    fn a_unit_in_the_last_place_counts_as_noise_and_nan_as_more_than_any() {
        let (ones, nothing) = ([1.0, -1.0, -0.0], Differences::default());
        let near = between(&ones, &[1.0f32.next_up().next_up(), -1.0, 0.0]);
        assert_eq!(near.units[0], 2.0);
        let over = |difference: &Differences| difference.over(&nothing, &entry(&ones), EVEN);
        assert!((1.0..4.0).contains(&over(&near)), "{}", over(&near));
        assert_eq!(over(&between(&ones, &[1.0, -1.0, 0.0])), 0.0);
        assert!(over(&between(&ones, &[1.1, -1.0, 0.0])) > 1e5);
        assert!(over(&between(&ones, &[f32::NAN, -1.0, 0.0])).is_nan());
    }

    #[test]
    fn places_among_floats_are_undone() {
        for value in [0.0f32, 1.0, -1.0, f32::MIN_POSITIVE, -f32::MAX, 1e-40] {
            let (pattern, place) = elements(&entry(&[value])).next().unwrap();
            assert_eq!(at_order(place, 4), pattern);
            let next = at_order(place + 1, 4) as u32;
            assert_eq!(f32::from_bits(next), value.next_up());
        }
    }
}
