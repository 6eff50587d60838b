//! How values are laid out before they are compressed (SPEC.md §11): bytes of one significance together,
//! over all entries. Signs and exponents of weights are alike and compress, the rest of a weight hardly
//! does.

use std::io::Read;

use crate::state::EntryHeader;

use super::ObjectError;

/// Level 1 loses nothing to higher ones on values laid out like this.
const ZSTD_LEVEL: i32 = 1;
/// The largest window that a frame may ask for, 2²³ bytes: what decompressing costs beside its result.
const MAX_WINDOW_LOG: u32 = 23;

/// The values of a state: for each element size, largest first, all first bytes of all elements, then all
/// second bytes, and so on.
pub(super) struct Planes {
    bytes: Vec<u8>,
    classes: [Class; 4],
}

/// The elements of one size.
#[derive(Clone, Copy)]
struct Class {
    size: usize,
    start: usize,
    count: usize,
    /// Elements written or read so far.
    at: usize,
}

impl Planes {
    /// Room for the values of entries like these.
    pub(super) fn new<'h>(layout: impl Iterator<Item = &'h EntryHeader>) -> Self {
        let classes = classes(layout);
        let total = classes.iter().map(|class| class.size * class.count).sum();
        Self {
            bytes: vec![0; total],
            classes,
        }
    }

    /// Adds elements of this size.
    pub(super) fn push(&mut self, size: usize, elements: &[u8]) {
        let Some(class) = self.classes.iter_mut().find(|class| class.size == size) else {
            return;
        };
        let count = elements.len() / size;
        let from = class.at;
        class.at += count;
        let all = &mut self.bytes[class.start..class.start + size * class.count];
        let planes = all.chunks_mut(class.count.max(1));
        for (plane, to) in planes.enumerate() {
            let to = &mut to[from..from + count];
            match size {
                4 => scatter::<4>(elements, plane, to),
                8 => scatter::<8>(elements, plane, to),
                2 => scatter::<2>(elements, plane, to),
                _ => to.copy_from_slice(elements),
            }
        }
    }

    /// The next elements of an entry like this one.
    pub(super) fn next(&mut self, header: &EntryHeader) -> Vec<u8> {
        let size = header.dtype.size();
        // Lengths were checked when the state's size was.
        let count = header.byte_len().unwrap_or(0) as usize / size;
        let Some(class) = self.classes.iter_mut().find(|class| class.size == size) else {
            return Vec::new();
        };
        let from = class.at;
        class.at += count;
        let plane = |plane: usize| {
            let start = class.start + plane * class.count + from;
            &self.bytes[start..start + count]
        };
        match size {
            4 => gather(std::array::from_fn::<_, 4, _>(plane)),
            8 => gather(std::array::from_fn::<_, 8, _>(plane)),
            2 => gather(std::array::from_fn::<_, 2, _>(plane)),
            _ => plane(0).to_vec(),
        }
    }

    /// One zstd frame of all that was added.
    pub(super) fn compress(self) -> std::io::Result<Vec<u8>> {
        zstd::bulk::compress(&self.bytes, ZSTD_LEVEL)
    }

    /// Decompresses the `expected` bytes that a layout needs. Memory grows only with what really comes
    /// out.
    pub(super) fn decompress(
        layout: &[EntryHeader],
        expected: u64,
        compressed: &[u8],
    ) -> Result<Self, ObjectError> {
        let bytes =
            decompressed(expected, compressed).map_err(|_| ObjectError::Compressed { expected })?;
        Ok(Self {
            bytes,
            classes: classes(layout.iter()),
        })
    }
}

/// What one zstd frame stands for, if that is `expected` bytes. A frame that says otherwise of itself is not
/// begun with. Memory grows with what comes out: it is doubled so that it ends at `expected`.
fn decompressed(expected: u64, compressed: &[u8]) -> std::io::Result<Vec<u8>> {
    let other = || std::io::Error::from(std::io::ErrorKind::InvalidData);
    match zstd::zstd_safe::get_frame_content_size(compressed) {
        Ok(said) if said.is_none_or(|said| said == expected) => {}
        _ => return Err(other()),
    }
    let mut decoder = zstd::stream::read::Decoder::new(compressed)?;
    decoder.window_log_max(MAX_WINDOW_LOG)?;
    let expected = usize::try_from(expected).map_err(|_| other())?;
    let likely = compressed.len().saturating_mul(64);
    let mut room = expected;
    while room > likely {
        room = room.div_ceil(2);
        if room == 1 {
            break;
        }
    }
    let mut bytes = vec![0; room];
    decoder.read_exact(&mut bytes)?;
    while bytes.len() < expected {
        let came = bytes.len();
        let room = (2 * came).min(expected);
        bytes.reserve_exact(room - came);
        bytes.resize(room, 0);
        decoder.read_exact(&mut bytes[came..])?;
    }
    match decoder.read(&mut [0])? {
        0 => Ok(bytes),
        _ => Err(other()),
    }
}

/// Takes one byte of each element.
fn scatter<const SIZE: usize>(elements: &[u8], plane: usize, to: &mut [u8]) {
    for (to, element) in to.iter_mut().zip(elements.as_chunks::<SIZE>().0) {
        *to = element[plane];
    }
}

/// Puts elements together from their bytes.
fn gather<const SIZE: usize>(planes: [&[u8]; SIZE]) -> Vec<u8> {
    let count = planes[0].len();
    let planes = planes.map(|plane| &plane[..count]);
    let mut elements = vec![0; SIZE * count];
    for (index, element) in elements.as_chunks_mut::<SIZE>().0.iter_mut().enumerate() {
        *element = planes.map(|plane| plane[index]);
    }
    elements
}

fn classes<'h>(layout: impl Iterator<Item = &'h EntryHeader>) -> [Class; 4] {
    let mut classes = [8, 4, 2, 1].map(|size| Class {
        size,
        start: 0,
        count: 0,
        at: 0,
    });
    for header in layout {
        let size = header.dtype.size();
        let count = header.byte_len().unwrap_or(0) as usize / size;
        (classes.iter_mut().filter(|class| class.size == size)).for_each(|c| c.count += count);
    }
    let mut start = 0;
    for class in &mut classes {
        class.start = start;
        start += class.size * class.count;
    }
    classes
}
