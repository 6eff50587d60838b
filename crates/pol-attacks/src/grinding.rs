//! Challenge grinding: an audit that is drawn from the commitment itself can be drawn again by committing
//! to something else. All segments but the last are honest training from the derived start; the last
//! jumps to the stolen model. Bits of its optimizer's state are changed until the draw misses it.

use pol_core::audit::{Challenge, Draw};
use pol_core::recipe::Recipe;
use pol_core::store::Store;
use pol_models::ImageLearner;

use crate::forgery::{Forgery, between, constant_rate, honest_rate, map_values, with_entries};
use crate::start::presentable;
use crate::{Attack, AttackError, Forged, Options, Victim};

const MAX_TRIES: u64 = 10_000;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Grinding;

impl Attack for Grinding {
    fn name(&self) -> &'static str {
        "grinding"
    }

    fn source(&self) -> &'static str {
        "against Fiat–Shamir draws (Fiat and Shamir, 1986); Fang et al., 2023, on steering checks"
    }

    fn needs(&self) -> &'static str {
        "the training data; a verifier that draws its audit from the commitment"
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
        let (terms, mut state) =
            presentable(victim, options, &self.claimed(victim, options), learner)?;
        let mut forgery = Forgery::begin(terms, &victim.data.train, store);
        forgery.log(&state)?;
        for segment in 0..options.segments {
            state = forgery.train(learner, &state, segment)?;
            if segment + 1 < options.segments {
                forgery.log(&state)?;
            }
        }
        let bad = options.segments - 1;
        let end = between(&state, &state, victim.stolen, 1.0);
        let free = end
            .entries()
            .iter()
            .find(|entry| entry.name().starts_with("optim/"));
        let free = free.map(|entry| entry.name().to_owned()).ok_or_else(|| {
            AttackError::NotApplicable("the optimizer has no state to change".to_owned())
        })?;
        let draw = Draw::Sample(options.sample);
        let mut tries = 0u64;
        let missed = loop {
            tries += 1;
            let tried = with_entries(&end, |entry| {
                let mine = entry.name() == free;
                mine.then(|| map_values(entry, |value| value + tries as f64 * 1e-6))
                    .flatten()
            });
            let claim = forgery.claim_with(&tried);
            let challenge = Challenge::offline(claim.commitment(), draw);
            if !challenge.segments(&claim).contains(&bad) {
                break tried;
            }
            if tries >= MAX_TRIES {
                return Err(AttackError::NotApplicable(format!(
                    "no draw of {} segments out of {} misses the last",
                    options.sample, options.segments
                )));
            }
        };
        forgery.log(&missed)?;
        let steps = forgery.steps;
        forgery.seal()?;
        let chance = 1.0 - options.sample as f64 / options.segments as f64;
        Ok(Forged::on_their_data(victim, steps)
            .with("tries", tries as f64)
            .with("expected tries", 1.0 / chance))
    }
}
