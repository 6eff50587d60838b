//! The learning rates of all steps, without asking for each.

use crate::recipe::{LearningRate, Piece};

/// The highest rate of any step.
pub(super) fn highest(rate: &LearningRate, steps: u64) -> f64 {
    let pieces = rate.pieces(steps).into_iter();
    pieces
        .flat_map(|piece| [piece.rates.0, piece.rates.1])
        .fold(f64::NEG_INFINITY, |high, rate| {
            // A rate that is no number is above all others.
            if rate <= high { high } else { rate }
        })
}

/// How many steps have a rate that is not at least some least one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Below {
    /// Those of the warm-up.
    pub(super) warming_up: u64,
    /// Those after it.
    pub(super) after: u64,
}

impl Below {
    pub(super) fn of(rate: &LearningRate, steps: u64, least: f64) -> Self {
        let mut below = Self::default();
        for piece in rate.pieces(steps) {
            let count = below_in(rate, steps, piece, least);
            match piece.end <= rate.warmup {
                true => below.warming_up += count,
                false => below.after += count,
            }
        }
        below
    }
}

fn below_in(rate: &LearningRate, steps: u64, piece: Piece, least: f64) -> u64 {
    let Piece { first, end, rates } = piece;
    let (at_first, at_last) = (rates.0 >= least, rates.1 >= least);
    if at_first == at_last {
        return if at_first { 0 } else { end - first };
    }
    // The first step that is unlike the piece's first.
    let (mut alike, mut unlike) = (first, end - 1);
    while unlike - alike > 1 {
        let middle = alike + (unlike - alike) / 2;
        match (rate.at(middle, steps) >= least) == at_first {
            true => alike = middle,
            false => unlike = middle,
        }
    }
    match at_first {
        true => end - unlike,
        false => unlike - first,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Decay;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rates_are_counted_as_if_one_by_one(
            base in 0.0f64..1.0,
            warmup in 0u64..20,
            steps in 1u64..60,
            kind in 0u8..3,
            milestones in prop::collection::btree_set(0u64..80, 0..5),
            x in 0.0f64..2.0,
            least in 0.0f64..1.0,
        ) {
            let decay = match kind {
                0 => Decay::Constant,
                1 => Decay::MultiStep { milestones: milestones.into_iter().collect(), gamma: x },
                _ => Decay::Cosine { min: x },
            };
            let rate = LearningRate { base, warmup, decay };
            let all: Vec<f64> = (0..steps).map(|step| rate.at(step, steps)).collect();
            prop_assert_eq!(highest(&rate, steps), all.iter().copied().fold(0.0, f64::max));
            let count = |range: &[f64]| range.iter().filter(|rate| **rate < least).count() as u64;
            let (warming_up, after) = all.split_at(warmup.min(steps) as usize);
            let expected = Below { warming_up: count(warming_up), after: count(after) };
            prop_assert_eq!(Below::of(&rate, steps, least), expected);
        }
    }

    #[test]
    fn rates_that_are_no_numbers_exceed_every_bound() {
        let rate = LearningRate {
            base: f64::NAN,
            warmup: 0,
            decay: Decay::Constant,
        };
        assert!(highest(&rate, 5).is_nan());
        assert_eq!(Below::of(&rate, 5, 0.0).after, 5);
    }
}
