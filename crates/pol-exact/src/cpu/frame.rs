//! Zero padding.

use crate::simd::Aligned;

/// An image in a frame of zeros.
pub(super) struct Frame {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) channels: usize,
    /// Rows above and columns to the left.
    pub(super) before: [usize; 2],
    /// Rows below and columns to the right.
    pub(super) after: [usize; 2],
}

impl Frame {
    pub(super) const fn len(&self) -> usize {
        self.rows * self.columns * self.channels
    }

    pub(super) const fn padded_columns(&self) -> usize {
        self.before[1] + self.columns + self.after[1]
    }

    pub(super) fn scratch(&self) -> Aligned {
        match self.before == [0, 0] && self.after == [0, 0] {
            true => Aligned::zeros(0),
            false => {
                let rows = self.before[0] + self.rows + self.after[0];
                Aligned::zeros(rows * self.padded_columns() * self.channels)
            }
        }
    }

    /// The image in its frame; `scratch` is [`Frame::scratch`], or what an earlier call left.
    pub(super) fn pad<'a>(&self, image: &'a [f32], scratch: &'a mut [f32]) -> &'a [f32] {
        if scratch.is_empty() {
            return image;
        }
        let row = self.columns * self.channels;
        let padded_row = self.padded_columns() * self.channels;
        for r in 0..self.rows {
            let to = (self.before[0] + r) * padded_row + self.before[1] * self.channels;
            scratch[to..to + row].copy_from_slice(&image[r * row..(r + 1) * row]);
        }
        scratch
    }
}
