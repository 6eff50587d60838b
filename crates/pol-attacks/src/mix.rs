//! Two proofs in one: the first half is an honest training of the forger's own, the second half is somebody
//! else's published proof. All but the segment at the seam is honest training, if of other seeds.

use pol_core::recipe::Recipe;
use pol_core::store::Store;
use pol_models::ImageLearner;

use crate::forgery::{Forgery, published};
use crate::start::presentable;
use crate::{Attack, AttackError, Forged, Options, Victim};

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Mix;

impl Attack for Mix {
    fn name(&self) -> &'static str {
        "mix"
    }

    fn source(&self) -> &'static str {
        "structure: after Jia et al., S&P 2021 (concatenation)"
    }

    fn needs(&self) -> &'static str {
        "the published proof; the training data; a verifier that does not replay the seam"
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
        let (manifest, states) = published(victim.proof)?;
        let theirs = manifest.claim.terms;
        let (recipe, interval) = (theirs.recipe.clone(), theirs.interval);
        let options = Options {
            interval,
            ..*options
        };
        let (terms, mut state) = presentable(victim, &options, &recipe, learner)?;
        if terms.seed == theirs.seed {
            let why = "that nonce gives the victim's own training; take another".to_owned();
            return Err(AttackError::NotApplicable(why));
        }
        let mut forgery = Forgery::begin(terms, &victim.data.train, store);
        forgery.log(&state)?;
        let seam = states.len() / 2;
        for segment in 0..seam as u64 {
            state = forgery.train(learner, &state, segment)?;
            forgery.log(&state)?;
        }
        for theirs in states.iter().skip(seam + 1) {
            forgery.log(theirs)?;
        }
        let steps = forgery.steps;
        forgery.seal()?;
        Ok(Forged::on_their_data(victim, steps))
    }
}
