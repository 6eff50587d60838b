//! Canonical MessagePack (SPEC.md §4): every value has exactly one encoding.
//!
//! MessagePack decoders accept trailing bytes, repeated keys, integers longer than needed and
//! structs written as arrays. Here a value counts as read only if encoding it again gives the
//! very bytes it was read from.

use std::io::{self, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// How deeply values may nest. The deepest type of the format needs seven levels.
const MAX_DEPTH: usize = 24;

/// Why bytes are not the canonical encoding of a value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// Longer than the format allows; nothing was decoded.
    #[error("{what} is {len} bytes long; the limit is {limit}")]
    TooLong {
        /// What was to be decoded.
        what: &'static str,
        /// Its length in bytes.
        len: u64,
        /// The limit in bytes (SPEC.md §13).
        limit: u64,
    },
    /// Not a value of the expected type.
    #[error("{what} cannot be decoded: {source}")]
    Malformed {
        /// What was to be decoded.
        what: &'static str,
        /// The decoder's complaint.
        source: rmp_serde::decode::Error,
    },
    /// A value of the expected type, in an encoding that is not the canonical one.
    #[error(
        "{what} is not in canonical form (trailing bytes, fields out of order or repeated, \
         or numbers longer than needed)"
    )]
    NotCanonical {
        /// What was to be decoded.
        what: &'static str,
    },
}

/// The canonical encoding of `value`: named fields in declaration order, shortest integers.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // Encoding into memory fails only for sequences of unknown length, which no type here has.
    rmp_serde::to_vec_named(value).expect("protocol types encode into memory")
}

/// As [`encode`], behind what `bytes` holds.
pub(crate) fn append<T: Serialize>(bytes: &mut Vec<u8>, value: &T) {
    rmp_serde::encode::write_named(bytes, value).expect("protocol types encode into memory");
}

/// Decodes `bytes`, at most `limit` of them, accepting the canonical encoding alone.
///
/// # Errors
/// [`CodecError`] names `what` and the fault.
pub fn decode<T: Serialize + DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
    limit: u64,
) -> Result<T, CodecError> {
    if bytes.len() as u64 > limit {
        return Err(CodecError::TooLong {
            what,
            len: bytes.len() as u64,
            limit,
        });
    }
    let mut decoder = rmp_serde::Deserializer::from_read_ref(bytes);
    decoder.set_max_depth(MAX_DEPTH);
    let value =
        T::deserialize(&mut decoder).map_err(|source| CodecError::Malformed { what, source })?;
    // Compared as it is written, so that nothing is held twice.
    let mut rest = Same(bytes);
    let same = rmp_serde::encode::write_named(&mut rest, &value).is_ok();
    match same && rest.0.is_empty() {
        true => Ok(value),
        false => Err(CodecError::NotCanonical { what }),
    }
}

/// A writer that takes only the bytes that are left of what was read.
struct Same<'b>(&'b [u8]);

impl Write for Same<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.strip_prefix(bytes) {
            Some(rest) => {
                self.0 = rest;
                Ok(bytes.len())
            }
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Pair {
        a: u64,
        b: String,
    }

    fn read(bytes: &[u8]) -> Result<Pair, CodecError> {
        decode("pair", bytes, 256)
    }

    proptest! {
        #[test]
        fn values_round_trip_and_have_one_encoding(a in any::<u64>(), b in ".{0,40}", bit in any::<prop::sample::Index>()) {
            let pair = Pair { a, b };
            let bytes = encode(&pair);
            prop_assert_eq!(&read(&bytes).unwrap(), &pair);
            // Another message, if it can be read at all, is another value.
            let mut other = bytes.clone();
            let bit = bit.index(8 * bytes.len());
            other[bit / 8] ^= 1 << (bit % 8);
            if let Ok(decoded) = read(&other) {
                prop_assert_ne!(decoded, pair);
            }
        }

        #[test]
        fn arbitrary_bytes_end_in_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Manifest::decode(&bytes).is_err());
        }
    }

    #[test]
    fn only_the_canonical_encoding_is_read() {
        let pair = Pair {
            a: 7,
            b: "x".into(),
        };
        let bytes = encode(&pair);
        assert_eq!(bytes, b"\x82\xa1a\x07\xa1b\xa1x");
        assert_eq!(read(&bytes).unwrap(), pair);

        let rejected: [&[u8]; 7] = [
            b"",
            b"\x82\xa1a\x07\xa1b\xa1x\x00",      // trailing byte
            b"\x82\xa1b\xa1x\xa1a\x07",          // fields out of order
            b"\x82\xa1a\xcc\x07\xa1b\xa1x",      // integer longer than needed
            b"\x92\x07\xa1x",                    // struct as array
            b"\x83\xa1a\x07\xa1b\xa1x\xa1a\x07", // field repeated
            b"\x83\xa1a\x07\xa1b\xa1x\xa1c\x07", // field unknown
        ];
        for bytes in rejected {
            assert!(read(bytes).is_err(), "{bytes:x?} was accepted");
        }
    }

    #[test]
    fn an_over_long_input_is_refused_before_decoding() {
        assert!(matches!(read(&[0; 257]), Err(CodecError::TooLong { .. })));
    }

    #[test]
    fn deep_nesting_ends_in_an_error() {
        let nested = vec![0x91; 60];
        assert!(decode::<Vec<Vec<Vec<u8>>>>("nest", &nested, 64).is_err());
    }
}
