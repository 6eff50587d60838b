//! Large vectors: aligned, and used again.
//!
//! A training step makes and drops the same large vectors as the one before. Returned to the system,
//! every page of them would be mapped and cleared anew. And the allocator aligns them to 16 bytes, so
//! that every load and store of a wide register would touch two cache lines.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

/// Shorter vectors are left to the allocator.
const SHORTEST: usize = 1 << 14;
/// The most values that wait: 1 GiB.
const MOST: usize = 1 << 28;
/// Values of a cache line.
const LINE: usize = 16;

static WAITING: Mutex<Waiting> = Mutex::new(Waiting {
    by_length: BTreeMap::new(),
    values: 0,
});

struct Waiting {
    by_length: BTreeMap<usize, Vec<Vec<f32>>>,
    values: usize,
}

/// Values that an operator made: a part of a vector that begins at a cache line, if they are many.
#[derive(Debug, Clone)]
pub struct Values {
    vector: Vec<f32>,
    start: usize,
    len: usize,
}

impl Values {
    /// The vector, and where in it the values begin.
    pub fn into_parts(self) -> (Vec<f32>, usize) {
        (self.vector, self.start)
    }
}

impl From<Vec<f32>> for Values {
    fn from(vector: Vec<f32>) -> Self {
        Self {
            start: 0,
            len: vector.len(),
            vector,
        }
    }
}

impl Deref for Values {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.vector[self.start..self.start + self.len]
    }
}

impl DerefMut for Values {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.vector[self.start..self.start + self.len]
    }
}

impl PartialEq for Values {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

/// `len` values that the caller writes over: what they are is not defined.
pub(crate) fn any(len: usize) -> Values {
    if len < SHORTEST {
        return vec![0.0; len].into();
    }
    let vector = take(len + LINE);
    let start = vector.as_ptr().align_offset(64).min(LINE);
    Values { vector, start, len }
}

/// As [`any`], from the beginning of a vector: Burn adds to such a gradient in place.
pub(crate) fn any_from_start(len: usize) -> Values {
    take(len).into()
}

/// A vector of this length that waits, or a new one.
fn take(len: usize) -> Vec<f32> {
    if len >= SHORTEST {
        let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
        let found = waiting.by_length.entry(len).or_default().pop();
        if let Some(vector) = found {
            waiting.values -= len;
            return vector;
        }
    }
    vec![0.0; len]
}

/// Lets [`any`] hand out this vector again, if vectors of its length were ever asked for.
pub(crate) fn recycle(vector: Vec<f32>) {
    let len = vector.len();
    let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
    if len < SHORTEST || waiting.values + len > MOST {
        return;
    }
    if let Some(same) = waiting.by_length.get_mut(&len) {
        same.push(vector);
        waiting.values += len;
    }
}
