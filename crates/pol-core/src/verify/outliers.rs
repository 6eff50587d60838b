//! Which segments stand out: those that move the parameters more than their neighbourhood lets expect.
//!
//! A forger who exchanges a state, or jumps to another training, moves the parameters in one segment by
//! what a training takes many for. Or the optimizer's state is moved there, and the segment after, which is
//! honest, carries the parameters away: so the optimizer's movement counts too, and the segment before one
//! that stands out is replayed with it. Honest movements change too, where the learning rate drops or warms
//! up: a segment that stands out is replayed, no more.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Neighbours on each side that a stretch is compared with.
const NEIGHBOURS: usize = 8;

/// When a segment stands out, and how many that do are replayed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutlierRule {
    /// The factor beyond what its neighbours let expect at which the movement of a segment, of the parameters
    /// or of the optimizer's state, stands out.
    pub factor: f64,
    /// The most stretches that are replayed for standing out, those first that exceed what is expected by
    /// the largest factor. The others are left to the draw, and count in the stated odds as what they are.
    pub most: u64,
}

/// The segments between neighbouring states that are at hand: one, unless numerics are exact and states
/// between are not kept.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stretch {
    pub(super) segments: Range<u64>,
    pub(super) steps: u64,
    /// The distances between the states at its ends.
    pub(super) moved: Moved,
}

/// l2 distances between two states; `None` where one is not finite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Moved {
    /// Of the parameters.
    pub(super) parameters: Option<f64>,
    /// Of the floating-point numbers of the optimizer's state: a counter moves alike in all segments, and
    /// would pay for the rest.
    pub(super) optimizer: Option<f64>,
}

/// What of a state moves.
type Measure = fn(&Moved) -> Option<f64>;
const PARAMETERS: Measure = |moved| moved.parameters;
const OPTIMIZER: Measure = |moved| moved.optimizer;

impl Stretch {
    fn moved(&self, measure: Measure) -> f64 {
        measure(&self.moved)
            .filter(|moved| !moved.is_nan())
            .unwrap_or(f64::INFINITY)
    }

    /// The factor by which it exceeds what it may move; `None` if it does not.
    fn excess(&self, measure: Measure, allowed: f64) -> Option<f64> {
        let moved = self.moved(measure);
        let ratio = match moved.is_finite() {
            true => moved / allowed,
            false => f64::INFINITY,
        };
        (!moved.is_finite() || moved > allowed).then_some(ratio)
    }

    /// Its segments and the one before, whose end it begins from.
    pub(super) fn with_the_one_before(&self) -> Range<u64> {
        self.segments.start.saturating_sub(1)..self.segments.end
    }
}

/// Stretches by what they may move without standing out.
pub(super) struct Neighbourhoods<'a> {
    stretches: &'a [Stretch],
    /// Of the parameters.
    allowed: Vec<f64>,
    /// Of the optimizer's state.
    allowed_optimizer: Vec<f64>,
}

impl<'a> Neighbourhoods<'a> {
    /// A stretch may move `factor` times the median movement per step of the neighbours on both sides, for
    /// as many steps as it has, or the median neighbour if that has fewer: which states are kept is the
    /// prover's choice, and a longer gap gives no right to a longer jump.
    pub(super) fn new(stretches: &'a [Stretch], factor: f64) -> Self {
        let allowed = |measure: Measure| {
            let of = (0..stretches.len()).map(|at| allowed(stretches, at, measure, factor));
            of.collect()
        };
        Self {
            stretches,
            allowed: allowed(PARAMETERS),
            allowed_optimizer: allowed(OPTIMIZER),
        }
    }

    /// The stretches that stand out, those first that exceed what they are allowed by most; of equal ones
    /// the earlier.
    pub(super) fn outliers(&self) -> Vec<&'a Stretch> {
        let allowed = self.allowed.iter().zip(&self.allowed_optimizer);
        let mut exceeding: Vec<(f64, &Stretch)> = (self.stretches.iter().zip(allowed))
            .filter_map(|(stretch, (parameters, optimizer))| {
                let parameters = stretch.excess(PARAMETERS, *parameters);
                let optimizer = stretch.excess(OPTIMIZER, *optimizer);
                let excess = parameters.into_iter().chain(optimizer).reduce(f64::max)?;
                Some((excess, stretch))
            })
            .collect();
        exceeding.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        exceeding.into_iter().map(|(_, stretch)| stretch).collect()
    }

    /// Each stretch with the most that it may move the parameters without standing out; where it moves them
    /// more, that.
    pub(super) fn reaches(&self) -> impl Iterator<Item = (&'a Stretch, f64)> {
        let reaches = self.stretches.iter().zip(&self.allowed);
        reaches.map(|(stretch, allowed)| (stretch, stretch.moved(PARAMETERS).max(*allowed)))
    }
}

/// The l2 distance that the stretch at `at` may move without standing out.
fn allowed(stretches: &[Stretch], at: usize, measure: Measure, factor: f64) -> f64 {
    let before = &stretches[at.saturating_sub(NEIGHBOURS)..at];
    let after = &stretches[at + 1..(at + 1 + NEIGHBOURS).min(stretches.len())];
    let neighbours = || before.iter().chain(after);
    let rate = median(neighbours().map(|s| s.moved(measure) / s.steps.max(1) as f64));
    let steps = median(neighbours().map(|s| s.steps as f64));
    match (rate, steps) {
        (Some(rate), Some(steps)) => factor * rate * steps.min(stretches[at].steps as f64),
        // Alone, it has nothing to stand out from.
        _ => f64::INFINITY,
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
                moved: Moved {
                    parameters: Some(movement),
                    optimizer: Some(movement),
                },
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
        still[4].moved.parameters = Some(1e-9);
        assert_eq!(outlying(&still, 3.0), [4]);
        for unknown in [None, Some(f64::NAN), Some(f64::INFINITY)] {
            let mut moving = stretches(&[(1, 5, 1.0); 9]);
            moving[2].moved.parameters = Some(4.0);
            moving[6].moved.parameters = unknown;
            assert_eq!(outlying(&moving, 3.0), [6, 2]);
            // Also where all are.
            let mut all = moving.clone();
            all.iter_mut().for_each(|s| s.moved.parameters = unknown);
            assert_eq!(outlying(&all, 3.0).len(), 9);
        }
    }

    #[test]
    fn an_injected_optimizer_stands_out_though_the_parameters_do_not_move() {
        let mut injected = stretches(&[(1, 5, 1.0); 20]);
        injected[7].moved.optimizer = Some(50.0);
        injected[12].moved.parameters = Some(20.0);
        assert_eq!(outlying(&injected, 3.0), [7, 12]);
        assert_eq!(injected[12].with_the_one_before(), 11..13);
        assert_eq!(injected[0].with_the_one_before(), 0..1);
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
