//! Optimizer-state injection, against verifiers that load the optimizer's state from the proof and
//! compare weights alone.
//!
//! With momentum μ and rate η the velocity v moves the weights by −ημ(1 − μᵏ)/(1 − μ)·v in k steps, beside
//! what gradients do. So v = −D(1 − μ)/(ημ(1 − μᵏ)) jumps a distance D in one segment; a few replays
//! correct for the gradients, by smaller steps where these are steep.

use pol_core::recipe::{Optimizer, Recipe};
use pol_core::state::State;
use pol_core::store::Store;
use pol_models::ImageLearner;

use crate::forgery::{
    Forgery, between, constant_rate, honest_rate, model_distance, with_entries, with_values,
};
use crate::start::presentable;
use crate::{Attack, AttackError, Forged, Options, Victim};

/// The most replays that correct the velocity.
const CORRECTIONS: u64 = 40;
/// An l2 distance that every published tolerance admits.
const NEAR: f64 = 0.05;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Injection;

impl Attack for Injection {
    fn name(&self) -> &'static str {
        "injection"
    }

    fn source(&self) -> &'static str {
        "against the reference implementation of Jia et al., 2021: the optimizer's state is loaded and \
         never compared"
    }

    fn needs(&self) -> &'static str {
        "the training data; SGD with momentum; a verifier that compares weights alone"
    }

    fn claimed(&self, victim: &Victim<'_>, options: &Options) -> Recipe {
        let options = Options {
            segments: 2,
            ..*options
        };
        constant_rate(victim, &options, honest_rate(victim, &options))
    }

    fn forge(
        &self,
        victim: &Victim<'_>,
        options: &Options,
        learner: &mut dyn ImageLearner,
        store: &dyn Store,
    ) -> Result<Forged, AttackError> {
        let recipe = self.claimed(victim, options);
        let Optimizer::Sgd { momentum, .. } = recipe.optimizer else {
            return Err(AttackError::NotApplicable(
                "the optimizer is not SGD".to_owned(),
            ));
        };
        if momentum == 0.0 {
            return Err(AttackError::NotApplicable(
                "the recipe has no momentum".to_owned(),
            ));
        }
        let rate = recipe.learning_rate.base;
        let reach =
            rate * momentum * (1.0 - momentum.powi(options.interval as i32)) / (1.0 - momentum);
        let (terms, initial) = presentable(victim, options, &recipe, learner)?;
        let mut forgery = Forgery::begin(terms, &victim.data.train, store);
        let honest = forgery.train(learner, &initial, 0)?;
        let mut injected = pushed(&honest, &honest, victim.stolen, reach);
        let mut arrived = forgery.train(learner, &injected, 1)?;
        let mut missed = model_distance(&arrived, victim.stolen);
        let mut gain = 1.0;
        for _ in 0..CORRECTIONS {
            if missed < NEAR {
                break;
            }
            let tried = pushed(&injected, &arrived, victim.stolen, reach / gain);
            let reached = forgery.train(learner, &tried, 1)?;
            let distance = model_distance(&reached, victim.stolen);
            if distance < missed {
                (injected, arrived, missed) = (tried, reached, distance);
                gain = f64::min(1.0, 1.5 * gain);
            } else {
                gain /= 2.0;
            }
        }
        forgery.log(&initial)?;
        forgery.log(&injected)?;
        forgery.log(&between(&honest, &honest, victim.stolen, 1.0))?;
        let steps = forgery.steps;
        forgery.seal()?;
        Ok(Forged::on_their_data(victim, steps).with("missed by", missed))
    }
}

/// The state with each velocity changed so as to end where `wanted` is rather than at `arrived`.
pub(crate) fn pushed(state: &State, arrived: &State, wanted: &State, reach: f64) -> State {
    with_entries(state, |entry| {
        let path = entry.name().strip_prefix("optim/")?;
        let (path, _field) = path.split_once('/')?;
        let name = format!("model/{path}");
        let (arrived, wanted) = (arrived.entry(&name)?, wanted.entry(&name)?);
        let pairs = arrived.values().zip(wanted.values());
        let values = entry.values().zip(pairs);
        Some(with_values(
            entry,
            values.map(|(v, (a, w))| v - (w - a) / reach),
        ))
    })
}
