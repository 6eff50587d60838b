//! What it costs to find which records an opening has to hold. The order of an epoch's records is drawn as a
//! whole, so a claim of many records makes work that nothing in a small opening pays for. Numbers are compared
//! before anything is drawn.

use crate::audit::Disclosed;
use crate::manifest::Claim;
use crate::schedule::Schedule;

use super::integrity::Fault;
use super::reason::Reason;

/// Random draws that are made for any opening: a fraction of a second.
const FREE_DRAWS: u64 = 1 << 24;
/// Random draws that are made for each record that was opened, on top. They take about a quarter of a
/// millisecond, which is what a step of a small network takes for one record.
const DRAWS_PER_RECORD: u64 = 1 << 13;

/// The orders of records that the audited steps lie in, in numbers alone.
pub(super) struct Orders {
    /// Records in an epoch's order.
    pub(super) records: u64,
    /// Epochs that audited steps lie in.
    epochs: u64,
    /// The fewest different records that the audited steps use.
    least: u64,
    /// The most.
    most: u64,
}

impl Orders {
    /// The orders that the audited steps of `claim` lie in.
    pub(super) fn of(claim: &Claim, disclosed: &Disclosed) -> Result<Self, Fault> {
        let terms = &claim.terms;
        let (records, batch_size) = (terms.data.records, terms.recipe.batch_size);
        // It refuses batches that there are not records enough for.
        let schedule = Schedule::new(terms.seed, records, batch_size);
        schedule.map_err(|error| Reason::Manifest(error.to_string()))?;
        let segments = disclosed.segments.iter();
        let steps = segments.map(|&segment| terms.segment_steps(segment));
        Ok(Self::over(records, batch_size, steps))
    }

    /// The orders that these ranges of steps, ascending, lie in; an epoch has at least one step.
    fn over(records: u64, batch_size: u64, ranges: impl Iterator<Item = (u64, u64)>) -> Self {
        let per_epoch = Schedule::steps_per_epoch(records, batch_size).max(1);
        let (mut epochs, mut steps, mut longest) = (0, 0u64, 0);
        // The first epoch that was not counted yet.
        let mut next = 0;
        for (first, last) in ranges {
            let end = last.div_ceil(per_epoch);
            epochs += end - (first / per_epoch).max(next).min(end);
            next = end;
            steps += last - first;
            longest = longest.max(last - first);
        }
        // So many steps in a row lie in two epochs at most, and an epoch uses no record twice.
        let apart = longest.min(per_epoch).div_ceil(2);
        Self {
            records,
            epochs,
            least: apart.saturating_mul(batch_size),
            most: steps.saturating_mul(batch_size).min(records),
        }
    }

    /// Whether so many records may be those that the audited steps use.
    pub(super) fn check_records(&self, opened: u64) -> Result<(), Reason> {
        if opened < self.least {
            return Err(Reason::Withheld(format!(
                "records: {opened} are opened where the audited steps use at least {}",
                self.least
            )));
        }
        if opened > self.most {
            return Err(Reason::Inclusion(format!(
                "one of {opened} records, where the audited steps use at most {},",
                self.most
            )));
        }
        Ok(())
    }

    /// Whether so many opened records are worth the draws that the orders take.
    pub(super) fn check_draws(&self, opened: u64) -> Result<(), Reason> {
        let draws = self.epochs.saturating_mul(self.records);
        let allowed = FREE_DRAWS.saturating_add(opened.saturating_mul(DRAWS_PER_RECORD));
        match draws <= allowed {
            true => Ok(()),
            false => Err(Reason::Draws { draws, allowed }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::digest::tagged;
    use crate::random::Seed;

    proptest! {
        #[test]
        fn the_records_that_steps_use_are_as_many_as_the_numbers_say(
            records in 1u64..60,
            batch_size in 1u64..20,
            interval in 1u64..12,
            drawn in prop::collection::btree_set(0u64..10, 1..5),
        ) {
            prop_assume!(batch_size <= records);
            let seed = Seed::from_digest(tagged("orders", &[]));
            let ranges = || drawn.iter().map(|&segment| (segment * interval, (segment + 1) * interval));
            let orders = Orders::over(records, batch_size, ranges());
            let mut schedule = Schedule::new(seed, records, batch_size).unwrap();
            let plans = ranges().flat_map(|(first, last)| first..last);
            let plans: Vec<_> = plans.map(|step| schedule.batch(step)).collect();
            let used: BTreeSet<u64> = plans.iter().flat_map(|plan| plan.records.clone()).collect();
            let epochs: BTreeSet<u64> = plans.iter().map(|plan| plan.epoch).collect();
            prop_assert!(orders.check_records(used.len() as u64).is_ok());
            prop_assert_eq!(orders.epochs, epochs.len() as u64);
            prop_assert!(orders.check_records(orders.most + 1).is_err());
            prop_assert!(orders.check_records(orders.least - 1).is_err());
        }
    }

    #[test]
    fn draws_are_paid_for_by_opened_records() {
        let of = |records| Orders::over(records, 4, std::iter::once((0, 5)));
        assert!(of(FREE_DRAWS).check_draws(0).is_ok());
        assert!(of(FREE_DRAWS + 1).check_draws(0).is_err());
        assert!(of(FREE_DRAWS + DRAWS_PER_RECORD).check_draws(1).is_ok());
        assert!(of(1 << 26).check_draws(20).is_err());
    }
}
