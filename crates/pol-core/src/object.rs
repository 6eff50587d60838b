//! How states and batch lists are stored (SPEC.md §11).
//!
//! An object's name is the digest of what it means (of the raw values, never of the compressed
//! bytes). A state is stored as a whole, or as its difference from another one that is stored too.

mod coding;
mod limits;
mod planes;
mod reading;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::codec::{self, CodecError};
use crate::digest::{Digest, tagged};
use crate::schedule::{BatchPlan, MAX_BATCH};
use crate::state::{Entry, EntryHeader, MAX_ENTRIES, State, StateError};

use coding::{Around, Codings};
use planes::Planes;

pub use limits::{Layout, Limits, held_bytes};
pub use reading::{ReadStateError, base_of, layout_of, read_state, read_state_within};

/// The largest state, in bytes of raw values.
pub const MAX_STATE_BYTES: u64 = 8 << 30;
/// The largest object file. Compression never makes a state much larger than it is.
pub const MAX_OBJECT_BYTES: u64 = MAX_STATE_BYTES + (64 << 20);
/// The longest list of batches, in bytes.
pub const MAX_BATCHES_BYTES: u64 = MAX_BATCH * 1024;
/// The most differences between a state and one that is stored as a whole.
pub const MAX_DIFFERENCES: usize = 64;
/// Of so many states in a row one is stored as a whole, the others as differences from the one before: a
/// state is found by reading at most so many objects.
pub const WHOLE_EVERY: usize = 16;
const CHECKSUM_BYTES: usize = 4;

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
    /// A state with other tensors than it has to have. Its values were not decompressed.
    #[error("its tensors are not those that this training has")]
    OtherLayout(Vec<EntryHeader>),
    /// A state that takes more memory than it may. Its values were not decompressed.
    #[error("reading it takes {needed} bytes of memory; {allowed} are allowed")]
    Memory {
        /// What it takes, in bytes.
        needed: u64,
        /// What is allowed, in bytes.
        allowed: u64,
    },
    /// A difference that says how to read other entries than its base has.
    #[error("it does not say how each entry differs from that of the state {base}")]
    Codings {
        /// The state that it is a difference from.
        base: Digest,
    },
    /// A difference without what it is a difference from.
    #[error("it is a difference from the state {base}, which is not at hand")]
    NeedsBase {
        /// The state that it is a difference from.
        base: Digest,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum StateObject {
    Whole {
        entries: Vec<EntryHeader>,
        values: ByteBuf,
    },
    Difference {
        base: Digest,
        codings: ByteBuf,
        motions: ByteBuf,
        values: ByteBuf,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchesObject {
    batches: Vec<BatchPlan>,
}

/// Encodes a state as a whole.
///
/// # Errors
/// If the compressor fails, which it does only for want of memory.
pub fn encode_state(state: &State) -> std::io::Result<Vec<u8>> {
    let mut planes = Planes::new(state.layout());
    for entry in state.entries() {
        planes.push(entry.header.dtype.size(), &entry.bytes);
    }
    Ok(object(&StateObject::Whole {
        entries: state.layout().cloned().collect(),
        values: ByteBuf::from(planes.compress()?),
    }))
}

/// Encodes a state as its difference from `base`, another state of the same training, or as a whole
/// where the two have other tensors. `base` has to stay where the encoded state is read from.
///
/// # Errors
/// As [`encode_state`].
pub fn encode_difference(state: &State, base: (&Digest, &State)) -> std::io::Result<Vec<u8>> {
    let (name, base) = base;
    if !state.layout().eq(base.layout()) {
        return encode_state(state);
    }
    let around = Around { state, base };
    let mut planes = Planes::new(state.layout());
    let mut codings = Codings::default();
    for (entry, before) in state.entries().iter().zip(base.entries()) {
        let coding = coding::choose(entry, before, around);
        let coded = coding::coded(entry, before, coding, around);
        planes.push(entry.header.dtype.size(), &coded);
        codings.push(coding);
    }
    Ok(object(&StateObject::Difference {
        base: *name,
        codings: ByteBuf::from(codings.kinds),
        motions: ByteBuf::from(codings.motions),
        values: ByteBuf::from(planes.compress()?),
    }))
}

/// Encodes the states of one training in their order, each but every [`WHOLE_EVERY`]-th as its difference
/// from the one before.
#[derive(Default)]
pub struct Encoder {
    before: Option<(Digest, State)>,
    differences: usize,
}

impl Encoder {
    /// The object of the next state, whose digest is `name`.
    ///
    /// # Errors
    /// As [`encode_state`].
    pub fn encode(&mut self, name: Digest, state: State) -> std::io::Result<Vec<u8>> {
        let object = match &self.before {
            // A state is no difference from itself.
            Some((base, before)) if self.differences + 1 < WHOLE_EVERY && *base != name => {
                self.differences += 1;
                encode_difference(&state, (base, before))?
            }
            _ => {
                self.differences = 0;
                encode_state(&state)?
            }
        };
        self.before = Some((name, state));
        Ok(object)
    }
}

/// Reads the state named `name` from an object that holds it as a whole.
///
/// # Errors
/// [`ObjectError`] if the bytes are not an encoding of exactly that state.
pub fn decode_state(name: &Digest, bytes: &[u8]) -> Result<State, ObjectError> {
    decode_state_within(name, bytes, Limits::NONE)
}

/// As [`decode_state`]; what exceeds `limits` is not decompressed.
///
/// # Errors
/// As [`decode_state`], with [`ObjectError::OtherLayout`] or [`ObjectError::Memory`] among them.
pub fn decode_state_within(
    name: &Digest,
    bytes: &[u8],
    limits: Limits<'_>,
) -> Result<State, ObjectError> {
    match parse(bytes)? {
        StateObject::Whole { entries, values } => named(name, whole(entries, &values, limits)?),
        StateObject::Difference { base, .. } => Err(ObjectError::NeedsBase { base }),
    }
}

fn parse(bytes: &[u8]) -> Result<StateObject, ObjectError> {
    let payload = without_checksum(bytes)?;
    Ok(codec::decode(
        "the state object",
        payload,
        MAX_OBJECT_BYTES,
    )?)
}

/// Checks what an object says of a state's tensors, and gives the bytes that their values take.
fn check_headers(entries: &[EntryHeader]) -> Result<u64, ObjectError> {
    if entries.len() > MAX_ENTRIES {
        return Err(StateError::TooMany(entries.len()).into());
    }
    entries.iter().try_for_each(EntryHeader::check)?;
    let total = entries
        .iter()
        .try_fold(0u64, |sum, header| sum.checked_add(header.byte_len()?))
        .unwrap_or(u64::MAX);
    match total <= MAX_STATE_BYTES {
        true => Ok(total),
        false => Err(ObjectError::TooLarge(total)),
    }
}

fn whole(
    entries: Vec<EntryHeader>,
    values: &[u8],
    limits: Limits<'_>,
) -> Result<State, ObjectError> {
    let total = check_headers(&entries)?;
    limits.check(&entries, values.len())?;
    let mut planes = Planes::decompress(&entries, total, values)?;
    let entry = |header: EntryHeader| {
        let bytes = planes.next(&header);
        Entry { header, bytes }
    };
    Ok(State::new(entries.into_iter().map(entry).collect())?)
}

fn difference(object: StateObject, base: &State, limits: Limits<'_>) -> Result<State, ObjectError> {
    let StateObject::Difference {
        base: name,
        codings,
        motions,
        values,
    } = object
    else {
        // Replaced while it was read.
        return Err(ObjectError::Damaged);
    };
    let unfit = || ObjectError::Codings { base: name };
    let codings = Codings::parse(&codings, &motions);
    let codings = codings.filter(|codings| codings.len() == base.entries().len());
    let codings = codings.ok_or_else(unfit)?;
    let layout: Vec<EntryHeader> = base.layout().cloned().collect();
    limits.check(&layout, values.len())?;
    let mut planes = Planes::decompress(&layout, base.byte_len(), &values)?;
    let entries = coding::decoded(base, &codings, |header| planes.next(header));
    let entries = entries.ok_or_else(unfit)?;
    Ok(State::new(entries)?)
}

fn named(name: &Digest, state: State) -> Result<State, ObjectError> {
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
    object(&BatchesObject {
        batches: batches.to_vec(),
    })
}

/// Reads the list of batches named `name`.
///
/// # Errors
/// [`ObjectError`] if the bytes are not an encoding of exactly that list.
pub fn decode_batches(name: &Digest, bytes: &[u8]) -> Result<Vec<BatchPlan>, ObjectError> {
    let payload = without_checksum(bytes)?;
    let object: BatchesObject = codec::decode("the batches object", payload, MAX_BATCHES_BYTES)?;
    match batches_digest(&object.batches) {
        digest if digest == *name => Ok(object.batches),
        found => Err(ObjectError::WrongContent { found }),
    }
}

/// CRC-32, little-endian: it shows accidents. Whatever passes it is hashed again all the same.
fn checksum(payload: &[u8]) -> [u8; CHECKSUM_BYTES] {
    crc32fast::hash(payload).to_le_bytes()
}

/// The object with this payload.
fn object<T: Serialize>(payload: &T) -> Vec<u8> {
    let mut bytes = vec![0; CHECKSUM_BYTES];
    codec::append(&mut bytes, payload);
    let sum = checksum(&bytes[CHECKSUM_BYTES..]);
    bytes[..CHECKSUM_BYTES].copy_from_slice(&sum);
    bytes
}

fn without_checksum(bytes: &[u8]) -> Result<&[u8], ObjectError> {
    match bytes.split_first_chunk::<CHECKSUM_BYTES>() {
        Some((sum, payload)) if checksum(payload) == *sum => Ok(payload),
        _ => Err(ObjectError::Damaged),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{RATE_ENTRY, STEP_ENTRY};
    use crate::store::{Item, MemoryStore, Store};
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
            super::object(&StateObject::Whole {
                entries: vec![Entry::f32("w", vec![dim], &[]).header],
                values: ByteBuf::from(zstd::bulk::compress(raw, 1).unwrap()),
            })
        };
        let name = tagged("any", &[]);
        let refused = |bytes: &[u8]| decode_state(&name, bytes).unwrap_err().to_string();
        assert!(refused(&object(1 << 40, &[0; 4])).contains("limit"));
        assert!(refused(&object(1 << 20, &[0; 4])).contains("decompress"));
        assert!(refused(&object(1, &[0; 1 << 20])).contains("decompress"));
    }

    proptest! {
        #[test]
        fn a_state_comes_back_from_a_chain_of_differences(
            values in prop::collection::vec(prop::collection::vec(any::<u32>(), 6), 1..6),
            steps in prop::collection::vec(0u64..3, 6),
        ) {
            let store = MemoryStore::new();
            let mut previous: Option<(Digest, State)> = None;
            let mut step = 0;
            for (bits, more) in values.iter().zip(steps) {
                step += more;
                let floats: Vec<f32> = bits.iter().map(|&bits| f32::from_bits(bits)).collect();
                let state = State::new(vec![
                    Entry::f32("model/w", vec![3], &floats[..3]),
                    Entry::f32("optim/w/momentum.velocity", vec![3], &floats[3..]),
                    Entry::u64(STEP_ENTRY, step),
                    Entry::f64(RATE_ENTRY, 0.1),
                    Entry::bool("model/flag", bits[0] % 2 == 0),
                ])
                .unwrap();
                let name = state.digest();
                let bytes = match &previous {
                    None => encode_state(&state),
                    Some((name, base)) => encode_difference(&state, (name, base)),
                };
                let taken = previous.as_ref().is_some_and(|(base, _)| *base == name);
                if !taken {
                    store.write(Item::Object(name), &bytes.unwrap()).unwrap();
                }
                prop_assert_eq!(&read_state(&store, &name, None).unwrap(), &state);
                previous = Some((name, state));
            }
        }

        #[test]
        fn arbitrary_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let name = tagged("any", &[]);
            prop_assert!(decode_state(&name, &bytes).is_err());
            prop_assert!(decode_batches(&name, &bytes).is_err());
            let intact = [&checksum(&bytes)[..], &bytes].concat();
            prop_assert!(decode_state(&name, &intact).is_err());
            prop_assert!(decode_batches(&name, &intact).is_err());
        }
    }
}
