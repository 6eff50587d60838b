//! Which segments are replayed, and what that is worth.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::random::{Purpose, Seed};

use super::integrity::IntegrityChecked;

/// The segments that a verifier replays: all, or a union of the largest and a random sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Selection {
    /// Every segment.
    pub all: bool,
    /// The Q segments of each epoch in which the parameters move most (Jia et al., 2021, §5.3).
    /// A forger can see to it that those are honest, so they add to a sample, never replace it.
    pub top: Option<u64>,
    /// So many segments, uniformly without replacement.
    pub sample: Option<u64>,
    /// The randomness of the sample, the verifier's own.
    #[serde(skip)]
    pub seed: Option<Seed>,
}

impl Selection {
    /// Every segment.
    pub const fn all() -> Self {
        Self {
            all: true,
            top: None,
            sample: None,
            seed: None,
        }
    }

    /// The `q` largest segments of each epoch.
    pub const fn top(q: u64) -> Self {
        Self {
            all: false,
            top: Some(q),
            sample: None,
            seed: None,
        }
    }

    /// `q` segments at random, by the verifier's `seed`.
    pub const fn random(q: u64, seed: Seed) -> Self {
        Self {
            all: false,
            top: None,
            sample: Some(q),
            seed: Some(seed),
        }
    }

    /// Adds the `q` largest segments of each epoch.
    pub const fn and_top(mut self, q: u64) -> Self {
        self.top = Some(q);
        self
    }

    /// The indices selected, ascending.
    pub fn segments(&self, proof: &IntegrityChecked<'_>) -> Vec<u64> {
        let count = proof.segments();
        if self.all {
            return (0..count).collect();
        }
        let mut chosen = BTreeSet::new();
        if let Some(q) = self.top {
            chosen.extend(largest_per_epoch(q, count, proof));
        }
        if let (Some(q), Some(seed)) = (self.sample, self.seed) {
            chosen.extend(seed.stream(Purpose::Audit).sample(count, q));
        }
        chosen.into_iter().collect()
    }

    /// The probability that a forger of a fraction `forged` of `segments` is caught, whichever
    /// segments those are. Top-Q adds nothing to it, since a forger can see to it that the
    /// largest segments are honest.
    pub fn catches(&self, forged: f64, segments: u64) -> f64 {
        let drawn = if self.all {
            segments
        } else {
            self.sample.unwrap_or(0)
        };
        catch_probability(forged, segments, drawn)
    }
}

fn largest_per_epoch(q: u64, count: u64, proof: &IntegrityChecked<'_>) -> Vec<u64> {
    let mut order: Vec<u64> = (0..count).collect();
    // Movements are finite; ties go to the earlier segment. Those that are not known come last.
    order.sort_by(|&a, &b| {
        let moved = |index: u64| proof.movement(index).unwrap_or(-1.0);
        moved(b).total_cmp(&moved(a)).then(a.cmp(&b))
    });
    let mut taken = std::collections::BTreeMap::<u64, u64>::new();
    order.retain(|&index| {
        let of_epoch = taken.entry(proof.epoch(index)).or_default();
        *of_epoch += 1;
        *of_epoch <= q
    });
    order
}

/// The chance that `drawn` of `segments`, uniform without replacement, hit at least one of the
/// `⌈forged · segments⌉` forged ones: `1 − C(n − m, q) / C(n, q)`.
pub fn catch_probability(forged: f64, segments: u64, drawn: u64) -> f64 {
    let bad = ((forged * segments as f64).ceil() as u64).min(segments);
    // C(n − m, q) / C(n, q) = C(n − q, m) / C(n, m): a product of as few factors as possible.
    let (few, many) = (bad.min(drawn.min(segments)), bad.max(drawn.min(segments)));
    let missed: f64 = (0..few)
        .map(|i| (segments - many).saturating_sub(i) as f64 / (segments - i) as f64)
        .product();
    1.0 - missed
}

/// The fewest segments to draw of `segments` so that a forger of a fraction `forged` of them is met
/// with probability `confidence`. `None` if even all would not do, which is so where nothing is
/// forged.
pub fn sample_for(forged: f64, confidence: f64, segments: u64) -> Option<u64> {
    if catch_probability(forged, segments, segments) < confidence {
        return None;
    }
    // The probability grows with the number drawn.
    let (mut too_few, mut enough) = (0, segments);
    while enough - too_few > 1 {
        let middle = too_few + (enough - too_few) / 2;
        match catch_probability(forged, segments, middle) >= confidence {
            true => enough = middle,
            false => too_few = middle,
        }
    }
    Some(enough)
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
    }

    #[test]
    fn the_probability_is_hypergeometric() {
        // One bad of ten, three drawn: 3/10. Two bad: 1 − C(8,3)/C(10,3) = 1 − 56/120.
        assert!((catch_probability(0.1, 10, 3) - 0.3).abs() < 1e-12);
        assert!((catch_probability(0.2, 10, 3) - (1.0 - 56.0 / 120.0)).abs() < 1e-12);
        assert_eq!(catch_probability(0.01, 10, 10), 1.0);
        assert_eq!(catch_probability(0.0, 10, 10), 0.0);
        assert_eq!(catch_probability(0.5, 10, 0), 0.0);
        assert_eq!(catch_probability(1.0, 10, 99), 1.0);
    }

    #[test]
    fn top_q_alone_guarantees_nothing() {
        assert_eq!(Selection::top(5).catches(0.5, 10), 0.0);
        assert_eq!(Selection::all().catches(0.001, 10), 1.0);
    }
}
