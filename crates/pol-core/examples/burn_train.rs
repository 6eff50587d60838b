//! `burn::train` with a proof: a model that implements `TrainStep` is trained by
//! `SupervisedTraining`, with its metrics and its validation, and `PolStrategy` keeps the proof.
//!
//! `cargo run -p pol-core --features train --example burn_train`
#![allow(clippy::print_stdout, reason = "examples print")]

use std::error::Error;
use std::sync::Arc;

use burn::data::dataloader::DataLoaderBuilder;
use burn::data::dataloader::batcher::Batcher;
use burn::data::dataset::InMemDataset;
use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Linear, LinearConfig};
use burn::optim::SgdConfig;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_train::metric::{AccuracyMetric, LossMetric};
use burn_train::{
    ClassificationOutput, InferenceStep, Learner, SupervisedTraining, TrainOutput, TrainStep,
    TrainingStrategy,
};
use pol_core::adapter::{Backend, PolLearner, PolStrategy, Proved, TrainStepTask};
use pol_core::learner::Batch;
use pol_core::recipe::{Component, Decay, LearningRate, Numerics, Optimizer, Recipe};
use pol_core::records::{MemoryRecords, Records};
use pol_core::store::MemoryStore;
use pol_core::training::Outcome;
use pol_core::verify::{Verdict, Verifier};

/// Points of the plane and their classes.
#[derive(Debug, Clone)]
struct Points {
    inputs: Tensor<2>,
    targets: Tensor<1, Int>,
}

#[derive(Module, Debug)]
struct Net {
    hidden: Linear,
    output: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        Self {
            hidden: LinearConfig::new(2, 16).init(device),
            output: LinearConfig::new(16, 2).init(device),
        }
    }

    fn classify(&self, points: Points) -> ClassificationOutput {
        let scores = self
            .output
            .forward(relu(self.hidden.forward(points.inputs))); // [n, 2]
        let loss = CrossEntropyLossConfig::new()
            .init(&scores.device())
            .forward(scores.clone(), points.targets.clone());
        ClassificationOutput::new(loss, scores, points.targets)
    }
}

impl TrainStep for Net {
    type Input = Points;
    type Output = ClassificationOutput;

    fn step(&self, points: Points) -> TrainOutput<ClassificationOutput> {
        let output = self.classify(points);
        TrainOutput::new(self, output.loss.backward(), output)
    }
}

impl InferenceStep for Net {
    type Input = Points;
    type Output = ClassificationOutput;

    fn step(&self, points: Points) -> ClassificationOutput {
        self.classify(points)
    }
}

/// What the training step takes, from a batch of committed records.
fn input(batch: &Batch<'_>, device: &Device) -> Points {
    let records = batch
        .records()
        .map(|(_, record)| (record.label, record.bytes.to_vec()));
    PointBatcher.batch(records.collect(), device)
}

struct PointBatcher;

impl Batcher<(u32, Vec<u8>), Points> for PointBatcher {
    fn batch(&self, items: Vec<(u32, Vec<u8>)>, device: &Device) -> Points {
        let n = items.len();
        let labels: Vec<i64> = items.iter().map(|(label, _)| i64::from(*label)).collect();
        let values: Vec<f32> = (items.iter().flat_map(|(_, bytes)| bytes))
            .map(|&byte| f32::from(byte) / 64.0 - 2.0)
            .collect();
        Points {
            inputs: Tensor::from_data(TensorData::new(values, [n, 2]), device),
            targets: Tensor::from_data(TensorData::new(labels, [n]), device),
        }
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
            warmup: 0,
            decay: Decay::Constant,
        },
        batch_size: 32,
        steps: 8 * 10, // ten epochs of 256 points
        numerics: Numerics::Stock,
    };
    let records = Arc::new(circle());
    let device = Backend::Flex.device()?;
    let store = Arc::new(MemoryStore::new());
    let strategy = Arc::new(PolStrategy::new(
        Proved {
            recipe: &recipe,
            records: Arc::clone(&records) as Arc<dyn Records>,
            nonce: 0,
            interval: 16,
            store: Arc::clone(&store) as _,
        },
        &device,
        Net::new,
        input,
    ));

    let loader = || {
        let items = InMemDataset::new(records.0.clone());
        DataLoaderBuilder::new(PointBatcher)
            .batch_size(64)
            .build(items)
    };
    let logs = tempfile::tempdir()?;
    // Optimizer, rate and order are the recipe's; what `Learner` and the training loader are
    // given here is not used.
    SupervisedTraining::new(logs.path(), loader(), loader())
        .metrics((AccuracyMetric::new(), LossMetric::new()))
        .num_epochs(10)
        .with_application_logger(None)
        .with_training_strategy(TrainingStrategy::Custom(Arc::clone(&strategy) as _))
        .launch(Learner::new(
            Net::new(&device.clone().autodiff()),
            SgdConfig::new().init(),
            recipe.learning_rate.base,
        ));
    match strategy
        .take_outcome()
        .ok_or("the strategy did not run")??
    {
        Outcome::Sealed(_) => {}
        Outcome::Interrupted { step } => return Err(format!("stopped at step {step}").into()),
    }

    let task = TrainStepTask::new(Net::new, input);
    let report = Verifier::new(records.as_ref())
        .expect_recipe(&recipe)
        .verify(
            store.as_ref(),
            &mut PolLearner::new(task, &recipe, &device)?,
            |_| {},
        )?;
    println!(
        "{} steps replayed: {}",
        report.steps_replayed, report.verdict
    );
    match report.verdict {
        Verdict::Accepted => Ok(()),
        _ => Err(format!("{:?}", report.reasons).into()),
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
