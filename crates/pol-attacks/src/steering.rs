//! Proofs on made-up records: what one-step jumps, near-zero updates and joint ones share.

use pol_core::digest::tagged;
use pol_core::learner::Batch;
use pol_core::manifest::{Start, Terms};
use pol_core::random::{Purpose, Seed, Stream};
use pol_core::recipe::Recipe;
use pol_core::records::{DataCommitment, Records};
use pol_core::schedule::{BatchPlan, BatchSource};
use pol_core::state::State;
use pol_core::store::Store;
use pol_models::ImageLearner;
use pol_models::dataset::{Dataset, Images};

use crate::forgery::{Forgery, between, model_distance, on_their_data};
use crate::matching::{self, Found, Problem, direction};
use crate::start::matched;
use crate::{Access, AttackError, Forged, Options, Spent, Victim};

/// Images with labels, as bytes.
#[derive(Clone, Default)]
pub(crate) struct Made {
    pub(crate) labels: Vec<u32>,
    pub(crate) pixels: Vec<u8>,
}

impl Made {
    fn append(&mut self, other: &Self) {
        self.labels.extend(&other.labels);
        self.pixels.extend(&other.pixels);
    }

    /// As records of the data set.
    pub(crate) fn images(&self, data: &Dataset) -> Result<Images, AttackError> {
        let len = data.name.image().len();
        let pixels = self.pixels.chunks_exact(len).map(<[u8]>::to_vec);
        let images = self.labels.iter().copied().zip(pixels);
        Ok(Images::of_pixels(data.name, images)?)
    }

    pub(crate) fn shares(&self, data: &Dataset) -> Vec<f32> {
        let scale = data.name.normalisation().scale;
        self.pixels
            .iter()
            .map(|&byte| f32::from(byte) / scale)
            .collect()
    }

    /// Batches of so many.
    fn split(&self, size: usize) -> Vec<Self> {
        let len = self.pixels.len() / self.labels.len().max(1);
        let pixels = self.pixels.chunks(size * len);
        (self.labels.chunks(size).zip(pixels))
            .map(|(labels, pixels)| Self {
                labels: labels.to_vec(),
                pixels: pixels.to_vec(),
            })
            .collect()
    }
}

/// Where a forger takes images from that are to be changed.
pub(crate) struct Source<'a> {
    data: &'a Dataset,
    access: Access,
    stream: Stream,
}

impl<'a> Source<'a> {
    pub(crate) fn new(victim: &Victim<'a>, options: &Options) -> Self {
        let seed = Seed::from_digest(tagged("forger", &[&options.nonce.to_le_bytes()]));
        Self {
            data: victim.data,
            access: options.access,
            stream: seed.stream(Purpose::Audit),
        }
    }

    /// So many images at random.
    pub(crate) fn take(&mut self, count: u64) -> Made {
        let mut made = Made::default();
        let (name, stream) = (self.data.name, &mut self.stream);
        let images = match self.access {
            Access::Training => Some(&self.data.train),
            Access::Sibling => Some(&self.data.test),
            Access::Noise => None,
        };
        let levels = u64::from(name.normalisation().scale as u8) + 1;
        for _ in 0..count {
            let drawn = images.and_then(|images| images.record(stream.below(images.len())));
            match drawn {
                Some(record) => {
                    made.labels.push(record.label);
                    made.pixels
                        .extend(record.bytes.iter().skip(name.pixel_offset()));
                }
                None => {
                    made.labels.push(stream.below(name.classes() as u64) as u32);
                    let noise = (0..name.image().len()).map(|_| stream.below(levels) as u8);
                    made.pixels.extend(noise);
                }
            }
        }
        made
    }
}

/// Images like these whose gradient at `weights` is nearly `scale · (weights − goal)`.
pub(crate) fn optimise(
    clean: &Made,
    victim: &Victim<'_>,
    options: &Options,
    learner: &mut dyn ImageLearner,
    (weights, goal, scale): (&State, &State, f64),
    step: &mut Option<f64>,
) -> Result<(Made, Found), AttackError> {
    let wanted = direction(learner, weights, goal, scale);
    let mut problem = Problem {
        weights,
        wanted: &wanted,
        pixels: &clean.shares(victim.data),
        labels: &clean.labels,
        step: step.unwrap_or(matching::STEPS[0]),
    };
    let mut chosen = 0;
    if step.is_none() {
        problem.step = matching::suitable_step(&problem, learner)?;
        *step = Some(problem.step);
        chosen = matching::GRADIENTS * matching::STEPS.len() as u64;
    }
    let mut found = matching::minimise(&problem, options.iterations, victim.data.name, learner)?;
    found.gradients += chosen;
    let made = Made {
        labels: clean.labels.clone(),
        pixels: found.pixels.clone(),
    };
    Ok((made, found))
}

/// The plan of a step whose batch lies at its place among all records.
pub(crate) fn own_place(step: u64, batch_size: u64) -> BatchPlan {
    BatchPlan {
        step,
        epoch: 0,
        records: (step * batch_size..(step + 1) * batch_size).collect(),
    }
}

/// Takes one step on images.
pub(crate) fn step_on(
    images: &Images,
    step: u64,
    learner: &mut dyn ImageLearner,
) -> Result<State, AttackError> {
    let plan = BatchPlan {
        step,
        epoch: 0,
        records: (0..images.len()).collect(),
    };
    // Nothing is drawn in such recipes.
    let seed = Seed::from_digest(tagged("nothing is drawn", &[]));
    learner.step(&Batch::new(&plan, images, &seed)?)?;
    Ok(learner.capture()?)
}

/// States on a line from a matched start to the stolen model, and records on which each segment's steps
/// stay near it. Jointly, the batches of a segment are optimised as one.
///
/// Adaptive: what is logged is where the replay arrives, so that all segments but the last are honest
/// training, on records that steer it.
pub(crate) fn forge_line(
    victim: &Victim<'_>,
    options: &Options,
    recipe: Recipe,
    learner: &mut dyn ImageLearner,
    store: &dyn Store,
    joint: bool,
) -> Result<Forged, AttackError> {
    let (size, k, rate) = (
        recipe.batch_size,
        options.interval,
        recipe.learning_rate.base,
    );
    let provisional = on_their_data(victim, options, recipe.clone());
    learner.initialise(&provisional.seed)?;
    let fresh = learner.capture()?;
    let start = matched(learner, &fresh, victim.stolen, &provisional.seed);
    let line = Forgery::begin(provisional, &victim.data.train, store);
    let mut source = Source::new(victim, options);
    let mut all = Made::default();
    let mut states = vec![start.clone()];
    let (mut gradients, mut matched_to, mut missed, mut largest) = (0, 0.0, 0.0f64, 0.0f64);
    for segment in 0..options.segments {
        let from = line.at_step(&states[segment as usize], segment * k);
        let last = segment + 1 == options.segments;
        let share = match options.adaptive {
            // From wherever the last segment arrived.
            true => 1.0 / (options.segments - segment) as f64,
            false => (segment + 1) as f64 / options.segments as f64,
        };
        let origin = if options.adaptive { &from } else { &start };
        let goal = between(&from, origin, victim.stolen, share);
        let (mut together, mut step) = (Vec::new(), None);
        if joint {
            let clean = source.take(k * size);
            let scale = 1.0 / (rate * k as f64);
            let (made, found) = optimise(
                &clean,
                victim,
                options,
                learner,
                (&from, &goal, scale),
                &mut step,
            )?;
            gradients += found.gradients * k;
            matched_to += k as f64 * found.after / found.before;
            together = made.split(size as usize);
            together.reverse();
        }
        let mut at = from.clone();
        for within in 0..k {
            let made = match together.pop() {
                Some(made) => made,
                None => {
                    let clean = source.take(size);
                    let scale = 1.0 / (rate * (k - within) as f64);
                    let (made, found) = optimise(
                        &clean,
                        victim,
                        options,
                        learner,
                        (&at, &goal, scale),
                        &mut step,
                    )?;
                    gradients += found.gradients;
                    matched_to += found.after / found.before;
                    made
                }
            };
            learner.restore(&at)?;
            at = step_on(&made.images(victim.data)?, segment * k + within, learner)?;
            gradients += 1;
            all.append(&made);
        }
        let moved = model_distance(&from, &at);
        let logged = match options.adaptive && !last {
            true => at,
            false => {
                let miss = model_distance(&at, &goal);
                missed = missed.max(miss);
                largest = largest.max(miss / moved.max(f64::MIN_POSITIVE));
                between(&at, &goal, &goal, 1.0)
            }
        };
        states.push(logged);
    }
    let records = all.images(victim.data)?;
    let terms = listed(recipe, &records, options);
    seal_listed(terms, &records, store, &states)?;
    let steps = (options.segments * k) as f64;
    Ok(Forged {
        spent: Spent {
            gradients,
            honest_steps: victim.terms.recipe.steps,
        },
        records: Some(records),
        figures: Vec::new(),
    }
    .with("residual left", matched_to / steps)
    .with("largest miss", missed)
    .with("largest miss over movement", largest))
}

/// Terms of a training on these records, in batches that are listed, from a start that is claimed. It
/// could not be derived: the seed follows from the records, and these from the start.
pub(crate) fn listed(recipe: Recipe, records: &Images, options: &Options) -> Terms {
    let data = DataCommitment::of(records);
    let batches = BatchSource::Explicit;
    Terms::new(recipe, data, options.nonce, batches, options.interval).from_start(Start::Claimed)
}

fn seal_listed(
    terms: Terms,
    records: &Images,
    store: &dyn Store,
    states: &[State],
) -> Result<(), AttackError> {
    let size = terms.recipe.batch_size;
    let segments: Vec<_> = (0..terms.segments())
        .map(|index| terms.segment_steps(index))
        .collect();
    let mut forgery = Forgery::begin(terms, records, store);
    for (index, state) in states.iter().enumerate() {
        let segment = index.checked_sub(1).and_then(|index| segments.get(index));
        let plans = segment.map(|&(first, last)| -> Vec<BatchPlan> {
            (first..last).map(|step| own_place(step, size)).collect()
        });
        forgery.log_after(state, plans.as_deref())?;
    }
    forgery.seal()
}
