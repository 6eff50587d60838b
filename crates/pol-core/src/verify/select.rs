//! Which segments are replayed.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::policy::SegmentRule;
use crate::random::{Purpose, Seed};

use super::integrity::IntegrityChecked;
use super::odds::{Bridge, Odds};
use super::outliers::{Neighbourhoods, OutlierRule};

/// How a verifier chooses the segments that it replays: all, or a union of the ends, of those that stand
/// out, of the largest and of a random sample. Only the sample cannot be foreseen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Selection {
    /// Every segment.
    pub all: bool,
    /// The first.
    pub first: bool,
    /// The last, whose end is the model that somebody wants to have trained.
    pub last: bool,
    /// Those that move the state more than their neighbourhood lets expect, each with the one before.
    pub outliers: Option<OutlierRule>,
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
    const NOTHING: Self = Self {
        all: false,
        first: false,
        last: false,
        outliers: None,
        top: None,
        sample: None,
        seed: None,
    };

    /// Every segment.
    pub const fn all() -> Self {
        Self {
            all: true,
            ..Self::NOTHING
        }
    }

    /// The `q` largest segments of each epoch.
    pub const fn top(q: u64) -> Self {
        Self {
            top: Some(q),
            ..Self::NOTHING
        }
    }

    /// `q` segments at random, by the verifier's `seed`.
    pub const fn random(q: u64, seed: Seed) -> Self {
        Self {
            sample: Some(q),
            seed: Some(seed),
            ..Self::NOTHING
        }
    }

    /// Adds the `q` largest segments of each epoch.
    pub const fn and_top(mut self, q: u64) -> Self {
        self.top = Some(q);
        self
    }

    /// Adds the last segment.
    pub const fn and_last(mut self) -> Self {
        self.last = true;
        self
    }

    /// Adds what a policy has replayed beside every sample.
    pub fn beside(mut self, rule: &SegmentRule) -> Self {
        if self.all {
            return self;
        }
        self.first |= rule.ends;
        self.last |= rule.ends;
        self.outliers = self.outliers.or(rule.outliers);
        self
    }

    /// Whether `other` chooses the same, from whatever randomness.
    pub(super) fn chooses_like(&self, other: &Self) -> bool {
        let without_seed = |selection: &Self| Self {
            seed: None,
            ..*selection
        };
        without_seed(self) == without_seed(other)
    }

    /// Whether it takes how far each segment moves the parameters.
    pub(super) fn measures(&self) -> bool {
        !self.all && (self.top.is_some() || self.outliers.is_some())
    }

    /// The segments selected of `proof`, and what that is worth.
    pub fn select(&self, proof: &IntegrityChecked<'_>) -> Selected {
        let count = proof.segments();
        if self.all {
            return Selected {
                segments: (0..count).collect(),
                odds: Odds::new(count, count, count),
                outliers: None,
                bridge: None,
            };
        }
        let mut certain = self.ends(count);
        let neighbourhoods = (self.outliers)
            .map(|rule| (rule, Neighbourhoods::new(proof.stretches(), rule.factor)))
            .filter(|_| !proof.stretches().is_empty());
        let outliers = neighbourhoods.as_ref().map(|(rule, neighbourhoods)| {
            let found = neighbourhoods.outliers();
            let replayed = found.len().min(rule.most.try_into().unwrap_or(usize::MAX));
            let outlying = found[..replayed].iter();
            certain.extend(outlying.flat_map(|stretch| stretch.with_the_one_before()));
            Outliers {
                found: found.len() as u64,
                replayed: replayed as u64,
            }
        });
        if let Some(q) = self.top {
            certain.extend(largest_per_epoch(q, count, proof));
        }
        let mut segments = certain.clone();
        segments.extend(self.sampled(count));
        // On the way to a segment whose start is not kept, those before it are replayed and compared.
        let passed = |&index: &u64| proof.kept_at_or_before(index)..=index;
        let certain: BTreeSet<u64> = certain.iter().flat_map(passed).collect();
        let drawn = self.seed.and(self.sample).unwrap_or(0);
        let odds = Odds::new(count, certain.len() as u64, drawn);
        let bridge = neighbourhoods.and_then(|(_, neighbourhoods)| {
            let open = neighbourhoods
                .reaches()
                .filter(|(stretch, _)| !stretch.segments.clone().all(|s| certain.contains(&s)));
            Bridge::over(
                proof.distance()?,
                open.map(|(_, reach)| reach).collect(),
                &odds,
            )
        });
        Selected {
            segments: segments.into_iter().collect(),
            odds,
            outliers,
            bridge,
        }
    }

    /// The segments that are selected of `count` without knowing how far each moves.
    pub(crate) fn unmeasured(&self, count: u64) -> BTreeSet<u64> {
        let mut chosen = self.ends(count);
        chosen.extend(self.sampled(count));
        chosen
    }

    fn ends(&self, count: u64) -> BTreeSet<u64> {
        let first = (self.first && count > 0).then_some(0);
        let last = count.checked_sub(1).filter(|_| self.last);
        first.into_iter().chain(last).collect()
    }

    fn sampled(&self, count: u64) -> Vec<u64> {
        match (self.sample, self.seed) {
            (Some(q), Some(seed)) => seed.stream(Purpose::Audit).sample(count, q),
            _ => Vec::new(),
        }
    }
}

/// The segments of one proof that are replayed, and what that is worth.
#[derive(Debug, Clone, PartialEq)]
pub struct Selected {
    /// Their indices, ascending.
    pub segments: Vec<u64>,
    /// The probability of meeting a forger.
    pub odds: Odds,
    /// Those that stand out; `None` where that was not looked at.
    pub outliers: Option<Outliers>,
    /// What it takes to forge the whole way; `None` where movements are not known, or everything is
    /// replayed.
    pub bridge: Option<Bridge>,
}

/// Stretches of segments that stand out from their neighbourhood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Outliers {
    /// The number of stretches that do.
    pub found: u64,
    /// The number of them that are replayed for that; fewer where the policy allows no more.
    pub replayed: u64,
}

fn largest_per_epoch(q: u64, count: u64, proof: &IntegrityChecked<'_>) -> Vec<u64> {
    let mut order: Vec<u64> = (0..count).collect();
    // Movements are finite; ties go to the earlier segment. Those that are not known come last.
    order.sort_by(|&a, &b| {
        let moved = |index: u64| proof.movement(index).unwrap_or(-1.0);
        moved(b).total_cmp(&moved(a)).then(a.cmp(&b))
    });
    let mut taken = BTreeMap::<u64, u64>::new();
    order.retain(|&index| {
        let of_epoch = taken.entry(proof.epoch(index)).or_default();
        *of_epoch += 1;
        *of_epoch <= q
    });
    order
}
