//! What reading a stored state may cost, and what the state has to look like. Both are compared with what an
//! object says of itself before its values are decompressed.

use crate::model_file::is_model;
use crate::state::EntryHeader;

use super::{MAX_OBJECT_BYTES, ObjectError};

/// States' worth of memory that decompressing one takes, beside its compressed values: its base, its values
/// before they are put in order, and itself.
const HELD: u64 = 3;
/// Bytes that an entry takes beside its name, its shape and its values.
const ENTRY_BYTES: u64 = 128;

/// What reading a state may cost, and which tensors it has to have.
#[derive(Debug, Clone, Copy)]
pub struct Limits<'l> {
    /// The tensors that it has to have.
    pub layout: Layout<'l>,
    /// Bytes of memory that reading may take. Smaller states are read whatever this says: see
    /// [`Resources`](crate::verify::Resources).
    pub memory: u64,
}

/// Which tensors a state has to have.
#[derive(Debug, Clone, Copy)]
pub enum Layout<'l> {
    /// Whichever it has.
    Any,
    /// These, in this order.
    Exactly(&'l [EntryHeader]),
    /// The entries `model/…` among these; others as it likes.
    ModelOf(&'l [EntryHeader]),
}

impl Layout<'_> {
    /// Whether a state may have the tensors `found`.
    pub fn admits(&self, found: &[EntryHeader]) -> bool {
        let model = |header: &&EntryHeader| is_model(&header.name);
        match self {
            Self::Any => true,
            Self::Exactly(expected) => *expected == found,
            Self::ModelOf(expected) => {
                (expected.iter().filter(model)).eq(found.iter().filter(model))
            }
        }
    }
}

impl Limits<'_> {
    /// No limits but those of the format.
    pub const NONE: Self = Self {
        layout: Layout::Any,
        memory: u64::MAX,
    };

    /// The longest object file that may be read, in bytes. It is held twice while it is taken apart.
    pub(super) fn file(&self) -> u64 {
        self.by_format().min(self.memory / 2)
    }

    /// The longest object file that a state can need: compression never makes one much larger than its
    /// values are.
    pub(super) fn by_format(&self) -> u64 {
        let Layout::Exactly(layout) = self.layout else {
            return MAX_OBJECT_BYTES;
        };
        let values: u64 = layout.iter().filter_map(EntryHeader::byte_len).sum();
        let headers = 1024 * layout.len() as u64;
        (values + values / 8 + headers + (64 << 10)).min(MAX_OBJECT_BYTES)
    }

    /// Refuses to decompress a state with these tensors from `compressed` bytes of values.
    pub(super) fn check(
        &self,
        layout: &[EntryHeader],
        compressed: usize,
    ) -> Result<(), ObjectError> {
        if !self.layout.admits(layout) {
            return Err(ObjectError::OtherLayout(layout.to_vec()));
        }
        let needed = HELD.saturating_mul(held_bytes(layout)) + compressed as u64;
        match needed <= self.memory {
            true => Ok(()),
            false => Err(ObjectError::Memory {
                needed,
                allowed: self.memory,
            }),
        }
    }
}

/// Bytes of memory that a state with these tensors takes: its values, and what names them.
pub fn held_bytes<'h>(layout: impl IntoIterator<Item = &'h EntryHeader>) -> u64 {
    let held = layout.into_iter().map(|header| {
        let named = header.name.len() as u64 + 8 * header.shape.len() as u64;
        let values = header.byte_len().unwrap_or(u64::MAX);
        values.saturating_add(named + ENTRY_BYTES)
    });
    held.fold(0, u64::saturating_add)
}
