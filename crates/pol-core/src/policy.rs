//! What a verifier demands of a proof (SPEC.md §16). It is the verifier's own: nothing in it is ever
//! read from a proof.

mod bounds;
mod segments;

pub use bounds::{Bounds, Exceeded};
pub use segments::{Catch, OpeningRule, SegmentRule};

use serde::{Deserialize, Serialize};

use crate::codec;
use crate::digest::{Digest, tagged};
use crate::verify::Tolerance;

/// The shipped policies, by name.
pub const SHIPPED: [(&str, &str); 3] = [
    ("strict", include_str!("../../../policies/strict.toml")),
    (
        "calibrated",
        include_str!("../../../policies/calibrated.toml"),
    ),
    ("paper", include_str!("../../../policies/paper.toml")),
];

/// Joins a policy's name and what it was changed by.
const CHANGED: &str = ", changed by ";

/// What a proof has to be, and how it is checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// For reports.
    pub name: String,
    /// Printed with every verdict.
    #[serde(default)]
    pub warning: Option<String>,
    /// Whose kernels may have computed.
    #[serde(default)]
    pub numerics: NumericsRule,
    /// Limits on hyperparameters, lengths and schedules.
    #[serde(default)]
    pub bounds: Bounds,
    /// What has to come with the proof.
    #[serde(default)]
    pub evidence: EvidenceRule,
    /// Where the initial state may come from.
    #[serde(default)]
    pub start: StartRule,
    /// Which segments are replayed.
    #[serde(default)]
    pub segments: SegmentRule,
    /// How replayed states are compared with logged ones.
    #[serde(default)]
    pub comparison: Comparison,
}

/// Whose kernels may have computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NumericsRule {
    /// Anyone's.
    #[default]
    Any,
    /// Exact ones, so that nothing is tolerated.
    Exact,
    /// Burn's.
    Stock,
}

/// What has to come with the proof.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvidenceRule {
    /// A signature by a key that the verifier trusts, which the seed depends on.
    pub signature: bool,
    /// A timestamp by an authority that the verifier trusts.
    pub timestamp: bool,
    /// The verifier's own copy of the data, or the root that it expects.
    pub data: bool,
    /// The verifier's own recipe.
    pub recipe: bool,
}

/// Where the initial state may come from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "rule", deny_unknown_fields)]
pub enum StartRule {
    /// From the seed, bit for bit, or from a prior proof that the verifier verified.
    Derived {
        /// The longest chain of prior proofs.
        #[serde(default)]
        max_depth: u64,
    },
    /// From anywhere, if a Kolmogorov–Smirnov test does not tell its layers from freshly drawn ones.
    Distribution {
        /// The rate at which honest starts are rejected.
        level: f64,
        /// Whether the rate is that of all layers together (Holm, 1979), or of each.
        corrected: bool,
        /// The longest chain of prior proofs.
        #[serde(default)]
        max_depth: u64,
    },
}

impl Default for StartRule {
    fn default() -> Self {
        Self::Derived { max_depth: 0 }
    }
}

impl StartRule {
    /// The longest chain of prior proofs.
    pub const fn max_depth(self) -> u64 {
        match self {
            Self::Derived { max_depth } | Self::Distribution { max_depth, .. } => max_depth,
        }
    }
}

/// How replayed states are compared with logged ones. Proofs of exact recipes are compared bit for
/// bit under every rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind", deny_unknown_fields)]
pub enum Comparison {
    /// Bit for bit.
    #[default]
    Bits,
    /// Within constant distances.
    Static {
        /// The distances.
        tolerance: Tolerance,
        /// Of what.
        #[serde(default)]
        parts: Parts,
    },
    /// Within what honest rounding does, as the verifier measures it in the very segment.
    Calibrated(Calibration),
}

impl Comparison {
    /// Within this tolerance, in all parts.
    pub fn within(tolerance: Tolerance) -> Self {
        match tolerance.is_exact() {
            true => Self::Bits,
            false => Self::Static {
                tolerance,
                parts: Parts::All,
            },
        }
    }
}

/// Which parts of a state are compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Parts {
    /// Parameters, buffers, optimizer and schedule.
    #[default]
    All,
    /// Parameters alone, as published.
    Parameters,
}

/// A tolerance that the verifier measures (`docs/tolerance.md`).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Perturbed replays of a segment; the noise of an entry is the largest difference among them.
    pub replays: u32,
    /// Tolerated of each entry: this multiple of its own noise.
    pub multiple: f64,
    /// The largest share of what a segment learned that may be tolerated, of any parameter. Beyond it
    /// the segment shows nothing.
    pub max_of_learned: f64,
    /// The largest share of the way from the first to the last state that the tolerances of all segments may
    /// come to together. Beyond it the proof shows nothing.
    pub max_tolerated: f64,
    /// The same of the differences that are really there, between replayed and logged states.
    pub max_used: f64,
}

/// Why a text is not a policy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Not TOML of a policy.
    #[error("{0}")]
    Malformed(#[from] toml::de::Error),
    /// Another policy under the name of a shipped one.
    #[error(
        "`name`: `{0}` is the name of a policy that this program ships, and this is another one; give it \
         a name of its own"
    )]
    Name(String),
    /// A name that says what was done to a policy.
    #[error(
        "`name`: `, changed by` marks a policy that was changed after it was read; leave it out"
    )]
    Changed,
    /// A number out of range.
    #[error("`{field}` {problem}")]
    Field {
        /// Which.
        field: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
}

impl Policy {
    /// Bit for bit, and nothing else demanded: what a [`Verifier`](crate::verify::Verifier) begins
    /// with.
    pub fn bits() -> Self {
        Self {
            name: "bits".to_owned(),
            warning: None,
            numerics: NumericsRule::Any,
            bounds: Bounds::default(),
            evidence: EvidenceRule::default(),
            start: StartRule::Derived { max_depth: 8 },
            segments: SegmentRule {
                all: true,
                opened: Some(OpeningRule::Sample(1)),
                ..SegmentRule::default()
            },
            comparison: Comparison::Bits,
        }
    }

    /// The shipped policy of this name.
    pub fn shipped(name: &str) -> Option<Self> {
        let (_, text) = SHIPPED.iter().find(|(shipped, _)| *shipped == name)?;
        Self::read(text).ok()
    }

    /// Reads a policy. The name of a shipped one is left to that one.
    ///
    /// # Errors
    /// Names the field at fault.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let policy = Self::read(text)?;
        let name = policy.name.trim().to_lowercase();
        if name.contains(CHANGED) {
            return Err(PolicyError::Changed);
        }
        match Self::shipped(&name) {
            Some(shipped) if shipped.digest() != policy.digest() => Err(PolicyError::Name(name)),
            _ => Ok(policy),
        }
    }

    fn read(text: &str) -> Result<Self, PolicyError> {
        let policy: Self = toml::from_str(text)?;
        policy.check()?;
        Ok(policy)
    }

    /// Says in its name, which every verdict states, that it was changed after it was read, and by what.
    pub fn note_change(&mut self, by: &str) {
        let joint = match self.name.contains(CHANGED) {
            true => " and ",
            false => CHANGED,
        };
        self.name = format!("{}{joint}{by}", self.name);
    }

    /// What names it in verdicts: `H("pol.v1.policy", canonical encoding)`.
    pub fn digest(&self) -> Digest {
        tagged("pol.v1.policy", &[&codec::encode(self)])
    }

    fn check(&self) -> Result<(), PolicyError> {
        let fail = |field, problem| Err(PolicyError::Field { field, problem });
        let share = |value: f64| (0.0..=1.0).contains(&value);
        self.segments.check()?;
        if let StartRule::Distribution { level, .. } = self.start
            && !share(level)
        {
            return fail("start.level", "must be from 0 to 1");
        }
        match self.comparison {
            Comparison::Bits => Ok(()),
            Comparison::Static { tolerance, .. } if tolerance.is_valid() => Ok(()),
            Comparison::Static { .. } => fail(
                "comparison.tolerance",
                "needs at least one bound, none of them negative",
            ),
            Comparison::Calibrated(calibration) => calibration.check(),
        }
    }
}

impl Calibration {
    /// The least ρ, what a segment learns over its noise, at which it can show anything.
    pub fn min_rho(&self) -> f64 {
        self.multiple / self.max_of_learned
    }

    fn check(&self) -> Result<(), PolicyError> {
        let fail = |field, problem| Err(PolicyError::Field { field, problem });
        if !(2..=1000).contains(&self.replays) {
            return fail("comparison.replays", "must be from 2 to 1000");
        }
        if !(self.multiple.is_finite() && self.multiple >= 1.0) {
            return fail("comparison.multiple", "must be at least 1");
        }
        for (field, share) in [
            ("comparison.max_of_learned", self.max_of_learned),
            ("comparison.max_tolerated", self.max_tolerated),
            ("comparison.max_used", self.max_used),
        ] {
            if !(share > 0.0 && share <= 1.0) {
                return fail(field, "must be a share above 0, up to 1");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_policies_are_valid_and_have_digests_of_their_own() {
        let digests: Vec<_> = (SHIPPED.iter())
            .map(|(name, text)| {
                let policy = Policy::parse(text).unwrap_or_else(|e| panic!("{name}: {e}"));
                assert_eq!(policy.name, *name);
                policy.digest()
            })
            .collect();
        assert!(digests[0] != digests[1] && digests[1] != digests[2]);
    }

    #[test]
    fn the_name_of_a_shipped_policy_is_left_to_it() {
        for (name, text) in SHIPPED {
            let copied = format!("# The same.\n{text}");
            assert_eq!(
                Policy::parse(&copied).unwrap(),
                Policy::shipped(name).unwrap()
            );
            for own in [name.to_owned(), format!(" {name}\t"), name.to_uppercase()] {
                let error = Policy::parse(&format!("name = {own:?}")).unwrap_err();
                assert!(error.to_string().contains("a name of its own"), "{error}");
            }
        }
        assert!(Policy::parse("name = \"stricter\"").is_ok());
        assert!(Policy::parse("name = \"strict, changed by nobody\"").is_err());
    }

    #[test]
    fn a_changed_policy_says_so_and_has_another_digest() {
        let shipped = Policy::shipped("strict").unwrap();
        let mut policy = shipped.clone();
        policy.note_change("--sample");
        policy.note_change("--tolerance");
        assert_eq!(policy.name, "strict, changed by --sample and --tolerance");
        assert_ne!(policy.digest(), shipped.digest());
    }

    #[test]
    fn nonsense_is_refused_by_field() {
        let refused = |text: &str| {
            let error = Policy::parse(&format!("name = \"x\"\n{text}")).unwrap_err();
            error.to_string()
        };
        assert!(refused("colour = 1").contains("colour"));
        assert!(refused("[bounds]\nmax_intervall = 1").contains("max_intervall"));
        assert!(refused("[segments]\nsample = 0").contains("segments"));
        assert!(
            refused("[segments]\ncatch = { forged = 2.0, confidence = 0.9 }").contains("catch")
        );
        assert!(refused("[comparison]\nkind = \"static\"\ntolerance = {}").contains("tolerance"));
        let calibrated = "[comparison]\nkind = \"calibrated\"\nreplays = 6\nmax_tolerated = 0.05\n";
        let shares = "max_of_learned = 0.02\nmax_used = ";
        let refused_with = |rest: &str| refused(&format!("{calibrated}{shares}{rest}"));
        assert!(refused_with("1e-3\nmultiple = nan").contains("multiple"));
        assert!(refused_with("0.0\nmultiple = 16.0").contains("max_used"));
        assert!(refused_with("nan\nmultiple = 16.0").contains("max_used"));
        assert!(refused_with("1e-3\nmultiple = 16.0\nfloor = 0.01").contains("floor"));
    }
}
