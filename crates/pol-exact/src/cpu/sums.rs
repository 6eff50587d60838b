//! Long sums over the pixels of a channel (NUMERICS.md, "Sums"): blocks of four pixels, each image's as a tree, and
//! a tree over the images.

use std::ops::Range;

use rayon::prelude::*;

use super::tree::tree_in_place;
use crate::shape::CHANNEL_BLOCK;
use crate::simd::{WIDTH, vectorised};

/// Values that one task sums, about.
const TASK: usize = 1 << 14;

/// The sum of each column of `x`, `[images, pixels, width]`, over all else.
pub fn column_sums(x: &[f32], width: usize, pixels: usize) -> Vec<f32> {
    if pixels == 1 {
        // A block of one pixel: +0 and its value.
        let mut sums: Vec<f32> = x.iter().map(|x| 0.0 + x).collect();
        tree_in_place(&mut sums, width);
        sums.truncate(width);
        return sums;
    }
    channel_sums(x.len(), pixels * width, width, |part, sums| {
        plain(&x[part], sums);
    })
}

/// The tree over the sums `[width]` of images of `image` values, `len` in all, that `of` makes.
pub(super) fn channel_sums(
    len: usize,
    image: usize,
    width: usize,
    of: impl Fn(Range<usize>, &mut [f32]) + Sync,
) -> Vec<f32> {
    let image = image.max(1);
    let mut sums = vec![0.0; len.div_ceil(image).max(1) * width];
    (sums.par_chunks_mut(width.max(1)).enumerate())
        .with_min_len(TASK.div_ceil(image))
        .for_each(|(index, sums)| of(index * image..len.min((index + 1) * image), sums));
    tree_in_place(&mut sums, width);
    sums.truncate(width);
    sums
}

/// What is summed, `SUMS` sums of a channel at once.
pub(super) trait Terms<const SUMS: usize> {
    /// Adds the terms of a pixel's channels from `channel`, the first of which is at `at`.
    fn add<const LANES: usize>(
        &mut self,
        sums: &mut [[f32; LANES]; SUMS],
        at: usize,
        channel: usize,
    );
}

struct Plain<'a>(&'a [f32]);

impl Terms<1> for Plain<'_> {
    #[inline(always)]
    fn add<const LANES: usize>(&mut self, sums: &mut [[f32; LANES]; 1], at: usize, _: usize) {
        let x = &self.0[at..][..LANES];
        for l in 0..LANES {
            sums[0][l] += x[l];
        }
    }
}

vectorised! {
    fn plain(x: &[f32], sums: &mut [f32]) {
        let channels = sums.len();
        tree_of_pixels::<4, 1>(&mut Plain(x), x.len(), channels, [sums]);
    }
}

/// Trees of up to 2^32 times the blocks that are summed side by side.
const LEVELS: usize = 32;

/// For each channel of one image of `len` values the tree of its blocks, one vector `[channels]` for each sum.
///
/// `SIDE` blocks, 2 or 4, are summed side by side: what is added to one waits for nothing that is added to another.
#[inline(always)]
pub(super) fn tree_of_pixels<const SIDE: usize, const SUMS: usize>(
    terms: &mut impl Terms<SUMS>,
    len: usize,
    channels: usize,
    mut to: [&mut [f32]; SUMS],
) {
    let whole = channels / WIDTH * WIDTH;
    for channel in (0..whole).step_by(WIDTH) {
        let sums = tree_of_lanes::<SIDE, WIDTH, SUMS>(terms, len, channels, channel);
        for (to, sums) in to.iter_mut().zip(sums) {
            to[channel..][..WIDTH].copy_from_slice(&sums);
        }
    }
    for channel in whole..channels {
        let sums = tree_of_lanes::<SIDE, 1, SUMS>(terms, len, channels, channel);
        for (to, [sum]) in to.iter_mut().zip(sums) {
            to[channel] = sum;
        }
    }
}

#[inline(always)]
fn tree_of_lanes<const SIDE: usize, const LANES: usize, const SUMS: usize>(
    terms: &mut impl Terms<SUMS>,
    len: usize,
    channels: usize,
    channel: usize,
) -> [[f32; LANES]; SUMS] {
    let pixels = len / channels;
    let block = CHANNEL_BLOCK * channels;
    // A binary counter: level i holds the sum of 2^i times the blocks that are summed side by side.
    let mut levels = [[[0.0; LANES]; SUMS]; LEVELS];
    let mut count = 0usize;
    while (count + 1) * SIDE * CHANNEL_BLOCK <= pixels {
        let first = count * SIDE * block + channel;
        let mut blocks = [[[0.0; LANES]; SUMS]; SIDE];
        for pixel in 0..CHANNEL_BLOCK {
            for (index, sums) in blocks.iter_mut().enumerate() {
                terms.add(sums, first + index * block + pixel * channels, channel);
            }
        }
        let mut sum = plus(&blocks[0], &blocks[1]);
        if SIDE == 4 {
            sum = plus(&sum, &plus(&blocks[2], &blocks[3]));
        }
        let mut level = 0;
        while count >> level & 1 == 1 {
            sum = plus(&levels[level], &sum);
            level += 1;
        }
        levels[level] = sum;
        count += 1;
    }
    // What is left is at most as many blocks, the last not full: a sum of pairs, and one that waits.
    let mut sum = None;
    let mut waiting = None;
    for first in (count * SIDE * CHANNEL_BLOCK..pixels).step_by(CHANNEL_BLOCK) {
        let mut sums = [[0.0; LANES]; SUMS];
        for pixel in first..pixels.min(first + CHANNEL_BLOCK) {
            terms.add(&mut sums, pixel * channels + channel, channel);
        }
        (sum, waiting) = match (sum, waiting) {
            (None, None) => (None, Some(sums)),
            (None, Some(left)) => (Some(plus(&left, &sums)), None),
            (Some(pair), None) => (Some(pair), Some(sums)),
            (Some(pair), Some(left)) => (Some(plus(&pair, &plus(&left, &sums))), None),
        };
    }
    sum = joined(sum, waiting);
    for (level, held) in levels.iter().enumerate() {
        if count >> level == 0 {
            break;
        }
        if count >> level & 1 == 1 {
            sum = joined(Some(*held), sum);
        }
    }
    sum.unwrap_or([[0.0; LANES]; SUMS])
}

#[inline(always)]
fn plus<const LANES: usize, const SUMS: usize>(
    left: &[[f32; LANES]; SUMS],
    right: &[[f32; LANES]; SUMS],
) -> [[f32; LANES]; SUMS] {
    let mut sums = *left;
    for (sums, right) in sums.iter_mut().zip(right) {
        for (sum, right) in sums.iter_mut().zip(right) {
            *sum += right;
        }
    }
    sums
}

#[inline(always)]
fn joined<const LANES: usize, const SUMS: usize>(
    left: Option<[[f32; LANES]; SUMS]>,
    right: Option<[[f32; LANES]; SUMS]>,
) -> Option<[[f32; LANES]; SUMS]> {
    match (left, right) {
        (Some(left), Some(right)) => Some(plus(&left, &right)),
        (left, right) => left.or(right),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::tree::tree_sum;
    use crate::shape::CHANNEL_BLOCK;

    #[test]
    fn an_image_of_any_size_is_a_tree_of_blocks() {
        for pixels in 1..200usize {
            for channels in [1, 16, 19] {
                let x: Vec<f32> = (0..pixels * channels).map(|i| (i as f32).sin()).collect();
                let tree = tree_sum(pixels.div_ceil(CHANNEL_BLOCK), &|block| {
                    let first = block * CHANNEL_BLOCK;
                    let pixels = first..pixels.min(first + CHANNEL_BLOCK);
                    (0..channels)
                        .map(|c| pixels.clone().fold(0.0, |sum, p| sum + x[p * channels + c]))
                        .collect()
                });
                let mut found = vec![0.0; channels];
                plain(&x, &mut found);
                assert_eq!(found, tree, "{pixels} pixels, {channels} channels");
            }
        }
    }
}
