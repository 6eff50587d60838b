//! Ends of segments pushed towards the stolen model, as far as rounding may excuse. Where a tolerance is a
//! multiple of the noise that the verifier measures, whoever can make replays noisy is tolerated more: short
//! intervals, small batches and high rates leave a training in which rounding is carried nearly as far as
//! learning. The forger disturbs replays as a verifier would and pushes by twelve times the least
//! noise among them, which stays below sixteen times the most that the verifier will find; or by
//! a hundredth of the movement, if that is more. The next segment is trained honestly from there, so that
//! pushes add up.
//!
//! Nothing but the parameters is pushed; the end is no stolen model, only nearer to one than training led.
//! Cause: a tolerance that grows with noise, which the prover's choice of interval and batch makes.

use pol_core::model_file::is_model;
use pol_core::recipe::Recipe;
use pol_core::state::{DType, Entry, Part, State};
use pol_core::store::Store;
use pol_models::ImageLearner;

use crate::forgery::{
    Forgery, constant_rate, honest_rate, model_distance, on_their_data, with_entries,
};
use crate::tolerated::{RELATIVE, USED, distance, within};
use crate::{Attack, AttackError, Forged, Options, Victim};

/// Disturbed replays of a segment.
const DISTURBED: usize = 3;
/// How many times the least noise a segment's end is pushed; the default policy tolerated sixteen times.
const MULTIPLE: f64 = 12.0;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Push;

impl Attack for Push {
    fn name(&self) -> &'static str {
        "push"
    }

    fn source(&self) -> &'static str {
        "found on this program (S5): noise that the prover's interval makes, as a yardstick"
    }

    fn needs(&self) -> &'static str {
        "the training data; a tolerance that grows with noise or movement"
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
        let terms = on_their_data(victim, options, self.claimed(victim, options));
        let segments = terms.segments();
        learner.initialise(&terms.seed)?;
        let start = learner.capture()?;
        let mut forgery = Forgery::begin(terms, &victim.data.train, store);
        forgery.log(&start)?;
        let mut state = start.clone();
        let (mut largest, mut lowest, mut pushes) = (0.0f64, f64::MAX, 0.0);
        for segment in 0..segments {
            let honest = forgery.train(learner, &state, segment)?;
            let movement = distance(learner, &state, &honest, Part::Parameters);
            let mut noise = f64::INFINITY;
            for way in 0..DISTURBED {
                let ended = forgery.train(learner, &disturbed(&state, way), segment)?;
                noise = noise.min(distance(learner, &honest, &ended, Part::Parameters));
            }
            let push = f64::max(USED * RELATIVE * movement, MULTIPLE * noise);
            let goal = with_entries(&honest, |entry| {
                let is_trained = learner.part(entry.name()) == Part::Parameters;
                is_trained.then(|| victim.stolen.entry(entry.name()).cloned())?
            });
            let pushed = within(learner, &honest, &goal, Part::Parameters, push);
            let push = distance(learner, &honest, &pushed, Part::Parameters);
            largest = largest.max(push / movement);
            lowest = lowest.min(movement / noise.max(f64::MIN_POSITIVE));
            pushes += push;
            forgery.log(&pushed)?;
            state = pushed;
        }
        let steps = forgery.steps;
        forgery.seal()?;
        let way = model_distance(&start, victim.stolen);
        Ok(Forged::on_their_data(victim, steps)
            .with("segments", segments as f64)
            .with("largest push over movement", largest)
            .with("smallest movement over noise", lowest)
            .with("pushes over the way to the stolen model", pushes / way))
    }
}

/// The state with every third number of the model and the optimizer moved by one unit in its last place.
fn disturbed(state: &State, way: usize) -> State {
    with_entries(state, |entry| {
        let moves = is_model(entry.name()) || entry.name().starts_with("optim/");
        if entry.header.dtype != DType::F32 || !moves {
            return None;
        }
        let values = entry.values().enumerate();
        let values = values.map(|(place, value)| match place % DISTURBED == way {
            true => (value as f32).next_up(),
            false => value as f32,
        });
        let values: Vec<f32> = values.collect();
        Some(Entry::f32(
            entry.name(),
            entry.header.shape.clone(),
            &values,
        ))
    })
}
