//! Challenge grinding: an audit that is drawn from the commitment itself can be drawn again by committing
//! to something else. All segments but the last but one are honest training; that one jumps to the stolen
//! model, which the last, since every challenge holds it, trains for one segment more. Bits of the
//! optimizer's state at the jump's end are changed until the draw misses it. A verifier with the folder at
//! hand sees the jump stand out; one with an opening does not see how far a segment moves.

use pol_core::audit::{Challenge, Draw};
use pol_core::recipe::Recipe;
use pol_core::store::Store;
use pol_models::ImageLearner;

use crate::forgery::{
    Forgery, between, constant_rate, honest_rate, map_values, model_distance, with_entries,
};
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
        "the training data; a verifier of openings that draws its audit from the commitment"
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
        let Some(bad) = options.segments.checked_sub(2) else {
            return Err(AttackError::NotApplicable(
                "the only segment is the last, which every challenge holds".to_owned(),
            ));
        };
        let (terms, mut state) =
            presentable(victim, options, &self.claimed(victim, options), learner)?;
        let mut forgery = Forgery::begin(terms, &victim.data.train, store);
        forgery.log(&state)?;
        for segment in 0..=bad {
            state = forgery.train(learner, &state, segment)?;
            if segment < bad {
                forgery.log(&state)?;
            }
        }
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
        let (jumped, last) = loop {
            tries += 1;
            let tried = with_entries(&end, |entry| {
                let mine = entry.name() == free;
                mine.then(|| map_values(entry, |value| value + tries as f64 * 1e-6))
                    .flatten()
            });
            let last = forgery.train(learner, &tried, bad + 1)?;
            let claim = forgery.claim_with(&[&tried, &last]);
            let challenge = Challenge::offline(claim.commitment(), draw);
            if !challenge.segments(&claim).contains(&bad) {
                break (tried, last);
            }
            if tries >= MAX_TRIES {
                return Err(AttackError::NotApplicable(format!(
                    "no draw of {} segments out of {} misses the last but one",
                    options.sample, options.segments
                )));
            }
        };
        forgery.log(&jumped)?;
        forgery.log(&last)?;
        let steps = forgery.steps;
        forgery.seal()?;
        let chance = 1.0 - options.sample as f64 / options.segments as f64;
        Ok(Forged::on_their_data(victim, steps)
            .with("tries", tries as f64)
            .with("expected tries", 1.0 / chance)
            .with("distance", model_distance(&last, victim.stolen)))
    }
}
