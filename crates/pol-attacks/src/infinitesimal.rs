//! Infinitesimal updates (Fang et al., EuroS&P 2023, §5.1) from a matched initialisation (Zhang et al.,
//! S&P 2022, §IV).
//!
//! A start is drawn layer by layer from the claimed distribution and its values put in the order of the
//! stolen model's, so that it passes any test of distributions and is close to it. From there a straight
//! line leads to the stolen model, in so many intervals that each is below a constant tolerance, under a
//! learning rate at which honest training does not move at all.

use pol_core::ks::{kolmogorov_smirnov, normal};
use pol_core::learner::{Initial, Learner};
use pol_core::manifest::{Start, Terms};
use pol_core::model_file::is_model;
use pol_core::random::{Purpose, Seed};
use pol_core::recipe::{Decay, LearningRate, Recipe};
use pol_core::records::DataCommitment;
use pol_core::schedule::BatchSource;
use pol_core::state::{Entry, State};
use pol_core::store::Store;

use crate::forgery::{Forgery, between, with_entries};
use crate::{Attack, AttackError, Options, Spent, Victim};

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Infinitesimal;

impl Attack for Infinitesimal {
    fn name(&self) -> &'static str {
        "infinitesimal"
    }

    fn source(&self) -> &'static str {
        "Fang et al., EuroS&P 2023, infinitesimal update; start: Zhang et al., S&P 2022"
    }

    fn needs(&self) -> &'static str {
        "any data; a policy that tests starts by their distribution"
    }

    fn claimed(&self, victim: &Victim<'_>, options: &Options) -> Recipe {
        Recipe {
            learning_rate: LearningRate {
                base: options.learning_rate,
                warmup: 0,
                decay: Decay::Constant,
            },
            steps: options.interval * options.segments,
            ..victim.terms.recipe.clone()
        }
    }

    fn forge(
        &self,
        victim: &Victim<'_>,
        options: &Options,
        learner: &mut dyn Learner,
        store: &dyn Store,
    ) -> Result<Spent, AttackError> {
        let recipe = self.claimed(victim, options);
        let data = DataCommitment::of(victim.records);
        let terms = Terms::new(
            recipe,
            data,
            options.nonce,
            BatchSource::Derived,
            options.interval,
        )
        .from_start(Start::Claimed);
        learner.initialise(&terms.seed)?;
        let fresh = learner.capture()?;
        let start = matched(learner, &fresh, victim.stolen, &terms.seed);
        let mut forgery = Forgery::begin(terms, victim.records, store)?;
        // One segment shows which entries states have once there was a step.
        let template = forgery.train(learner, &start, 0)?;
        forgery.log(start.clone())?;
        for segment in 1..=options.segments {
            let share = segment as f64 / options.segments as f64;
            forgery.log(between(&template, &start, victim.stolen, share))?;
        }
        let steps = forgery.steps;
        forgery.seal()?;
        Ok(Spent {
            steps,
            honest_steps: victim.terms.recipe.steps,
        })
    }
}

/// A start that looks freshly drawn and is as near to the stolen model as that allows: each layer's
/// draws in the order of the stolen values. Layers that are not drawn are as they have to be.
fn matched(learner: &dyn Learner, fresh: &State, stolen: &State, seed: &Seed) -> State {
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
        // Until the test is content by a margin, as Zhang et al. do.
        for _ in 0..100 {
            draws = wanted.iter().map(|_| stream.normal() * deviation).collect();
            if kolmogorov_smirnov(&mut draws, |x| normal(x, 0.0, deviation)).p > 0.05 {
                break;
            }
        }
        draws.sort_by(f64::total_cmp);
        let mut order: Vec<usize> = (0..wanted.len()).collect();
        order.sort_by(|&a, &b| wanted[a].total_cmp(&wanted[b]));
        let mut values = vec![0f32; wanted.len()];
        for (place, draw) in order.into_iter().zip(draws) {
            values[place] = draw as f32;
        }
        Some(Entry::f32(
            entry.name(),
            entry.header.shape.clone(),
            &values,
        ))
    })
}
