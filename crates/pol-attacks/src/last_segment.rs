//! Honest training whose last state is exchanged for the stolen model: one forged segment in a proof of any
//! length, which a uniform sample meets as seldom as any other. Numerics don't matter, since nothing but the
//! choice of segments stands in the way, and nor does any comparison.
//!
//! Cause: an audit that is stated against a *fraction* of forged segments, where one is enough.

use pol_core::recipe::Recipe;
use pol_core::store::Store;
use pol_models::ImageLearner;

use crate::forgery::{Forgery, between, model_distance, on_their_data};
use crate::{Attack, AttackError, Forged, Options, Victim};

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct LastSegment;

impl Attack for LastSegment {
    fn name(&self) -> &'static str {
        "last-segment"
    }

    fn source(&self) -> &'static str {
        "found on this program (S4): a sample stated against a fraction of forged segments"
    }

    fn needs(&self) -> &'static str {
        "the training data; an audit that may leave out the last segment"
    }

    fn claimed(&self, victim: &Victim<'_>, _options: &Options) -> Recipe {
        victim.terms.recipe.clone()
    }

    fn forge(
        &self,
        victim: &Victim<'_>,
        options: &Options,
        learner: &mut dyn ImageLearner,
        store: &dyn Store,
    ) -> Result<Forged, AttackError> {
        let terms = on_their_data(victim, options, self.claimed(victim, options));
        if terms.seed == victim.terms.seed {
            let why = "that nonce gives the victim's own training; take another".to_owned();
            return Err(AttackError::NotApplicable(why));
        }
        let segments = terms.segments();
        learner.initialise(&terms.seed)?;
        let mut state = learner.capture()?;
        let mut forgery = Forgery::begin(terms, &victim.data.train, store);
        for segment in 0..segments {
            forgery.log(&state)?;
            state = forgery.train(learner, &state, segment)?;
        }
        let missed = model_distance(&state, victim.stolen);
        forgery.log(&between(&state, &state, victim.stolen, 1.0))?;
        let steps = forgery.steps;
        forgery.seal()?;
        Ok(Forged::on_their_data(victim, steps)
            .with("segments", segments as f64)
            .with("forged segments", 1.0)
            .with("missed by", missed))
    }
}
