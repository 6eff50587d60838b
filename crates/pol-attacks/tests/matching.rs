//! The gradient of the gradient-matching objective, against dense references.

use burn::tensor::Device;
use pol_attacks::matching::{self, Direction, Problem};
use pol_core::digest::tagged;
use pol_core::random::{Purpose, Seed};
use pol_core::recipe::{
    Component, Decay, LearningRate, Numerics, Optimizer, Profile, Recipe, Value,
};
use pol_core::state::State;
use pol_models::dataset::DatasetName;
use pol_models::{ImageLearner, image_learner};

const PIXELS: usize = 64;
const CLASSES: usize = 10;
const HIDDEN: usize = 6;
const BATCH: usize = 3;

fn seed() -> Seed {
    Seed::from_digest(tagged("matching", &[]))
}

fn learner(model: Component, numerics: Numerics) -> Box<dyn ImageLearner> {
    let recipe = Recipe {
        model,
        data: Component::new("digits"),
        optimizer: Optimizer::Sgd {
            momentum: 0.0,
            dampening: 0.0,
            weight_decay: 0.0,
            nesterov: false,
        },
        learning_rate: LearningRate {
            base: 0.1,
            warmup: 0,
            decay: Decay::Constant,
        },
        batch_size: BATCH as u64,
        steps: 1,
        numerics,
    };
    let mut learner = image_learner(&recipe, &Device::flex()).unwrap();
    learner.initialise(&seed()).unwrap();
    learner
}

fn images(count: usize) -> (Vec<f32>, Vec<u32>) {
    let mut stream = seed().stream(Purpose::Audit);
    let pixels = (0..count * PIXELS).map(|_| stream.unit() as f32).collect();
    let labels = (0..count).map(|i| (3 * i % CLASSES) as u32).collect();
    (pixels, labels)
}

/// A perceptron with one hidden layer in plain loops and `f64`.
struct Dense {
    w1: Vec<f64>,
    b1: Vec<f64>,
    w2: Vec<f64>,
    b2: Vec<f64>,
}

impl Dense {
    fn of(state: &State) -> Self {
        let read = |name: &str| state.entry(name).unwrap().values().collect();
        Self {
            w1: read("model/hidden.weight"), // [in, out]
            b1: read("model/hidden.bias"),
            w2: read("model/output.weight"),
            b2: read("model/output.bias"),
        }
    }

    /// The gradient of the mean cross-entropy by all parameters.
    fn gradient(&self, pixels: &[f64], labels: &[u32]) -> Direction {
        let norm = DatasetName::Digits.normalisation();
        let (mut g1, mut gb1) = (vec![0.0; self.w1.len()], vec![0.0; HIDDEN]);
        let (mut g2, mut gb2) = (vec![0.0; self.w2.len()], vec![0.0; CLASSES]);
        let n = labels.len() as f64;
        for (image, &label) in pixels.chunks(PIXELS).zip(labels) {
            let x: Vec<f64> = (image.iter())
                .map(|p| (p - f64::from(norm.mean[0])) / f64::from(norm.deviation[0]))
                .collect();
            let hidden: Vec<f64> = (0..HIDDEN)
                .map(|j| {
                    let sum: f64 = (0..PIXELS).map(|i| x[i] * self.w1[i * HIDDEN + j]).sum();
                    (sum + self.b1[j]).max(0.0)
                })
                .collect();
            let scores: Vec<f64> = (0..CLASSES)
                .map(|c| {
                    let sum: f64 = (0..HIDDEN)
                        .map(|j| hidden[j] * self.w2[j * CLASSES + c])
                        .sum();
                    sum + self.b2[c]
                })
                .collect();
            let largest = scores.iter().copied().fold(f64::MIN, f64::max);
            let total: f64 = scores.iter().map(|s| (s - largest).exp()).sum();
            let by_score: Vec<f64> = (0..CLASSES)
                .map(|c| {
                    let p = (scores[c] - largest).exp() / total;
                    (p - f64::from(u8::from(c == label as usize))) / n
                })
                .collect();
            for (c, d) in by_score.iter().enumerate() {
                gb2[c] += d;
                for j in 0..HIDDEN {
                    g2[j * CLASSES + c] += hidden[j] * d;
                }
            }
            for j in (0..HIDDEN).filter(|&j| hidden[j] > 0.0) {
                let d: f64 = (0..CLASSES)
                    .map(|c| by_score[c] * self.w2[j * CLASSES + c])
                    .sum();
                gb1[j] += d;
                for i in 0..PIXELS {
                    g1[i * HIDDEN + j] += x[i] * d;
                }
            }
        }
        Direction::from([
            ("model/hidden.weight".to_owned(), g1),
            ("model/hidden.bias".to_owned(), gb1),
            ("model/output.weight".to_owned(), g2),
            ("model/output.bias".to_owned(), gb2),
        ])
    }
}

fn objective(found: &Direction, wanted: &Direction) -> f64 {
    let off = found.iter().map(|(name, values)| {
        let pairs = values.iter().zip(&wanted[name]);
        pairs.map(|(a, b)| (a - b) * (a - b)).sum::<f64>()
    });
    off.sum()
}

fn relative_error(found: &[f64], expected: &[f64]) -> f64 {
    let gap: f64 = (found.iter().zip(expected))
        .map(|(a, b)| (a - b).powi(2))
        .sum();
    (gap / expected.iter().map(|b| b * b).sum::<f64>()).sqrt()
}

/// Some direction to match that is no gradient.
fn wanted(state: &State) -> Direction {
    let mut stream = seed().stream(Purpose::Dropout { step: 0, layer: 0 });
    let parameters = state
        .entries()
        .iter()
        .filter(|e| e.name().starts_with("model/"));
    let values = parameters.map(|entry| {
        let count = entry.values().count();
        (
            entry.name().to_owned(),
            (0..count).map(|_| 0.05 * stream.normal()).collect(),
        )
    });
    values.collect()
}

#[test]
fn gradients_are_those_of_a_dense_perceptron_in_f64() {
    let mut model = Component::new("mlp");
    model
        .options
        .insert("hidden".to_owned(), Value::Int(HIDDEN as i64));
    let mut learner = learner(model, Numerics::Stock);
    let state = learner.capture().unwrap();
    let dense = Dense::of(&state);
    let (pixels, labels) = images(BATCH);
    let exact: Vec<f64> = pixels.iter().map(|&p| f64::from(p)).collect();
    let found = learner.gradients(&pixels, &labels).unwrap();
    let expected = dense.gradient(&exact, &labels);
    for entry in &found.parameters {
        let values: Vec<f64> = entry.values().collect();
        let error = relative_error(&values, &expected[entry.name()]);
        assert!(error < 1e-5, "{}: {error:e}", entry.name());
    }

    let wanted = wanted(&state);
    let problem = Problem {
        weights: &state,
        wanted: &wanted,
        pixels: &pixels,
        labels: &labels,
        step: 1e-4,
    };
    let evaluated = matching::evaluate(&problem, &pixels, learner.as_mut()).unwrap();
    let value = |pixels: &[f64]| objective(&dense.gradient(pixels, &labels), &wanted);
    assert!((evaluated.value / value(&exact) - 1.0).abs() < 1e-5);
    // Every coordinate, in f64.
    let h = 1e-6;
    let by_pixel: Vec<f64> = (0..exact.len())
        .map(|place| {
            let at = |h: f64| {
                let mut moved = exact.clone();
                moved[place] += h;
                value(&moved)
            };
            (at(h) - at(-h)) / (2.0 * h)
        })
        .collect();
    let error = relative_error(&evaluated.gradient, &by_pixel);
    assert!(error < 1e-2, "{error:e}");
}

/// Convolutions, batch normalisation and rectifiers: the slope along the gradient, by the objective's
/// own values.
#[test]
fn slopes_agree_with_the_objective_of_convolutional_models() {
    // In twenty layers of rectifiers there is a kink wherever one looks.
    for (model, allowed) in [("lenet5", 0.05), ("resnet20", 0.3)] {
        for numerics in [Numerics::Stock, Numerics::Exact(Profile::UnfusedV2)] {
            check_slope(model, numerics, allowed);
        }
    }
}

fn check_slope(model: &str, numerics: Numerics, allowed: f64) {
    let mut learner = learner(Component::new(model), numerics);
    let state = learner.capture().unwrap();
    let (pixels, labels) = images(8);
    let wanted = Direction::new();
    let problem = Problem {
        weights: &state,
        wanted: &wanted,
        pixels: &pixels,
        labels: &labels,
        step: matching::STEPS[0],
    };
    let step = matching::suitable_step(&problem, learner.as_mut()).unwrap();
    let problem = Problem { step, ..problem };
    let here = matching::evaluate(&problem, &pixels, learner.as_mut()).unwrap();
    let length: f64 = here.gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
    // Kinks of rectifiers make the slope jump: it is the mean over a short way.
    let way = 1e-5;
    let mut at = |step: f64| {
        let moved: Vec<f32> = (pixels.iter().zip(&here.gradient))
            .map(|(p, g)| (f64::from(*p) + step * g / length) as f32)
            .collect();
        matching::evaluate(&problem, &moved, learner.as_mut())
            .unwrap()
            .value
    };
    let slope = (at(way) - at(-way)) / (2.0 * way);
    let error = (slope / length - 1.0).abs();
    assert!(
        error < allowed,
        "{model} {numerics}: {slope} for {length}: {error}"
    );
}

/// The published forger's minimisation finds records whose gradient is nearer.
#[test]
fn minimising_brings_gradients_nearer() {
    let mut learner = learner(Component::new("lenet5"), Numerics::Stock);
    let state = learner.capture().unwrap();
    let (pixels, labels) = images(16);
    let wanted = Direction::new();
    let problem = Problem {
        weights: &state,
        wanted: &wanted,
        pixels: &pixels,
        labels: &labels,
        step: 1e-4,
    };
    let found = matching::minimise(&problem, 10, DatasetName::Digits, learner.as_mut()).unwrap();
    assert!(
        found.after < 0.8 * found.before,
        "{} of {}",
        found.after,
        found.before
    );
    assert_eq!((found.gradients - 3) % matching::GRADIENTS, 0);
    assert!(found.pixels.iter().all(|&pixel| pixel <= 16));
}
