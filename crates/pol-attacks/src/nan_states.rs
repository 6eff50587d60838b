//! States that are not numbers. Where a proof is rejected if a distance *exceeds* a tolerance, NaN passes,
//! since it exceeds nothing. All states between the derived start and the stolen model are NaN.

use pol_core::model_file::is_model;
use pol_core::recipe::Recipe;
use pol_core::store::Store;
use pol_models::ImageLearner;

use crate::forgery::{Forgery, between, constant_rate, honest_rate, map_values, with_entries};
use crate::start::presentable;
use crate::{Attack, AttackError, Forged, Options, Victim};

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct NanStates;

impl Attack for NanStates {
    fn name(&self) -> &'static str {
        "nan-states"
    }

    fn source(&self) -> &'static str {
        "against the reference implementation of Jia et al., 2021: NaN passes comparisons"
    }

    fn needs(&self) -> &'static str {
        "nothing; a verifier that rejects only what is greater than a bound"
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
        let (terms, start) = presentable(victim, options, &self.claimed(victim, options), learner)?;
        let mut forgery = Forgery::begin(terms, &victim.data.train, store);
        let template = forgery.train(learner, &start, 0)?;
        forgery.log(&start)?;
        let nothing = with_entries(&template, |entry| match is_model(entry.name()) {
            true => map_values(entry, |_| f64::NAN),
            false => None,
        });
        for _ in 1..options.segments {
            forgery.log(&nothing)?;
        }
        forgery.log(&between(&template, &start, victim.stolen, 1.0))?;
        let steps = forgery.steps;
        forgery.seal()?;
        Ok(Forged::on_their_data(victim, steps))
    }
}
