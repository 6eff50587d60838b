//! Other augmentation: trained with draws of the forger's choice, committed as if with the derived ones.
//! Where augmentation is not derived from a seed, as in the reference implementation, nobody can tell.

use pol_core::digest::tagged;
use pol_core::random::Seed;
use pol_core::recipe::Recipe;
use pol_core::store::Store;
use pol_models::ImageLearner;

use crate::forgery::{Practice, constant_rate, honest_rate, train_otherwise};
use crate::start::presentable;
use crate::{Attack, AttackError, Forged, Options, Victim};

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct AugmentationSwap;

impl Attack for AugmentationSwap {
    fn name(&self) -> &'static str {
        "augmentation-swap"
    }

    fn source(&self) -> &'static str {
        "against augmentation that is not derived from a seed (reference implementation of Jia et al., 2021)"
    }

    fn needs(&self) -> &'static str {
        "the training data; a recipe with augmentation; a tolerance above what other draws do"
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
        if victim.terms.recipe.data.options.is_empty() {
            let why = "the recipe has no augmentation".to_owned();
            return Err(AttackError::NotApplicable(why));
        }
        let (terms, _) = presentable(victim, options, &self.claimed(victim, options), learner)?;
        let practice = Practice {
            records: &victim.data.train,
            order: terms.seed,
            draws: Seed::from_digest(tagged("augmentation-swap", &[&options.nonce.to_le_bytes()])),
        };
        let steps = train_otherwise(terms, victim, learner, store, practice)?;
        Ok(Forged::on_their_data(victim, steps))
    }
}
