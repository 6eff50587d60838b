//! Weights that swing. With momentum μ near one and weight decay λ every weight is a pendulum: it swings
//! through zero and back, and loses half a thousandth a step. Pixels that are black in all records have equal
//! weights for all that the scores know: differences between the weights from two of them to one unit have
//! no gradient, and swing freely. In segments of a quarter swing the movement is the amplitude; a hundredth of
//! it is tolerated in the weights, and as much in the velocities, so that each segment pushes the pendulum
//! a hundredth further, until it dwarfs all other weights, which what is left of the tolerance keeps quiet.
//! Then a hundredth of it is more than these have in all: what is stolen is put in their place.
//!
//! The victim's model and data are claimed, with a rate, momentum and decay that the default policy admitted;
//! start and batches are derived, and the last state's model is the stolen one.
//!
//! Cause: movement as a yardstick that momentum and decay inflate, and one sum of squares in which a
//! swinging weight pays for all others.

use pol_core::model_file::is_model;
use pol_core::recipe::{Optimizer, Recipe};
use pol_core::records::Records;
use pol_core::state::{Entry, Part, State};
use pol_core::store::Store;
use pol_models::ImageLearner;

use crate::forgery::{
    Forgery, between, constant_rate, map_values, on_their_data, with_entries, with_values,
};
use crate::injection::pushed;
use crate::tolerated::{RELATIVE, USED, distance, within};
use crate::{Attack, AttackError, Forged, Options, Victim};

const MOMENTUM: f64 = 0.999;
const DECAY: f64 = 0.5;
/// Steps of a quarter swing, the interval of the proof.
const QUARTER: u64 = 6;
const BATCH: u64 = 512;
/// The weights of the first layer, by pixel and unit, and their velocity.
const WEIGHT: &str = "model/hidden.weight";
const VELOCITY: &str = "optim/hidden.weight/momentum.velocity";
/// Replays that correct the last velocities.
const CORRECTIONS: u64 = 12;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Pendulum;

impl Attack for Pendulum {
    fn name(&self) -> &'static str {
        "pendulum"
    }

    fn source(&self) -> &'static str {
        "found on this program (S2): movement that momentum and decay make, as a yardstick"
    }

    fn needs(&self) -> &'static str {
        "the training data, with two pixels that are black in all records; the perceptron; momentum of \
         0.999 with a decay of 0.5, and a tolerance relative to movement"
    }

    fn claimed(&self, victim: &Victim<'_>, options: &Options) -> Recipe {
        let swings = Options {
            interval: QUARTER,
            segments: quarters(),
            ..*options
        };
        let mut recipe = constant_rate(victim, &swings, rate());
        // Large batches without dropout heat the other weights less.
        recipe.batch_size = BATCH.min(victim.data.train.len()).max(1);
        recipe.model.options.remove("dropout");
        recipe.optimizer = Optimizer::Sgd {
            momentum: MOMENTUM,
            dampening: 0.0,
            weight_decay: DECAY,
            nesterov: false,
        };
        recipe
    }

    fn forge(
        &self,
        victim: &Victim<'_>,
        options: &Options,
        learner: &mut dyn ImageLearner,
        store: &dyn Store,
    ) -> Result<Forged, AttackError> {
        let pair = Free::of(victim)?;
        let options = Options {
            interval: QUARTER,
            ..*options
        };
        let terms = on_their_data(victim, &options, self.claimed(victim, &options));
        let segments = terms.segments();
        learner.initialise(&terms.seed)?;
        let mut logged = learner.capture()?;
        let mut forgery = Forgery::begin(terms, &victim.data.train, store);
        forgery.log(&logged)?;
        // Up to the state from which the last segment leads to the stolen model.
        for segment in 0..segments - 1 {
            let arrived = forgery.train(learner, &logged, segment)?;
            let allowed = |of| USED * RELATIVE * distance(learner, &logged, &arrived, of);
            let allowed = (allowed(Part::Parameters), allowed(Part::Optimizer));
            logged = match segment + 2 == segments {
                false => pair.pushed(learner, &arrived, allowed, segment % 2 == 1),
                true => steered(&mut forgery, learner, victim, &arrived, allowed.1)?,
            };
            forgery.log(&logged)?;
        }
        let arrived = forgery.train(learner, &logged, segments - 1)?;
        let end = between(&arrived, &arrived, victim.stolen, 1.0);
        let missed = distance(learner, &arrived, &end, Part::Parameters);
        let moved = distance(learner, &logged, &end, Part::Parameters);
        forgery.log(&end)?;
        let steps = forgery.steps;
        forgery.seal()?;
        Ok(Forged::on_their_data(victim, steps)
            .with("segments", segments as f64)
            .with("amplitude", moved)
            .with("missed by", missed)
            .with("last miss over movement", missed / moved))
    }
}

/// The rate at which a weight swings through a quarter in [`QUARTER`] steps: a step multiplies its phase by
/// z, where z² − (1 + μ − ηλ) z + μ = 0.
fn rate() -> f64 {
    let (decay, momentum) = (DECAY, MOMENTUM);
    (1.0 + momentum - 2.0 * momentum.sqrt() * angle().cos()) / decay
}

/// The angle of a step.
fn angle() -> f64 {
    std::f64::consts::FRAC_PI_2 / QUARTER as f64
}

/// How far a weight moves in `steps` for each unit of velocity, against it.
fn reach(steps: u64) -> f64 {
    let (mut weight, mut velocity) = (0.0, 1.0);
    for _ in 0..steps {
        velocity = MOMENTUM * velocity + DECAY * weight;
        weight -= rate() * velocity;
    }
    -weight
}

/// Segments until a hundredth of the pendulum is as much as the stolen model. At first all weights swing, and
/// pay for it, so that it soon is as long as all of them together were. An odd number, so that it passes
/// through zero at the end.
fn quarters() -> u64 {
    let growth = (1.0 + USED * RELATIVE) * MOMENTUM.powf(QUARTER as f64 / 2.0);
    let segments = -(USED * RELATIVE).ln() / growth.ln();
    segments as u64 | 1
}

/// Weights whose differences have no gradient.
struct Free {
    /// Pixels that are black in all records.
    black: Vec<usize>,
    units: usize,
}

impl Free {
    fn of(victim: &Victim<'_>) -> Result<Self, AttackError> {
        let refuse = |why: &str| Err(AttackError::NotApplicable(why.to_owned()));
        let Some(weight) = victim.stolen.entry(WEIGHT) else {
            return refuse("the model is not the perceptron");
        };
        let &[pixels, units] = weight.header.shape.as_slice() else {
            return refuse("the first layer has no matrix of weights");
        };
        if !victim.terms.recipe.data.options.is_empty() {
            return refuse("augmentation moves black pixels");
        }
        let (pixels, units) = (pixels as usize, units as usize);
        let train = &victim.data.train;
        let records = || (0..train.len()).filter_map(|index| train.record(index));
        let skipped = victim.data.name.pixel_offset();
        let is_black = |&pixel: &usize| {
            records().all(|record| record.bytes.get(skipped + pixel).is_some_and(|b| *b == 0))
        };
        let black: Vec<usize> = (0..pixels).filter(is_black).collect();
        if black.len() < 2 {
            return refuse("fewer than two pixels are black in all records");
        }
        Ok(Self { black, units })
    }

    /// The state with its pendulum pushed outwards: the weights where they are at their largest, which is
    /// every second time, and the velocity where they pass through zero. The other of the two is brought
    /// to rest, for all weights, which else would be carried off. By at most what is allowed of weights and
    /// velocities.
    fn pushed(
        &self,
        learner: &dyn ImageLearner,
        state: &State,
        allowed: (f64, f64),
        turning: bool,
    ) -> State {
        let none: &dyn Fn(&str) -> bool = match turning {
            true => &|name: &str| name.starts_with("optim/"),
            false => &is_model,
        };
        let mut rest = with_entries(state, |entry| {
            none(entry.name()).then(|| map_values(entry, |_| 0.0))?
        });
        let (swinging, by, part, most) = match turning {
            true => {
                // A velocity is that of half a step earlier, so it is not zero where the weight turns.
                let late = -(1.0 - angle().cos()) / rate();
                let weights = self.differences(state, WEIGHT).into_iter();
                let late: Vec<f64> = weights.map(|weight| late * weight).collect();
                rest = self.added(&rest, VELOCITY, &late);
                (WEIGHT, allowed.0, Part::Optimizer, allowed.1)
            }
            false => (VELOCITY, allowed.1, Part::Parameters, allowed.0),
        };
        let calmed = within(learner, state, &rest, part, most);
        let out = stretched(&self.differences(state, swinging), by);
        self.added(&calmed, swinging, &out)
    }

    /// The state with this added to the weights of the black pixels, or to their velocities.
    fn added(&self, state: &State, name: &str, differences: &[f64]) -> State {
        with_entries(state, |entry| {
            let mut values: Vec<f64> = (entry.name() == name).then(|| entry.values().collect())?;
            for (place, by) in self.places().into_iter().zip(differences) {
                values[place] += by;
            }
            Some(with_values(entry, values.into_iter()))
        })
    }

    /// Where the weights of the black pixels stand, pixel by pixel.
    fn places(&self) -> Vec<usize> {
        let of_pixel = |&pixel: &usize| (0..self.units).map(move |unit| (pixel, unit));
        let pairs = self.black.iter().flat_map(of_pixel);
        pairs
            .map(|(pixel, unit)| pixel * self.units + unit)
            .collect()
    }

    /// The weights of the black pixels, or their velocities, less each unit's mean.
    fn differences(&self, state: &State, name: &str) -> Vec<f64> {
        let all: Vec<f64> = (state.entry(name).into_iter())
            .flat_map(Entry::values)
            .collect();
        let mut found: Vec<f64> = (self.places().iter())
            .map(|&place| all.get(place).copied().unwrap_or(0.0))
            .collect();
        for unit in 0..self.units {
            let of_unit = || (unit..).step_by(self.units).take(self.black.len());
            let mean = of_unit().map(|at| found[at]).sum::<f64>() / self.black.len() as f64;
            of_unit().for_each(|at| found[at] -= mean);
        }
        found
    }
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

/// What makes a vector longer by `by`.
fn stretched(values: &[f64], by: f64) -> Vec<f64> {
    let length = norm(values).max(f64::MIN_POSITIVE);
    values.iter().map(|value| value * by / length).collect()
}

/// The state with other velocities, within what is allowed, from which the last segment leads as near to
/// the stolen model as some replays get.
fn steered(
    forgery: &mut Forgery<'_>,
    learner: &mut dyn ImageLearner,
    victim: &Victim<'_>,
    arrived: &State,
    allowed: f64,
) -> Result<State, AttackError> {
    let last = forgery.terms().segments() - 1;
    let mut best = arrived.clone();
    let mut end = forgery.train(learner, &best, last)?;
    let mut missed = distance(learner, victim.stolen, &end, Part::Parameters);
    let mut gain = 1.0;
    for _ in 0..CORRECTIONS {
        let aimed = pushed(&best, &end, victim.stolen, reach(QUARTER) / gain);
        let tried = within(learner, arrived, &aimed, Part::Optimizer, allowed);
        let reached = forgery.train(learner, &tried, last)?;
        let distance = distance(learner, victim.stolen, &reached, Part::Parameters);
        if distance < missed {
            (best, end, missed) = (tried, reached, distance);
            gain = f64::min(1.0, 1.5 * gain);
        } else {
            gain /= 2.0;
        }
    }
    Ok(best)
}
