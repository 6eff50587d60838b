//! Gradient matching (Zhang et al., S&P 2022, §IV): records are changed until the gradient that they
//! give is the one that is wanted.
//!
//! Minimised over a change R of the images X is ‖∇_w L(w; X+R) − g*‖² + λ‖R‖². Its gradient by R needs no
//! second derivatives: with v = ∇_w L(w; X+R) − g* held fixed,
//! ∇_R ‖v‖² = 2 · d/dε ∇_R L(w + εv; X+R) at ε = 0, a central difference of two ordinary gradients by the
//! input. So an evaluation costs three gradients of a batch.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::optim::{GradientsParams, LBFGSConfig, LineSearchFn};
use burn::tensor::{Device, Tensor, TensorData};
use pol_core::state::State;
use pol_models::ImageLearner;
use pol_models::dataset::DatasetName;

use crate::AttackError;
use crate::forgery::{with_entries, with_values};

/// How far the weights may be moved along v for the difference (l2). In `f32`, kinks of rectifiers spoil
/// longer steps, and rounding spoils shorter ones: how long is best depends on the model's depth.
pub const STEPS: [f64; 3] = [1e-4, 1e-5, 1e-6];
/// Gradients of a batch that an evaluation costs.
pub const GRADIENTS: u64 = 3;
/// By how much the first step of a search changes pixels, on average.
const FIRST: f64 = 0.01;
/// λ, as a fraction of the objective at the start, for a mean square change of one.
const PENALTY: f64 = 1e-3;

/// Values for each trained parameter, by its name in states.
pub type Direction = BTreeMap<String, Vec<f64>>;

/// A batch whose gradient is to become another.
pub struct Problem<'a> {
    /// The weights that gradients are taken at.
    pub weights: &'a State,
    /// The gradient wanted, g*.
    pub wanted: &'a Direction,
    /// The images as they are, one after the other; 1 stands for the largest pixel value.
    pub pixels: &'a [f32],
    /// Their labels.
    pub labels: &'a [u32],
    /// How far the weights are moved for a difference; see [`suitable_step`].
    pub step: f64,
}

/// An evaluation of ‖∇_w L − g*‖².
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluated {
    /// The value.
    pub value: f64,
    /// Its gradient by each pixel.
    pub gradient: Vec<f64>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The images, as bytes of the data set.
    pub pixels: Vec<u8>,
    /// ‖∇_w L − g*‖ of the images as they were.
    pub before: f64,
    /// The same of those found.
    pub unrounded: f64,
    /// The same again, rounded to bytes.
    pub after: f64,
    /// Gradients of such a batch that it took.
    pub gradients: u64,
}

/// The direction `scale · (from − to)` in the trained parameters.
pub fn direction(learner: &dyn ImageLearner, from: &State, to: &State, scale: f64) -> Direction {
    let trained = from.entries().iter().filter_map(|entry| {
        let parameter = learner.part(entry.name()) == pol_core::state::Part::Parameters;
        let other = to.entry(entry.name()).filter(|_| parameter)?;
        let values = entry.values().zip(other.values());
        let values = values.map(|(a, b)| scale * (a - b)).collect();
        Some((entry.name().to_owned(), values))
    });
    trained.collect()
}

/// ‖∇_w L(w; pixels) − g*‖² and its gradient by the pixels.
///
/// # Errors
/// If the learner fails.
pub fn evaluate(
    problem: &Problem<'_>,
    pixels: &[f32],
    learner: &mut dyn ImageLearner,
) -> Result<Evaluated, AttackError> {
    let off = residual(problem, pixels, learner)?;
    let length = length(&off);
    if length == 0.0 {
        return Ok(Evaluated {
            value: 0.0,
            gradient: vec![0.0; pixels.len()],
        });
    }
    let step = problem.step / length;
    let mut by_input = |step: f64| -> Result<Vec<f32>, AttackError> {
        learner.restore(&moved(problem.weights, &off, step))?;
        Ok(learner.gradients(pixels, problem.labels)?.pixels)
    };
    let (up, down) = (by_input(step)?, by_input(-step)?);
    let differences = up.iter().zip(&down);
    Ok(Evaluated {
        value: length * length,
        gradient: differences
            .map(|(up, down)| (f64::from(*up) - f64::from(*down)) / step)
            .collect(),
    })
}

/// Of [`STEPS`], the one that serves a problem best: kinks and rounding both add to a gradient's length,
/// so that the shortest gradient is the least spoiled one.
///
/// # Errors
/// If the learner fails.
pub fn suitable_step(
    problem: &Problem<'_>,
    learner: &mut dyn ImageLearner,
) -> Result<f64, AttackError> {
    let mut best = (f64::INFINITY, STEPS[0]);
    for step in STEPS {
        let tried = Problem { step, ..*problem };
        let found = evaluate(&tried, problem.pixels, learner)?;
        let square: f64 = found.gradient.iter().map(|g| g * g).sum();
        if square < best.0 {
            best = (square, step);
        }
    }
    Ok(best.1)
}

/// Changes the images by L-BFGS, so many iterations, within what pixels can be.
///
/// # Errors
/// If the learner fails.
pub fn minimise(
    problem: &Problem<'_>,
    iterations: u64,
    dataset: DatasetName,
    learner: &mut dyn ImageLearner,
) -> Result<Found, AttackError> {
    let before = length(&residual(problem, problem.pixels, learner)?);
    let mut gradients = 1;
    let device = Device::flex();
    let count = problem.pixels.len();
    // The optimizer takes modules with gradients of their own, and is given these instead.
    let change = Change {
        values: Param::from_tensor(Tensor::zeros([count], &device.clone().autodiff())),
    };
    let id = change.values.id;
    // L-BFGS begins with a step of length 1 (l1) along the gradient. In these units that is a change that
    // images show, however many pixels there are.
    let unit = (FIRST * count as f64) as f32;
    let mut failure = None;
    // The change with the smallest value so far: a line search may end at a worse one.
    let mut best = (f64::INFINITY, vec![0f32; count]);
    let mut objective = |change: &[f32]| -> Result<(f64, Vec<f32>), AttackError> {
        let pixels = changed(problem.pixels, change);
        let found = evaluate(problem, &pixels, learner)?;
        gradients += GRADIENTS;
        let scale = 1.0 / (before * before).max(f64::MIN_POSITIVE);
        let weight = PENALTY / count as f64;
        let square: f64 = change.iter().map(|r| f64::from(*r) * f64::from(*r)).sum();
        let value = found.value * scale + weight * square;
        let parts = found.gradient.iter().zip(change).zip(problem.pixels);
        let gradient = parts.map(|((gradient, r), x)| {
            // A pixel at its limit does not move further.
            let inside = (0.0..=1.0).contains(&(x + r));
            let matched = if inside { gradient * scale } else { 0.0 };
            (matched + 2.0 * weight * f64::from(*r)) as f32
        });
        Ok((value, gradient.collect()))
    };
    let closure = |change: Change| {
        let values = change.values.val().into_data();
        let values = values.as_slice::<f32>().unwrap_or(&[]).iter();
        let values: Vec<f32> = values.map(|value| unit * value).collect();
        let (value, mut gradient) = match objective(&values) {
            Ok(found) => found,
            Err(error) => {
                failure.get_or_insert(error);
                (f64::INFINITY, vec![0.0; count])
            }
        };
        if value < best.0 {
            best = (value, values);
        }
        gradient.iter_mut().for_each(|by| *by *= unit);
        let mut gradients = GradientsParams::new();
        let data = TensorData::new(gradient, [count]);
        gradients.register(id, Tensor::<1>::from_data(data, &device));
        (value, gradients)
    };
    LBFGSConfig::new()
        .with_max_iter(iterations as usize)
        .with_max_eval(Some(2 * iterations as usize))
        .with_tolerance_change(1e-12)
        .with_line_search_fn(LineSearchFn::StrongWolfe)
        .init()
        .step(1.0, change, closure);
    if let Some(error) = failure {
        return Err(error);
    }
    let scale = dataset.normalisation().scale;
    let found = changed(problem.pixels, &best.1);
    let bytes: Vec<u8> = found
        .iter()
        .map(|share| (share * scale).round() as u8)
        .collect();
    let rounded: Vec<f32> = bytes.iter().map(|&byte| f32::from(byte) / scale).collect();
    let unrounded = length(&residual(problem, &found, learner)?);
    let after = length(&residual(problem, &rounded, learner)?);
    Ok(Found {
        pixels: bytes,
        before,
        unrounded,
        after,
        gradients: gradients + 2,
    })
}

#[derive(Module, Debug)]
struct Change {
    values: Param<Tensor<1>>,
}

fn changed(pixels: &[f32], change: &[f32]) -> Vec<f32> {
    let pairs = pixels.iter().zip(change);
    pairs.map(|(x, r)| (x + r).clamp(0.0, 1.0)).collect()
}

/// v: by how much the gradient of these images misses the one wanted.
fn residual(
    problem: &Problem<'_>,
    pixels: &[f32],
    learner: &mut dyn ImageLearner,
) -> Result<Direction, AttackError> {
    learner.restore(problem.weights)?;
    let found = learner.gradients(pixels, problem.labels)?;
    let off = found.parameters.iter().map(|entry| {
        let wanted = problem.wanted.get(entry.name());
        let wanted = wanted.into_iter().flatten().chain(std::iter::repeat(&0.0));
        let values = entry.values().zip(wanted).map(|(a, b)| a - b).collect();
        (entry.name().to_owned(), values)
    });
    Ok(off.collect())
}

/// The l2 length of a direction.
pub fn length(direction: &Direction) -> f64 {
    let squares = direction.values().flatten().map(|value| value * value);
    squares.sum::<f64>().sqrt()
}

fn moved(weights: &State, direction: &Direction, step: f64) -> State {
    with_entries(weights, |entry| {
        let along = direction.get(entry.name())?;
        let pairs = entry.values().zip(along);
        Some(with_values(entry, pairs.map(|(w, v)| w + step * v)))
    })
}
