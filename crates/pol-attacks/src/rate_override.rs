//! A learning rate in the optimizer's state. The reference implementation of Jia et al. (2021) loads the
//! optimizer from the proof, and with it the rate, whatever the hyperparameters say. So states on a
//! straight line say a rate of next to nothing, and replays stay where they are.

use pol_core::recipe::Recipe;
use pol_core::state::{Entry, RATE_ENTRY};
use pol_core::store::Store;
use pol_models::ImageLearner;

use crate::forgery::{Forgery, between, constant_rate, honest_rate, with_entries};
use crate::start::presentable;
use crate::{Attack, AttackError, Forged, Options, Victim};

const NEXT_TO_NOTHING: f64 = 1e-12;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct RateOverride;

impl Attack for RateOverride {
    fn name(&self) -> &'static str {
        "rate-override"
    }

    fn source(&self) -> &'static str {
        "against the reference implementation of Jia et al., 2021: the optimizer's state holds the rate"
    }

    fn needs(&self) -> &'static str {
        "any data; a verifier that takes the rate from the logged state"
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
        for segment in 1..=options.segments {
            let share = segment as f64 / options.segments as f64;
            let state = between(&template, &start, victim.stolen, share);
            let state = forgery.at_step(&state, segment * options.interval);
            let state = with_entries(&state, |entry| {
                (entry.name() == RATE_ENTRY).then(|| Entry::f64(RATE_ENTRY, NEXT_TO_NOTHING))
            });
            forgery.log_as_it_is(&state, None)?;
        }
        let steps = forgery.steps;
        forgery.seal()?;
        Ok(Forged::on_their_data(victim, steps))
    }
}
