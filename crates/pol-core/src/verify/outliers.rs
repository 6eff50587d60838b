//! Which segments stand out: those that move the parameters more than their neighbourhood lets expect.
//!
//! A forger who exchanges a state, or jumps to another training, moves the parameters in one segment by
//! what a training takes many for. Honest movements change too, where the learning rate drops or warms up:
//! a segment that stands out is replayed, no more.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Neighbours on each side that a stretch is compared with.
const NEIGHBOURS: usize = 8;

/// When a segment stands out, and how many that do are replayed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutlierRule {
    /// It moves the parameters more than this many times what its neighbours let expect.
    pub factor: f64,
    /// So many are replayed, those first that exceed what is expected by most. The others are left to the
    /// draw, and count in the stated odds as what they are.
    pub most: u64,
}

/// The segments between neighbouring states that are at hand: one, unless numerics are exact and states
/// between are not kept.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stretch {
    pub(super) segments: Range<u64>,
    pub(super) steps: u64,
    /// l2 distance of the parameters between the two states; `None` if it is not finite.
    pub(super) movement: Option<f64>,
}

impl Stretch {
    fn moved(&self) -> f64 {
        self.movement
            .filter(|moved| !moved.is_nan())
            .unwrap_or(f64::INFINITY)
    }
}

/// Stretches by what they may move without standing out.
pub(super) struct Neighbourhoods<'a> {
    stretches: &'a [Stretch],
    allowed: Vec<f64>,
}

impl<'a> Neighbourhoods<'a> {
    /// A stretch may move `factor` times the median movement per step of the neighbours on both sides, for
    /// as many steps as it has, or the median neighbour if that has fewer: which states are kept is the
    /// prover's choice, and a longer gap gives no right to a longer jump.
    pub(super) fn new(stretches: &'a [Stretch], factor: f64) -> Self {
        let allowed = (0..stretches.len()).map(|at| {
            let before = &stretches[at.saturating_sub(NEIGHBOURS)..at];
            let after = &stretches[at + 1..(at + 1 + NEIGHBOURS).min(stretches.len())];
            let neighbours = || before.iter().chain(after);
            let rate = median(neighbours().map(|s| s.moved() / s.steps.max(1) as f64));
            let steps = median(neighbours().map(|s| s.steps as f64));
            match (rate, steps) {
                (Some(rate), Some(steps)) => factor * rate * steps.min(stretches[at].steps as f64),
                // Alone, it has nothing to stand out from.
                _ => f64::INFINITY,
            }
        });
        Self {
            stretches,
            allowed: allowed.collect(),
        }
    }

    /// The stretches that stand out, those first that exceed what they are allowed by most; of equal ones
    /// the earlier.
    pub(super) fn outliers(&self) -> Vec<&'a Stretch> {
        let exceeding = self.stretches.iter().zip(&self.allowed);
        let mut exceeding: Vec<(f64, &Stretch)> = exceeding
            .filter(|(stretch, allowed)| {
                let moved = stretch.moved();
                !moved.is_finite() || moved > **allowed
            })
            .map(|(stretch, allowed)| (stretch.moved() / allowed, stretch))
            .collect();
        // What is not finite, and what moves where nothing else does, comes first.
        let excess = |ratio: f64| if ratio.is_nan() { f64::INFINITY } else { ratio };
        exceeding.sort_by(|(a, _), (b, _)| excess(*b).total_cmp(&excess(*a)));
        exceeding.into_iter().map(|(_, stretch)| stretch).collect()
    }

    /// Each stretch with the most that it may move without standing out; where it moves more, that.
    pub(super) fn reaches(&self) -> impl Iterator<Item = (&'a Stretch, f64)> {
        let reaches = self.stretches.iter().zip(&self.allowed);
        reaches.map(|(stretch, allowed)| (stretch, stretch.moved().max(*allowed)))
    }
}

/// The lower median; `None` of nothing.
fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretches(lengths: &[(u64, u64, f64)]) -> Vec<Stretch> {
        let mut at = 0;
        let mut stretch = |&(segments, steps, movement): &(u64, u64, f64)| {
            at += segments;
            Stretch {
                segments: at - segments..at,
                steps,
                movement: Some(movement),
            }
        };
        lengths.iter().map(&mut stretch).collect()
    }

    fn outlying(stretches: &[Stretch], factor: f64) -> Vec<u64> {
        let outliers = Neighbourhoods::new(stretches, factor).outliers();
        outliers.iter().map(|s| s.segments.start).collect()
    }

    #[test]
    fn a_jump_stands_out_and_a_slowing_training_does_not() {
        let mut slowing: Vec<(u64, u64, f64)> = (0..40u32)
            .map(|i| (1, 5, 2.0 * 0.95f64.powi(i as i32)))
            .collect();
        assert!(outlying(&stretches(&slowing), 3.0).is_empty());
        slowing[17].2 *= 3.1;
        slowing[30].2 *= 10.0;
        assert_eq!(outlying(&stretches(&slowing), 3.0), [30, 17]);
    }

    #[test]
    fn a_short_last_segment_is_measured_by_the_step() {
        let mut lengths = vec![(1, 20, 1.0); 9];
        // Two steps that move no more than a segment of twenty, and much more than two steps of it.
        lengths.push((1, 2, 0.9));
        assert_eq!(outlying(&stretches(&lengths), 3.0), [9]);
        lengths[9].2 = 0.1;
        assert!(outlying(&stretches(&lengths), 3.0).is_empty());
    }

    #[test]
    fn a_gap_of_states_that_are_not_kept_hides_no_jump() {
        let mut lengths = vec![(1, 5, 1.0); 20];
        // Ten segments that move ten times as far: what was gone between, nobody sees.
        lengths[8] = (10, 50, 10.0);
        assert_eq!(outlying(&stretches(&lengths), 3.0), [8]);
        lengths[8].2 = 2.9;
        assert!(outlying(&stretches(&lengths), 3.0).is_empty());
        // Gaps of one length are compared with one another.
        let mut regular = vec![(10, 50, 4.0); 20];
        assert!(outlying(&stretches(&regular), 3.0).is_empty());
        regular[3].2 = 12.1;
        assert_eq!(outlying(&stretches(&regular), 3.0), [30]);
    }

    #[test]
    fn what_is_not_finite_or_moves_alone_stands_out_first() {
        let mut still = stretches(&[(1, 5, 0.0); 9]);
        assert!(outlying(&still, 3.0).is_empty(), "nothing moves");
        still[4].movement = Some(1e-9);
        assert_eq!(outlying(&still, 3.0), [4]);
        for unknown in [None, Some(f64::NAN), Some(f64::INFINITY)] {
            let mut moving = stretches(&[(1, 5, 1.0); 9]);
            moving[2].movement = Some(4.0);
            moving[6].movement = unknown;
            assert_eq!(outlying(&moving, 3.0), [6, 2]);
            // Also where all are.
            let mut all = moving.clone();
            all.iter_mut().for_each(|s| s.movement = unknown);
            assert_eq!(outlying(&all, 3.0).len(), 9);
        }
    }

    #[test]
    fn a_stretch_reaches_what_it_may_move_or_what_it_moves() {
        let mut lengths = vec![(1, 5, 1.0); 9];
        lengths[4].2 = 5.0;
        let stretches = stretches(&lengths);
        let neighbourhoods = Neighbourhoods::new(&stretches, 3.0);
        let reaches: Vec<f64> = neighbourhoods.reaches().map(|(_, reach)| reach).collect();
        assert_eq!(reaches[4], 5.0);
        let thrice = |reach: f64| (reach - 3.0).abs() < 1e-9;
        assert!((reaches.iter().enumerate()).all(|(i, reach)| i == 4 || thrice(*reach)));
        assert!(Neighbourhoods::new(&stretches[..1], 3.0).allowed[0].is_infinite());
    }
}
