//! Large vectors, used again.
//!
//! A training step makes and drops the same large vectors as the one before. Returned to the system,
//! every page of them would be mapped and cleared anew.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Shorter vectors are left to the allocator.
const SHORTEST: usize = 1 << 14;
/// The most values that wait: 1 GiB.
const MOST: usize = 1 << 28;

static WAITING: Mutex<Waiting> = Mutex::new(Waiting {
    by_length: BTreeMap::new(),
    values: 0,
});

struct Waiting {
    by_length: BTreeMap<usize, Vec<Vec<f32>>>,
    values: usize,
}

/// A vector of `len` values that the caller writes over: what they are is not defined.
pub(crate) fn any(len: usize) -> Vec<f32> {
    if len >= SHORTEST {
        let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(vector) = waiting.by_length.get_mut(&len).and_then(Vec::pop) {
            waiting.values -= len;
            return vector;
        }
    }
    vec![0.0; len]
}

/// Lets [`any`] hand out this vector again.
#[cfg_attr(
    not(feature = "burn"),
    expect(dead_code, reason = "slices belong to the caller")
)]
pub(crate) fn recycle(vector: Vec<f32>) {
    let len = vector.len();
    if len < SHORTEST || vector.capacity() > 2 * len {
        return;
    }
    let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
    if waiting.values + len <= MOST {
        waiting.values += len;
        waiting.by_length.entry(len).or_default().push(vector);
    }
}
