//! Finding a state in a store, by way of those that it is stored as a difference from.

use std::borrow::Cow;

use crate::digest::Digest;
use crate::state::{EntryHeader, State};
use crate::store::{Item, Store, StoreError};

use super::{
    Limits, MAX_DIFFERENCES, MAX_OBJECT_BYTES, ObjectError, StateObject, check_headers, difference,
    named, parse, whole,
};

/// What reading a state may hold of the differences on its way, in bytes.
const WAY_BYTES: u64 = 64 << 20;

/// Why a stored state cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadStateError {
    /// An object cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An object is not what its name says, or costs more than it may.
    #[error("{}: {source}", Item::Object(*name).path())]
    Object {
        /// The object's name.
        name: Digest,
        /// What is wrong with it.
        source: ObjectError,
    },
    /// Differences from differences without end.
    #[error(
        "{}: more than {MAX_DIFFERENCES} differences lie between it and a whole state",
        Item::Object(*name).path()
    )]
    TooManyDifferences {
        /// The object's name.
        name: Digest,
    },
}

/// The state named `name` in `store`, found by way of those that it is stored as a difference from.
/// `known` is a state that may be among them.
///
/// # Errors
/// [`ReadStateError`]; a state is as damaged as any that it is a difference from.
pub fn read_state(
    store: &dyn Store,
    name: &Digest,
    known: Option<(&Digest, &State)>,
) -> Result<State, ReadStateError> {
    read_state_within(store, name, known, Limits::NONE)
}

/// As [`read_state`]; an object that exceeds `limits` is not decompressed.
///
/// # Errors
/// As [`read_state`], with [`ObjectError::OtherLayout`] or [`ObjectError::Memory`] among them.
pub fn read_state_within(
    store: &dyn Store,
    name: &Digest,
    known: Option<(&Digest, &State)>,
    limits: Limits<'_>,
) -> Result<State, ReadStateError> {
    let at_fault = |name: &Digest| {
        let name = *name;
        move |source| ReadStateError::Object { name, source }
    };
    // The differences on the way to a whole state. Memory does not grow with the way: what does not
    // fit is read again.
    let mut way: Vec<(Digest, Option<StateObject>)> = Vec::new();
    let mut room = WAY_BYTES.min(limits.memory / 8);
    let mut at = *name;
    let mut state = loop {
        let object = read_object(store, &at, limits)?;
        let (base, len) = match object {
            StateObject::Whole { entries, values } => {
                let state = whole(entries, &values, limits).and_then(|state| named(&at, state));
                break Cow::Owned(state.map_err(at_fault(&at))?);
            }
            StateObject::Difference {
                base, ref values, ..
            } => (base, values.len() as u64),
        };
        let fits = len <= room;
        room -= if fits { len } else { 0 };
        way.push((at, fits.then_some(object)));
        if way.len() > MAX_DIFFERENCES {
            return Err(ReadStateError::TooManyDifferences { name: *name });
        }
        if let Some((_, state)) = known.filter(|(known, _)| **known == base) {
            break Cow::Borrowed(state);
        }
        at = base;
    };
    while let Some((next, object)) = way.pop() {
        let object = match object {
            Some(object) => object,
            None => read_object(store, &next, limits)?,
        };
        let decoded = difference(object, &state, limits).and_then(|state| named(&next, state));
        state = Cow::Owned(decoded.map_err(at_fault(&next))?);
    }
    Ok(state.into_owned())
}

/// The tensors of the state named `name`, as its object says, or the whole state that it is stored as a
/// difference from. No values are decompressed.
///
/// # Errors
/// [`ReadStateError`] if an object cannot be read, or its file alone exceeds `limits`.
pub fn layout_of(
    store: &dyn Store,
    name: &Digest,
    limits: Limits<'_>,
) -> Result<Vec<EntryHeader>, ReadStateError> {
    let mut at = *name;
    for _ in 0..=MAX_DIFFERENCES {
        match read_object(store, &at, limits)? {
            StateObject::Whole { entries, .. } => {
                let checked = check_headers(&entries);
                checked.map_err(|source| ReadStateError::Object { name: at, source })?;
                return Ok(entries);
            }
            StateObject::Difference { base, .. } => at = base,
        }
    }
    Err(ReadStateError::TooManyDifferences { name: *name })
}

/// The state that the object named `name` is stored as a difference from, if it is.
///
/// # Errors
/// If the object cannot be read. Its values are not looked at.
pub fn base_of(store: &dyn Store, name: &Digest) -> Result<Option<Digest>, ReadStateError> {
    match read_object(store, name, Limits::NONE)? {
        StateObject::Whole { .. } => Ok(None),
        StateObject::Difference { base, .. } => Ok(Some(base)),
    }
}

fn read_object(
    store: &dyn Store,
    name: &Digest,
    limits: Limits<'_>,
) -> Result<StateObject, ReadStateError> {
    let at_fault = |source| ReadStateError::Object {
        name: *name,
        source,
    };
    let bytes = match store.read(Item::Object(*name), limits.file()) {
        // Not more than the format allows, but more than this verifier does.
        Err(StoreError::TooLarge { len, .. }) if len <= limits.by_format() => {
            return Err(at_fault(ObjectError::Memory {
                needed: len.saturating_mul(2),
                allowed: limits.memory,
            }));
        }
        read => read?,
    };
    debug_assert!(bytes.len() as u64 <= MAX_OBJECT_BYTES);
    parse(&bytes).map_err(at_fault)
}
