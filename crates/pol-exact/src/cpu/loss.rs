//! Cross-entropy of scores (NUMERICS.md, "Cross-entropy").

use super::sums::column_sums;
use crate::math::{exp_with, ln_with, plus_product};
use crate::profile::Profile;

/// The mean over the rows of `−Σ target · log softmax(scores)`.
pub fn cross_entropy(profile: Profile, scores: &[f32], targets: &[f32], classes: usize) -> f32 {
    let row_loss = match profile.fused() {
        true => row_loss::<true>,
        false => row_loss::<false>,
    };
    let rows = scores
        .chunks_exact(classes)
        .zip(targets.chunks_exact(classes));
    let losses: Vec<_> = rows
        .map(|(scores, targets)| row_loss(scores, targets))
        .collect();
    -column_sums(&losses, 1, 1)[0] / losses.len() as f32
}

/// The gradient of the scores, times `dloss`.
pub fn cross_entropy_backward(
    profile: Profile,
    scores: &[f32],
    targets: &[f32],
    classes: usize,
    dloss: f32,
) -> Vec<f32> {
    let row_gradient = match profile.fused() {
        true => row_gradient::<true>,
        false => row_gradient::<false>,
    };
    let rows = scores.len() / classes.max(1);
    let factor = dloss / rows as f32;
    let mut gradient = vec![0.0; scores.len()];
    let pairs = scores
        .chunks_exact(classes)
        .zip(targets.chunks_exact(classes));
    for (gradient, (scores, targets)) in gradient.chunks_exact_mut(classes).zip(pairs) {
        row_gradient(gradient, scores, targets, factor);
    }
    gradient
}

/// Σ target · ((score − greatest) − ln Σ e^(score − greatest)).
fn row_loss<const FUSED: bool>(scores: &[f32], targets: &[f32]) -> f32 {
    let most = greatest(scores);
    let total = scores
        .iter()
        .fold(0.0, |sum, s| sum + exp_with::<FUSED>(s - most));
    let log_total = ln_with::<FUSED>(total);
    let sum = (scores.iter().zip(targets)).fold(0.0, |sum, (score, target)| {
        plus_product::<FUSED>(sum, (score - most) - log_total, *target)
    });
    sum + 0.0 // The end of a short sum: no zero is negative.
}

/// `(softmax · Σ target − target) · factor`.
fn row_gradient<const FUSED: bool>(
    gradient: &mut [f32],
    scores: &[f32],
    targets: &[f32],
    factor: f32,
) {
    let most = greatest(scores);
    let total = scores
        .iter()
        .fold(0.0, |sum, s| sum + exp_with::<FUSED>(s - most));
    let mass = targets.iter().fold(0.0, |sum, target| sum + target);
    for ((gradient, score), target) in gradient.iter_mut().zip(scores).zip(targets) {
        let share = exp_with::<FUSED>(score - most) / total;
        *gradient = plus_product::<FUSED>(-*target, share, mass) * factor;
    }
}

fn greatest(scores: &[f32]) -> f32 {
    (scores.iter()).fold(
        scores[0],
        |best, &score| if score > best { score } else { best },
    )
}
