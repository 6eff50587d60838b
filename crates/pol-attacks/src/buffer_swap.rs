//! Other buffers. A published proof is copied, but the final model's BatchNorm statistics are others: a
//! model with the trained weights that classifies differently, or not at all. Whoever compares weights
//! alone does not see it.

use pol_core::recipe::Recipe;
use pol_core::state::Part;
use pol_core::store::Store;
use pol_models::ImageLearner;

use crate::forgery::{Forgery, map_values, published, with_entries};
use crate::{Attack, AttackError, Forged, Options, Victim};

/// Statistics are multiplied by this, and moved by it.
const FACTOR: f64 = 3.0;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct BufferSwap;

impl Attack for BufferSwap {
    fn name(&self) -> &'static str {
        "buffer-swap"
    }

    fn source(&self) -> &'static str {
        "against the reference implementation of Jia et al., 2021: only parameters are compared"
    }

    fn needs(&self) -> &'static str {
        "the published proof; a model with buffers; a verifier that compares parameters alone"
    }

    fn claimed(&self, victim: &Victim<'_>, _options: &Options) -> Recipe {
        victim.terms.recipe.clone()
    }

    fn forge(
        &self,
        victim: &Victim<'_>,
        _options: &Options,
        learner: &mut dyn ImageLearner,
        store: &dyn Store,
    ) -> Result<Forged, AttackError> {
        let (manifest, states) = published(victim.proof)?;
        let mut swapped = 0;
        let mut forgery = Forgery::begin(manifest.claim.terms, &victim.data.train, store);
        let last = states.len().saturating_sub(1);
        for (index, state) in states.iter().enumerate() {
            if index < last {
                forgery.log(state)?;
                continue;
            }
            let other = with_entries(state, |entry| match learner.part(entry.name()) {
                Part::Buffers => map_values(entry, |value| FACTOR * value + FACTOR),
                _ => None,
            });
            let pairs = other.entries().iter().zip(state.entries());
            swapped += pairs.filter(|(a, b)| a != b).count();
            forgery.log(&other)?;
        }
        if swapped == 0 {
            return Err(AttackError::NotApplicable(
                "the model has no buffers".to_owned(),
            ));
        }
        forgery.seal()?;
        Ok(Forged::on_their_data(victim, 0).with("buffers", swapped as f64))
    }
}
