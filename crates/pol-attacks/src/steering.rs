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

/// Images like these whose gradient at `weights` is nearly `scale · (weights − goal)`. `step` is how far
/// weights are moved for differences; it is chosen here if nobody has.
pub(crate) fn optimise(
    clean: &Made,
    victim: &Victim<'_>,
    iterations: u64,
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
    let mut spent = 0;
    if step.is_none() {
        problem.step = matching::suitable_step(&problem, learner)?;
        *step = Some(problem.step);
        spent = matching::GRADIENTS * matching::STEPS.len() as u64;
    }
    let mut found = matching::minimise(&problem, iterations, victim.data.name, learner)?;
    found.gradients += spent;
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
    let k = options.interval;
    let provisional = on_their_data(victim, options, recipe.clone());
    learner.initialise(&provisional.seed)?;
    let fresh = learner.capture()?;
    let start = matched(learner, &fresh, victim.stolen, &provisional.seed);
    let line = Forgery::begin(provisional, &victim.data.train, store);
    let mut workshop = Workshop {
        victim,
        options,
        rate: recipe.learning_rate.base,
        size: recipe.batch_size,
        learner,
        source: Source::new(victim, options),
        made: Made::default(),
        gradients: 0,
        residual: 0.0,
    };
    let mut states = vec![start.clone()];
    let (mut missed, mut of_movement) = (0.0f64, 0.0f64);
    for segment in 0..options.segments {
        let from = line.at_step(&states[segment as usize], segment * k);
        let last = segment + 1 == options.segments;
        let (origin, share) = match options.adaptive {
            // From wherever the last segment arrived.
            true => (&from, 1.0 / (options.segments - segment) as f64),
            false => (&start, (segment + 1) as f64 / options.segments as f64),
        };
        let goal = between(&from, origin, victim.stolen, share);
        let arrived = workshop.segment(segment * k, &from, &goal, joint)?;
        states.push(match options.adaptive && !last {
            true => arrived,
            false => {
                let miss = model_distance(&arrived, &goal);
                let moved = model_distance(&from, &arrived);
                missed = missed.max(miss);
                of_movement = of_movement.max(miss / moved.max(f64::MIN_POSITIVE));
                between(&arrived, &goal, &goal, 1.0)
            }
        });
    }
    let records = workshop.made.images(victim.data)?;
    let spent = Spent {
        gradients: workshop.gradients,
        honest_steps: victim.terms.recipe.steps,
    };
    let residual = workshop.residual / (options.segments * k) as f64;
    let terms = listed(recipe, &records, options);
    seal_listed(terms, &records, store, &states)?;
    Ok(Forged {
        spent,
        records: Some(records),
        figures: Vec::new(),
    }
    .with("residual left", residual)
    .with("largest miss", missed)
    .with("largest miss over movement", of_movement))
}

/// Where records are made.
struct Workshop<'a> {
    victim: &'a Victim<'a>,
    options: &'a Options,
    rate: f64,
    size: u64,
    learner: &'a mut dyn ImageLearner,
    source: Source<'a>,
    /// All records, in the order of the steps that use them.
    made: Made,
    gradients: u64,
    /// The sum over all steps of what was left of the residual.
    residual: f64,
}

impl Workshop<'_> {
    /// Makes the records of a segment and trains on them; gives where that arrives.
    fn segment(
        &mut self,
        first: u64,
        from: &State,
        goal: &State,
        joint: bool,
    ) -> Result<State, AttackError> {
        let k = self.options.interval;
        let (mut at, mut step) = (from.clone(), None);
        let mut together = match joint {
            true => self
                .optimised(k * self.size, k, from, goal, k, &mut step)?
                .split(self.size as usize),
            false => Vec::new(),
        }
        .into_iter();
        for within in 0..k {
            let made = match together.next() {
                Some(made) => made,
                None => self.optimised(self.size, 1, &at, goal, k - within, &mut step)?,
            };
            self.learner.restore(&at)?;
            at = step_on(
                &made.images(self.victim.data)?,
                first + within,
                self.learner,
            )?;
            self.gradients += 1;
            self.made.append(&made);
        }
        Ok(at)
    }

    /// So many images, in so many batches, whose gradient leads from `at` to `goal` in `left` steps.
    fn optimised(
        &mut self,
        images: u64,
        batches: u64,
        at: &State,
        goal: &State,
        left: u64,
        step: &mut Option<f64>,
    ) -> Result<Made, AttackError> {
        let clean = self.source.take(images);
        let towards = (at, goal, 1.0 / (self.rate * left as f64));
        let iterations = self.options.iterations;
        let (made, found) = optimise(&clean, self.victim, iterations, self.learner, towards, step)?;
        self.gradients += batches * found.gradients;
        self.residual += batches as f64 * found.after / found.before.max(f64::MIN_POSITIVE);
        Ok(made)
    }
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
