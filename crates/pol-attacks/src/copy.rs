//! Somebody else's proof as one's own: its states under a seed of the forger's, with its batches listed
//! instead of derived, and its initial state claimed instead of derived. Every segment of it is honest
//! training.

use pol_core::manifest::Start;
use pol_core::recipe::Recipe;
use pol_core::records::Records;
use pol_core::schedule::BatchSource;
use pol_core::store::Store;
use pol_models::ImageLearner;

use crate::forgery::{Forgery, on_their_data, plans, published};
use crate::{Attack, AttackError, Forged, Options, Victim};

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Copied;

impl Attack for Copied {
    fn name(&self) -> &'static str {
        "copy"
    }

    fn source(&self) -> &'static str {
        "structure: after Jia et al., S&P 2021 (copies); what a binding to the prover is for"
    }

    fn needs(&self) -> &'static str {
        "the published proof; a verifier that tests starts by their distribution and admits listed batches"
    }

    fn claimed(&self, victim: &Victim<'_>, _options: &Options) -> Recipe {
        let mut recipe = victim.terms.recipe.clone();
        recipe.data.options.clear();
        recipe
    }

    fn forge(
        &self,
        victim: &Victim<'_>,
        options: &Options,
        _learner: &mut dyn ImageLearner,
        store: &dyn Store,
    ) -> Result<Forged, AttackError> {
        let (manifest, states) = published(victim.proof)?;
        let theirs = manifest.claim.terms;
        let options = Options {
            interval: theirs.interval,
            ..*options
        };
        let recipe = self.claimed(victim, &options);
        let mut terms = on_their_data(victim, &options, recipe).from_start(Start::Claimed);
        terms.batches = BatchSource::Explicit;
        let mut forgery = Forgery::begin(terms, &victim.data.train, store);
        for (index, state) in states.iter().enumerate() {
            let plans = match index.checked_sub(1) {
                None => None,
                Some(segment) => {
                    let count = victim.data.train.len();
                    Some(plans(&theirs, segment as u64, theirs.seed, count)?)
                }
            };
            forgery.log_after(state, plans.as_deref())?;
        }
        forgery.seal()?;
        Ok(Forged::on_their_data(victim, 0))
    }
}
