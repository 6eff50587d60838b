//! Near-zero updates: Zhang et al. (S&P 2022), attack II. Between neighbouring states on the line from a
//! matched start to the stolen model, the records of each step are changed until its gradient makes the
//! move of the line, which is next to none. Records are stored as bytes, and committed to.
//!
//! Adaptive: what is logged is where training on those records arrives; only the last segment is forged.

use pol_core::recipe::Recipe;
use pol_core::store::Store;
use pol_models::ImageLearner;

use crate::forgery::{honest_rate, plain};
use crate::steering::forge_line;
use crate::{Attack, AttackError, Forged, Options, Victim};

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct NearZero;

impl Attack for NearZero {
    fn name(&self) -> &'static str {
        "near-zero"
    }

    fn source(&self) -> &'static str {
        "Zhang et al., S&P 2022, attack II"
    }

    fn needs(&self) -> &'static str {
        "data (--access); a policy that tests starts by their distribution and admits listed batches"
    }

    fn claimed(&self, victim: &Victim<'_>, options: &Options) -> Recipe {
        plain(victim, options, honest_rate(victim, options))
    }

    fn forge(
        &self,
        victim: &Victim<'_>,
        options: &Options,
        learner: &mut dyn ImageLearner,
        store: &dyn Store,
    ) -> Result<Forged, AttackError> {
        let recipe = self.claimed(victim, options);
        forge_line(victim, options, recipe, learner, store, false)
    }
}
