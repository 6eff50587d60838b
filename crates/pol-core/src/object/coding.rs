//! What stands for a value in a difference between two states (SPEC.md §11). Late in a training states
//! hardly differ, so that only low bytes are left of their difference.

use std::borrow::Cow;
use std::sync::OnceLock;

use crate::state::{DType, Entry, EntryHeader, RATE_ENTRY, STEP_ENTRY, State};

/// Elements of an entry that the choice of its coding looks at.
const SAMPLED: usize = 1024;

/// How an entry's values are written in a difference between two states.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Coding {
    /// As they are.
    Plain,
    /// As their difference from the base's.
    Difference,
    /// As their difference from where the velocities of SGD, in the base and in this state, move the
    /// base's: nothing, where one step lies between the two.
    Motion(Motion),
}

/// How far a parameter moves for its velocity before, and for its velocity now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Motion {
    before: f32,
    now: f32,
}

/// The codings of all entries, as they are stored: a byte for each, and the factors of motions.
#[derive(Default)]
pub(super) struct Codings {
    pub(super) kinds: Vec<u8>,
    pub(super) motions: Vec<u8>,
}

impl Codings {
    pub(super) fn push(&mut self, coding: Coding) {
        self.kinds.push(match coding {
            Coding::Plain => 0,
            Coding::Difference => 1,
            Coding::Motion(_) => 2,
        });
        if let Coding::Motion(Motion { before, now }) = coding {
            self.motions.extend(before.to_le_bytes());
            self.motions.extend(now.to_le_bytes());
        }
    }

    /// `None` for a kind that there is not, or factors that are not two for each motion.
    pub(super) fn parse(kinds: &[u8], motions: &[u8]) -> Option<Vec<Coding>> {
        let (factors, rest) = motions.as_chunks::<4>();
        let mut factors = factors.iter().map(|factor| f32::from_le_bytes(*factor));
        let codings = (kinds.iter())
            .map(|kind| match kind {
                0 => Some(Coding::Plain),
                1 => Some(Coding::Difference),
                2 => Some(Coding::Motion(Motion {
                    before: factors.next()?,
                    now: factors.next()?,
                })),
                _ => None,
            })
            .collect::<Option<_>>()?;
        (rest.is_empty() && factors.next().is_none()).then_some(codings)
    }
}

/// The two states that a difference lies between.
#[derive(Clone, Copy)]
pub(super) struct Around<'s> {
    pub(super) state: &'s State,
    pub(super) base: &'s State,
}

/// What stands for an entry's values in a coding that [`choose`] chose.
pub(super) fn coded<'e>(
    entry: &'e Entry,
    base: &Entry,
    coding: Coding,
    of: Around<'_>,
) -> Cow<'e, [u8]> {
    let dtype = entry.header.dtype;
    let velocities = || velocities(&entry.header, of.base.entries(), of.state.entries());
    match coding {
        Coding::Plain => Cow::Borrowed(&entry.bytes),
        Coding::Motion(motion) => match velocities() {
            Some(velocities) => {
                Cow::Owned(minus(dtype, &entry.bytes, &moved(base, velocities, motion)))
            }
            None => Cow::Borrowed(&entry.bytes),
        },
        Coding::Difference => Cow::Owned(minus(dtype, &entry.bytes, &base.bytes)),
    }
}

/// Undoes the codings of all entries, of which `elements` gives what stands for the next one's values.
/// `None` where a coding does not fit its entry.
pub(super) fn decoded(
    base: &State,
    codings: &[Coding],
    mut elements: impl FnMut(&EntryHeader) -> Vec<u8>,
) -> Option<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::with_capacity(codings.len());
    for (before, coding) in base.entries().iter().zip(codings) {
        let header = before.header.clone();
        let coded = elements(&header);
        let bytes = match coding {
            Coding::Difference => plus(header.dtype, &coded, &before.bytes),
            // Motions wait until the velocities are there.
            Coding::Plain | Coding::Motion(_) => coded,
        };
        entries.push(Entry { header, bytes });
    }
    let waits = |name: &str| {
        let at = (base.entries()).binary_search_by(|entry| entry.name().cmp(name));
        at.is_ok_and(|at| matches!(codings[at], Coding::Motion(_)))
    };
    for (index, before) in base.entries().iter().enumerate() {
        let Coding::Motion(motion) = codings[index] else {
            continue;
        };
        let velocities = velocities(&before.header, base.entries(), &entries)?;
        if waits(velocities.1.name()) {
            return None;
        }
        let from = moved(before, velocities, motion);
        entries[index].bytes = plus(DType::F32, &entries[index].bytes, &from);
    }
    Some(entries)
}

/// The coding of an entry that a sample of its values says is the shortest.
pub(super) fn choose(entry: &Entry, base: &Entry, of: Around<'_>) -> Coding {
    let dtype = entry.header.dtype;
    let sampled = |entry: &Entry| Entry {
        header: entry.header.clone(),
        bytes: sample(&entry.bytes, dtype.size()),
    };
    let (now, before) = (sampled(entry), sampled(base));
    let bits = |elements: &[u8]| bits(elements, dtype.size());
    let mut candidates = vec![
        (
            Coding::Difference,
            bits(&minus(dtype, &now.bytes, &before.bytes)),
        ),
        (Coding::Plain, bits(&now.bytes)),
    ];
    if let Some(velocities) = velocities(&entry.header, of.base.entries(), of.state.entries()) {
        let velocities = (&sampled(velocities.0), &sampled(velocities.1));
        let steps = |state: &State| state.entry(STEP_ENTRY).and_then(Entry::to_u64);
        let consecutive = steps(of.base).is_some_and(|s| steps(of.state) == s.checked_add(1));
        let motion = match consecutive {
            true => Motion {
                before: 0.0,
                now: rate(of.base),
            },
            false => fitted(&now, &before, velocities),
        };
        let from = moved(&before, velocities, motion);
        candidates.push((
            Coding::Motion(motion),
            bits(&minus(dtype, &now.bytes, &from)),
        ));
    }
    let shortest = candidates.into_iter().min_by(|a, b| a.1.total_cmp(&b.1));
    shortest.map_or(Coding::Plain, |(coding, _)| coding)
}

/// About so many elements, at equal distances.
fn sample(elements: &[u8], size: usize) -> Vec<u8> {
    let stride = (elements.len() / size / SAMPLED).max(1);
    let taken = elements.chunks_exact(size).step_by(stride);
    taken.flatten().copied().collect()
}

/// Bits that elements need, by the entropy of the bytes of each significance.
fn bits(elements: &[u8], size: usize) -> f64 {
    /// n log₂ n for small n.
    static TABLE: OnceLock<Vec<f64>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let product = |n: u32| f64::from(n) * f64::from(n.max(1)).log2();
        (0..2 * SAMPLED as u32).map(product).collect()
    });
    let product = |n: usize| table.get(n).copied().unwrap_or_default();
    let of_plane = |plane: usize| {
        let mut counts = [0usize; 256];
        let bytes = elements.iter().skip(plane).step_by(size);
        bytes.for_each(|byte| counts[usize::from(*byte)] += 1);
        let total = elements.len() / size;
        product(total) - counts.iter().map(|count| product(*count)).sum::<f64>()
    };
    (0..size).map(of_plane).sum()
}

/// The factors with which velocities explain best, by least squares, how a parameter moved.
fn fitted(entry: &Entry, base: &Entry, (before, now): (&Entry, &Entry)) -> Motion {
    let values = (entry.values().zip(base.values())).zip(before.values().zip(now.values()));
    let (mut aa, mut ab, mut bb, mut ad, mut bd) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for ((x, y), (a, b)) in values {
        let d = y - x;
        aa += a * a;
        ab += a * b;
        bb += b * b;
        ad += a * d;
        bd += b * d;
    }
    // Cramer's rule. Where velocities are too alike, or not finite, what comes out explains nothing and
    // is not chosen.
    let determinant = aa * bb - ab * ab;
    Motion {
        before: ((ad * bb - bd * ab) / determinant) as f32,
        now: ((bd * aa - ad * ab) / determinant) as f32,
    }
}

/// `base − (before · v + now · v')` for the velocities v and v', rounded to `f32` after each operation;
/// `base` where that is not finite.
fn moved(base: &Entry, velocities: (&Entry, &Entry), by: Motion) -> Vec<u8> {
    fn floats(entry: &Entry) -> impl Iterator<Item = f32> + '_ {
        let elements = entry.bytes.as_chunks().0.iter();
        elements.map(|element| f32::from_le_bytes(*element))
    }
    let mut bytes = vec![0; base.bytes.len()];
    let all = floats(base).zip(floats(velocities.0).zip(floats(velocities.1)));
    for (to, (from, (before, now))) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(all) {
        let (of_before, of_now) = (by.before * before, by.now * now);
        let moved = of_before + of_now;
        let after = from - moved;
        let after = if after.is_finite() { after } else { from };
        *to = after.to_bits().to_le_bytes();
    }
    bytes
}

/// The rate that a state's next step uses.
fn rate(state: &State) -> f32 {
    let entry = state.entry(RATE_ENTRY);
    entry.and_then(|entry| entry.values().next()).unwrap_or(0.0) as f32
}

/// What SGD keeps of a parameter's velocity in two states with the same entries, if that is among them and
/// fits.
fn velocities<'e>(
    parameter: &EntryHeader,
    base: &'e [Entry],
    state: &'e [Entry],
) -> Option<(&'e Entry, &'e Entry)> {
    let path = parameter.name.strip_prefix("model/")?;
    let name = format!("optim/{path}/momentum.velocity");
    let at = (base.binary_search_by(|entry| entry.name().cmp(&name))).ok()?;
    let (before, now) = (base.get(at)?, state.get(at)?);
    let fits = before.header.dtype == DType::F32 && parameter.dtype == DType::F32;
    (fits && before.header.shape == parameter.shape).then_some((before, now))
}

/// How far each of `x` is above that of `y` in the order of their type's values, with the sign in the
/// lowest bit: small where the two are close together.
fn minus(dtype: DType, x: &[u8], y: &[u8]) -> Vec<u8> {
    if dtype == DType::F32 {
        // By far the most elements, and the same in registers of their size.
        return of_pairs(x, y, |x, y| {
            let difference = ordered_f32(x).wrapping_sub(ordered_f32(y));
            (difference << 1) ^ ((difference as i32 >> 31) as u32)
        });
    }
    let bits = 8 * dtype.size() as u32;
    of_elements(dtype, x, y, |x, y| {
        let difference = ordered(dtype, x).wrapping_sub(ordered(dtype, y));
        let signed = (difference << (64 - bits)) as i64 >> (64 - bits);
        ((signed << 1) ^ (signed >> 63)) as u64
    })
}

/// Undoes [`minus`].
fn plus(dtype: DType, difference: &[u8], y: &[u8]) -> Vec<u8> {
    // The order's map is its own inverse.
    if dtype == DType::F32 {
        return of_pairs(difference, y, |difference, y| {
            let signed = (difference >> 1) ^ (difference & 1).wrapping_neg();
            ordered_f32(ordered_f32(y).wrapping_add(signed))
        });
    }
    let bits = 8 * dtype.size() as u32;
    of_elements(dtype, difference, y, |difference, y| {
        let signed = (difference >> 1) ^ (difference & 1).wrapping_neg();
        let sum = ordered(dtype, y).wrapping_add(signed) & mask(bits);
        ordered(dtype, sum)
    })
}

/// A function of all pairs of four-byte elements.
fn of_pairs(x: &[u8], y: &[u8], f: impl Fn(u32, u32) -> u32) -> Vec<u8> {
    let mut bytes = vec![0; x.len()];
    let pairs = x.as_chunks::<4>().0.iter().zip(y.as_chunks::<4>().0);
    for (to, (x, y)) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(pairs) {
        *to = f(u32::from_le_bytes(*x), u32::from_le_bytes(*y)).to_le_bytes();
    }
    bytes
}

/// The same for elements of any size.
fn of_elements(dtype: DType, x: &[u8], y: &[u8], f: impl Fn(u64, u64) -> u64) -> Vec<u8> {
    let size = dtype.size();
    let pattern = |bytes: &[u8]| {
        let mut element = [0; 8];
        element[..size].copy_from_slice(bytes);
        u64::from_le_bytes(element)
    };
    let mut bytes = Vec::with_capacity(x.len());
    for (x, y) in x.chunks_exact(size).zip(y.chunks_exact(size)) {
        bytes.extend_from_slice(&f(pattern(x), pattern(y)).to_le_bytes()[..size]);
    }
    bytes
}

/// The pattern of a float as a whole number (two's complement) that grows with it; others as they are.
fn ordered(dtype: DType, pattern: u64) -> u64 {
    let float = matches!(dtype, DType::F64 | DType::F32 | DType::F16 | DType::BF16);
    let bits = 8 * dtype.size() as u32;
    match float && pattern >> (bits - 1) == 1 {
        true => pattern ^ (mask(bits) >> 1),
        false => pattern,
    }
}

const fn ordered_f32(pattern: u32) -> u32 {
    pattern ^ (((pattern as i32 >> 31) as u32) >> 1)
}

const fn mask(bits: u32) -> u64 {
    u64::MAX >> (64 - bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TYPES: [DType; 5] = [DType::F64, DType::F32, DType::BF16, DType::I32, DType::U8];

    proptest! {
        #[test]
        fn a_difference_is_undone(x in any::<[u8; 16]>(), y in any::<[u8; 16]>(), of in 0..TYPES.len()) {
            let dtype = TYPES[of];
            prop_assert_eq!(plus(dtype, &minus(dtype, &x, &y), &y), x);
        }

        #[test]
        fn single_precision_is_no_special_case(x in any::<u32>(), y in any::<u32>()) {
            prop_assert_eq!(u64::from(ordered_f32(x)), ordered(DType::F32, u64::from(x)));
            let general = of_elements(DType::F32, &x.to_le_bytes(), &y.to_le_bytes(), |x, y| {
                let above = ordered(DType::F32, x) as i32;
                let difference = above.wrapping_sub(ordered(DType::F32, y) as i32);
                u64::from(((difference << 1) ^ (difference >> 31)) as u32)
            });
            prop_assert_eq!(minus(DType::F32, &x.to_le_bytes(), &y.to_le_bytes()), general);
        }
    }

    #[test]
    fn floats_close_together_differ_by_little() {
        let difference = |x: f32, y: f32| {
            let bytes = minus(DType::F32, &x.to_le_bytes(), &y.to_le_bytes());
            u32::from_le_bytes(bytes.try_into().unwrap())
        };
        assert_eq!(difference(1.0, 1.0), 0);
        assert_eq!(difference(0.0, -0.0), 2);
        assert_eq!(difference(-0.0, 0.0), 1);
        let next = f32::from_bits(1.0f32.to_bits() + 1);
        assert_eq!(difference(next, 1.0), 2);
        assert_eq!(difference(-next, -1.0), 1);
    }

    #[test]
    fn entropy_is_that_of_each_significance() {
        // Two values, equally often, in the lowest byte alone: one bit each.
        let elements: Vec<u8> = (0..64u32).flat_map(|i| (i % 2).to_le_bytes()).collect();
        assert!((bits(&elements, 4) - 64.0).abs() < 1e-9);
        assert_eq!(bits(&[], 4), 0.0);
    }
}
