//! Linear regression with momentum and a running mean: two parameters, one buffer, and an
//! optimizer, without Burn. It drives most protocol tests.

use std::ops::ControlFlow;
use std::sync::Arc;

use pol_core::learner::{Batch, Initial, Learner, LearnerError};
use pol_core::manifest::Manifest;
use pol_core::random::{Purpose, Seed};
use pol_core::recipe::{Component, Decay, LearningRate, Numerics, Optimizer, Recipe};
use pol_core::records::MemoryRecords;
use pol_core::state::{Entry, Part, RATE_ENTRY, STEP_ENTRY, State};
use pol_core::store::MemoryStore;
use pol_core::training::{Outcome, Training};
use pol_core::verify::{Report, Verifier};

/// Steps of the toy training.
pub const STEPS: u64 = 23;
/// Its checkpoint interval; the last segment is shorter.
pub const INTERVAL: u64 = 5;

/// The recipe that the toy follows.
pub fn recipe() -> Recipe {
    Recipe {
        model: Component::new("toy"),
        data: Component::new("points"),
        optimizer: Optimizer::Sgd {
            momentum: 0.9,
            dampening: 0.0,
            weight_decay: 0.0,
            nesterov: false,
        },
        learning_rate: LearningRate {
            base: 0.01,
            warmup: 0,
            decay: Decay::Constant,
        },
        batch_size: 4,
        steps: STEPS,
        numerics: Numerics::Stock,
    }
}

/// Thirty points of a noisy line.
pub fn records() -> MemoryRecords {
    MemoryRecords(
        (0..30u32)
            .map(|i| (3 * i + i % 4, vec![i as u8, (i * i % 7) as u8]))
            .collect(),
    )
}

/// The toy's state.
#[derive(Debug, Clone, PartialEq)]
pub struct Toy {
    rate: f64,
    step: u64,
    w: [f32; 2],
    v: Option<[f32; 2]>,
    mean: f32,
    /// Steps taken by this instance, restored or not: what a verification cost.
    pub steps_taken: u64,
}

impl Toy {
    /// A toy that follows `recipe`.
    pub fn new(recipe: &Recipe) -> Self {
        Self {
            rate: recipe.learning_rate.base,
            step: 0,
            w: [0.0; 2],
            v: None,
            mean: 0.0,
            steps_taken: 0,
        }
    }
}

fn unfit(problem: &str) -> LearnerError {
    LearnerError::Unfit(problem.to_owned())
}

impl Learner for Toy {
    fn initialise(&mut self, seed: &Seed) -> Result<(), LearnerError> {
        let mut stream = seed.stream(Purpose::Weights("w"));
        self.w = [stream.normal() as f32, stream.normal() as f32];
        (self.step, self.v, self.mean) = (0, None, 0.0);
        Ok(())
    }

    fn step(&mut self, batch: &Batch<'_>) -> Result<(), LearnerError> {
        if batch.step() != self.step {
            return Err(unfit("the batch is of another step"));
        }
        let mut gradient = [0f32; 2];
        for (index, record) in batch.records() {
            let [a, b] = record.bytes else {
                return Err(unfit("a record is not a point"));
            };
            let jitter = batch.augmentation(index).unit() as f32 * 0.01;
            let x = [f32::from(*a) / 30.0 + jitter, f32::from(*b) / 7.0];
            let error = self.w[0] * x[0] + self.w[1] * x[1] - record.label as f32 / 90.0;
            gradient[0] += error * x[0];
            gradient[1] += error * x[1];
            self.mean = 0.9 * self.mean + 0.1 * x[0];
        }
        let old = self.v.unwrap_or_default();
        let new: [f32; 2] = std::array::from_fn(|i| 0.9 * old[i] + gradient[i]);
        for (w, v) in self.w.iter_mut().zip(new) {
            *w -= self.rate as f32 * v;
        }
        self.v = Some(new);
        self.step += 1;
        self.steps_taken += 1;
        Ok(())
    }

    fn capture(&mut self) -> Result<State, LearnerError> {
        let mut entries = vec![
            Entry::f32("model/w", vec![2], &self.w),
            Entry::f32("model/mean", vec![1], &[self.mean]),
            Entry::u64(STEP_ENTRY, self.step),
            Entry::f64(RATE_ENTRY, self.rate),
        ];
        if let Some(v) = self.v {
            entries.push(Entry::f32("optim/w/momentum.velocity", vec![2], &v));
        }
        State::new(entries).map_err(|error| unfit(&error.to_string()))
    }

    fn restore(&mut self, state: &State) -> Result<(), LearnerError> {
        let floats = |name: &str| -> Option<Vec<f32>> {
            Some(state.entry(name)?.values().map(|v| v as f32).collect())
        };
        let pair = |name| floats(name).and_then(|v| <[f32; 2]>::try_from(v).ok());
        if state.entry(RATE_ENTRY) != Some(&Entry::f64(RATE_ENTRY, self.rate)) {
            return Err(unfit("the learning rate is not the recipe's"));
        }
        self.w = pair("model/w").ok_or_else(|| unfit("`model/w` is missing"))?;
        self.v = pair("optim/w/momentum.velocity");
        self.mean = floats("model/mean")
            .and_then(|v| v.first().copied())
            .ok_or_else(|| unfit("`model/mean` is missing"))?;
        self.step = (state.entry(STEP_ENTRY))
            .and_then(Entry::to_u64)
            .ok_or_else(|| unfit("the step is missing"))?;
        Ok(())
    }

    fn part(&self, name: &str) -> Part {
        match name {
            "model/mean" => Part::Buffers,
            _ => Part::by_prefix(name),
        }
    }

    fn initial(&self, name: &str) -> Option<Initial> {
        (name == "model/w").then_some(Initial::Normal(1.0))
    }
}

/// An honest proof of the toy training, and its manifest.
///
/// # Panics
/// If the training fails.
pub fn proof() -> (Arc<MemoryStore>, Manifest) {
    let store = Arc::new(MemoryStore::new());
    let records = records();
    let training = Training::new(recipe(), &records, 7, INTERVAL);
    let outcome = training.run(&mut Toy::new(&recipe()), Arc::clone(&store) as _, |_, _| {
        ControlFlow::Continue(())
    });
    match outcome {
        Ok(Outcome::Sealed(manifest)) => (store, *manifest),
        other => panic!("the toy training gave {other:?}"),
    }
}

/// Verifies all of a toy proof against the toy's recipe and records.
///
/// # Panics
/// If the store cannot be read.
pub fn verify(store: &MemoryStore) -> Report {
    let (records, recipe) = (records(), recipe());
    Verifier::new(&records)
        .expect_recipe(&recipe)
        .verify(store, &mut Toy::new(&recipe), |_| {})
        .unwrap_or_else(|error| panic!("{error}"))
}
