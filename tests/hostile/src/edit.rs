//! How bytes are altered.

/// A change of some bytes. Places and lengths are taken modulo what there is, so that every edit fits every
/// input.
#[derive(Debug, Clone)]
pub enum Edit {
    /// Inverts a bit.
    Flip {
        /// Where.
        at: usize,
        /// Which.
        bit: u8,
    },
    /// Replaces a byte.
    Set {
        /// Where.
        at: usize,
        /// By what.
        to: u8,
    },
    /// Drops some bytes.
    Drop {
        /// Where.
        at: usize,
        /// How many.
        len: usize,
    },
    /// Puts bytes in.
    Insert {
        /// Where.
        at: usize,
        /// Which.
        bytes: Vec<u8>,
    },
    /// Cuts the end off.
    Cut {
        /// What remains.
        at: usize,
    },
    /// Puts a copy of some bytes elsewhere.
    Copy {
        /// From where.
        from: usize,
        /// To where.
        to: usize,
        /// How many.
        len: usize,
    },
    /// Exchanges two runs of bytes.
    Swap {
        /// One.
        a: usize,
        /// The other.
        b: usize,
        /// How long both are.
        len: usize,
    },
}

impl Edit {
    /// Alters the bytes.
    pub fn apply(&self, bytes: &mut Vec<u8>) {
        let place = |at: usize, count: usize| at % (count + 1);
        let len = bytes.len();
        match self {
            Self::Flip { at, bit } if len > 0 => bytes[at % len] ^= 1 << (bit % 8),
            Self::Set { at, to } if len > 0 => bytes[at % len] = *to,
            Self::Drop { at, len: dropped } if len > 0 => {
                let start = at % len;
                let end = (start + dropped % 64 + 1).min(len);
                bytes.drain(start..end);
            }
            Self::Insert { at, bytes: new } => {
                let at = place(*at, len);
                bytes.splice(at..at, new.iter().copied());
            }
            Self::Cut { at } => bytes.truncate(place(*at, len)),
            Self::Copy {
                from,
                to,
                len: copied,
            } if len > 0 => {
                let start = from % len;
                let copy = bytes[start..(start + copied % 256 + 1).min(len)].to_vec();
                let to = place(*to, len);
                bytes.splice(to..to, copy);
            }
            Self::Swap {
                a,
                b,
                len: exchanged,
            } if len > 1 => {
                let half = len / 2;
                let count = (exchanged % 256 + 1).min(half);
                let (a, b) = (a % (half - count + 1), half + b % (len - half - count + 1));
                let (first, second) = bytes.split_at_mut(b);
                first[a..a + count].swap_with_slice(&mut second[..count]);
            }
            _ => {}
        }
    }
}
