//! Which tensors the states of a training have. What a stored state says of its own is compared with that
//! before its values are decompressed.

use crate::digest::Digest;
use crate::object::{Layout, ObjectError, ReadStateError};
use crate::state::EntryHeader;
use crate::store::Item;

use super::integrity::{Fault, object_fault};
use super::reason::Reason;

/// The tensors that a training's states have, as the verifier knows them from its own learner.
#[derive(Clone, Copy)]
pub(super) struct Layouts<'l> {
    /// Those of the initial state.
    pub(super) first: &'l [EntryHeader],
    /// Those of every other.
    pub(super) later: &'l [EntryHeader],
}

impl<'l> Layouts<'l> {
    /// Those of the state at the checkpoint of this index.
    pub(super) fn of(&self, index: u64) -> Layout<'l> {
        Layout::Exactly(match index {
            0 => self.first,
            _ => self.later,
        })
    }
}

/// Who is to blame for the state at a step, of this name, that cannot be had; it had to have the tensors of
/// `expected`. Where it is stored as a difference, they are those of the states that it builds on.
pub(super) fn state_fault(
    (step, name): (u64, Digest),
    expected: Layout<'_>,
    error: ReadStateError,
) -> Fault {
    let found = match error {
        ReadStateError::Object {
            source: ObjectError::OtherLayout(found),
            ..
        } => found,
        error => return object_fault(error),
    };
    let problem = match expected {
        Layout::Exactly(expected) => layout_difference(expected, &found),
        Layout::ModelOf(_) | Layout::Any => {
            "its tensors are not those of the other checkpoints".to_owned()
        }
    };
    Reason::UnfitState {
        place: format!("the state at step {step}"),
        // It was not hashed: the object may be another's.
        problem: format!("{problem}, as {} says", Item::Object(name).path()),
    }
    .into()
}

/// What tensors `found` lack or have beside the `expected` ones.
pub(super) fn layout_difference(expected: &[EntryHeader], found: &[EntryHeader]) -> String {
    let missing = expected.iter().find(|header| !found.contains(header));
    let extra = found.iter().find(|header| !expected.contains(header));
    let describe = |header: &EntryHeader| {
        format!(
            "`{}` ({} {:?})",
            header.name,
            header.dtype.name(),
            header.shape
        )
    };
    match (missing, extra) {
        (Some(missing), _) => format!("it lacks {}", describe(missing)),
        (None, Some(extra)) => format!("it has {}, which this training has not", describe(extra)),
        (None, None) => "its tensors are in another order".to_owned(),
    }
}
