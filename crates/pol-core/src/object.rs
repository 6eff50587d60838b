//! How states and batch lists are stored (SPEC.md §11).
//!
//! An object's name is the digest of what it means (of the raw values, never of the compressed
//! bytes), and its first 32 bytes are a checksum of the rest, so that any altered byte is seen
//! before the decompressor is.

use std::io::Read;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::codec::{self, CodecError};
use crate::digest::{Digest, tagged};
use crate::schedule::{BatchPlan, MAX_BATCH};
use crate::state::{Entry, EntryHeader, MAX_ENTRIES, State, StateError};

/// The largest state, in bytes of raw values.
pub const MAX_STATE_BYTES: u64 = 8 << 30;
/// The largest object file. Compression never makes a state much larger than it is.
pub const MAX_OBJECT_BYTES: u64 = MAX_STATE_BYTES + (64 << 20);
const CHECKSUM_BYTES: usize = 32;
const ZSTD_LEVEL: i32 = 1;

/// Why an object is not what its name says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// The stored bytes were altered or cut.
    #[error("its bytes do not match its checksum: it was altered or cut short")]
    Damaged,
    /// The content is intact but belongs under another name.
    #[error("its content has the digest {found}, not the one it is named by")]
    WrongContent {
        /// The digest of what it holds.
        found: Digest,
    },
    /// Not canonical MessagePack.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Values that cannot be a state.
    #[error(transparent)]
    State(#[from] StateError),
    /// Values that do not decompress to what the shapes need.
    #[error("its values do not decompress to the {expected} bytes that its shapes need")]
    Compressed {
        /// The length by the shapes.
        expected: u64,
    },
    /// A state beyond the limit.
    #[error("its shapes need {0} bytes; the limit is {MAX_STATE_BYTES}")]
    TooLarge(u64),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateObject {
    entries: Vec<EntryHeader>,
    values: ByteBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchesObject {
    batches: Vec<BatchPlan>,
}

/// Encodes a state: headers, then all values byte-shuffled and compressed.
///
/// # Errors
/// If the compressor fails, which it does only for want of memory.
pub fn encode_state(state: &State) -> std::io::Result<Vec<u8>> {
    let mut shuffled = Vec::with_capacity(state.byte_len() as usize);
    for entry in state.entries() {
        shuffle(&entry.bytes, entry.header.dtype.size(), &mut shuffled);
    }
    let object = StateObject {
        entries: state.layout().cloned().collect(),
        values: ByteBuf::from(zstd::bulk::compress(&shuffled, ZSTD_LEVEL)?),
    };
    Ok(with_checksum(&codec::encode(&object)))
}

/// Reads the state named `name`.
///
/// # Errors
/// [`ObjectError`] if the bytes are not an encoding of exactly that state.
pub fn decode_state(name: &Digest, bytes: &[u8]) -> Result<State, ObjectError> {
    let payload = without_checksum(bytes)?;
    let object: StateObject = codec::decode("the state object", payload, MAX_OBJECT_BYTES)?;
    if object.entries.len() > MAX_ENTRIES {
        return Err(StateError::TooMany(object.entries.len()).into());
    }
    let total = object
        .entries
        .iter()
        .try_fold(0u64, |sum, header| sum.checked_add(header.byte_len()?))
        .unwrap_or(u64::MAX);
    if total > MAX_STATE_BYTES {
        return Err(ObjectError::TooLarge(total));
    }
    let shuffled = decompress(&object.values, total)?;
    let mut rest = shuffled.as_slice();
    let mut entries = Vec::with_capacity(object.entries.len());
    for header in object.entries {
        // The sum of all lengths is the length of `shuffled`, checked above.
        let (values, after) = rest.split_at(header.byte_len().unwrap_or(0) as usize);
        rest = after;
        let bytes = unshuffle(values, header.dtype.size());
        entries.push(Entry { header, bytes });
    }
    let state = State::new(entries)?;
    match state.digest() {
        digest if digest == *name => Ok(state),
        found => Err(ObjectError::WrongContent { found }),
    }
}

/// The digest that names a list of batches: `H("pol.v1.batches", canonical encoding)`.
pub fn batches_digest(batches: &[BatchPlan]) -> Digest {
    let object = BatchesObject {
        batches: batches.to_vec(),
    };
    tagged("pol.v1.batches", &[&codec::encode(&object)])
}

/// Encodes a list of batches.
pub fn encode_batches(batches: &[BatchPlan]) -> Vec<u8> {
    with_checksum(&codec::encode(&BatchesObject {
        batches: batches.to_vec(),
    }))
}

/// Reads the list of batches named `name`.
///
/// # Errors
/// [`ObjectError`] if the bytes are not an encoding of exactly that list.
pub fn decode_batches(name: &Digest, bytes: &[u8]) -> Result<Vec<BatchPlan>, ObjectError> {
    let payload = without_checksum(bytes)?;
    let limit = MAX_BATCH * 1024;
    let object: BatchesObject = codec::decode("the batches object", payload, limit)?;
    match batches_digest(&object.batches) {
        digest if digest == *name => Ok(object.batches),
        found => Err(ObjectError::WrongContent { found }),
    }
}

fn checksum(payload: &[u8]) -> Digest {
    tagged("pol.v1.object", &[payload])
}

fn with_checksum(payload: &[u8]) -> Vec<u8> {
    [checksum(payload).as_bytes(), payload].concat()
}

fn without_checksum(bytes: &[u8]) -> Result<&[u8], ObjectError> {
    match bytes.split_first_chunk::<CHECKSUM_BYTES>() {
        Some((sum, payload)) if checksum(payload).as_bytes() == sum => Ok(payload),
        _ => Err(ObjectError::Damaged),
    }
}

/// Decompresses to exactly `expected` bytes; memory grows only with what really comes out.
fn decompress(compressed: &[u8], expected: u64) -> Result<Vec<u8>, ObjectError> {
    let mut values = Vec::new();
    let complete = zstd::stream::read::Decoder::new(compressed)
        .and_then(|decoder| decoder.take(expected + 1).read_to_end(&mut values))
        .is_ok();
    if complete && values.len() as u64 == expected {
        Ok(values)
    } else {
        Err(ObjectError::Compressed { expected })
    }
}

/// Appends all first bytes of the elements, then all second bytes, and so on: the sign and
/// exponent bytes of neighbouring weights are alike and compress, the rest hardly does.
fn shuffle(bytes: &[u8], size: usize, into: &mut Vec<u8>) {
    for plane in 0..size {
        into.extend(bytes.iter().skip(plane).step_by(size));
    }
}

fn unshuffle(shuffled: &[u8], size: usize) -> Vec<u8> {
    let count = shuffled.len() / size;
    let mut bytes = vec![0; shuffled.len()];
    for (plane, values) in shuffled.chunks_exact(count.max(1)).enumerate() {
        for (element, &value) in values.iter().enumerate() {
            bytes[element * size + plane] = value;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn state() -> State {
        State::new(vec![
            Entry::f32("model/w", vec![2, 2], &[1.0, -2.0, 0.5, 1e-9]),
            Entry::u64("schedule/step", 4),
            Entry::f32("model/none", vec![0, 3], &[]),
        ])
        .unwrap()
    }

    #[test]
    fn every_single_byte_of_an_object_matters() {
        let state = state();
        let (name, bytes) = (state.digest(), encode_state(&state).unwrap());
        assert_eq!(decode_state(&name, &bytes).unwrap(), state);
        for position in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[position] ^= 1;
            assert!(decode_state(&name, &altered).is_err(), "byte {position}");
            assert!(decode_state(&name, &bytes[..position]).is_err());
        }
    }

    #[test]
    fn a_state_under_another_name_is_refused() {
        let bytes = encode_state(&state()).unwrap();
        let other = tagged("other", &[]);
        assert!(matches!(
            decode_state(&other, &bytes),
            Err(ObjectError::WrongContent { .. })
        ));
    }

    #[test]
    fn a_compressed_block_cannot_claim_more_than_it_holds() {
        let object = |dim: u64, raw: &[u8]| {
            with_checksum(&codec::encode(&StateObject {
                entries: vec![Entry::f32("w", vec![dim], &[]).header],
                values: ByteBuf::from(zstd::bulk::compress(raw, 1).unwrap()),
            }))
        };
        let name = tagged("any", &[]);
        let refused = |bytes: &[u8]| decode_state(&name, bytes).unwrap_err().to_string();
        assert!(refused(&object(1 << 40, &[0; 4])).contains("limit"));
        assert!(refused(&object(1 << 20, &[0; 4])).contains("decompress"));
        assert!(refused(&object(1, &[0; 1 << 20])).contains("decompress"));
    }

    proptest! {
        #[test]
        fn shuffling_is_undone(bytes in prop::collection::vec(any::<u8>(), 0..64), size in 1usize..9) {
            let whole = bytes.len() / size * size;
            let mut shuffled = Vec::new();
            shuffle(&bytes[..whole], size, &mut shuffled);
            prop_assert_eq!(unshuffle(&shuffled, size), &bytes[..whole]);
        }

        #[test]
        fn arbitrary_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let name = tagged("any", &[]);
            prop_assert!(decode_state(&name, &bytes).is_err());
            prop_assert!(decode_batches(&name, &bytes).is_err());
            let intact = with_checksum(&bytes);
            prop_assert!(decode_state(&name, &intact).is_err());
            prop_assert!(decode_batches(&name, &intact).is_err());
        }
    }
}
