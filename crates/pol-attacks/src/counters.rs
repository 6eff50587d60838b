//! Adam's step counters pay for its moments. A tolerance in units of movement that is taken over all of the
//! optimizer's numbers together has the counters in it: k steps move each by k, whatever was learned, and a
//! hundredth of that is more than all moments. So moments can be logged at will. Parameters are logged where
//! replays really arrive; the moments written beside them make the next replay go towards the stolen model,
//! and the last one, over a short segment if the interval leaves one, arrive there.
//!
//! A first moment m moves a parameter by η Σⱼ β₁ʲ m / √v̂ⱼ beside what gradients do. The second moment is
//! set alike for all parameters, so large that gradients do little and so small that the first moments which
//! are tolerated reach as far as they have to; it counts for next to nothing in the sum, as it is a square.
//! The victim's own recipe and data are claimed, and start and batches derived.
//!
//! Cause: one sum of squares in which a big entry pays for all others.

use pol_core::recipe::{Optimizer, Recipe};
use pol_core::state::{Part, State};
use pol_core::store::Store;
use pol_models::ImageLearner;

use crate::forgery::{Forgery, between, map_values, with_entries, with_values};
use crate::start::presentable;
use crate::tolerated::{RELATIVE, USED, distance, within};
use crate::{Attack, AttackError, Forged, Options, Victim};

/// Replays that correct the moments of a segment on the way, and of the last one.
const CORRECTIONS: [u64; 2] = [4, 60];
/// Of what the tolerance leaves for the moments, what the first guess uses.
const FIRST: f64 = 0.6;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Counters;

impl Attack for Counters {
    fn name(&self) -> &'static str {
        "counters"
    }

    fn source(&self) -> &'static str {
        "found on this program (S1): step counters in one sum with Adam's moments"
    }

    fn needs(&self) -> &'static str {
        "the training data; Adam; a tolerance relative to the movement of the whole optimizer"
    }

    fn claimed(&self, victim: &Victim<'_>, _options: &Options) -> Recipe {
        victim.terms.recipe.clone()
    }

    fn forge(
        &self,
        victim: &Victim<'_>,
        options: &Options,
        learner: &mut dyn ImageLearner,
        store: &dyn Store,
    ) -> Result<Forged, AttackError> {
        let recipe = self.claimed(victim, options);
        let rule = Moments::of(&recipe)?;
        let (terms, initial) = presentable(victim, options, &recipe, learner)?;
        let segments = terms.segments();
        if segments < 2 {
            let why = "the training has one segment; take a shorter interval".to_owned();
            return Err(AttackError::NotApplicable(why));
        }
        let mut forgery = Forgery::begin(terms, &victim.data.train, store);
        forgery.log(&initial)?;
        let mut logged = initial;
        let mut arrived = forgery.train(learner, &logged, 0)?;
        let (mut paid, mut share) = (0.0f64, 0.0);
        for segment in 1..segments {
            let moved = distance(learner, &logged, &arrived, Part::Optimizer);
            let hop = Hop {
                segment,
                goal: between(
                    &arrived,
                    &arrived,
                    victim.stolen,
                    1.0 / (segments - segment) as f64,
                ),
                budget: USED * RELATIVE * moved,
                is_last: segment + 1 == segments,
            };
            let (start, end) = rule.hop(&mut forgery, learner, &arrived, &hop)?;
            paid = paid.max(distance(learner, &arrived, &start, Part::Optimizer) / moved);
            forgery.log(&start)?;
            let missed = distance(learner, &end, &hop.goal, Part::Parameters);
            share = missed / distance(learner, &start, &hop.goal, Part::Parameters);
            (logged, arrived) = (start, end);
        }
        forgery.log(&between(&arrived, &arrived, victim.stolen, 1.0))?;
        let steps = forgery.steps;
        forgery.seal()?;
        Ok(Forged::on_their_data(victim, steps)
            .with("segments", segments as f64)
            .with("largest change of moments over movement", paid)
            .with("last miss over movement", share))
    }
}

/// A segment that is to go somewhere.
struct Hop {
    segment: u64,
    goal: State,
    /// What the optimizer's state may differ by, in l2.
    budget: f64,
    is_last: bool,
}

/// Adam's constants.
struct Moments {
    beta1: f64,
    beta2: f64,
}

impl Moments {
    fn of(recipe: &Recipe) -> Result<Self, AttackError> {
        match recipe.optimizer {
            Optimizer::Adam { beta1, beta2, .. } | Optimizer::AdamW { beta1, beta2, .. } => {
                Ok(Self { beta1, beta2 })
            }
            _ => Err(AttackError::NotApplicable(
                "the optimizer is not Adam".to_owned(),
            )),
        }
    }

    /// How far the steps from `first` to `last` move a parameter for each unit of m / √v at `first`, where
    /// gradients change neither.
    fn reach(&self, recipe: &Recipe, first: u64, last: u64) -> f64 {
        let moves = (first..last).map(|step| {
            let (after, made) = ((step - first + 1) as f64, (step + 1) as f64);
            let corrected = |beta: f64| beta.powf(after) / (1.0 - beta.powf(made));
            let rate = recipe.learning_rate.at(step, recipe.steps);
            rate * corrected(self.beta1) / corrected(self.beta2).sqrt()
        });
        moves.sum()
    }

    /// The state to log in the place of `arrived`, which differs in its moments alone, and where the
    /// segment leads from there: as near to the goal as some replays get.
    fn hop(
        &self,
        forgery: &mut Forgery<'_>,
        learner: &mut dyn ImageLearner,
        arrived: &State,
        hop: &Hop,
    ) -> Result<(State, State), AttackError> {
        let terms = forgery.terms();
        let (first, last) = terms.segment_steps(hop.segment);
        let reach = self.reach(&terms.recipe, first, last);
        let far = |state: &State, learner: &dyn ImageLearner| {
            distance(learner, state, &hop.goal, Part::Parameters)
        };
        // √v, so that first moments of the length that is tolerated reach the goal.
        let root = FIRST * hop.budget * reach / far(arrived, learner);
        let still = still(arrived, root * root);
        let aim = |from: &State, ended: &State, gain: f64, learner: &dyn ImageLearner| {
            let aimed = pushed(from, ended, &hop.goal, gain * root / reach);
            within(learner, arrived, &aimed, Part::Optimizer, hop.budget)
        };
        let mut best = aim(&still, arrived, 1.0, learner);
        let mut end = forgery.train(learner, &best, hop.segment)?;
        let mut missed = far(&end, learner);
        let enough = 0.5 * RELATIVE * far(arrived, learner);
        let mut gain = 1.0;
        for _ in 0..CORRECTIONS[usize::from(hop.is_last)] {
            if missed <= enough {
                break;
            }
            let tried = aim(&best, &end, gain, learner);
            let reached = forgery.train(learner, &tried, hop.segment)?;
            let distance = far(&reached, learner);
            if distance < missed {
                (best, end, missed) = (tried, reached, distance);
                gain *= 1.3;
            } else {
                gain /= 2.0;
            }
        }
        Ok((best, end))
    }
}

/// The state with no first moment, and this second one everywhere.
fn still(state: &State, second: f64) -> State {
    with_entries(state, |entry| {
        let value = match entry.name().rsplit_once("moment_")?.1 {
            "1" => 0.0,
            _ => second,
        };
        map_values(entry, |_| value)
    })
}

/// The state with each first moment changed so as to end at the goal rather than where it ended: by `for_one`
/// for each unit missed.
fn pushed(state: &State, ended: &State, goal: &State, for_one: f64) -> State {
    with_entries(state, |entry| {
        let (path, field) = entry.name().strip_prefix("optim/")?.split_once('/')?;
        if !field.ends_with("moment_1") {
            return None;
        }
        let name = format!("model/{path}");
        let (ended, goal) = (ended.entry(&name)?, goal.entry(&name)?);
        let missed = ended.values().zip(goal.values());
        let values = entry.values().zip(missed);
        Some(with_values(
            entry,
            values.map(|(m, (ended, goal))| m + for_one * (ended - goal)),
        ))
    })
}
