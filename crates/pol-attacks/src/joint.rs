//! Joint near-zero updates: Zhang et al. (S&P 2022), attack III. As attack II, but the batches of a segment
//! are optimised as one batch and then split: one optimisation for each segment.
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
pub struct Joint;

impl Attack for Joint {
    fn name(&self) -> &'static str {
        "joint"
    }

    fn source(&self) -> &'static str {
        "Zhang et al., S&P 2022, attack III"
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
        forge_line(victim, options, recipe, learner, store, true)
    }
}
