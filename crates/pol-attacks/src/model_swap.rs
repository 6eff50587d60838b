//! The proof of another model: a published proof is copied, and the model that is passed off with it is
//! another one, its last layer changed. A scheme whose proof does not bind the deployed model lets it
//! pass.

use pol_core::model_file::is_model;
use pol_core::recipe::Recipe;
use pol_core::store::Store;
use pol_models::ImageLearner;

use crate::forgery::{Forgery, map_values, published, with_entries};
use crate::{Attack, AttackError, Forged, Options, Victim};

const SHIFT: f64 = 0.25;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct ModelSwap;

impl Attack for ModelSwap {
    fn name(&self) -> &'static str {
        "model-swap"
    }

    fn source(&self) -> &'static str {
        "against the reference implementation of Jia et al., 2021: the final model is not bound"
    }

    fn needs(&self) -> &'static str {
        "the published proof"
    }

    fn claimed(&self, victim: &Victim<'_>, _options: &Options) -> Recipe {
        victim.terms.recipe.clone()
    }

    fn forge(
        &self,
        victim: &Victim<'_>,
        _options: &Options,
        _learner: &mut dyn ImageLearner,
        store: &dyn Store,
    ) -> Result<Forged, AttackError> {
        let (manifest, states) = published(victim.proof)?;
        let mut forgery = Forgery::begin(manifest.claim.terms, &victim.data.train, store);
        for state in &states {
            forgery.log(state)?;
        }
        let names = victim
            .stolen
            .layout()
            .filter(|header| is_model(&header.name));
        let last = names.last().map(|header| header.name.clone());
        let other = with_entries(victim.stolen, |entry| {
            let is_last = last.as_deref() == Some(entry.name());
            is_last
                .then(|| map_values(entry, |value| value + SHIFT))
                .flatten()
        });
        forgery.with_model(&other);
        forgery.seal()?;
        Ok(Forged::on_their_data(victim, 0))
    }
}
