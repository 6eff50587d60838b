//! Which segments a policy has replayed, and what it demands of a challenge (SPEC.md §16).

use serde::{Deserialize, Serialize};

use crate::random::Seed;
use crate::verify::{OutlierRule, Selection, sample_for};

use super::PolicyError;

/// Which segments are replayed. `all` overrides the others, which add up; where a caller draws a sample
/// instead, `ends` and `outliers` are replayed beside it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SegmentRule {
    /// Every one.
    pub all: bool,
    /// The largest of each epoch.
    pub top: Option<u64>,
    /// So many at random.
    pub sample: Option<u64>,
    /// As many at random as it takes.
    pub catch: Option<Catch>,
    /// The first and the last.
    pub ends: bool,
    /// Those that move the parameters more than their neighbourhood lets expect.
    pub outliers: Option<OutlierRule>,
    /// What a challenge has to draw for an opening to be judged. Default: what is replayed of a folder, as
    /// far as a challenge can draw it.
    pub opened: Option<OpeningRule>,
    /// The most steps that may be replayed; a proof that needs more is not judged.
    pub max_steps: Option<u64>,
}

/// To meet a forger of a fraction `forged` of the segments with probability `confidence`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catch {
    /// From 0 to 1.
    pub forged: f64,
    /// From 0 to 1.
    pub confidence: f64,
}

impl Catch {
    fn sample(self, segments: u64) -> u64 {
        sample_for(self.forged, self.confidence, segments).unwrap_or(segments)
    }
}

/// What a challenge has to draw. The last segment comes to every draw.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum OpeningRule {
    /// Every segment.
    All,
    /// This number of segments at random; all, if there are no more.
    Sample(u64),
    /// The number of segments that meeting this forger takes.
    Catch(Catch),
}

impl SegmentRule {
    /// How many of so many segments are drawn at random, where the rule says how many.
    pub fn sampled(&self, segments: u64) -> Option<u64> {
        let caught = self.catch.map(|catch| catch.sample(segments));
        self.sample.max(caught).map(|sample| sample.min(segments))
    }

    /// The fewest of `segments` that a challenge has to draw.
    pub fn opened(&self, segments: u64) -> u64 {
        let demanded = match self.opened {
            Some(OpeningRule::All) => segments,
            Some(OpeningRule::Sample(sample)) => sample,
            Some(OpeningRule::Catch(catch)) => catch.sample(segments),
            // A challenge cannot draw by movements: all segments hold the largest.
            None if self.all || self.top.is_some() => segments,
            None => self.sampled(segments).unwrap_or(segments),
        };
        demanded.min(segments)
    }

    /// Whether every segment is replayed.
    pub fn is_all(&self) -> bool {
        self.all || (self.top.is_none() && self.sample.is_none() && self.catch.is_none())
    }

    /// The selection for a proof of so many segments, with the verifier's randomness.
    pub fn selection(&self, segments: u64, seed: Seed) -> Selection {
        if self.is_all() {
            return Selection::all();
        }
        let sample = self.sampled(segments);
        Selection {
            all: false,
            first: self.ends,
            last: self.ends,
            outliers: self.outliers,
            top: self.top,
            sample,
            seed: sample.map(|_| seed),
        }
    }

    pub(super) fn check(&self) -> Result<(), PolicyError> {
        let fail = |field, problem| Err(PolicyError::Field { field, problem });
        let share = |value: f64| (0.0..=1.0).contains(&value);
        let meets = |catch: Catch| share(catch.forged) && (0.0..1.0).contains(&catch.confidence);
        if self.catch.is_some_and(|catch| !meets(catch)) {
            return fail("segments.catch", "needs fractions from 0 to 1");
        }
        match self.opened {
            Some(OpeningRule::Sample(0)) => {
                return fail("segments.opened", "demands nothing; at least 1 is drawn");
            }
            Some(OpeningRule::Catch(catch)) if !meets(catch) => {
                return fail("segments.opened.catch", "needs fractions from 0 to 1");
            }
            _ => {}
        }
        if self.sample == Some(0) || self.top == Some(0) {
            return fail("segments", "selects nothing");
        }
        match self.outliers {
            Some(rule) if !(rule.factor.is_finite() && rule.factor >= 1.0) => fail(
                "segments.outliers.factor",
                "must be at least 1: every second segment moves more than its neighbours' median",
            ),
            Some(rule) if rule.most == 0 => fail("segments.outliers.most", "must be at least 1"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    fn parse(rule: &str) -> Result<SegmentRule, PolicyError> {
        let policy = Policy::parse(&format!("name = \"x\"\n[segments]\n{rule}"));
        policy.map(|policy| policy.segments)
    }

    #[test]
    fn a_policy_of_all_segments_demands_them_of_a_challenge_too() {
        let opened = |rule: &str| parse(rule).unwrap().opened(40);
        assert_eq!(opened("all = true"), 40);
        assert_eq!(opened(""), 40);
        assert_eq!(opened("top = 1\nsample = 3"), 40);
        assert_eq!(opened("sample = 3"), 3);
        assert_eq!(opened("sample = 300"), 40);
        assert_eq!(opened("catch = { forged = 1.0, confidence = 0.5 }"), 1);
        assert_eq!(opened("all = true\nopened = { sample = 2 }"), 2);
        assert_eq!(opened("sample = 3\nopened = \"all\""), 40);
        let catch = "opened = { catch = { forged = 0.025, confidence = 0.5 } }";
        assert_eq!(opened(catch), 20, "half of all, to meet one with one half");
    }

    #[test]
    fn a_rule_that_means_nothing_is_refused_by_field() {
        for (rule, field) in [
            ("opened = { sample = 0 }", "opened"),
            (
                "opened = { catch = { forged = 0.1, confidence = 1.0 } }",
                "opened.catch",
            ),
            ("opened = \"some\"", "some"),
            ("outliers = { factor = 0.5, most = 9 }", "outliers.factor"),
            ("outliers = { factor = nan, most = 9 }", "outliers.factor"),
            ("outliers = { factor = 3.0, most = 0 }", "outliers.most"),
        ] {
            let error = parse(rule).unwrap_err().to_string();
            assert!(error.contains(field), "{rule}: {error}");
        }
    }
}
