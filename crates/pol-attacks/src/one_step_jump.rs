//! One-step jump: Zhang et al. (S&P 2022), attack I. Honest training to some state W', and then a last step on
//! records that are changed until its gradient is (W' − W_T)/η: one update that lands on the stolen model.

use pol_core::recipe::Recipe;
use pol_core::records::Records;
use pol_core::schedule::BatchPlan;
use pol_core::store::Store;
use pol_models::ImageLearner;
use pol_models::dataset::Images;

use crate::forgery::{Forgery, between, honest_rate, model_distance, plain, plans};
use crate::start::presentable;
use crate::steering::{Source, listed, optimise, step_on};
use crate::{Attack, AttackError, Forged, Options, Spent, Victim};

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct OneStepJump;

impl Attack for OneStepJump {
    fn name(&self) -> &'static str {
        "one-step-jump"
    }

    fn source(&self) -> &'static str {
        "Zhang et al., S&P 2022, attack I"
    }

    fn needs(&self) -> &'static str {
        "data (--access); a policy that tests starts by their distribution and admits listed batches"
    }

    fn claimed(&self, victim: &Victim<'_>, options: &Options) -> Recipe {
        let mut recipe = plain(victim, options, honest_rate(victim, options));
        recipe.steps += 1;
        recipe
    }

    fn forge(
        &self,
        victim: &Victim<'_>,
        options: &Options,
        learner: &mut dyn ImageLearner,
        store: &dyn Store,
    ) -> Result<Forged, AttackError> {
        let recipe = self.claimed(victim, options);
        let (size, rate) = (recipe.batch_size, recipe.learning_rate.base);
        let (provisional, start) = presentable(victim, options, &recipe, learner)?;
        let segments = provisional.segments();
        let mut states = vec![start];
        let mut line = Forgery::begin(provisional.clone(), &victim.data.train, store);
        for segment in 0..segments - 1 {
            let next = line.train(learner, &states[segment as usize], segment)?;
            states.push(next);
        }
        let jump_from = line.at_step(&states[segments as usize - 1], recipe.steps - 1);
        let clean = Source::new(victim, options).take(size);
        let towards = (&jump_from, victim.stolen, 1.0 / rate);
        let (made, found) = optimise(
            &clean,
            victim,
            options.iterations,
            learner,
            towards,
            &mut None,
        )?;
        learner.restore(&jump_from)?;
        let arrived = step_on(&made.images(victim.data)?, recipe.steps - 1, learner)?;
        let gradients = line.steps + found.gradients + 1;
        let missed = model_distance(&arrived, victim.stolen);
        let way = model_distance(&jump_from, victim.stolen);
        states.push(between(&arrived, &arrived, victim.stolen, 1.0));

        // The honest records, and those of the jump after them.
        let train = &victim.data.train;
        let offset = victim.data.name.pixel_offset();
        let honest = (0..train.len()).filter_map(|index| {
            let record = train.record(index)?;
            Some((record.label, record.bytes.get(offset..)?.to_vec()))
        });
        let len = victim.data.name.image().len();
        let jump = made
            .labels
            .iter()
            .copied()
            .zip(made.pixels.chunks_exact(len).map(<[u8]>::to_vec));
        let records = Images::of_pixels(victim.data.name, honest.chain(jump))?;
        let terms = listed(recipe, &records, options);
        let mut forgery = Forgery::begin(terms, &records, store);
        for (index, state) in states.iter().enumerate() {
            let batches = match (index as u64).checked_sub(1) {
                None => None,
                Some(segment) if segment + 1 < segments => {
                    Some(plans(&provisional, segment, provisional.seed, train.len())?)
                }
                Some(segment) => Some(vec![BatchPlan {
                    step: provisional.segment_steps(segment).0,
                    epoch: 0,
                    records: (train.len()..train.len() + size).collect(),
                }]),
            };
            forgery.log_after(state, batches.as_deref())?;
        }
        forgery.seal()?;
        let spent = Spent {
            gradients,
            honest_steps: victim.terms.recipe.steps,
        };
        Ok(Forged {
            spent,
            records: Some(records),
            figures: Vec::new(),
        }
        .with("residual left", found.after / found.before)
        .with("way", way)
        .with("missed by", missed))
    }
}
