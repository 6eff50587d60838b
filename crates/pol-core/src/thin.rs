//! Leaving states out of a finished proof of an exact recipe: whoever verifies recomputes them.

use crate::manifest::Manifest;
use crate::object::{self, Encoder, ReadStateError};
use crate::store::{Item, Store, StoreError};

/// Why states cannot be left out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ThinError {
    /// A replay elsewhere would not arrive at them bit for bit.
    #[error("only with exact numerics may states be left out of a proof")]
    NotExact,
    /// A state that has to stay is not whole.
    #[error(transparent)]
    State(#[from] ReadStateError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The checkpoints that remain if only the state of every `keep`-th is kept, and of the last.
///
/// 0 counts as 1.
pub fn remaining(manifest: &Manifest, keep: u64) -> impl Iterator<Item = u64> {
    let last = manifest.claim.terms.segments();
    (0..=last).filter(move |index| index.is_multiple_of(keep.max(1)) || *index == last)
}

/// Stores the states of every `keep`-th checkpoint, and of the last, anew, as differences from one
/// another alone. Then no state between them is needed, and they can be removed. Killed in between,
/// the proof is as whole as before.
///
/// # Errors
/// [`ThinError`]; also if a state that has to stay is not there.
pub fn rebase(store: &dyn Store, manifest: &Manifest, keep: u64) -> Result<(), ThinError> {
    if keep > 1 && !manifest.claim.terms.recipe.numerics.is_exact() {
        return Err(ThinError::NotExact);
    }
    let mut encoder = Encoder::default();
    for index in remaining(manifest, keep) {
        let name = manifest.checkpoints[index as usize].state;
        let state = object::read_state(store, &name, None)?;
        let encoded = encoder.encode(name, state);
        let encoded = encoded.map_err(|source| StoreError::Io {
            path: Item::Object(name).path(),
            source,
        })?;
        store.write(Item::Object(name), &encoded)?;
    }
    Ok(())
}
