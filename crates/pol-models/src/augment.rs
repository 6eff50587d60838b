//! Augmentation of images, each draw derived from (seed, epoch, record).

use pol_core::random::Stream;

use crate::model::ImageShape;

/// How a training image is varied. The padding of crops is black, before normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Augmentation {
    /// Not at all.
    None,
    /// A crop out of the image padded by 4 on each side, and a horizontal flip with
    /// probability ½ (He et al., 2016, §4.2).
    CropFlip,
    /// The same, then a rotation by up to 15° either way, nearest neighbour: what the reference
    /// implementation of Jia et al. (2021) does for CIFAR-100.
    CropFlipRotate,
}

const PADDING: i64 = 4;
const MAX_DEGREES: f64 = 15.0;

impl Augmentation {
    /// The names used in recipes.
    pub const NAMES: [(&'static str, Self); 3] = [
        ("none", Self::None),
        ("crop-flip", Self::CropFlip),
        ("crop-flip-rotate", Self::CropFlipRotate),
    ];

    /// The augmentation of this name.
    pub fn named(name: &str) -> Option<Self> {
        let found = Self::NAMES.iter().find(|(known, _)| *known == name)?;
        Some(found.1)
    }

    /// Whether nothing is drawn.
    pub fn is_none(self) -> bool {
        self == Self::None
    }

    /// Varies the planar `pixels` of one image. Draws, in this order: the crop's row and column,
    /// the flip, the angle.
    pub fn apply(self, pixels: &[u8], image: ImageShape, stream: &mut Stream) -> Vec<u8> {
        if self.is_none() {
            return pixels.to_vec();
        }
        let offsets = 2 * PADDING as u64 + 1;
        let down = stream.below(offsets) as i64 - PADDING;
        let right = stream.below(offsets) as i64 - PADDING;
        let flip = stream.below(2) == 1;
        let cropped = crop(pixels, image, down, right, flip);
        if self == Self::CropFlip {
            return cropped;
        }
        let angle = (stream.unit() * 2.0 - 1.0) * MAX_DEGREES * std::f64::consts::PI / 180.0;
        let (sin, cos) = (libm::sin(angle), libm::cos(angle));
        let middle_row = (image.height as f64 - 1.0) / 2.0;
        let middle_column = (image.width as f64 - 1.0) / 2.0;
        remap(&cropped, image, |row, column| {
            let (y, x) = (row as f64 - middle_row, column as f64 - middle_column);
            let source_row = libm::floor(cos * y - sin * x + middle_row + 0.5);
            let source_column = libm::floor(sin * y + cos * x + middle_column + 0.5);
            (source_row as i64, source_column as i64)
        })
    }
}

/// The image moved up by `down` rows and to the left by `right` columns, from the right to the left if `flip`.
fn crop(pixels: &[u8], image: ImageShape, down: i64, right: i64, flip: bool) -> Vec<u8> {
    let (height, width) = (image.height as i64, image.width as i64);
    let mut result = vec![0; pixels.len()];
    // Columns of the source that are taken.
    let taken = right.max(0) as usize..(width + right).clamp(0, width) as usize;
    let first = (-right).clamp(0, width) as usize;
    let rows = (result.chunks_exact_mut(image.width)).zip(0i64..);
    for (to, row) in rows {
        let from_row = row % height + down;
        if !(0..height).contains(&from_row) || taken.is_empty() {
            continue;
        }
        let from = ((row / height * height + from_row) * width) as usize;
        to[first..first + taken.len()]
            .copy_from_slice(&pixels[from + taken.start..from + taken.end]);
        if flip {
            to.reverse();
        }
    }
    result
}

/// Builds each channel by taking the pixel at `source(row, column)`, or black outside.
fn remap(pixels: &[u8], image: ImageShape, source: impl Fn(i64, i64) -> (i64, i64)) -> Vec<u8> {
    let (height, width) = (image.height as i64, image.width as i64);
    let plane = image.height * image.width;
    let mut result = vec![0; pixels.len()];
    for row in 0..height {
        for column in 0..width {
            let (from_row, from_column) = source(row, column);
            if !(0..height).contains(&from_row) || !(0..width).contains(&from_column) {
                continue;
            }
            let to = (row * width + column) as usize;
            let from = (from_row * width + from_column) as usize;
            for channel in 0..image.channels {
                result[channel * plane + to] = pixels[channel * plane + from];
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use pol_core::digest::tagged;
    use pol_core::random::{Purpose, Seed};

    const IMAGE: ImageShape = ImageShape {
        channels: 2,
        height: 8,
        width: 8,
    };

    fn augmented(augmentation: Augmentation, epoch: u64, record: u64) -> Vec<u8> {
        let pixels: Vec<u8> = (0..128).map(|value| value + 1).collect();
        let seed = Seed::from_digest(tagged("test", &[]));
        let mut stream = seed.stream(Purpose::Augmentation { epoch, record });
        augmentation.apply(&pixels, IMAGE, &mut stream)
    }

    #[test]
    fn draws_depend_on_epoch_and_record_alone() {
        for augmentation in [Augmentation::CropFlip, Augmentation::CropFlipRotate] {
            assert_eq!(augmented(augmentation, 1, 5), augmented(augmentation, 1, 5));
            let views: std::collections::BTreeSet<Vec<u8>> = (0..10)
                .map(|record| augmented(augmentation, 1, record))
                .collect();
            assert!(views.len() > 5, "{augmentation:?} hardly varies");
        }
    }

    #[test]
    fn a_crop_moves_both_channels_alike() {
        for record in 0..20 {
            let view = augmented(Augmentation::CropFlip, 0, record);
            let (red, green) = view.split_at(64);
            for (r, g) in red.iter().zip(green) {
                assert!((*r == 0 && *g == 0) || *g == *r + 64);
            }
        }
    }

    #[test]
    fn a_crop_takes_each_pixel_from_where_it_was() {
        let pixels: Vec<u8> = (0..128).map(|value| value + 1).collect();
        for down in -9..=9 {
            for right in -9..=9 {
                for flip in [false, true] {
                    let expected = remap(&pixels, IMAGE, |row, column| {
                        let column = if flip { 7 - column } else { column };
                        (row + down, column + right)
                    });
                    assert_eq!(crop(&pixels, IMAGE, down, right, flip), expected);
                }
            }
        }
    }

    #[test]
    fn no_rotation_is_the_identity_and_a_small_one_keeps_the_middle() {
        let pixels: Vec<u8> = (0..128).collect();
        assert_eq!(remap(&pixels, IMAGE, |r, c| (r, c)), pixels);
        let view = augmented(Augmentation::CropFlipRotate, 3, 3);
        assert!(view.iter().any(|&p| p != 0));
    }
}
