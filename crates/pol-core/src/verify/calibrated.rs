//! The calibrated comparison (SPEC.md §16): each entry against its own noise, and what is tolerated
//! against what was learned. `docs/tolerance.md` says why.

use serde::Serialize;

use crate::policy::Calibration;
use crate::state::{Entry, State};

use super::differences::{Coarser, Differences, is_rounded, larger, unit_l2};
use super::heading::Headings;
use super::integrity::Segment;
use super::noise::{Noise, alike};
use super::reason::Reason;
use super::slack::{SegmentSlack, total, yardsticks};

/// How many times larger than a tensor's √Σd² differences at one rank may be against their noise, in size
/// and in units in the last place: of few elements, and near zero, six replays show less.
const COARSER: Coarser = Coarser {
    sizes: 8.0,
    units: 32.0,
};

/// The noise of a segment, as the verifier measured it, and what it tolerates for it. Distances (l2) are of
/// where the parameters are heading: of the weights that their momentum leads to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NoiseReport {
    /// Perturbed replays.
    pub replays: u32,
    /// The quantile of the noise that `l2` is above with probability 0.95: `0.05^(1 / replays)`.
    pub quantile: f64,
    /// The largest distance among the perturbed replays from the unperturbed one.
    pub l2: f64,
    /// What is tolerated, all parameters together.
    pub tolerance_l2: f64,
    /// The distance of the logged state from the replayed one.
    pub used_l2: f64,
    /// What the segment learned: the distance from its start left to itself.
    pub learned_l2: f64,
    /// ρ: what was learned over the noise.
    pub rho: f64,
    /// The largest share of what it learned that is tolerated of a parameter, or of all together.
    pub of_learned: f64,
    /// Of which.
    pub least_learned: String,
    /// The entry that comes nearest to its tolerance, or goes farthest beyond.
    pub nearest: String,
    /// Its difference over its tolerance: within it up to 1.
    pub nearest_of_tolerance: f64,
}

/// What a calibrated comparison found.
pub(super) struct Compared {
    pub(super) report: NoiseReport,
    pub(super) reasons: Vec<Reason>,
    pub(super) slack: SegmentSlack,
}

/// The states that are compared, and by which rule.
pub(super) struct Comparing<'a> {
    pub(super) segment: Segment,
    pub(super) start: &'a State,
    pub(super) replayed: &'a State,
    pub(super) logged: &'a State,
    pub(super) headings: &'a Headings<'a>,
    pub(super) rule: &'a Calibration,
}

impl Comparing<'_> {
    /// How far the logged state is beyond what `noise` admits: the entry that is farthest, and its
    /// difference over its tolerance. Within it up to 1.
    pub(super) fn farthest(&self, noise: &Noise) -> (String, f64) {
        let entries = self.replayed.entries().iter().zip(&noise.entries);
        let entries = entries
            .filter(|(entry, _)| is_rounded(entry))
            .map(|(entry, noise)| (entry.name(), self.of_tolerance(entry, noise)));
        let slack = self.slack(noise);
        let headings = (self.headings.names().iter())
            .zip(slack.used.iter().zip(&slack.tolerated))
            .map(|(name, (used, tolerated))| (name.as_str(), ratio(*used, *tolerated)));
        let farthest = entries
            .chain(headings)
            .reduce(|a, b| match larger(a.1, b.1) {
                of if of.to_bits() == a.1.to_bits() => a,
                _ => b,
            });
        let (name, of_tolerance) = farthest.unwrap_or(("", 0.0));
        (name.to_owned(), of_tolerance)
    }

    /// Judges the logged state by `fine` noise; where it is beyond that, by `coarse` noise whether any
    /// rounding could be the reason.
    pub(super) fn judge(&self, fine: &Noise, coarse: Option<&Noise>) -> Compared {
        let segment = self.segment.to_string();
        let (nearest, nearest_of_tolerance) = self.farthest(fine);
        let slack = self.slack(fine);
        let learned = self.headings.learned(self.start, self.replayed);
        let (of_learned, least_learned) = self.of_learned(&slack.tolerated, &learned);
        let mut reasons = Vec::new();
        if let Some(entry) = self.miscounted() {
            reasons.push(Reason::BitsDiffer {
                segment: segment.clone(),
                entry,
                l2: None,
                movement_l2: None,
            });
        }
        // Written so that NaN is beyond every bound.
        let within = |value: f64, bound: f64| value <= bound;
        if !within(nearest_of_tolerance, 1.0) {
            let coarse = coarse.map(|noise| self.farthest(noise).1);
            // Noise without end explains anything, and shows nothing.
            let explained = coarse.is_some_and(|times| within(times, 1.0) || times.is_nan());
            let (segment, entry, times) = (segment, nearest.clone(), nearest_of_tolerance);
            reasons.push(match explained {
                true => Reason::Unexplained {
                    segment,
                    entry,
                    times,
                },
                false => Reason::BeyondNoise {
                    segment,
                    entry,
                    times,
                },
            });
        }
        let (noise, learned) = (total(&fine.headings), total(&learned));
        let report = NoiseReport {
            replays: fine.replays,
            quantile: 0.05f64.powf(1.0 / f64::from(fine.replays.max(1))),
            l2: noise,
            tolerance_l2: total(&slack.tolerated),
            used_l2: total(&slack.used),
            learned_l2: learned,
            rho: match noise > 0.0 {
                true => learned / noise,
                false if noise == 0.0 => f64::MAX,
                false => 0.0,
            },
            of_learned,
            least_learned,
            nearest,
            nearest_of_tolerance,
        };
        Compared {
            report,
            reasons,
            slack,
        }
    }

    /// The difference of an entry over what its noise admits.
    fn of_tolerance(&self, entry: &Entry, noise: &Differences) -> f64 {
        match alike(self.logged, entry) {
            None => f64::NAN,
            Some(logged) => {
                let differences = Differences::between(entry, logged);
                differences.over(noise, entry, COARSER) / self.rule.multiple
            }
        }
    }

    /// An entry that no rounding changes, and that differs all the same.
    fn miscounted(&self) -> Option<String> {
        let counted = self
            .replayed
            .entries()
            .iter()
            .filter(|entry| !is_rounded(entry));
        let mut differ = counted.filter(|entry| self.logged.entry(entry.name()) != Some(entry));
        differ.next().map(|entry| entry.name().to_owned())
    }

    /// What the logged state does with what is tolerated, and that, for each parameter.
    fn slack(&self, noise: &Noise) -> SegmentSlack {
        let tolerated = (self.headings.names().iter().zip(&noise.headings)).map(|(name, noise)| {
            let unit = self.replayed.entry(name).map_or(0.0, unit_l2);
            self.rule.multiple * larger(*noise, unit)
        });
        SegmentSlack {
            used: self.headings.apart(self.replayed, self.logged),
            tolerated: tolerated.collect(),
        }
    }

    /// The largest share of what was learned that is tolerated, and of which parameter.
    fn of_learned(&self, tolerated: &[f64], learned: &[f64]) -> (f64, String) {
        let sizes = sizes(self.headings.names(), self.replayed);
        let yards = yardsticks(learned, &sizes);
        let shares = tolerated.iter().zip(&yards).map(|(t, y)| ratio(*t, *y));
        let all = ("all parameters", ratio(total(tolerated), total(learned)));
        let named = self.headings.names().iter().map(String::as_str).zip(shares);
        let (name, share) = named.fold(all, |a, b| match a.1.is_nan() || a.1 >= b.1 {
            true => a,
            false => b,
        });
        (share, name.to_owned())
    }
}

/// The number of elements of each entry.
pub(super) fn sizes(names: &[String], state: &State) -> Vec<f64> {
    let size = |name: &String| {
        let entry = state.entry(name);
        entry.map_or(0, |entry| entry.bytes.len() / entry.header.dtype.size()) as f64
    };
    names.iter().map(size).collect()
}

/// 0 of nothing is 0.
pub(super) fn ratio(a: f64, b: f64) -> f64 {
    if a == 0.0 { 0.0 } else { a / b }
}
