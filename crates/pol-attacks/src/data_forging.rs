//! Data forging (Thudi et al., 2022; Baluta et al., 2023; Suliman et al., 2024): a prover who does not want to admit some records trains on them and claims other batches whose gradients are near.
//! For each step a few batches are drawn and the nearest is claimed.

use pol_core::digest::tagged;
use pol_core::learner::Batch;
use pol_core::random::{Purpose, Seed};
use pol_core::recipe::Recipe;
use pol_core::records::Records;
use pol_core::schedule::{BatchPlan, BatchSource};
use pol_core::state::Entry;
use pol_core::store::Store;
use pol_models::ImageLearner;

use crate::forgery::{Forgery, honest_rate, plain, plans};
use crate::start::presentable;
use crate::{Attack, AttackError, Forged, Options, Victim};

/// Batches tried for each step.
const CANDIDATES: u64 = 8;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct DataForging;

impl Attack for DataForging {
    fn name(&self) -> &'static str {
        "data-forging"
    }

    fn source(&self) -> &'static str {
        "Thudi et al., 2022; Baluta et al., 2023; Suliman et al., 2024"
    }

    fn needs(&self) -> &'static str {
        "the training data; a policy that admits listed batches; a tolerance above what another batch does"
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
        let (mut terms, mut state) = presentable(victim, options, &recipe, learner)?;
        terms.batches = BatchSource::Explicit;
        let train = &victim.data.train;
        let (seed, size) = (terms.seed, terms.recipe.batch_size);
        let mut stream = Seed::from_digest(tagged("forger", &[])).stream(Purpose::Audit);
        let mut forgery = Forgery::begin(terms.clone(), train, store);
        forgery.log(&state)?;
        let (mut gradients, mut nearest, mut gaps) = (0, 0.0, 0u64);
        for segment in 0..options.segments {
            let mut claimed = Vec::new();
            for plan in plans(&terms, segment, seed, train.len())? {
                learner.restore(&state)?;
                let real = gradient(learner, victim, &plan.records)?;
                let mut best = (f64::INFINITY, Vec::new());
                for _ in 0..CANDIDATES {
                    let other: Vec<u64> = (0..size).map(|_| stream.below(train.len())).collect();
                    let gap = relative_gap(&gradient(learner, victim, &other)?, &real);
                    gradients += 1;
                    if gap < best.0 {
                        best = (gap, other);
                    }
                }
                nearest += best.0;
                gaps += 1;
                learner.restore(&state)?;
                learner.step(&Batch::new(&plan, train, &seed)?)?;
                gradients += 2;
                state = learner.capture()?;
                claimed.push(BatchPlan {
                    records: best.1,
                    ..plan
                });
            }
            forgery.log_after(&state, Some(&claimed))?;
        }
        forgery.seal()?;
        Ok(Forged::on_their_data(victim, gradients)
            .with("gradient gap", nearest / gaps.max(1) as f64))
    }
}

fn gradient(
    learner: &dyn ImageLearner,
    victim: &Victim<'_>,
    records: &[u64],
) -> Result<Vec<Entry>, AttackError> {
    let (shares, labels) = victim.data.shares(records);
    Ok(learner.gradients(&shares, &labels)?.parameters)
}

/// The l2 distance of two gradients over the length of the second.
fn relative_gap(a: &[Entry], b: &[Entry]) -> f64 {
    let values = |entries: &[Entry]| -> Vec<f64> {
        let values = entries.iter().flat_map(Entry::values);
        values.collect()
    };
    let (a, b) = (values(a), values(b));
    let gap: f64 = a.iter().zip(&b).map(|(x, y)| (x - y) * (x - y)).sum();
    (gap / b.iter().map(|y| y * y).sum::<f64>().max(f64::MIN_POSITIVE)).sqrt()
}
