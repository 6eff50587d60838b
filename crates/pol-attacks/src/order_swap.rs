//! Another order: trained with batches in an order of the forger's choice, committed as if in the derived
//! one. A hash of the data that does not cover the order lets this pass, and order alone can steer a
//! training (Shumailov et al., NeurIPS 2021).

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
pub struct OrderSwap;

impl Attack for OrderSwap {
    fn name(&self) -> &'static str {
        "order-swap"
    }

    fn source(&self) -> &'static str {
        "against data hashes without order; Shumailov et al., NeurIPS 2021"
    }

    fn needs(&self) -> &'static str {
        "the training data; a tolerance above what another order does"
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
        let (terms, _) = presentable(victim, options, &self.claimed(victim, options), learner)?;
        let practice = Practice {
            records: &victim.data.train,
            order: Seed::from_digest(tagged("order-swap", &[&options.nonce.to_le_bytes()])),
            draws: terms.seed,
        };
        let steps = train_otherwise(terms, victim, learner, store, practice)?;
        Ok(Forged::on_their_data(victim, steps))
    }
}
