//! How large a proof becomes, before it is begun.

use crate::learner::{Learner, LearnerError};
use crate::manifest::Terms;
use crate::model_file::is_model;
use crate::recipe::Optimizer;
use crate::schedule::BatchSource;
use crate::state::Part;

/// What the files of one checkpoint hold beside its state: its records in the journal and in the manifest.
const CHECKPOINT_BYTES: u64 = 256;
/// What an entry's header takes beside its name, at most.
const HEADER_BYTES: u64 = 128;
/// What a step takes in a list of batches beside its records, and what a record does.
const STEP_BYTES: u64 = 64;
const RECORD_BYTES: u64 = 9;
/// Everything there is once: the recipe in journal and manifest, folders.
const FIXED_BYTES: u64 = 64 << 10;

/// The size of a proof, before it is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// States that are kept as a whole, the first and the last included.
    pub states: u64,
    /// The largest that a stored state becomes, in bytes. Most are stored as differences, and take about
    /// half of it at short intervals.
    pub state_bytes: u64,
    /// Everything else, in bytes.
    pub other_bytes: u64,
}

impl Estimate {
    /// Estimates the proof of a training by `terms` that keeps the state of every `keep`-th checkpoint.
    /// Leaves the learner in the initial state. Of a custom optimizer it is assumed that it keeps no
    /// more than Adam.
    ///
    /// # Errors
    /// If the learner cannot be initialised.
    pub fn of<L: Learner + ?Sized>(
        terms: &Terms,
        keep: u64,
        learner: &mut L,
    ) -> Result<Self, LearnerError> {
        learner.initialise(&terms.seed)?;
        let initial = learner.capture()?;
        let kept_by_optimizer = match terms.recipe.optimizer {
            Optimizer::Sgd { momentum, .. } => u64::from(momentum != 0.0),
            Optimizer::Adam { .. } | Optimizer::AdamW { .. } | Optimizer::Custom(_) => 2,
        };
        let (mut raw, mut headers, mut model) = (0, 0, 0);
        for entry in initial.entries() {
            let header = entry.name().len() as u64 + HEADER_BYTES;
            let bytes = entry.bytes.len() as u64;
            let copies = match learner.part(entry.name()) {
                Part::Parameters => 1 + kept_by_optimizer,
                _ => 1,
            };
            // Each of the optimizer's entries has a header, and a count of steps beside it.
            raw += copies * bytes + 8;
            headers += 2 * copies * header;
            model += if is_model(entry.name()) {
                bytes + header
            } else {
                0
            };
        }
        let segments = terms.segments();
        let batches = match terms.batches {
            BatchSource::Derived => 0,
            BatchSource::Explicit => {
                terms.recipe.steps * (STEP_BYTES + RECORD_BYTES * terms.recipe.batch_size)
            }
        };
        Ok(Self {
            states: segments.div_ceil(keep.max(1)) + 1,
            // What zstd adds at most to what does not compress (its `ZSTD_COMPRESSBOUND`).
            state_bytes: raw + raw / 256 + headers + 1024,
            other_bytes: FIXED_BYTES + model + batches + CHECKPOINT_BYTES * (segments + 1),
        })
    }

    /// More than this it does not take.
    pub fn at_most(&self) -> u64 {
        self.state_bytes
            .saturating_mul(self.states)
            .saturating_add(self.other_bytes)
    }

    /// By how much fewer states have to be kept so that it takes at most so many bytes; `None` if not
    /// even two fit.
    pub fn factor_for(&self, bytes: u64) -> Option<u64> {
        let room = bytes.checked_sub(self.other_bytes)?;
        let fit = room / self.state_bytes;
        (fit >= 2).then(|| (self.states - 1).div_ceil(fit - 1).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_states_fit_as_the_factor_says() {
        let estimate = Estimate {
            states: 101,
            state_bytes: 1000,
            other_bytes: 500,
        };
        assert_eq!(estimate.at_most(), 101_500);
        assert_eq!(estimate.factor_for(101_500), Some(1));
        assert_eq!(estimate.factor_for(u64::MAX), Some(1));
        // Eleven states fit: the first, and every tenth.
        assert_eq!(estimate.factor_for(11_999), Some(10));
        assert_eq!(estimate.factor_for(2_500), Some(100));
        assert_eq!(estimate.factor_for(2_499), None);
        assert_eq!(estimate.factor_for(10), None);
    }
}
