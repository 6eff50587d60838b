//! Shapes of operators, and the sizes that follow from them.

/// Pixels in a block of a long sum over the pixels of a channel (NUMERICS.md, "Sums").
pub const CHANNEL_BLOCK: usize = 4;

/// Pixels in a block of a long sum over the pixels of a weight, about.
const WEIGHT_BLOCK: usize = 512;

/// The most images in such a block.
const MOST_IMAGES: usize = 8;

/// What a block of a long sum over the pixels of a weight holds (NUMERICS.md, "Sums").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightBlock {
    /// So many whole images.
    Images(usize),
    /// So many rows of one image, an even number: every image begins a new block.
    Rows(usize),
}

impl WeightBlock {
    /// For images of so many rows and columns of outputs.
    pub const fn of([rows, columns]: [usize; 2]) -> Self {
        let pixels = rows * columns;
        if pixels >= WEIGHT_BLOCK {
            let pairs = WEIGHT_BLOCK / 2 / columns;
            return Self::Rows(if pairs == 0 { 2 } else { 2 * pairs });
        }
        match WEIGHT_BLOCK.checked_div(pixels) {
            None => Self::Images(1),
            Some(images) if images > MOST_IMAGES => Self::Images(MOST_IMAGES),
            Some(images) => Self::Images(images),
        }
    }

    /// For the rows of a matrix.
    pub const fn of_matrix() -> Self {
        Self::of([1, 1])
    }
}

/// Pixels of an image in a tensor of these dimensions, the last its channels: 1 if it has no spatial dimensions.
pub fn pixels(dims: &[usize]) -> usize {
    let inner = dims.get(1..dims.len().saturating_sub(1)).unwrap_or(&[]);
    inner.iter().product()
}

/// A two-dimensional convolution with zero padding, one group, no dilation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConvShape {
    /// Images.
    pub batch: usize,
    /// Channels of the input.
    pub channels_in: usize,
    /// Rows and columns of the input.
    pub input: [usize; 2],
    /// Channels of the output.
    pub channels_out: usize,
    /// Rows and columns of the kernel.
    pub kernel: [usize; 2],
    /// Steps between outputs, in rows and columns.
    pub stride: [usize; 2],
    /// Zeros around the input, above and below, left and right; less than the kernel's size.
    pub padding: [usize; 2],
}

impl ConvShape {
    /// # Panics
    /// If no kernel fits the padded input, or a size is zero, or the padding is not less than the
    /// kernel.
    pub fn check(&self) {
        for dim in 0..2 {
            let (size, kernel) = (self.input[dim], self.kernel[dim]);
            let (stride, padding) = (self.stride[dim], self.padding[dim]);
            assert!(
                kernel > 0
                    && stride > 0
                    && padding < kernel
                    && size > 0
                    && size + 2 * padding >= kernel,
                "a kernel of {kernel} with stride {stride} and padding {padding} does not fit {size}"
            );
        }
    }

    /// Whether it is computed by Winograd's minimal filtering (NUMERICS.md, "Convolution"): a 3×3
    /// kernel without stride, and at least 16 channels on both sides.
    pub const fn is_winograd(&self) -> bool {
        self.kernel[0] == 3
            && self.kernel[1] == 3
            && self.stride[0] == 1
            && self.stride[1] == 1
            && self.channels_in >= 16
            && self.channels_out >= 16
    }

    /// Rows and columns of 2×2 tiles that cover the output.
    pub const fn tiles(&self) -> [usize; 2] {
        let [rows, columns] = self.output();
        [rows.div_ceil(2), columns.div_ceil(2)]
    }

    /// The convolution that gives the gradient of the input, for a stride of one: from the output's
    /// gradient, with the kernel turned around.
    pub const fn transposed(&self) -> Self {
        Self {
            batch: self.batch,
            channels_in: self.channels_out,
            input: self.output(),
            channels_out: self.channels_in,
            kernel: self.kernel,
            stride: [1, 1],
            padding: [
                self.kernel[0] - 1 - self.padding[0],
                self.kernel[1] - 1 - self.padding[1],
            ],
        }
    }

    /// Rows and columns of the output.
    pub const fn output(&self) -> [usize; 2] {
        [self.output_size(0), self.output_size(1)]
    }

    const fn output_size(&self, dim: usize) -> usize {
        (self.input[dim] + 2 * self.padding[dim] - self.kernel[dim]) / self.stride[dim] + 1
    }

    /// Products in an output.
    pub const fn depth(&self) -> usize {
        self.kernel[0] * self.kernel[1] * self.channels_in
    }

    /// Blocks of the weights' gradient: `[images, blocks of an image]`; where a block holds several images,
    /// `[blocks, 1]`.
    pub const fn weight_blocks(&self) -> [usize; 2] {
        match WeightBlock::of(self.output()) {
            WeightBlock::Images(images) => [self.batch.div_ceil(images), 1],
            WeightBlock::Rows(rows) => [self.batch, self.output()[0].div_ceil(rows)],
        }
    }

    /// Pixels of such a block, unless it is the last, and of an image of the output.
    pub const fn weight_block_pixels(&self) -> [usize; 2] {
        let [rows, columns] = self.output();
        match WeightBlock::of(self.output()) {
            WeightBlock::Images(images) => [images * rows * columns, rows * columns],
            WeightBlock::Rows(some) => [some * columns, rows * columns],
        }
    }

    /// Tiles of such a block, and of an image.
    pub const fn weight_block_tiles(&self) -> [usize; 2] {
        let [rows, columns] = self.tiles();
        match WeightBlock::of(self.output()) {
            WeightBlock::Images(images) => [images * rows * columns, rows * columns],
            WeightBlock::Rows(some) => [some / 2 * columns, rows * columns],
        }
    }

    /// The shape of the input.
    pub const fn input_dims(&self) -> [usize; 4] {
        [self.batch, self.input[0], self.input[1], self.channels_in]
    }

    /// The shape of the output.
    pub const fn output_dims(&self) -> [usize; 4] {
        let [rows, columns] = self.output();
        [self.batch, rows, columns, self.channels_out]
    }

    /// The shape of the weights.
    pub const fn weight_dims(&self) -> [usize; 4] {
        [
            self.channels_out,
            self.channels_in,
            self.kernel[0],
            self.kernel[1],
        ]
    }

    /// Values in the input.
    pub const fn input_len(&self) -> usize {
        self.batch * self.input[0] * self.input[1] * self.channels_in
    }

    /// Values in the output.
    pub const fn output_len(&self) -> usize {
        let [rows, columns] = self.output();
        self.batch * rows * columns * self.channels_out
    }

    /// Values in the weights.
    pub const fn weight_len(&self) -> usize {
        self.depth() * self.channels_out
    }
}

/// Pooling over windows without padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PoolShape {
    /// Images.
    pub batch: usize,
    /// Channels.
    pub channels: usize,
    /// Rows and columns of the input.
    pub input: [usize; 2],
    /// Rows and columns of a window.
    pub window: [usize; 2],
    /// Steps between windows.
    pub stride: [usize; 2],
}

impl PoolShape {
    /// Rows and columns of the output.
    pub const fn output(&self) -> [usize; 2] {
        [
            (self.input[0] - self.window[0]) / self.stride[0] + 1,
            (self.input[1] - self.window[1]) / self.stride[1] + 1,
        ]
    }

    /// The shape of the input.
    pub const fn input_dims(&self) -> [usize; 4] {
        [self.batch, self.input[0], self.input[1], self.channels]
    }

    /// The shape of the output.
    pub const fn output_dims(&self) -> [usize; 4] {
        let [rows, columns] = self.output();
        [self.batch, rows, columns, self.channels]
    }

    /// The channels; a constant where that is not 0.
    pub(crate) const fn channels_or<const CHANNELS: usize>(&self) -> usize {
        match CHANNELS {
            0 => self.channels,
            known => known,
        }
    }

    /// Values of an image of the input.
    pub(crate) const fn image(&self) -> usize {
        self.input[0] * self.input[1] * self.channels
    }

    /// Values of an image of the output.
    pub(crate) const fn output_image(&self) -> usize {
        let [rows, columns] = self.output();
        rows * columns * self.channels
    }
}

/// A shortcut without parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ShortcutShape {
    /// Images.
    pub batch: usize,
    /// Rows and columns of the input.
    pub input: [usize; 2],
    /// Channels of the input.
    pub channels_in: usize,
    /// Channels of the output; at least as many.
    pub channels_out: usize,
    /// Rows and columns are taken in steps of this.
    pub stride: usize,
}

impl ShortcutShape {
    /// Rows and columns of the output.
    pub const fn output(&self) -> [usize; 2] {
        [
            self.input[0].div_ceil(self.stride),
            self.input[1].div_ceil(self.stride),
        ]
    }

    /// The shape of the input.
    pub const fn input_dims(&self) -> [usize; 4] {
        [self.batch, self.input[0], self.input[1], self.channels_in]
    }

    /// The shape of the output.
    pub const fn output_dims(&self) -> [usize; 4] {
        let [rows, columns] = self.output();
        [self.batch, rows, columns, self.channels_out]
    }

    /// New channels ahead of those of the input: half of them, rounded down.
    pub const fn before(&self) -> usize {
        (self.channels_out - self.channels_in) / 2
    }

    /// Where the input that output pixel `pixel` shows begins.
    pub(crate) const fn input_of(&self, pixel: usize) -> usize {
        let [rows, columns] = self.output();
        let (n, r, c) = (
            pixel / columns / rows,
            pixel / columns % rows,
            pixel % columns,
        );
        let (r, c) = (r * self.stride, c * self.stride);
        ((n * self.input[0] + r) * self.input[1] + c) * self.channels_in
    }
}
