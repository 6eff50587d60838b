//! Long sums as a binary tree over blocks (NUMERICS.md, "Sums").

use std::sync::{Mutex, PoisonError};

use crate::simd::vectorised;

vectorised! {
    /// `sum[i] += addend[i]`.
    pub(super) fn add_into(sum: &mut [f32], addend: &[f32]) {
        for (sum, addend) in sum.iter_mut().zip(addend) {
            *sum += addend;
        }
    }
}

/// The sum of the blocks `0..blocks`, each a vector that `block` makes: one block is itself; more
/// are the sum of the first 2^k, the largest power of two below their number, plus the sum of the
/// rest.
pub(super) fn tree_sum(blocks: usize, block: &(impl Fn(usize) -> Vec<f32> + Sync)) -> Vec<f32> {
    subtree(0, blocks.max(1), block)
}

/// As [`tree_sum`], of blocks that are there already.
pub(super) fn tree_sum_of(blocks: Vec<Vec<f32>>) -> Vec<f32> {
    let blocks: Vec<_> = blocks.into_iter().map(Mutex::new).collect();
    let take = |index: usize| {
        let mut block = blocks[index].lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *block)
    };
    match blocks.is_empty() {
        true => Vec::new(),
        false => tree_sum(blocks.len(), &take),
    }
}

fn subtree(first: usize, count: usize, block: &(impl Fn(usize) -> Vec<f32> + Sync)) -> Vec<f32> {
    if count == 1 {
        return block(first);
    }
    let left = count.next_power_of_two() / 2;
    let (mut sum, right) = rayon::join(
        || subtree(first, left, block),
        || subtree(first + left, count - left, block),
    );
    add_into(&mut sum, &right);
    sum
}
