//! What a verification found.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::digest::Digest;
use crate::policy::{Calibration, Comparison};
use crate::recipe::Numerics;
use crate::records::DataCommitment;
use crate::state::Part;

use super::distance::Distances;
use super::integrity::{IntegrityChecked, Segment};
use super::noise::NoiseReport;
use super::select::Selection;
use super::start::StartReport;

/// The outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every required check ran and held.
    Accepted,
    /// The proof is not what it has to be.
    Rejected,
    /// A check could not be made.
    Inconclusive,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::Inconclusive => "inconclusive",
        })
    }
}

/// Why a proof is not accepted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// A training that was not sealed.
    #[error("the training was not finished: there is a journal and no manifest")]
    Unfinished,
    /// The manifest is malformed or contradicts itself.
    #[error("manifest.mp: {0}")]
    Manifest(String),
    /// A file of the proof is missing or altered.
    #[error("{0}")]
    Item(String),
    /// The checkpoints do not cover the training exactly once.
    #[error("chain of checkpoints: {0}")]
    Chain(String),
    /// NaN or infinity in a state.
    #[error("{place}: `{entry}` holds a value that is not finite")]
    NotFinite {
        /// Which state.
        place: String,
        /// Which tensor.
        entry: String,
    },
    /// A state that this training cannot have.
    #[error("{place}: {problem}")]
    UnfitState {
        /// Which state.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The exported model is another one.
    #[error("model.safetensors: {0}")]
    FinalModel(String),
    /// Another proof than the one expected.
    #[error("this is not the expected proof: its commitment is {found}, not {expected}")]
    OtherCommitment {
        /// Expected.
        expected: Digest,
        /// Found.
        found: Digest,
    },
    /// Another recipe than the one expected.
    #[error("the recipe is not the expected one: {}", differences.join("; "))]
    OtherRecipe {
        /// Field by field.
        differences: Vec<String>,
    },
    /// Other data than the verifier's.
    #[error(
        "the training data is not the verifier's: committed to {} records with root {}, expected \
         {} with root {} (a record, a label or the order differs)",
        found.records, found.root, expected.records, expected.root
    )]
    OtherData {
        /// The verifier's.
        expected: DataCommitment,
        /// The proof's.
        found: DataCommitment,
    },
    /// Data with another root than the one expected.
    #[error("the data's root is {found}, not the expected {expected}")]
    OtherDataRoot {
        /// Expected.
        expected: Digest,
        /// Found.
        found: Digest,
    },
    /// Initial weights that were chosen rather than derived.
    #[error(
        "the initial state is not the one it has to be{}",
        entry.as_ref().map_or(String::new(), |entry| format!(": `{entry}` differs"))
    )]
    InitialState {
        /// The first entry that differs, where the state is at hand.
        entry: Option<String>,
    },
    /// An initial state of a kind that the policy does not admit, or that fails its test.
    #[error("the initial state: {0}")]
    Start(String),
    /// A prior proof that is missing, or another one.
    #[error("the prior proof: {0}")]
    Prior(String),
    /// A bound of the policy.
    #[error("the policy's `{bound}` is {allowed}; the proof has {found}")]
    Bound {
        /// Its name.
        bound: &'static str,
        /// What it allows.
        allowed: String,
        /// What the proof has.
        found: String,
    },
    /// Something that the policy wants to come with the proof.
    #[error("the policy demands {0}")]
    Evidence(String),
    /// A signature, a timestamp or another attestation that does not hold.
    #[error("{0}")]
    Attestation(String),
    /// A challenge or an opening that does not belong here.
    #[error("the challenge: {0}")]
    Challenge(String),
    /// Something that the opening has to disclose and does not.
    #[error("the opening withholds {0}")]
    Withheld(String),
    /// Something that the opening discloses, and that was not committed to.
    #[error("{0} cannot be shown to be what was committed to")]
    Inclusion(String),
    /// A record that differs from the verifier's own copy.
    #[error("record {0} is not the one in the verifier's own copy of the data")]
    OtherRecord(u64),
    /// A replay that shows nothing: what is tolerated is not small against what was learned.
    #[error(
        "{segment}: rounding moves the parameters by up to {noise:.2e} (l2) where the segment moves \
         them by {movement:.2e}: ρ = {rho:.3} is below {min_rho}, and the segment shows nothing; \
         shorter intervals or exact numerics do (pol calibrate)"
    )]
    Noise {
        /// Which segment.
        segment: String,
        /// The noise.
        noise: f64,
        /// The movement.
        movement: f64,
        /// Their ratio.
        rho: f64,
        /// The policy's.
        min_rho: f64,
    },
    /// More work than the policy allows.
    #[error("the audit takes {steps} steps; the policy's `max_steps` is {allowed}")]
    Cost {
        /// What it takes.
        steps: u64,
        /// What is allowed.
        allowed: u64,
    },
    /// A replay that ends elsewhere, where bits had to agree.
    #[error(
        "{segment}: the replay does not arrive at the logged state: `{entry}` differs{}",
        describe_distance(*l2, *movement_l2)
    )]
    BitsDiffer {
        /// Which segment.
        segment: String,
        /// The first entry that differs.
        entry: String,
        /// l2 distance of the parameters.
        l2: Option<f64>,
        /// How far the segment moves them.
        movement_l2: Option<f64>,
    },
    /// A replay that does not arrive at the committed digest of a state that is not kept.
    #[error("{segment}: the replay does not arrive at the digest that is committed to")]
    DigestDiffers {
        /// Which segment.
        segment: String,
    },
    /// A replay that ends too far away.
    #[error("{segment}: {} are {value:.3e} ({metric}) from the logged state; the tolerance is {bound:.3e}", part.name())]
    TooFar {
        /// Which segment.
        segment: String,
        /// Which part of the state.
        part: Part,
        /// Which distance.
        metric: &'static str,
        /// Its value.
        value: f64,
        /// The bound.
        bound: f64,
    },
    /// States between which there is no finite distance.
    #[error("{segment}: there is no finite distance between the replayed and the logged {}", part.name())]
    NoDistance {
        /// Which segment.
        segment: String,
        /// Which part of the state.
        part: Part,
    },
    /// A check that could not be made; it makes a verdict inconclusive.
    #[error("could not check: {0}")]
    NotChecked(String),
}

impl Reason {
    /// The check that failed, in a word or two: `start`, `bounds`, `data`, `tolerance`, …
    pub const fn check(&self) -> &'static str {
        match self {
            Self::Unfinished
            | Self::Manifest(_)
            | Self::Item(_)
            | Self::Chain(_)
            | Self::NotFinite { .. }
            | Self::UnfitState { .. } => "integrity",
            Self::FinalModel(_) => "final model",
            Self::OtherCommitment { .. } => "commitment",
            Self::OtherRecipe { .. } => "recipe",
            Self::OtherData { .. } | Self::OtherDataRoot { .. } | Self::OtherRecord(_) => "data",
            Self::InitialState { .. } | Self::Start(_) | Self::Prior(_) => "start",
            Self::Bound { .. } => "bounds",
            Self::Evidence(_) | Self::Attestation(_) => "evidence",
            Self::Challenge(_) | Self::Withheld(_) | Self::Inclusion(_) => "opening",
            Self::Noise { .. } => "noise",
            Self::Cost { .. } => "cost",
            Self::BitsDiffer { .. } | Self::DigestDiffers { .. } => "bits",
            Self::TooFar { .. } | Self::NoDistance { .. } => "tolerance",
            Self::NotChecked(_) => "not checked",
        }
    }

    /// Whether the proof is at fault. Otherwise a check could not be made, or showed nothing.
    pub fn is_rejection(&self) -> bool {
        !matches!(
            self,
            Self::NotChecked(_) | Self::Noise { .. } | Self::Cost { .. }
        )
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn describe_distance(l2: Option<f64>, movement: Option<f64>) -> String {
    match (l2, movement) {
        (Some(l2), Some(movement)) if movement > 0.0 => format!(
            "; the parameters are {l2:.3e} (l2) away, {:.2e} of the segment's movement",
            l2 / movement
        ),
        (Some(l2), _) => format!("; the parameters are {l2:.3e} (l2) away"),
        _ => String::new(),
    }
}

/// Distance and movement of one part of the state.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PartReport {
    /// From the replayed to the logged state: the reproduction error ε.
    #[serde(flatten)]
    pub distances: Distances,
    /// l2 distance from the segment's first to its last logged state.
    pub movement_l2: Option<f64>,
}

/// What replaying one segment showed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SegmentReport {
    /// Counted from zero.
    pub index: u64,
    /// Steps made before the segment.
    pub first_step: u64,
    /// Steps made after it.
    pub last_step: u64,
    /// Whether the replay arrived at the logged state bit for bit.
    pub digests_equal: bool,
    /// Distances of the parameters; their four metrics and the movement.
    #[serde(flatten)]
    pub parameters: Option<PartReport>,
    /// The same for BatchNorm's statistics and other buffers.
    pub buffers: Option<PartReport>,
    /// The same for the optimizer's state.
    pub optimizer: Option<PartReport>,
    /// ε as a fraction of the segment's own movement (l2, parameters).
    pub relative_to_movement: Option<f64>,
    /// ε as a fraction of d_ref (l2, parameters), where the verifier knows d_ref.
    pub relative_to_reference: Option<f64>,
    /// The noise that was measured, where the comparison is calibrated and bits differ.
    pub noise: Option<NoiseReport>,
    /// Whether the segment held.
    pub accepted: bool,
    #[serde(skip)]
    pub(super) reasons: Vec<Reason>,
}

impl SegmentReport {
    pub(super) fn new(
        segment: Segment,
        digests_equal: bool,
        [parameters, buffers, optimizer]: [Option<PartReport>; 3],
        reference: Option<f64>,
        reasons: Vec<Reason>,
    ) -> Self {
        let l2 = parameters.map(|part| part.distances.l2);
        let ratio = |to: Option<f64>| {
            let (l2, to) = (l2?, to?);
            (to > 0.0).then(|| l2 / to)
        };
        Self {
            index: segment.index,
            first_step: segment.first,
            last_step: segment.last,
            digests_equal,
            parameters,
            buffers,
            optimizer,
            relative_to_movement: ratio(parameters.and_then(|part| part.movement_l2)),
            relative_to_reference: ratio(reference),
            noise: None,
            accepted: reasons.is_empty(),
            reasons,
        }
    }

    /// Notes the noise, and that the segment shows nothing if it is too large.
    pub(super) fn note_noise(&mut self, segment: Segment, noise: NoiseReport, rule: &Calibration) {
        // Written so that NaN counts as too large.
        let learns = noise.rho >= rule.min_rho;
        if self.accepted && !learns {
            self.accepted = false;
            self.reasons.push(Reason::Noise {
                segment: segment.to_string(),
                noise: noise.l2,
                movement: noise.rho * noise.l2,
                rho: noise.rho,
                min_rho: rule.min_rho,
            });
        }
        self.noise = Some(noise);
    }
}

/// A verification from beginning to end.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// What was judged; absent if the manifest could not be read.
    pub commitment: Option<Digest>,
    /// The outcome.
    pub verdict: Verdict,
    /// Why it is not "accepted".
    pub reasons: Vec<Reason>,
    /// Whose kernels computed, as the proof says.
    pub numerics: Option<Numerics>,
    /// States in the proof, the first and the last included; the others are 32 bytes each.
    pub states_kept: u64,
    /// Segments in the proof.
    pub segments_total: u64,
    /// Segments selected for replay.
    pub segments_selected: u64,
    /// Steps replayed, those to reach a segment whose start is not kept included.
    pub steps_replayed: u64,
    /// How segments were selected.
    pub selection: Option<Selection>,
    /// How replays were compared with the logged states.
    pub comparison: Option<Comparison>,
    /// Where the initial state comes from.
    #[serde(flatten)]
    pub start: Option<StartReport>,
    /// The policy's name.
    pub policy: String,
    /// Its digest.
    pub policy_digest: Option<Digest>,
    /// Segments replayed.
    pub segments: Vec<SegmentReport>,
}

impl Report {
    pub(super) fn begin(
        checked: &IntegrityChecked<'_>,
        selection: &Selection,
        comparison: &Comparison,
        start: StartReport,
        selected: u64,
    ) -> Self {
        Self {
            commitment: Some(checked.commitment()),
            verdict: Verdict::Inconclusive,
            reasons: Vec::new(),
            numerics: Some(checked.claim().terms.recipe.numerics),
            states_kept: checked.states_kept(),
            segments_total: checked.segments(),
            segments_selected: selected,
            steps_replayed: 0,
            selection: Some(*selection),
            comparison: Some(*comparison),
            start: Some(start),
            policy: String::new(),
            policy_digest: None,
            segments: Vec::new(),
        }
    }

    /// A verdict for these reasons alone.
    pub(super) fn stopped(commitment: Option<Digest>, reasons: Vec<Reason>) -> Self {
        let mut report = Self::rejected(commitment, reasons);
        if !report.reasons.iter().any(Reason::is_rejection) {
            report.verdict = Verdict::Inconclusive;
        }
        report
    }

    /// A proof that failed before anything was replayed.
    pub fn rejected(commitment: Option<Digest>, reasons: Vec<Reason>) -> Self {
        Self {
            commitment,
            verdict: Verdict::Rejected,
            reasons,
            numerics: None,
            states_kept: 0,
            segments_total: 0,
            segments_selected: 0,
            steps_replayed: 0,
            selection: None,
            comparison: None,
            start: None,
            policy: String::new(),
            policy_digest: None,
            segments: Vec::new(),
        }
    }

    /// A proof that nothing could be said about.
    pub fn inconclusive(commitment: Option<Digest>, why: String) -> Self {
        let mut report = Self::rejected(commitment, vec![Reason::NotChecked(why)]);
        report.verdict = Verdict::Inconclusive;
        report
    }

    pub(super) fn add(&mut self, segment: SegmentReport) {
        self.reasons.extend(segment.reasons.iter().cloned());
        self.segments.push(segment);
    }

    pub(super) fn reject(&mut self, reason: Reason) {
        self.reasons.push(reason);
    }

    pub(super) fn could_not_check(&mut self, why: String) {
        self.reasons.push(Reason::NotChecked(why));
    }

    /// Whether something was found that rejects the proof, whatever comes after it.
    pub(super) fn is_rejected(&self) -> bool {
        self.reasons.iter().any(Reason::is_rejection)
    }

    /// Accepts only if segments were selected, all of them were replayed and all held.
    pub(super) fn conclude(&mut self) {
        if self.segments_selected == 0 {
            self.could_not_check("no segment was selected for replay".to_owned());
        }
        let complete = self.segments.len() as u64 == self.segments_selected;
        self.verdict = if self.is_rejected() {
            Verdict::Rejected
        } else if complete && self.reasons.is_empty() {
            Verdict::Accepted
        } else {
            Verdict::Inconclusive
        };
    }

    /// The probability that this selection replayed a forged segment, if a fraction `forged` of
    /// all segments were forged. It is caught then, unless it lies below the tolerance.
    pub fn catches(&self, forged: f64) -> f64 {
        self.selection.map_or(0.0, |selection| {
            selection.catches(forged, self.segments_total)
        })
    }
}
