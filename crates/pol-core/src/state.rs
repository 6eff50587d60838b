//! The canonical state (SPEC.md §5): everything that the next step depends on, as named tensors
//! and scalars sorted by name. Its digest does not depend on how Burn identifies parameters, on
//! map order, on thread count or on the file format.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Tagged};
use crate::learner::LearnerError;
use crate::merkle::Tree;
use crate::model_file::is_model;

/// The entry that counts the steps made; every state has it.
pub const STEP_ENTRY: &str = "schedule/step";
/// The entry with the learning rate that the next step will use.
pub const RATE_ENTRY: &str = "schedule/learning_rate";
/// The longest name of an entry, in bytes.
pub const MAX_NAME_BYTES: usize = 512;
/// The highest rank of a tensor.
pub const MAX_RANK: usize = 8;
/// The most entries of a state.
pub const MAX_ENTRIES: usize = 65_536;

/// The element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are the usual ones")]
pub enum DType {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
}

impl DType {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// The name used in digests and files, `f32` for example.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F64 => "f64",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::I64 => "i64",
            Self::I32 => "i32",
            Self::I16 => "i16",
            Self::I8 => "i8",
            Self::U64 => "u64",
            Self::U32 => "u32",
            Self::U16 => "u16",
            Self::U8 => "u8",
            Self::Bool => "bool",
        }
    }

    /// One element, little-endian, as a number.
    fn value(self, bytes: &[u8]) -> f64 {
        fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
            std::array::from_fn(|i| bytes[i])
        }
        match self {
            Self::F64 => f64::from_le_bytes(array(bytes)),
            Self::F32 => f64::from(f32::from_le_bytes(array(bytes))),
            Self::F16 => half::f16::from_le_bytes(array(bytes)).to_f64(),
            Self::BF16 => half::bf16::from_le_bytes(array(bytes)).to_f64(),
            Self::I64 => i64::from_le_bytes(array(bytes)) as f64,
            Self::I32 => f64::from(i32::from_le_bytes(array(bytes))),
            Self::I16 => f64::from(i16::from_le_bytes(array(bytes))),
            Self::I8 => f64::from(bytes[0] as i8),
            Self::U64 => u64::from_le_bytes(array(bytes)) as f64,
            Self::U32 => f64::from(u32::from_le_bytes(array(bytes))),
            Self::U16 => f64::from(u16::from_le_bytes(array(bytes))),
            Self::U8 | Self::Bool => f64::from(bytes[0]),
        }
    }
}

/// The name, element type and shape of an entry: all of it but the values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntryHeader {
    /// `model/<path>`, `optim/<path>/<field>` or `schedule/<field>`.
    pub name: String,
    /// The element type.
    pub dtype: DType,
    /// The shape; empty for a scalar.
    pub shape: Vec<u64>,
}

impl EntryHeader {
    /// The length of the values in bytes, or `None` where it overflows.
    pub fn byte_len(&self) -> Option<u64> {
        self.shape
            .iter()
            .try_fold(self.dtype.size() as u64, |len, &dim| len.checked_mul(dim))
    }

    /// Checks the name, the rank and the length of the values.
    pub(crate) fn check(&self) -> Result<(), StateError> {
        let name_ok = !self.name.is_empty()
            && self.name.len() <= MAX_NAME_BYTES
            && !self.name.chars().any(char::is_control);
        if !name_ok {
            return Err(StateError::Name(
                self.name.escape_debug().take(80).collect(),
            ));
        }
        if self.shape.len() > MAX_RANK || self.byte_len().is_none() {
            return Err(StateError::Shape {
                name: self.name.clone(),
                shape: self.shape.clone(),
            });
        }
        Ok(())
    }
}

/// A named tensor or scalar.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name, element type and shape.
    pub header: EntryHeader,
    /// The values in row-major order, little-endian.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EntryHeader { name, dtype, shape } = &self.header;
        write!(f, "{name}: {} {shape:?}", dtype.name())
    }
}

impl Entry {
    /// A tensor of `dtype` and `shape` with these little-endian bytes.
    pub fn tensor(name: impl Into<String>, dtype: DType, shape: Vec<u64>, bytes: Vec<u8>) -> Self {
        Self {
            header: EntryHeader {
                name: name.into(),
                dtype,
                shape,
            },
            bytes,
        }
    }

    /// A tensor of 32-bit floats.
    pub fn f32(name: impl Into<String>, shape: Vec<u64>, values: &[f32]) -> Self {
        let mut bytes = Vec::with_capacity(4 * values.len());
        bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        Self::tensor(name, DType::F32, shape, bytes)
    }

    /// A scalar counter.
    pub fn u64(name: impl Into<String>, value: u64) -> Self {
        Self::tensor(name, DType::U64, vec![], value.to_le_bytes().to_vec())
    }

    /// A scalar signed integer.
    pub fn i64(name: impl Into<String>, value: i64) -> Self {
        Self::tensor(name, DType::I64, vec![], value.to_le_bytes().to_vec())
    }

    /// A scalar number.
    pub fn f64(name: impl Into<String>, value: f64) -> Self {
        Self::tensor(name, DType::F64, vec![], value.to_le_bytes().to_vec())
    }

    /// A scalar truth value.
    pub fn bool(name: impl Into<String>, value: bool) -> Self {
        Self::tensor(name, DType::Bool, vec![], vec![u8::from(value)])
    }

    /// The entry's name.
    pub fn name(&self) -> &str {
        &self.header.name
    }

    /// The value of a scalar counter.
    pub fn to_u64(&self) -> Option<u64> {
        let scalar = self.header.dtype == DType::U64 && self.header.shape.is_empty();
        scalar
            .then(|| {
                self.bytes
                    .as_slice()
                    .try_into()
                    .ok()
                    .map(u64::from_le_bytes)
            })
            .flatten()
    }

    /// All values as numbers, in row-major order.
    pub fn values(&self) -> impl Iterator<Item = f64> + '_ {
        let dtype = self.header.dtype;
        self.bytes
            .chunks_exact(dtype.size())
            .map(move |bytes| dtype.value(bytes))
    }

    /// Whether no value is infinite or not a number.
    pub fn is_finite(&self) -> bool {
        if self.header.dtype != DType::F32 {
            return self.values().all(f64::is_finite);
        }
        // By far the most entries: all exponent bits set is infinity or NaN.
        let exponent = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes) & 0x7f80_0000;
        let values = self.bytes.as_chunks().0.iter();
        values.fold(0, |largest, bytes| exponent(bytes).max(largest)) != 0x7f80_0000
    }

    /// The leaf of this entry in the state's tree:
    /// `H("pol.v1.entry", name, dtype, shape, bytes)`.
    pub fn digest(&self) -> Digest {
        let shape: Vec<u8> = (self.header.shape.iter())
            .flat_map(|dim| dim.to_le_bytes())
            .collect();
        Tagged::new("pol.v1.entry")
            .part(self.header.name.as_bytes())
            .part(self.header.dtype.name().as_bytes())
            .part(&shape)
            .part(&self.bytes)
            .finish()
    }
}

/// Everything that the next step depends on: entries in ascending order of their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    entries: Vec<Entry>,
}

/// Why a list of entries is not a state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// A name that is empty, too long or holds control characters.
    #[error("`{0}` cannot be the name of a tensor (empty, too long, or with control characters)")]
    Name(String),
    /// Two entries of one name.
    #[error("the state has two entries named `{0}`")]
    Repeated(String),
    /// A shape of too high a rank or too many elements.
    #[error("`{name}` has the impossible shape {shape:?}")]
    Shape {
        /// The entry.
        name: String,
        /// Its shape.
        shape: Vec<u64>,
    },
    /// Values that do not fill the shape.
    #[error("`{name}` holds {found} bytes where its shape needs {expected}")]
    Length {
        /// The entry.
        name: String,
        /// Bytes by its shape.
        expected: u64,
        /// Bytes present.
        found: u64,
    },
    /// Too many entries.
    #[error("the state has {0} entries; the limit is {MAX_ENTRIES}")]
    TooMany(usize),
}

impl State {
    /// Sorts `entries` by name and checks them.
    ///
    /// # Errors
    /// [`StateError`] names the entry at fault.
    pub fn new(mut entries: Vec<Entry>) -> Result<Self, StateError> {
        entries.sort_by(|a, b| a.name().cmp(b.name()));
        if entries.len() > MAX_ENTRIES {
            return Err(StateError::TooMany(entries.len()));
        }
        for entry in &entries {
            entry.header.check()?;
            let expected = entry.header.byte_len().unwrap_or(u64::MAX);
            if expected != entry.bytes.len() as u64 {
                return Err(StateError::Length {
                    name: entry.name().to_owned(),
                    expected,
                    found: entry.bytes.len() as u64,
                });
            }
        }
        match entries.windows(2).find(|w| w[0].name() == w[1].name()) {
            Some(pair) => Err(StateError::Repeated(pair[0].name().to_owned())),
            None => Ok(Self { entries }),
        }
    }

    /// The entries in ascending order of their names.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry of this name.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        let found = self.entries.binary_search_by(|e| e.name().cmp(name)).ok()?;
        Some(&self.entries[found])
    }

    /// The bytes of all values together.
    pub fn byte_len(&self) -> u64 {
        self.entries.iter().map(|e| e.bytes.len() as u64).sum()
    }

    /// Names, element types and shapes, in order.
    pub fn layout(&self) -> impl Iterator<Item = &EntryHeader> {
        self.entries.iter().map(|entry| &entry.header)
    }

    /// This state with the model of another: the start of a fine-tuning.
    ///
    /// # Errors
    /// [`LearnerError::Unfit`] if the other's model has other tensors.
    pub fn with_model_of(&self, other: &Self) -> Result<Self, LearnerError> {
        let model = |state: &Self| -> Vec<EntryHeader> {
            let headers = state.layout().filter(|header| is_model(&header.name));
            headers.cloned().collect()
        };
        if model(self) != model(other) {
            return Err(LearnerError::Unfit(
                "the model to start from has other tensors than this recipe's".to_owned(),
            ));
        }
        let entries = self.entries.iter().map(|entry| {
            let taken = is_model(entry.name()).then(|| other.entry(entry.name()));
            taken.flatten().unwrap_or(entry).clone()
        });
        Ok(Self {
            entries: entries.collect(),
        })
    }

    /// The root of the Merkle tree over the entries' leaves (SPEC.md §5).
    pub fn digest(&self) -> Digest {
        let leaves: Vec<Digest> = self.entries.iter().map(Entry::digest).collect();
        Tree::State.root(&leaves)
    }
}

/// The part of a state that an entry belongs to; distances are reported for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// What the optimizer updates.
    Parameters,
    /// Model state that is not trained: BatchNorm's running statistics, frozen weights.
    Buffers,
    /// The optimizer's own state.
    Optimizer,
    /// Step counter and learning rate.
    Schedule,
}

impl Part {
    /// The part by the name's prefix alone, where parameters and buffers cannot be told apart.
    pub fn by_prefix(name: &str) -> Self {
        match name.split('/').next() {
            Some("optim") => Self::Optimizer,
            Some("schedule") => Self::Schedule,
            _ => Self::Parameters,
        }
    }

    /// The part's name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Parameters => "parameters",
            Self::Buffers => "buffers",
            Self::Optimizer => "optimizer",
            Self::Schedule => "schedule",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Vec<Entry> {
        vec![
            Entry::f32("model/w", vec![2], &[1.0, -0.0]),
            Entry::u64("schedule/step", 3),
            Entry::f32("model/b", vec![1], &[0.5]),
        ]
    }

    #[test]
    fn the_digest_does_not_depend_on_the_order_of_collection() {
        let mut reversed = entries();
        reversed.reverse();
        assert_eq!(
            State::new(entries()).unwrap().digest(),
            State::new(reversed).unwrap().digest()
        );
    }

    #[test]
    fn name_type_shape_and_every_value_are_in_the_digest() {
        let base = State::new(entries()).unwrap().digest();
        let changes: [fn(&mut Vec<Entry>); 5] = [
            |e| e[0].header.name = "model/v".into(),
            |e| e[0].header.dtype = DType::I32,
            |e| e[0].header.shape = vec![2, 1],
            |e| e[0].bytes[7] ^= 0x80, // −0 becomes +0
            |e| drop(e.pop()),
        ];
        for change in changes {
            let mut changed = entries();
            change(&mut changed);
            assert_ne!(base, State::new(changed).unwrap().digest());
        }
    }

    #[test]
    fn impossible_states_are_refused() {
        let with = |entry: Entry| {
            let mut all = entries();
            all.push(entry);
            State::new(all)
        };
        assert!(with(Entry::u64("model/w", 0)).is_err());
        assert!(with(Entry::u64("", 0)).is_err());
        assert!(with(Entry::u64("a\u{1b}[2J", 0)).is_err());
        assert!(with(Entry::f32("x", vec![3], &[1.0])).is_err());
        assert!(with(Entry::f32("x", vec![u64::MAX, 8], &[])).is_err());
        assert!(with(Entry::f32("x", vec![1; 9], &[1.0])).is_err());
    }

    #[test]
    fn a_value_that_is_not_a_number_is_seen() {
        assert!(!Entry::f32("x", vec![2], &[0.0, f32::NAN]).is_finite());
        assert!(!Entry::f32("x", vec![1], &[f32::INFINITY]).is_finite());
        assert!(Entry::f32("x", vec![1], &[f32::MAX]).is_finite());
    }
}
