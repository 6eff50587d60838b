//! What a random draw is worth: the probability with which it meets a forger (SPEC.md §16).

use serde::Serialize;

/// The chance that `drawn` of `segments`, uniform without replacement, hit at least one of `forged`
/// given ones: `1 − C(n − m, q) / C(n, q)`.
pub fn catch_probability_of(forged: u64, segments: u64, drawn: u64) -> f64 {
    let (forged, drawn) = (forged.min(segments), drawn.min(segments));
    // C(n − m, q) / C(n, q) = C(n − q, m) / C(n, m): a product of as few factors as possible.
    let (few, many) = (forged.min(drawn), forged.max(drawn));
    let missed: f64 = (0..few)
        .map(|i| (segments - many).saturating_sub(i) as f64 / (segments - i) as f64)
        .product();
    1.0 - missed
}

/// The chance that `drawn` of `segments`, uniform without replacement, hit at least one of the
/// `⌈forged · segments⌉` forged ones.
pub fn catch_probability(forged: f64, segments: u64, drawn: u64) -> f64 {
    catch_probability_of(forged_of(forged, segments), segments, drawn)
}

/// The segments that a forger of a fraction `forged` forges, rounded up.
pub fn forged_of(forged: f64, segments: u64) -> u64 {
    // 0.07 · 100 is a little above 7: rounding must not forge an eighth.
    let exact = forged * segments as f64;
    let count = (exact - exact.abs() * 1e-12).ceil() as u64;
    count.min(segments)
}

/// The fewest segments to draw of `segments` so that a forger of a fraction `forged` of them is met
/// with probability `confidence`. `None` if even all would not do, which is so where nothing is
/// forged.
pub fn sample_for(forged: f64, confidence: f64, segments: u64) -> Option<u64> {
    sample_for_count(forged_of(forged, segments), confidence, segments)
}

/// As [`sample_for`], against a forger of `forged` segments.
pub fn sample_for_count(forged: u64, confidence: f64, segments: u64) -> Option<u64> {
    if catch_probability_of(forged, segments, segments) < confidence {
        return None;
    }
    // The probability grows with the number drawn.
    let (mut too_few, mut enough) = (0, segments);
    while enough - too_few > 1 {
        let middle = too_few + (enough - too_few) / 2;
        match catch_probability_of(forged, segments, middle) >= confidence {
            true => enough = middle,
            false => too_few = middle,
        }
    }
    Some(enough)
}

/// What a choice of segments is worth against a forger who knows how it is made: all but what is drawn at
/// random can be foreseen, so such a forger forges none of the segments that are replayed for certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Odds {
    segments: u64,
    certain: u64,
    drawn: u64,
}

impl Odds {
    /// Of `segments`, `certain` are replayed whatever is drawn, and `drawn` of all are drawn uniformly
    /// without replacement.
    pub fn new(segments: u64, certain: u64, drawn: u64) -> Self {
        Self {
            segments,
            certain: certain.min(segments),
            drawn: drawn.min(segments),
        }
    }

    /// The probability that a forger of `forged` segments, whichever they are, is met: that a forged one is
    /// replayed.
    pub fn of_count(&self, forged: u64) -> f64 {
        match forged > self.segments - self.certain {
            // One of them is replayed for certain.
            true => 1.0,
            false => catch_probability_of(forged, self.segments, self.drawn),
        }
    }

    /// The probability that a forger of a fraction `forged` of the segments is met.
    pub fn of_share(&self, forged: f64) -> f64 {
        self.of_count(forged_of(forged, self.segments))
    }
}

/// What it takes to move the parameters as far as the training did, in segments that are neither replayed
/// for certain nor stand out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bridge {
    /// l2 distance of the parameters from the first state to the last: a forger who trained nothing has
    /// to get at least as far.
    pub distance_l2: f64,
    /// The fewest forged segments that can add up to it; `None` if all together cannot.
    pub segments: Option<u64>,
    /// The probability that one of them is met.
    pub probability: f64,
}

impl Bridge {
    /// `reach` is how far each stretch between neighbouring kept states may at most move the parameters
    /// without its segments being replayed. `None` where there is no distance, or none that is finite.
    pub(super) fn over(distance_l2: f64, mut reach: Vec<f64>, odds: &Odds) -> Option<Self> {
        if !(distance_l2.is_finite() && distance_l2 > 0.0) {
            return None;
        }
        reach.sort_by(|a, b| b.total_cmp(a));
        let mut reached = 0.0;
        let segments = reach.iter().zip(1u64..).find_map(|(reach, count)| {
            reached += reach;
            // Written so that NaN counts as far enough.
            let falls_short = reached < distance_l2;
            (!falls_short).then_some(count)
        });
        Some(Self {
            distance_l2,
            segments,
            probability: segments.map_or(1.0, |count| odds.of_count(count)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_as_large_as_it_has_to_be() {
        for (forged, confidence, segments) in [
            (0.01, 0.99, 1000),
            (0.1, 0.5, 37),
            (0.5, 0.999, 10),
            (1.0, 0.9, 5),
        ] {
            let q = sample_for(forged, confidence, segments).unwrap();
            assert!(catch_probability(forged, segments, q) >= confidence);
            assert!(catch_probability(forged, segments, q - 1) < confidence);
        }
        assert_eq!(sample_for(0.0, 0.5, 10), None);
        assert_eq!(sample_for_count(0, 0.5, 10), None);
        // One segment of a hundred is met with 99 % only by 99 of them.
        assert_eq!(sample_for_count(1, 0.99, 100), Some(99));
    }

    #[test]
    fn the_probability_is_hypergeometric() {
        // One bad of ten, three drawn: 3/10. Two bad: 1 − C(8,3)/C(10,3) = 1 − 56/120.
        assert!((catch_probability(0.1, 10, 3) - 0.3).abs() < 1e-12);
        assert!((catch_probability(0.2, 10, 3) - (1.0 - 56.0 / 120.0)).abs() < 1e-12);
        assert!((catch_probability_of(2, 10, 3) - (1.0 - 56.0 / 120.0)).abs() < 1e-12);
        assert_eq!(catch_probability(0.01, 10, 10), 1.0);
        assert_eq!(catch_probability(0.0, 10, 10), 0.0);
        assert_eq!(catch_probability(0.5, 10, 0), 0.0);
        assert_eq!(catch_probability(1.0, 10, 99), 1.0);
        assert_eq!(catch_probability_of(1, 0, 0), 0.0);
    }

    #[test]
    fn a_share_is_rounded_up_and_not_beyond() {
        assert_eq!(forged_of(0.07, 100), 7);
        assert_eq!(forged_of(0.071, 100), 8);
        assert_eq!(forged_of(0.01, 5), 1);
        assert_eq!(forged_of(0.0, 5), 0);
        assert_eq!(forged_of(1.0, 5), 5);
    }

    #[test]
    fn what_is_replayed_for_certain_is_not_what_a_forger_forges() {
        let odds = Odds::new(10, 4, 3);
        assert!((odds.of_count(1) - 0.3).abs() < 1e-12);
        assert!(odds.of_count(6) < 1.0);
        assert_eq!(odds.of_count(7), 1.0, "six may be missed");
        assert_eq!(Odds::new(10, 10, 0).of_count(1), 1.0, "nothing is left out");
        assert_eq!(Odds::new(10, 10, 0).of_share(0.01), 1.0);
        assert_eq!(Odds::new(10, 2, 0).of_count(1), 0.0, "nothing is drawn");
        assert_eq!(Odds::new(0, 0, 0).of_count(0), 0.0);
    }

    #[test]
    fn a_distance_is_bridged_by_the_longest_stretches_first() {
        let odds = Odds::new(10, 2, 3);
        let over = |distance, reach: &[f64]| Bridge::over(distance, reach.to_vec(), &odds);
        let bridge = over(5.0, &[1.0, 3.0, 2.0, 0.5]).unwrap();
        assert_eq!(bridge.segments, Some(2));
        assert_eq!(bridge.probability, odds.of_count(2));
        assert_eq!(over(5.1, &[1.0, 3.0, 2.0]).unwrap().segments, Some(3));
        let too_far = over(7.0, &[1.0, 3.0, 2.0, 0.5]).unwrap();
        assert_eq!((too_far.segments, too_far.probability), (None, 1.0));
        assert_eq!(over(7.0, &[f64::INFINITY]).unwrap().segments, Some(1));
        assert_eq!(over(7.0, &[f64::NAN]).unwrap().segments, Some(1));
        assert_eq!(over(0.0, &[1.0]), None);
        assert_eq!(over(f64::NAN, &[1.0]), None);
    }
}
