//! Directed retraining, or splicing: honest steps with a pull towards the stolen model, that is, training
//! with the loss L + λ‖W − W_T‖², until it arrives. The pull is in no recipe.

use pol_core::recipe::Recipe;
use pol_core::store::Store;
use pol_models::ImageLearner;

use crate::forgery::{Forgery, between, constant_rate, honest_rate, model_distance};
use crate::start::presentable;
use crate::{Attack, AttackError, Forged, Options, Victim};

/// The share of the way that is left before the last segment.
const REMAINING: f64 = 1e-3;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Splice;

impl Attack for Splice {
    fn name(&self) -> &'static str {
        "splice"
    }

    fn source(&self) -> &'static str {
        "Jia et al., S&P 2021 (directed retraining); Zhang et al., S&P 2022"
    }

    fn needs(&self) -> &'static str {
        "the training data; a tolerance above the pull of a segment"
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
        let (terms, mut state) =
            presentable(victim, options, &self.claimed(victim, options), learner)?;
        let mut forgery = Forgery::begin(terms, &victim.data.train, store);
        forgery.log(&state)?;
        // What is left of the way after a segment: a thousandth after them all.
        let left = REMAINING.powf(1.0 / options.segments as f64);
        let mut largest: f64 = 0.0;
        for segment in 0..options.segments {
            let trained = forgery.train(learner, &state, segment)?;
            let last = segment + 1 == options.segments;
            let share = if last { 1.0 } else { 1.0 - left };
            let next = between(&trained, &trained, victim.stolen, share);
            largest = largest.max(model_distance(&trained, &next));
            forgery.log(&next)?;
            state = forgery.at_step(&next, (segment + 1) * options.interval);
        }
        let steps = forgery.steps;
        forgery.seal()?;
        Ok(Forged::on_their_data(victim, steps).with("largest pull", largest))
    }
}
