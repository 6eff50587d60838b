//! Initial states that look drawn and are near to a stolen model.

use pol_core::ks::{kolmogorov_smirnov, normal};
use pol_core::learner::Initial;
use pol_core::manifest::Terms;
use pol_core::model_file::is_model;
use pol_core::random::{Purpose, Seed};
use pol_core::recipe::Recipe;
use pol_core::state::State;
use pol_models::ImageLearner;

use crate::forgery::{on_their_data, with_entries, with_values};
use crate::{AttackError, Options, Victim};

/// The p-value that a forger is content with.
const CONTENT: f64 = 0.05;
/// The most draws of a layer.
const DRAWS: u64 = 100;

/// Nonces that are tried for a start that looks drawn.
const NONCES: u64 = 100;

/// The smallest p-value of the Kolmogorov–Smirnov tests of all layers that are drawn.
pub fn smallest_p(learner: &dyn ImageLearner, state: &State) -> f64 {
    let tested = state.entries().iter().filter_map(|entry| {
        let Some(Initial::Normal(deviation)) = learner.initial(entry.name()) else {
            return None;
        };
        let mut values: Vec<f64> = entry.values().collect();
        Some(kolmogorov_smirnov(&mut values, |x| normal(x, 0.0, deviation)).p)
    });
    tested.fold(1.0, f64::min)
}

/// Terms on the victim's data with a derived start that the published test admits, which it does not do
/// with all: the nonce is free, and a forger takes the first that will do.
pub(crate) fn presentable(
    victim: &Victim<'_>,
    options: &Options,
    recipe: &Recipe,
    learner: &mut dyn ImageLearner,
) -> Result<(Terms, State), AttackError> {
    let mut nonce = options.nonce;
    loop {
        let with = Options { nonce, ..*options };
        let terms = on_their_data(victim, &with, recipe.clone());
        learner.initialise(&terms.seed)?;
        let start = learner.capture()?;
        if smallest_p(learner, &start) > CONTENT || nonce >= options.nonce.saturating_add(NONCES) {
            return Ok((terms, start));
        }
        nonce += 1;
    }
}

/// Each layer's draws in the order of the stolen values (Zhang et al., S&P 2022, §IV-B; also called
/// rank matching): as near to the stolen model as any draw can be, and of the right distribution
/// whatever the test. Layers that are not drawn are as they have to be. Draws are repeated until the
/// Kolmogorov–Smirnov test is content by a margin.
pub(crate) fn matched(
    learner: &dyn ImageLearner,
    fresh: &State,
    stolen: &State,
    seed: &Seed,
) -> State {
    with_entries(fresh, |entry| {
        let Some(Initial::Normal(deviation)) = learner.initial(entry.name()) else {
            return None;
        };
        let target = stolen
            .entry(entry.name())
            .filter(|_| is_model(entry.name()))?;
        let wanted: Vec<f64> = target.values().collect();
        let mut stream = seed.stream(Purpose::Weights(entry.name()));
        let mut draws: Vec<f64> = Vec::new();
        for _ in 0..DRAWS {
            draws = wanted.iter().map(|_| stream.normal() * deviation).collect();
            if kolmogorov_smirnov(&mut draws, |x| normal(x, 0.0, deviation)).p > CONTENT {
                break;
            }
        }
        draws.sort_by(f64::total_cmp);
        let mut order: Vec<usize> = (0..wanted.len()).collect();
        order.sort_by(|&a, &b| wanted[a].total_cmp(&wanted[b]));
        let mut values = vec![0.0; wanted.len()];
        for (place, draw) in order.into_iter().zip(draws) {
            values[place] = draw;
        }
        Some(with_values(entry, values.into_iter()))
    })
}
