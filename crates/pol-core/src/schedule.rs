//! The schedule (SPEC.md §7): which records each step uses, in which order. Derived from the
//! seed, or given step by step by a caller with batches of their own.

use serde::{Deserialize, Serialize};

use crate::random::{Purpose, Seed};

/// The most steps of a proof.
pub const MAX_STEPS: u64 = 1 << 32;
/// The most records of a batch.
pub const MAX_BATCH: u64 = 1 << 20;

/// The most records of a data set. An epoch's permutation holds eight bytes for each.
pub const MAX_RECORDS: u64 = 1 << 26;

/// The records of one step. Step `t` leads from state `t` to state `t + 1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchPlan {
    /// The step, counted from zero.
    pub step: u64,
    /// The epoch, counted from zero; it keys the augmentation draws.
    pub epoch: u64,
    /// Indices of the records, in order.
    pub records: Vec<u64>,
}

/// How the batches of a proof are determined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BatchSource {
    /// From the seed: each epoch is a fresh permutation of all records.
    Derived,
    /// Listed by the prover, one list for each segment.
    Explicit,
}

impl BatchSource {
    /// Its name in proofs and policies.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Derived => "derived",
            Self::Explicit => "explicit",
        }
    }
}

/// A schedule derived from the seed.
///
/// Each epoch is a uniform permutation of all records, cut into batches; what is left over at
/// its end, fewer records than a batch, is not used in that epoch.
#[derive(Debug, Clone)]
pub struct Schedule {
    seed: Seed,
    records: u64,
    batch_size: u64,
    permutation: Option<(u64, Vec<u64>)>,
}

/// A schedule that has no steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("batches of {batch_size} cannot be drawn from {records} records")]
pub struct ScheduleError {
    /// The batch size asked for.
    pub batch_size: u64,
    /// The records there are.
    pub records: u64,
}

impl Schedule {
    /// The schedule of `batch_size` out of `records`.
    ///
    /// # Errors
    /// If a batch would be empty, or larger than the data.
    pub fn new(seed: Seed, records: u64, batch_size: u64) -> Result<Self, ScheduleError> {
        if batch_size == 0 || batch_size > records || batch_size > MAX_BATCH {
            return Err(ScheduleError {
                batch_size,
                records,
            });
        }
        Ok(Self {
            seed,
            records,
            batch_size,
            permutation: None,
        })
    }

    /// Steps in an epoch of `records` in batches of `batch_size`.
    pub const fn steps_per_epoch(records: u64, batch_size: u64) -> u64 {
        match records.checked_div(batch_size) {
            Some(steps) => steps,
            None => 0,
        }
    }

    /// Bytes of memory that the order of so many records takes.
    pub const fn bytes(records: u64) -> u64 {
        records.saturating_mul(8)
    }

    /// The batch of `step`. Asking for the steps of an epoch in a row costs one permutation.
    pub fn batch(&mut self, step: u64) -> BatchPlan {
        let per_epoch = Self::steps_per_epoch(self.records, self.batch_size);
        let (epoch, within) = (step / per_epoch, step % per_epoch);
        if self.permutation.as_ref().is_none_or(|(e, _)| *e != epoch) {
            let mut stream = self.seed.stream(Purpose::Permutation { epoch });
            // Two are never held at once.
            self.permutation = None;
            self.permutation = Some((epoch, stream.permutation(self.records)));
        }
        let start = (within * self.batch_size) as usize;
        let records = self
            .permutation
            .as_ref()
            .map_or(&[][..], |(_, order)| order)[start..start + self.batch_size as usize]
            .to_vec();
        BatchPlan {
            step,
            epoch,
            records,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::tagged;
    use proptest::prelude::*;

    fn seed() -> Seed {
        Seed::from_digest(tagged("test", &[]))
    }

    proptest! {
        #[test]
        fn an_epoch_uses_no_record_twice(records in 1u64..200, batch_size in 1u64..50) {
            prop_assume!(batch_size <= records);
            let mut schedule = Schedule::new(seed(), records, batch_size).unwrap();
            let steps = Schedule::steps_per_epoch(records, batch_size);
            let mut used: Vec<u64> = (0..steps).flat_map(|s| schedule.batch(s).records).collect();
            used.sort_unstable();
            used.dedup();
            prop_assert_eq!(used.len() as u64, steps * batch_size);
            prop_assert!(used.iter().all(|&r| r < records));
        }

        #[test]
        fn a_batch_does_not_depend_on_which_were_asked_before(steps in prop::collection::vec(0u64..100, 1..20)) {
            let mut warm = Schedule::new(seed(), 30, 7).unwrap();
            for step in steps {
                let mut fresh = Schedule::new(seed(), 30, 7).unwrap();
                prop_assert_eq!(warm.batch(step), fresh.batch(step));
            }
        }
    }

    #[test]
    fn epochs_differ_and_are_numbered() {
        let mut schedule = Schedule::new(seed(), 100, 50).unwrap();
        let (first, third) = (schedule.batch(0), schedule.batch(2));
        assert_eq!((first.epoch, third.epoch), (0, 1));
        assert_ne!(first.records, third.records);
    }

    #[test]
    fn a_schedule_without_steps_is_refused() {
        assert!(Schedule::new(seed(), 10, 0).is_err());
        assert!(Schedule::new(seed(), 10, 11).is_err());
        assert!(Schedule::new(seed(), 0, 1).is_err());
    }
}
