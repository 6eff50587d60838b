//! A plain loop: you take the steps and choose the batches, the recorder keeps the proof.
//!
//! `cargo run -p pol-core --example plain_loop`
#![allow(clippy::print_stdout, reason = "examples print")]

use std::error::Error;
use std::sync::Arc;

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{Lion, LionConfig};
use burn::tensor::{Device, Tensor, TensorData};
use pol_core::adapter::{Backend, PolLearner, StepOutput, Task};
use pol_core::learner::{Batch, Learner, LearnerError};
use pol_core::manifest::Terms;
use pol_core::recipe::{Component, Decay, LearningRate, Numerics, Optimizer, Recipe};
use pol_core::recorder::Recorder;
use pol_core::records::{DataCommitment, MemoryRecords};
use pol_core::schedule::{BatchPlan, BatchSource};
use pol_core::store::FolderStore;
use pol_core::verify::{Selection, Verdict, Verifier};

/// Fits a line through points.
struct Line;

#[derive(Module, Debug)]
struct Model {
    linear: Linear,
}

impl Task for Line {
    type Model = Model;

    fn build(&self, device: &Device) -> Model {
        Model {
            linear: LinearConfig::new(1, 1).init(device),
        }
    }

    fn step(
        &self,
        model: &Model,
        batch: &Batch<'_>,
        device: &Device,
    ) -> Result<StepOutput, LearnerError> {
        let n = batch.len();
        let column =
            |values: Vec<f32>| Tensor::<2>::from_data(TensorData::new(values, [n, 1]), device);
        let x = column(
            batch
                .records()
                .map(|(_, r)| f32::from(r.bytes[0]) / 10.0)
                .collect(),
        );
        let y = column(
            batch
                .records()
                .map(|(_, r)| r.label as f32 / 10.0)
                .collect(),
        );
        let error = model.linear.forward(x) - y; // [n, 1]
        let loss = (error.clone() * error).sum_dim(0).reshape([1]) / n as f64;
        Ok(StepOutput::backward(loss, model))
    }
}

/// An optimizer that recipes have no name for; any of Burn's can be used.
fn learner(recipe: &Recipe, device: &Device) -> PolLearner<Line> {
    let lion: Lion = LionConfig::new().build();
    PolLearner::with_optimizer(Line, recipe, device, lion)
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let recipe = Recipe {
        model: Component::new("line"),
        data: Component::new("points"),
        optimizer: Optimizer::Custom(Component::new("lion")),
        learning_rate: LearningRate {
            base: 0.02,
            warmup: 0,
            decay: Decay::Constant,
        },
        batch_size: 4,
        steps: 60,
        numerics: Numerics::Stock,
    };
    let records = MemoryRecords((0..40u32).map(|x| (3 * x + 7, vec![x as u8])).collect());
    let device = Backend::Flex.device()?;
    let folder = tempfile::tempdir()?;
    let store = Arc::new(FolderStore::new(folder.path()));

    // Settle the terms, start the learner from the seed that follows from them.
    let data = DataCommitment::of(&records);
    let terms = Terms::new(recipe.clone(), data, 0, BatchSource::Explicit, 10);
    let mut learner = learner(&recipe, &device);
    learner.initialise(&terms.seed)?;

    let mut recorder = Recorder::start(Arc::clone(&store) as _, terms.clone())?;
    recorder.record(0, || learner.capture())?;
    for step in 0..recipe.steps {
        // Your own choice of records, hard examples for instance.
        let plan = BatchPlan {
            step,
            epoch: 0,
            records: (0..4).map(|i| (step * 7 + i * 11) % 40).collect(),
        };
        learner.step(&Batch::new(&plan, &records, &terms.seed)?)?;
        recorder.record_batch(&plan);
        recorder.record(step + 1, || learner.capture())?; // copies the state only when it is due
    }
    recorder.seal()?;

    // A verifier with little time replays two segments of its own choice, and the largest.
    let mut fresh = [0; 32];
    getrandom::fill(&mut fresh)?;
    let seed = pol_core::random::Seed::from_digest(pol_core::digest::tagged("audit", &[&fresh]));
    let report = Verifier::new(&records)
        .expect_recipe(&recipe)
        .select(Selection::random(2, seed).and_top(1))
        .verify(store.as_ref(), &mut self::learner(&recipe, &device), |_| {})?;
    println!(
        "{} segments replayed: {}",
        report.segments.len(),
        report.verdict
    );
    match report.verdict {
        Verdict::Accepted => Ok(()),
        _ => Err(format!("{:?}", report.reasons).into()),
    }
}
