//! How values are laid out before they are compressed (SPEC.md §11).
//!
//! Signs and exponents of weights are alike and compress, the rest of a weight hardly does. So bytes of
//! one significance stand together, over all entries. And late in a training states hardly differ, so
//! that of their difference only the low bytes are left.

use std::io::Read;

use crate::state::{DType, Entry, EntryHeader, RATE_ENTRY, STEP_ENTRY, State};

use super::ObjectError;

/// Level 1 loses nothing to higher ones on values laid out like this.
const ZSTD_LEVEL: i32 = 1;
/// The largest window that a frame may ask for, 2²³ bytes: what decompressing costs beside its result.
const MAX_WINDOW_LOG: u32 = 23;
/// Elements of an entry that a choice of its coding looks at.
const SAMPLED: usize = 4096;

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
        let (motions, rest) = motions.as_chunks::<8>();
        let mut motions = motions.iter();
        let codings = (kinds.iter())
            .map(|kind| match kind {
                0 => Some(Coding::Plain),
                1 => Some(Coding::Difference),
                2 => {
                    let [a, b, c, d, e, f, g, h] = *motions.next()?;
                    Some(Coding::Motion(Motion {
                        before: f32::from_le_bytes([a, b, c, d]),
                        now: f32::from_le_bytes([e, f, g, h]),
                    }))
                }
                _ => None,
            })
            .collect::<Option<_>>()?;
        (rest.is_empty() && motions.next().is_none()).then_some(codings)
    }
}

/// The values of a state: for each element size, largest first, all first bytes of all elements, then all
/// second bytes, and so on.
pub(super) struct Planes {
    bytes: Vec<u8>,
    classes: [Class; 4],
}

/// The elements of one size.
#[derive(Clone, Copy)]
struct Class {
    size: usize,
    start: usize,
    count: usize,
    /// Elements written or read so far.
    at: usize,
}

impl Planes {
    /// Room for the values of entries like these.
    pub(super) fn new<'h>(layout: impl Iterator<Item = &'h EntryHeader>) -> Self {
        let classes = classes(layout);
        let total = classes.iter().map(|class| class.size * class.count).sum();
        Self {
            bytes: vec![0; total],
            classes,
        }
    }

    /// Adds an entry's values as they are.
    pub(super) fn push_whole(&mut self, entry: &Entry) {
        self.write(entry.header.dtype.size(), patterns(entry));
    }

    /// Adds an entry's values in this coding.
    pub(super) fn push(&mut self, entry: &Entry, base: &Entry, coding: Coding, of: Around<'_>) {
        let dtype = entry.header.dtype;
        match coding {
            Coding::Plain => self.write(dtype.size(), patterns(entry)),
            Coding::Difference => {
                let values = patterns(entry).zip(patterns(base));
                self.write(dtype.size(), values.map(|(x, y)| minus(dtype, x, y)));
            }
            Coding::Motion(motion) => {
                let velocities = velocities(&entry.header, of.base.entries(), of.state.entries());
                let Some(velocities) = velocities else { return };
                let values = patterns(entry).zip(moved(base, velocities, motion));
                self.write(dtype.size(), values.map(|(x, z)| minus(dtype, x, z)));
            }
        }
    }

    /// One zstd frame of all that was added.
    pub(super) fn compress(&self) -> std::io::Result<Vec<u8>> {
        zstd::bulk::compress(&self.bytes, ZSTD_LEVEL)
    }

    /// Decompresses the `expected` bytes that a layout needs. Memory grows only with what really comes
    /// out.
    pub(super) fn decompress(
        layout: &[EntryHeader],
        expected: u64,
        compressed: &[u8],
    ) -> Result<Self, ObjectError> {
        let likely = expected.min(64 * compressed.len() as u64);
        let mut bytes = Vec::with_capacity(likely as usize);
        let complete = zstd::stream::read::Decoder::new(compressed)
            .and_then(|mut decoder| {
                decoder.window_log_max(MAX_WINDOW_LOG)?;
                decoder.take(expected + 1).read_to_end(&mut bytes)
            })
            .is_ok();
        if !complete || bytes.len() as u64 != expected {
            return Err(ObjectError::Compressed { expected });
        }
        Ok(Self {
            bytes,
            classes: classes(layout.iter()),
        })
    }

    /// The entries of a state that is stored as a whole.
    pub(super) fn whole(mut self, layout: Vec<EntryHeader>) -> Vec<Entry> {
        let entry = |header: EntryHeader| {
            let bytes = self.read(&header, |element| element);
            Entry { header, bytes }
        };
        layout.into_iter().map(entry).collect()
    }

    /// The entries of a state that is stored as a difference from `base`, one coding for each. `None`
    /// where a coding does not fit its entry.
    pub(super) fn differing(mut self, base: &State, codings: &[Coding]) -> Option<Vec<Entry>> {
        let mut entries: Vec<Entry> = Vec::with_capacity(codings.len());
        for (before, coding) in base.entries().iter().zip(codings) {
            let header = before.header.clone();
            let dtype = header.dtype;
            let bytes = match coding {
                Coding::Plain => self.read(&header, |element| element),
                Coding::Difference => {
                    let mut base = patterns(before);
                    self.read(&header, |difference| {
                        plus(dtype, difference, base.next().unwrap_or(0))
                    })
                }
                // Differences, until the velocities are there.
                Coding::Motion(_) => self.read(&header, |element| element),
            };
            entries.push(Entry { header, bytes });
        }
        let is_motion = |name: &str| {
            let at = (base.entries().iter()).position(|entry| entry.name() == name);
            at.is_some_and(|at| matches!(codings[at], Coding::Motion(_)))
        };
        for (index, before) in base.entries().iter().enumerate() {
            let Coding::Motion(motion) = codings[index] else {
                continue;
            };
            let velocities = velocities(&before.header, base.entries(), &entries)?;
            if is_motion(velocities.1.name()) {
                return None;
            }
            let dtype = before.header.dtype;
            let values = patterns(&entries[index]).zip(moved(before, velocities, motion));
            let bytes = values.flat_map(|(difference, from)| {
                (plus(dtype, difference, from) as u32).to_le_bytes()
            });
            entries[index].bytes = bytes.collect();
        }
        Some(entries)
    }

    fn write(&mut self, size: usize, elements: impl Iterator<Item = u64>) {
        let Some(class) = self.classes.iter_mut().find(|class| class.size == size) else {
            return;
        };
        let (start, count, at) = (class.start, class.count, class.at);
        let mut written = 0;
        if let [a, b, c, d] = &mut planes_of(&mut self.bytes, start, count, size)[..] {
            // By far the most elements have four bytes.
            let to =
                (a[at..].iter_mut().zip(&mut b[at..])).zip(c[at..].iter_mut().zip(&mut d[at..]));
            for (element, ((a, b), (c, d))) in elements.zip(to) {
                [*a, *b, *c, *d] = (element as u32).to_le_bytes();
                written += 1;
            }
        } else {
            for element in elements {
                for (plane, byte) in element.to_le_bytes()[..size].iter().enumerate() {
                    self.bytes[start + plane * count + at + written] = *byte;
                }
                written += 1;
            }
        }
        class.at += written;
    }

    /// The next entry's bytes, each element passed through `undo`.
    fn read(&mut self, header: &EntryHeader, mut undo: impl FnMut(u64) -> u64) -> Vec<u8> {
        let size = header.dtype.size();
        // Lengths were checked when the state's size was.
        let count = header.byte_len().unwrap_or(0) as usize / size;
        let Some(class) = self.classes.iter_mut().find(|class| class.size == size) else {
            return Vec::new();
        };
        let from = class.at;
        class.at += count;
        let plane = |plane: usize| {
            let start = class.start + plane * class.count + from;
            &self.bytes[start..start + count]
        };
        let mut bytes = Vec::with_capacity(count * size);
        if size == 4 {
            let elements = (plane(0).iter().zip(plane(1))).zip(plane(2).iter().zip(plane(3)));
            for ((a, b), (c, d)) in elements {
                let element = undo(u64::from(u32::from_le_bytes([*a, *b, *c, *d])));
                bytes.extend_from_slice(&(element as u32).to_le_bytes());
            }
        } else {
            let planes: Vec<&[u8]> = (0..size).map(plane).collect();
            for index in 0..count {
                let mut element = [0; 8];
                for (byte, plane) in element.iter_mut().zip(&planes) {
                    *byte = plane[index];
                }
                let element = undo(u64::from_le_bytes(element));
                bytes.extend_from_slice(&element.to_le_bytes()[..size]);
            }
        }
        bytes
    }
}

/// The two states that a difference lies between.
#[derive(Clone, Copy)]
pub(super) struct Around<'s> {
    pub(super) state: &'s State,
    pub(super) base: &'s State,
}

/// The coding of an entry that a sample of its values says is the shortest.
pub(super) fn choose(entry: &Entry, base: &Entry, of: Around<'_>) -> Coding {
    let dtype = entry.header.dtype;
    let count = entry.bytes.len() / dtype.size();
    let stride = (count / SAMPLED).max(1);
    let bits = |elements: &mut dyn Iterator<Item = u64>| {
        let mut histogram = Histogram::default();
        elements.for_each(|element| histogram.add(element));
        histogram.bits(dtype.size())
    };
    let sampled = || patterns(entry).zip(patterns(base)).step_by(stride);
    let difference = bits(&mut sampled().map(|(x, y)| minus(dtype, x, y)));
    let plain = bits(&mut sampled().map(|(x, _)| x));
    let mut candidates = vec![(Coding::Difference, difference), (Coding::Plain, plain)];
    if let Some(velocities) = velocities(&entry.header, of.base.entries(), of.state.entries()) {
        let steps = |state: &State| state.entry(STEP_ENTRY).and_then(Entry::to_u64);
        let consecutive = steps(of.base).is_some_and(|s| steps(of.state) == s.checked_add(1));
        let motion = match consecutive {
            true => Motion {
                before: 0.0,
                now: rate(of.base),
            },
            false => fitted(entry, base, velocities, stride),
        };
        let values = patterns(entry).zip(moved(base, velocities, motion));
        let of_motion = bits(&mut values.step_by(stride).map(|(x, z)| minus(dtype, x, z)));
        candidates.push((Coding::Motion(motion), of_motion));
    }
    let shortest = candidates.into_iter().min_by(|a, b| a.1.total_cmp(&b.1));
    shortest.map_or(Coding::Plain, |(coding, _)| coding)
}

/// The factors with which velocities explain best, by least squares, how a parameter moved.
fn fitted(entry: &Entry, base: &Entry, (before, now): (&Entry, &Entry), stride: usize) -> Motion {
    let values = (entry.values().zip(base.values())).zip(before.values().zip(now.values()));
    let (mut aa, mut ab, mut bb, mut ad, mut bd) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for ((x, y), (a, b)) in values.step_by(stride) {
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

/// How often each byte occurs at each significance.
struct Histogram([[u32; 256]; 8]);

impl Default for Histogram {
    fn default() -> Self {
        Self([[0; 256]; 8])
    }
}

impl Histogram {
    fn add(&mut self, element: u64) {
        for (plane, byte) in self.0.iter_mut().zip(element.to_le_bytes()) {
            plane[usize::from(byte)] += 1;
        }
    }

    /// Bits that elements of this size need, by the entropy of each significance.
    fn bits(&self, size: usize) -> f64 {
        let of_plane = |plane: &[u32; 256]| -> f64 {
            let total = f64::from(plane.iter().sum::<u32>());
            let occurring = plane.iter().filter(|count| **count > 0);
            occurring
                .map(|&count| -f64::from(count) * (f64::from(count) / total).log2())
                .sum()
        };
        self.0[..size].iter().map(of_plane).sum()
    }
}

fn classes<'h>(layout: impl Iterator<Item = &'h EntryHeader>) -> [Class; 4] {
    let mut classes = [8, 4, 2, 1].map(|size| Class {
        size,
        start: 0,
        count: 0,
        at: 0,
    });
    for header in layout {
        let size = header.dtype.size();
        let count = header.byte_len().unwrap_or(0) as usize / size;
        (classes.iter_mut().filter(|class| class.size == size)).for_each(|c| c.count += count);
    }
    let mut start = 0;
    for class in &mut classes {
        class.start = start;
        start += class.size * class.count;
    }
    classes
}

/// The planes of one class, apart.
fn planes_of(bytes: &mut [u8], start: usize, count: usize, size: usize) -> Vec<&mut [u8]> {
    match count {
        0 => Vec::new(),
        _ => bytes[start..start + size * count]
            .chunks_mut(count)
            .collect(),
    }
}

/// An entry's elements as whole numbers, by their bytes.
fn patterns(entry: &Entry) -> impl Iterator<Item = u64> + '_ {
    let size = entry.header.dtype.size();
    entry.bytes.chunks_exact(size).map(|bytes| {
        let mut element = [0; 8];
        element[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(element)
    })
}

/// The patterns of `base − (before · v + now · v')` for the velocities v and v', rounded to `f32` after each
/// operation; of `base` where that is not finite.
fn moved<'s>(
    base: &'s Entry,
    velocities: (&'s Entry, &'s Entry),
    by: Motion,
) -> impl Iterator<Item = u64> + use<'s> {
    let float = |bits: u64| f32::from_bits(bits as u32);
    let velocities = patterns(velocities.0).zip(patterns(velocities.1));
    (patterns(base).zip(velocities)).map(move |(from, (before, now))| {
        let (of_before, of_now) = (by.before * float(before), by.now * float(now));
        let moved = of_before + of_now;
        let after = float(from) - moved;
        match after.is_finite() {
            true => u64::from(after.to_bits()),
            false => from,
        }
    })
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

/// How far `x` is above `y` in the order of their type's values, with the sign in the lowest bit: small
/// where the two are close together.
fn minus(dtype: DType, x: u64, y: u64) -> u64 {
    let difference = ordered(dtype, x).wrapping_sub(ordered(dtype, y));
    let bits = 8 * dtype.size() as u32;
    let signed = (difference << (64 - bits)) as i64 >> (64 - bits);
    ((signed << 1) ^ (signed >> 63)) as u64 & mask(bits)
}

/// Undoes [`minus`].
fn plus(dtype: DType, difference: u64, y: u64) -> u64 {
    let signed = (difference >> 1) ^ (difference & 1).wrapping_neg();
    let bits = 8 * dtype.size() as u32;
    let sum = ordered(dtype, y).wrapping_add(signed) & mask(bits);
    // The order's map is its own inverse.
    ordered(dtype, sum)
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
        fn a_difference_is_undone(x in any::<u64>(), y in any::<u64>(), of in 0..TYPES.len()) {
            let dtype = TYPES[of];
            let mask = mask(8 * dtype.size() as u32);
            let (x, y) = (x & mask, y & mask);
            prop_assert!(minus(dtype, x, y) <= mask);
            prop_assert_eq!(plus(dtype, minus(dtype, x, y), y), x);
        }
    }

    #[test]
    fn floats_close_together_differ_by_little() {
        let bits = |value: f32| u64::from(value.to_bits());
        assert_eq!(minus(DType::F32, bits(1.0), bits(1.0)), 0);
        assert_eq!(minus(DType::F32, bits(0.0), bits(-0.0)), 2);
        assert_eq!(minus(DType::F32, bits(-0.0), bits(0.0)), 1);
        let next = f32::from_bits(1.0f32.to_bits() + 1);
        assert_eq!(minus(DType::F32, bits(next), bits(1.0)), 2);
        assert_eq!(minus(DType::F32, bits(-next), bits(-1.0)), 1);
    }
}
