//! The one-call API: a task, a recipe and records go in, a proof comes out.
//!
//! `cargo run -p pol-core --example one_call`
#![allow(clippy::print_stdout, reason = "examples print")]

use std::error::Error;
use std::ops::ControlFlow;
use std::sync::Arc;

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::{log_softmax, relu};
use burn::tensor::{Device, Tensor, TensorData};
use pol_core::adapter::{Backend, PolLearner, StepOutput, Task};
use pol_core::learner::{Batch, LearnerError};
use pol_core::recipe::{Component, Decay, LearningRate, Numerics, Optimizer, Recipe};
use pol_core::records::MemoryRecords;
use pol_core::store::MemoryStore;
use pol_core::training::Training;
use pol_core::verify::{Verdict, Verifier};

/// Your own model.
#[derive(Module, Debug)]
struct Net {
    hidden: Linear,
    output: Linear,
}

/// Your own loss: is a point inside the unit circle?
struct Circle;

impl Task for Circle {
    type Model = Net;

    fn build(&self, device: &Device) -> Net {
        Net {
            hidden: LinearConfig::new(2, 16).init(device),
            output: LinearConfig::new(16, 2).init(device),
        }
    }

    fn step(
        &self,
        model: &Net,
        batch: &Batch<'_>,
        device: &Device,
    ) -> Result<StepOutput, LearnerError> {
        let n = batch.len();
        let mut points = Vec::with_capacity(2 * n);
        let mut targets = Vec::with_capacity(2 * n);
        for (_, record) in batch.records() {
            points.extend(record.bytes.iter().map(|&b| f32::from(b) / 64.0 - 2.0));
            targets.extend([1.0 - record.label as f32, record.label as f32]);
        }
        let points = Tensor::<2>::from_data(TensorData::new(points, [n, 2]), device);
        let targets = Tensor::<2>::from_data(TensorData::new(targets, [n, 2]), device);
        let scores = model.output.forward(relu(model.hidden.forward(points))); // [n, 2]
        let likelihood = (log_softmax(scores, 1) * targets).sum_dim(1); // [n, 1]
        let loss = likelihood.sum_dim(0).reshape([1]) / -(n as f64);
        Ok(StepOutput::backward(loss, model))
    }
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let recipe = Recipe {
        model: Component::new("circle-net"),
        data: Component::new("circle"),
        optimizer: Optimizer::Sgd {
            momentum: 0.9,
            dampening: 0.0,
            weight_decay: 0.0,
            nesterov: false,
        },
        learning_rate: LearningRate {
            base: 0.1,
            warmup: 10,
            decay: Decay::Cosine { min: 0.0 },
        },
        batch_size: 32,
        steps: 200,
        numerics: Numerics::Stock,
    };
    let records = circle();
    let device = Backend::Flex.device()?;
    let store = Arc::new(MemoryStore::new()); // or FolderStore::new("my-run")

    // The prover trains; a checkpoint every 25 steps.
    let mut learner = PolLearner::new(Circle, &recipe, &device)?;
    Training::new(recipe.clone(), &records, 0, 25).run(
        &mut learner,
        Arc::clone(&store) as _,
        |_, _| ControlFlow::Continue(()),
    )?;
    let loss = learner.last_loss().ok_or("no step was taken")?;

    // The verifier has the recipe, the records and the proof, and replays all of it.
    let report = Verifier::new(&records).expect_recipe(&recipe).verify(
        store.as_ref(),
        &mut PolLearner::new(Circle, &recipe, &device)?,
        |_| {},
    )?;
    println!(
        "loss {loss:.3}; {} steps replayed: {}",
        report.steps_replayed, report.verdict
    );
    match report.verdict {
        Verdict::Accepted if loss < 0.4 => Ok(()),
        _ => Err(format!("loss {loss}, {:?}", report.reasons).into()),
    }
}

/// A grid of points in [−2, 2)², labelled by whether they lie in the unit circle.
fn circle() -> MemoryRecords {
    let points = (0..256u16).map(|i| [(i % 16 * 16) as u8, (i / 16 * 16) as u8]);
    MemoryRecords(
        points
            .map(|point| {
                let [x, y] = point.map(|b| f32::from(b) / 64.0 - 2.0);
                (u32::from(x * x + y * y < 1.0), point.to_vec())
            })
            .collect(),
    )
}
