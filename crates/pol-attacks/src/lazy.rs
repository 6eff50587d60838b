//! Lazy interpolation: a straight line from the derived start to the stolen model, with ordinary data and
//! the honest learning rate. What holds the
//! line is the tolerance alone: replays walk where training walks, not along the line.

use pol_core::recipe::Recipe;
use pol_core::store::Store;
use pol_models::ImageLearner;

use crate::forgery::{Forgery, constant_rate, honest_rate, model_distance};
use crate::start::presentable;
use crate::{Attack, AttackError, Forged, Options, Victim};

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Lazy;

impl Attack for Lazy {
    fn name(&self) -> &'static str {
        "lazy"
    }

    fn source(&self) -> &'static str {
        "after Jia et al., S&P 2021: interpolation between states"
    }

    fn needs(&self) -> &'static str {
        "the training data; a tolerance above what honest training moves in a segment"
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
        forgery.log_line(&template, &start, victim.stolen)?;
        let steps = forgery.steps;
        forgery.seal()?;
        Ok(Forged::on_their_data(victim, steps)
            .with("distance", model_distance(&start, victim.stolen)))
    }
}
