//! A training that forgets where it began: weight decay so strong that one segment ends near zero from any
//! start. The way from the start to there is then the start's whole norm, and a share of it a ball around
//! zero. A rectified network whose layer l has its weights multiplied by c and its bias by cˡ gives cᴸ times
//! the scores, so the same predictions: with a small enough c the stolen one lies in that ball. Factors are
//! powers of two, so that not even rounding differs.
//!
//! What is passed off is therefore not the victim's file but the victim's function, which the figure
//! "predictions that differ" (of the test split) shows.
//!
//! Cause: movement as a yardstick that the prover's weight decay inflates.

use pol_core::learner::LearnerError;
use pol_core::recipe::{Optimizer, Recipe};
use pol_core::records::Records;
use pol_core::state::{Part, State};
use pol_core::store::Store;
use pol_models::ImageLearner;
use pol_models::dataset::{Dataset, Images};

use crate::forgery::{Forgery, between, map_values, on_their_data, plain, with_entries};
use crate::tolerated::{RELATIVE, USED, distance};
use crate::{Attack, AttackError, Forged, Options, Victim};

const DECAY: f64 = 0.5;
const RATE: f64 = 0.2;
/// (1 − rate · decay)¹⁰⁰ = 3e-5 of the start is left.
const STEPS: u64 = 100;
/// Large batches leave little noise in the last bias.
const BATCH: u64 = 256;
/// The smallest factor is two to the minus this.
const SMALLEST: i32 = 24;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Forgetting;

impl Attack for Forgetting {
    fn name(&self) -> &'static str {
        "forgetting"
    }

    fn source(&self) -> &'static str {
        "found on this program (S3): movement that weight decay makes, as a yardstick"
    }

    fn needs(&self) -> &'static str {
        "the training data; a rectified network without normalisation; weight decay of 0.5 and a \
         tolerance relative to movement"
    }

    fn claimed(&self, victim: &Victim<'_>, options: &Options) -> Recipe {
        let mut recipe = plain(victim, &one_segment(options), RATE);
        if let Optimizer::Sgd { weight_decay, .. } = &mut recipe.optimizer {
            *weight_decay = DECAY;
        }
        recipe.batch_size = BATCH.min(victim.data.train.len()).max(1);
        recipe
    }

    fn forge(
        &self,
        victim: &Victim<'_>,
        options: &Options,
        learner: &mut dyn ImageLearner,
        store: &dyn Store,
    ) -> Result<Forged, AttackError> {
        let layers = layers(victim)?;
        let recipe = self.claimed(victim, options);
        let terms = on_their_data(victim, &one_segment(options), recipe);
        learner.initialise(&terms.seed)?;
        let start = learner.capture()?;
        let mut forgery = Forgery::begin(terms, &victim.data.train, store);
        let arrived = forgery.train(learner, &start, 0)?;
        let factors = (0..=SMALLEST).map(|power| 0.5f64.powi(power));
        let found = factors
            .map(|factor| (factor, scaled(&arrived, victim.stolen, &layers, factor)))
            .map(|(factor, model)| {
                let missed = distance(learner, &arrived, &model, Part::Parameters);
                let way = distance(learner, &start, &model, Part::Parameters);
                (factor, model, missed / way)
            })
            .find(|(_, _, share)| *share <= USED * RELATIVE);
        let Some((factor, model, share)) = found else {
            let why = "the training does not end near enough to zero".to_owned();
            return Err(AttackError::NotApplicable(why));
        };
        let theirs = between(&arrived, &arrived, victim.stolen, 1.0);
        let differing = differing_predictions(learner, &theirs, &model, victim.data)?;
        forgery.log(&start)?;
        forgery.log(&model)?;
        let steps = forgery.steps;
        forgery.seal()?;
        Ok(Forged::on_their_data(victim, steps)
            .with("scale", factor)
            .with("last miss over movement", share)
            .with("predictions that differ", differing as f64))
    }
}

fn one_segment(options: &Options) -> Options {
    Options {
        interval: STEPS,
        segments: 1,
        ..*options
    }
}

/// The paths of the layers from the first to the last.
fn layers(victim: &Victim<'_>) -> Result<Vec<String>, AttackError> {
    let model = &victim.terms.recipe.model.name;
    // Their layers are named in the order in which they are applied.
    if !["mlp", "lenet5"].contains(&model.as_str()) {
        let why = format!("`{model}` is not known to be a rectified network without normalisation");
        return Err(AttackError::NotApplicable(why));
    }
    let headers = victim.stolen.layout();
    let mut layers: Vec<String> = headers.filter_map(|h| layer(&h.name)).collect();
    layers.dedup();
    Ok(layers)
}

fn layer(name: &str) -> Option<String> {
    let (layer, _field) = name.strip_prefix("model/")?.rsplit_once('.')?;
    Some(layer.to_owned())
}

/// `template` with the stolen model, the weights of its layers multiplied by `factor` and the bias of the
/// l-th by `factor`ˡ.
fn scaled(template: &State, stolen: &State, layers: &[String], factor: f64) -> State {
    with_entries(template, |entry| {
        let path = layer(entry.name())?;
        let depth = layers.iter().position(|layer| *layer == path)? + 1;
        let power = if entry.name().ends_with(".bias") {
            depth
        } else {
            1
        };
        let by = factor.powi(power as i32);
        map_values(stolen.entry(entry.name())?, |value| value * by)
    })
}

/// How many test images two models see as different classes.
fn differing_predictions(
    learner: &mut dyn ImageLearner,
    a: &State,
    b: &State,
    data: &Dataset,
) -> Result<u64, AttackError> {
    learner.restore(a)?;
    let mut seen = Vec::new();
    for record in (0..data.test.len()).filter_map(|index| data.test.record(index)) {
        let pixels = &record.bytes[data.name.pixel_offset().min(record.bytes.len())..];
        // The true label first: it is nearly always the one.
        let labels = (0..data.name.classes() as u32).map(|k| k + record.label);
        for label in labels.map(|label| label % data.name.classes() as u32) {
            let one = [(label, pixels.to_vec())];
            let one = Images::of_pixels(data.name, one)?;
            if learner.evaluate(&one, 1)?.correct == 1 {
                seen.push((label, pixels.to_vec()));
                break;
            }
        }
    }
    let lost = data.test.len() - seen.len() as u64;
    if lost > 0 {
        let why = format!("{lost} images have no prediction");
        return Err(LearnerError::Device(why).into());
    }
    learner.restore(b)?;
    let judged = learner.evaluate(&Images::of_pixels(data.name, seen)?, u64::MAX)?;
    Ok(judged.records - judged.correct)
}
