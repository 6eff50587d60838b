//! Interpolation where replays are noisiest: against tolerances that are measured in each segment, the
//! forger claims the highest rate and momentum that a policy admits, so that rounding is carried far, and
//! hopes that what is tolerated covers the line.

use pol_core::recipe::{Optimizer, Recipe};
use pol_core::store::Store;
use pol_models::ImageLearner;

use crate::forgery::{Forgery, constant_rate, map_values, with_entries};
use crate::start::presentable;
use crate::{Attack, AttackError, Forged, Options, Victim};

/// The highest rate that the default policy admits.
const HIGHEST: f64 = 1.0;
const MOMENTUM: f64 = 0.99;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct HighNoise;

impl Attack for HighNoise {
    fn name(&self) -> &'static str {
        "high-noise"
    }

    fn source(&self) -> &'static str {
        "adaptive, against tolerances measured per segment (this project)"
    }

    fn needs(&self) -> &'static str {
        "the training data; a tolerance that grows with noise without regard to what was learned"
    }

    fn claimed(&self, victim: &Victim<'_>, options: &Options) -> Recipe {
        let mut recipe = constant_rate(victim, options, options.learning_rate.unwrap_or(HIGHEST));
        if let Optimizer::Sgd { momentum, .. } = &mut recipe.optimizer {
            *momentum = MOMENTUM;
        }
        recipe
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
        // Training at such a rate may end in states that no proof can hold; the line needs its shapes alone.
        let template = with_entries(&template, |entry| {
            match entry.name().starts_with("optim/") {
                true => map_values(entry, |_| 0.0),
                false => None,
            }
        });
        forgery.log(&start)?;
        forgery.log_line(&template, &start, victim.stolen)?;
        let steps = forgery.steps;
        forgery.seal()?;
        Ok(Forged::on_their_data(victim, steps))
    }
}
