//! Trees of sums (NUMERICS.md, "Sums").

use super::buffers::recycle;
use crate::shape::WeightBlock;
use crate::simd::vectorised;

vectorised! {
    /// `sum[i] += addend[i]`.
    fn add_into(sum: &mut [f32], addend: &[f32]) {
        for (sum, addend) in sum.iter_mut().zip(addend) {
            *sum += addend;
        }
    }
}

vectorised! {
    /// The end of fused sums: no zero is negative.
    pub(super) fn end(sums: &mut [f32]) {
        for sum in sums {
            *sum += 0.0;
        }
    }
}

/// The sum of the vectors `0..count` that `of` makes: one is itself; more are the sum of the first 2^k, the
/// largest power of two below their number, plus the sum of the rest.
pub(super) fn tree_sum(count: usize, of: &(impl Fn(usize) -> Vec<f32> + Sync)) -> Vec<f32> {
    subtree(0, count.max(1), of)
}

fn subtree(first: usize, count: usize, of: &(impl Fn(usize) -> Vec<f32> + Sync)) -> Vec<f32> {
    if count == 1 {
        return of(first);
    }
    let left = count.next_power_of_two() / 2;
    let (mut sum, right) = rayon::join(
        || subtree(first, left, of),
        || subtree(first + left, count - left, of),
    );
    add_into(&mut sum, &right);
    recycle(right);
    sum
}

/// The sum of vectors of `len` values that lie one after the other, in the first of them.
pub(super) fn tree_in_place(vectors: &mut [f32], len: usize) {
    let len = len.max(1);
    let mut step = len;
    while step < vectors.len() {
        for pair in vectors.chunks_mut(2 * step) {
            if let Some((left, right)) = pair.split_at_mut_checked(step) {
                let right = &right[..len.min(right.len())];
                add_into(&mut left[..right.len()], right);
            }
        }
        step *= 2;
    }
}

/// A part of a batch: some images, or some rows of one.
pub(super) struct BatchPart {
    pub(super) images: std::ops::Range<usize>,
    /// Of each image's output.
    pub(super) rows: std::ops::Range<usize>,
}

/// The long sum over the pixels of a weight: `of` makes the sum of `group` blocks, or of what is left. `group` is a
/// power of two, and 1 where blocks are rows.
pub(super) fn weight_sum(
    batch: usize,
    output: [usize; 2],
    group: usize,
    of: &(impl Fn(BatchPart) -> Vec<f32> + Sync),
) -> Vec<f32> {
    let [rows, _] = output;
    match WeightBlock::of(output) {
        WeightBlock::Images(images) => {
            let images = images * group;
            tree_sum(batch.div_ceil(images), &|index| {
                of(BatchPart {
                    images: index * images..batch.min((index + 1) * images),
                    rows: 0..rows,
                })
            })
        }
        WeightBlock::Rows(some) => tree_sum(batch, &|image| {
            tree_sum(rows.div_ceil(some), &|index| {
                of(BatchPart {
                    images: image..image + 1,
                    rows: index * some..rows.min((index + 1) * some),
                })
            })
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_in_place_is_the_tree() {
        for count in 1..40 {
            let vectors: Vec<f32> = (0..2 * count).map(|i| (i as f32).sin()).collect();
            let tree = tree_sum(count, &|i| vectors[2 * i..2 * i + 2].to_vec());
            let mut found = vectors.clone();
            tree_in_place(&mut found, 2);
            assert_eq!(found[..2], tree[..], "{count}");
        }
    }
}
