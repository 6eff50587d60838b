//! What the verifier's own learner says of a training's states, before any of the proof's is looked at.

use crate::learner::{Batch, Learner};
use crate::manifest::Terms;
use crate::records::Records;
use crate::schedule::BatchPlan;
use crate::state::{EntryHeader, State};

use super::layout::Layouts;
use super::replay::guarded;
use super::stop::Stop;

/// The initial state that the seed determines, and the tensors that every later state has.
pub(super) struct OwnStates {
    pub(super) initial: State,
    first: Vec<EntryHeader>,
    later: Vec<EntryHeader>,
    /// The size of a later state, in bytes of values.
    pub(super) later_bytes: u64,
}

impl OwnStates {
    /// Initialises `learner` and takes a step on the records of these indices; it does not matter which they
    /// are, since the step only shows what an optimizer keeps.
    pub(super) fn of<L: Learner + ?Sized>(
        learner: &mut L,
        terms: &Terms,
        records: &dyn Records,
        batch: Vec<u64>,
    ) -> Result<Self, Stop> {
        let seed = &terms.seed;
        let initial = guarded("the initial state", || {
            learner.initialise(seed)?;
            learner.capture()
        })?;
        let plan = BatchPlan {
            step: 0,
            epoch: 0,
            records: batch,
        };
        let stepped = guarded("the first step", || {
            learner.step(&Batch::new(&plan, records, seed)?)?;
            learner.capture()
        })?;
        Ok(Self {
            first: initial.layout().cloned().collect(),
            later: stepped.layout().cloned().collect(),
            later_bytes: stepped.byte_len(),
            initial,
        })
    }

    /// The tensors that states have.
    pub(super) fn layouts(&self) -> Layouts<'_> {
        Layouts {
            first: &self.first,
            later: &self.later,
        }
    }
}
