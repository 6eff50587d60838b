//! Other labels: trained with the labels of some records changed, committed to the records as they are.
//! The reference implementation hashes images and leaves labels out.

use pol_core::recipe::Recipe;
use pol_core::records::{MemoryRecords, Records};
use pol_core::store::Store;
use pol_models::ImageLearner;

use crate::forgery::{Practice, constant_rate, honest_rate, train_otherwise};
use crate::start::presentable;
use crate::{Attack, AttackError, Forged, Options, Victim};

/// Every twentieth label is changed.
const ONE_IN: u64 = 20;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct LabelSwap;

impl Attack for LabelSwap {
    fn name(&self) -> &'static str {
        "label-swap"
    }

    fn source(&self) -> &'static str {
        "against the reference implementation of Jia et al., 2021: labels are not hashed"
    }

    fn needs(&self) -> &'static str {
        "the training data; a data hash without labels, or a tolerance above what some labels do"
    }

    fn claimed(&self, victim: &Victim<'_>, options: &Options) -> Recipe {
        constant_rate(victim, options, honest_rate(victim, options))
    }

    fn forge(
        &self,
        victim: &Victim<'_>,
        options: &Options,
        learner: &mut dyn ImageLearner,
        store: &dyn Store,
    ) -> Result<Forged, AttackError> {
        let (terms, _) = presentable(victim, options, &self.claimed(victim, options), learner)?;
        let classes = victim.data.name.classes() as u32;
        let train = &victim.data.train;
        let poisoned = (0..train.len()).filter_map(|index| {
            let record = train.record(index)?;
            let label = match index.is_multiple_of(ONE_IN) {
                true => (record.label + 1) % classes,
                false => record.label,
            };
            Some((label, record.bytes.to_vec()))
        });
        let poisoned = MemoryRecords(poisoned.collect());
        let seed = terms.seed;
        let practice = Practice {
            records: &poisoned,
            order: seed,
            draws: seed,
        };
        let steps = train_otherwise(terms, victim, learner, store, practice)?;
        let changed = train.len().div_ceil(ONE_IN);
        Ok(Forged::on_their_data(victim, steps).with("labels changed", changed as f64))
    }
}
