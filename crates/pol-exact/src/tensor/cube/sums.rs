//! Long sums (NUMERICS.md, "Sums").
//!
//! A cube that sums the pixels of channels has [`CHANNELS`] of them side by side, and [`LANES`] units for each: a
//! unit sums a run of blocks, or of images, as many as a power of two, and the units' sums are a tree.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::arithmetic::{ended, opaque, plus};
use super::launch::{contiguous, dims, launch_cubes};
use crate::shape::{CHANNEL_BLOCK, pixels};

/// Channels of a cube.
pub(super) const CHANNELS: usize = 16;
/// Units for each of them.
pub(super) const LANES: usize = 16;
/// Units of a cube.
pub(super) const UNITS: usize = CHANNELS * LANES;

/// Cubes side by side for so many channels.
pub(super) const fn slabs(width: usize) -> usize {
    width.div_ceil(CHANNELS)
}

/// The sums of `x` over all dimensions but the last.
pub(super) fn column_sums(x: CubeTensor) -> CubeTensor {
    let x = contiguous(x);
    let shape = dims(&x);
    let (width, pixels) = (shape.last().copied().unwrap_or(1), pixels(&shape));
    let images = x.meta.shape().num_elements() / (width * pixels).max(1);
    let sums = match pixels {
        1 => x,
        _ => image_sums(x, images, pixels, width),
    };
    launch_cubes!(finish_kernel::launch, sums; [width]; slabs(width); 0, images, width)
}

/// The sums of each image's channels, `[images, width]`.
pub(super) fn image_sums(x: CubeTensor, images: usize, pixels: usize, width: usize) -> CubeTensor {
    launch_cubes!(
        image_sums_kernel::launch, x; [images, width]; images * slabs(width);
        0, images, pixels, width
    )
}

/// Levels of a binary counter up to so many.
pub(super) const fn levels(most: usize) -> usize {
    (usize::BITS - most.leading_zeros()) as usize
}

/// What each of [`LANES`] units takes of so many: a power of two, so that the units' sums are those of subtrees.
pub(super) const fn share(count: usize) -> usize {
    count.div_ceil(LANES).next_power_of_two()
}

/// Adds the next value to a binary counter, of which level i holds the sum of 2^i; `count` were added before.
#[cube]
pub(super) fn push(
    held: &mut Array<f32>,
    count: usize,
    value: f32,
    zero: u32,
    #[comptime] levels: usize,
) {
    let mut sum = opaque(value, zero);
    let mut carries = true;
    #[unroll]
    for level in 0..levels {
        if carries {
            if (count >> level) & 1usize == 1usize {
                sum = plus(held[level], sum, zero);
            } else {
                held[level] = sum;
                carries = false;
            }
        }
    }
}

/// The tree over all that were added.
#[cube]
pub(super) fn collect(
    held: &Array<f32>,
    count: usize,
    zero: u32,
    #[comptime] levels: usize,
) -> f32 {
    let mut sum = f32::reinterpret(zero);
    let mut any = false;
    #[unroll]
    for level in 0..levels {
        if (count >> level) & 1usize == 1usize {
            if any {
                sum = plus(held[level], sum, zero);
            } else {
                sum = held[level];
                any = true;
            }
        }
    }
    sum
}

/// The tree over the values of a channel's first `lanes` units, for all of its units.
#[cube]
pub(super) fn lanes_tree(
    value: f32,
    shared: &mut Shared<[f32]>,
    zero: u32,
    #[comptime] lanes: usize,
) -> f32 {
    let at = UNIT_POS as usize;
    let (lane, channel) = (at / CHANNELS, at % CHANNELS);
    // What was there has been read.
    sync_cube();
    shared[at] = value;
    sync_cube();
    #[unroll]
    for level in 0..4usize {
        let step = comptime![1usize << level];
        if lane % (2 * step) == 0 && lane + step < lanes {
            shared[at] = plus(shared[at], shared[at + step * CHANNELS], zero);
        }
        sync_cube();
    }
    shared[channel]
}

/// The tree over `images` values of a channel, the first at `first`, `step` apart.
#[cube]
pub(super) fn images_tree(
    sums: &[f32],
    first: usize,
    step: usize,
    is_there: bool,
    shared: &mut Shared<[f32]>,
    zero: u32,
    #[comptime] images: usize,
) -> f32 {
    let share = comptime![share(images)];
    let levels = comptime![levels(share)];
    let mut held = Array::<f32>::new(levels);
    let mut count = 0usize.runtime();
    if is_there {
        let from = UNIT_POS as usize / CHANNELS * share;
        for image in from..min(from + share, images) {
            push(&mut held, count, sums[first + image * step], zero, levels);
            count += 1;
        }
    }
    let value = collect(&held, count, zero, levels);
    lanes_tree(value, shared, zero, comptime![images.div_ceil(share)])
}

/// This unit's channel.
#[cube]
pub(super) fn unit_channel(#[comptime] width: usize) -> usize {
    CUBE_POS % comptime![slabs(width)] * CHANNELS + UNIT_POS as usize % CHANNELS
}

/// This cube's image. Cubes beyond the last repeat it.
#[cube]
pub(super) fn cube_image(#[comptime] images: usize, #[comptime] width: usize) -> usize {
    min(CUBE_POS / comptime![slabs(width)], comptime![images - 1])
}

#[cube(launch)]
fn image_sums_kernel(
    x: &[f32],
    sums: &mut [f32],
    zero: u32,
    #[comptime] images: usize,
    #[comptime] pixels: usize,
    #[comptime] width: usize,
) {
    let (image, channel) = (cube_image(images, width), unit_channel(width));
    let lane = UNIT_POS as usize / CHANNELS;
    let blocks = comptime![pixels.div_ceil(CHANNEL_BLOCK)];
    let share = comptime![share(blocks)];
    let levels = comptime![levels(share)];
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let mut held = Array::<f32>::new(levels);
    let mut count = 0usize.runtime();
    if channel < width {
        for block in lane * share..min((lane + 1) * share, blocks) {
            let mut sum = f32::reinterpret(zero);
            for pixel in block * CHANNEL_BLOCK..min((block + 1) * CHANNEL_BLOCK, pixels) {
                sum = plus(sum, x[(image * pixels + pixel) * width + channel], zero);
            }
            push(&mut held, count, sum, zero, levels);
            count += 1;
        }
    }
    let value = collect(&held, count, zero, levels);
    let sum = lanes_tree(value, &mut shared, zero, comptime![blocks.div_ceil(share)]);
    if lane == 0 && channel < width {
        sums[image * width + channel] = sum;
    }
}

#[cube(launch)]
fn finish_kernel(
    partials: &[f32],
    sums: &mut [f32],
    zero: u32,
    #[comptime] images: usize,
    #[comptime] width: usize,
) {
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let channel = unit_channel(width);
    let sum = images_tree(
        partials,
        channel,
        width,
        channel < width,
        &mut shared,
        zero,
        images,
    );
    if (UNIT_POS as usize) < CHANNELS && channel < width {
        sums[channel] = sum;
    }
}

/// The tree over `[images, blocks]` values, the first at `first`, `step` apart; a fused sum's end follows.
#[cube]
pub(super) fn tree_of(
    partials: &[f32],
    first: usize,
    step: usize,
    zero: u32,
    #[comptime] images: usize,
    #[comptime] blocks: usize,
) -> f32 {
    let (levels, inner) = (comptime![levels(images)], comptime![levels(blocks)]);
    let mut held = Array::<f32>::new(levels);
    for image in 0..images {
        let from = first + image * blocks * step;
        let mut sum = partials[from];
        if comptime![blocks > 1] {
            let mut held_here = Array::<f32>::new(inner);
            for block in 0..blocks {
                push(
                    &mut held_here,
                    block,
                    partials[from + block * step],
                    zero,
                    inner,
                );
            }
            sum = collect(&held_here, blocks.runtime(), zero, inner);
        }
        push(&mut held, image, sum, zero, levels);
    }
    ended(collect(&held, images.runtime(), zero, levels), zero)
}
