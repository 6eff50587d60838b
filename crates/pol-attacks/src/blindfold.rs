//! Blindfold top-Q (Fang et al., EuroS&P 2023, §5.2).
//!
//! A verifier that replays the Q largest updates of each epoch is shown Q honest ones that are the
//! largest; all others lie on straight lines towards the stolen model, in smaller pieces than those. The
//! start is the honest one, and so is the data; the larger the rate, the longer the pieces may be.

use pol_core::recipe::Recipe;
use pol_core::records::Records;
use pol_core::schedule::Schedule;
use pol_core::store::Store;
use pol_models::ImageLearner;

use crate::forgery::{Forgery, between, constant_rate, honest_rate, model_distance};
use crate::start::presentable;
use crate::{Attack, AttackError, Forged, Options, Victim};

/// Honest segments in each epoch: the Q of the published verifier.
const HONEST: u64 = 5;
/// Segments in an epoch, where batches can be made small enough.
const EPOCH: u64 = 3 * HONEST;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Blindfold;

impl Attack for Blindfold {
    fn name(&self) -> &'static str {
        "blindfold"
    }

    fn source(&self) -> &'static str {
        "Fang et al., EuroS&P 2023, blindfold top-Q"
    }

    fn needs(&self) -> &'static str {
        "the training data; a verifier that replays the largest updates alone"
    }

    fn claimed(&self, victim: &Victim<'_>, options: &Options) -> Recipe {
        let honest = constant_rate(victim, options, honest_rate(victim, options));
        // Small batches, so that an epoch has more segments than are looked at.
        let fitting = victim.data.train.len() / (EPOCH * options.interval.max(1));
        Recipe {
            batch_size: fitting.clamp(1, honest.batch_size),
            ..honest
        }
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
        let batch_size = terms.recipe.batch_size;
        let per_epoch = Schedule::steps_per_epoch(victim.data.train.len(), batch_size);
        let mut forgery = Forgery::begin(terms, &victim.data.train, store);
        forgery.log(&state)?;
        let epoch_of = |segment: u64| segment * options.interval / per_epoch.max(1);
        let (mut epoch, mut honest, mut smallest) = (u64::MAX, 0, f64::INFINITY);
        for segment in 0..options.segments {
            if epoch_of(segment) != epoch {
                (epoch, honest, smallest) = (epoch_of(segment), 0, f64::INFINITY);
            }
            let last = segment + 1 == options.segments;
            let next = if honest < HONEST && !last {
                honest += 1;
                let next = forgery.train(learner, &state, segment)?;
                smallest = smallest.min(model_distance(&state, &next));
                next
            } else {
                // As large a piece of the way as stays among the small ones.
                let way = model_distance(&state, victim.stolen);
                let share = if way > 0.0 {
                    (0.8 * smallest / way).min(1.0)
                } else {
                    1.0
                };
                between(&state, &state, victim.stolen, share)
            };
            forgery.log(&next)?;
            state = forgery.at_step(&next, (segment + 1) * options.interval);
        }
        if model_distance(&state, victim.stolen) > 0.0 {
            return Err(AttackError::NotApplicable(format!(
                "{} segments do not reach the stolen model: it is still {:.2} away; give more",
                options.segments,
                model_distance(&state, victim.stolen)
            )));
        }
        let steps = forgery.steps;
        forgery.seal()?;
        // In gradients of the victim's batches.
        let gradients = (steps * batch_size).div_ceil(victim.terms.recipe.batch_size);
        Ok(Forged::on_their_data(victim, gradients))
    }
}
