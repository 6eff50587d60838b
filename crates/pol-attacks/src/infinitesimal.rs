//! Infinitesimal updates (Fang et al., EuroS&P 2023, §5.1) from a matched initialisation.
//!
//! From the start a straight line leads to the stolen model, in so many intervals that each is below a
//! constant tolerance, under a learning rate at which honest training does not move at all. Data is as
//! it is. Adaptive: from the derived start, and at the lowest rate that the default policy admits.

use pol_core::manifest::Start;
use pol_core::recipe::Recipe;
use pol_core::store::Store;
use pol_models::ImageLearner;

use crate::forgery::{Forgery, constant_rate, model_distance};
use crate::start::{matched, presentable};
use crate::{Attack, AttackError, Forged, Options, Victim};

/// A rate at which nothing moves.
const NEXT_TO_NOTHING: f64 = 1e-9;
/// The lowest rate that the default policy admits.
const LOWEST: f64 = 1e-6;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Infinitesimal;

impl Attack for Infinitesimal {
    fn name(&self) -> &'static str {
        "infinitesimal"
    }

    fn source(&self) -> &'static str {
        "Fang et al., EuroS&P 2023, infinitesimal update; start: Zhang et al., S&P 2022"
    }

    fn needs(&self) -> &'static str {
        "any data; a policy that tests starts by their distribution"
    }

    fn claimed(&self, victim: &Victim<'_>, options: &Options) -> Recipe {
        let rate = if options.adaptive {
            LOWEST
        } else {
            NEXT_TO_NOTHING
        };
        constant_rate(victim, options, options.learning_rate.unwrap_or(rate))
    }

    fn forge(
        &self,
        victim: &Victim<'_>,
        options: &Options,
        learner: &mut dyn ImageLearner,
        store: &dyn Store,
    ) -> Result<Forged, AttackError> {
        let recipe = self.claimed(victim, options);
        let (terms, mut start) = presentable(victim, options, &recipe, learner)?;
        let seed = terms.seed;
        let terms = match options.adaptive {
            true => terms,
            false => {
                start = matched(learner, &start, victim.stolen, &seed);
                terms.from_start(Start::Claimed)
            }
        };
        let mut forgery = Forgery::begin(terms, &victim.data.train, store);
        // One segment shows which entries states have once there was a step.
        let template = forgery.train(learner, &start, 0)?;
        forgery.log(&start)?;
        forgery.log_line(&template, &start, victim.stolen)?;
        let steps = forgery.steps;
        forgery.seal()?;
        Ok(Forged::on_their_data(victim, steps)
            .with("distance", model_distance(&start, victim.stolen)))
    }
}
