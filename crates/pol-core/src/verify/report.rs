//! What a verification found.

use std::fmt;

use serde::Serialize;

use crate::digest::Digest;
use crate::policy::Comparison;
use crate::recipe::Numerics;

use super::calibrated::{Compared, NoiseReport};
use super::distance::Distances;
use super::integrity::{IntegrityChecked, Segment};
use super::odds::{Bridge, Odds};
use super::reason::Reason;
use super::select::{Outliers, Selected, Selection};
use super::slack::{SegmentSlack, Slack};
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
    pub(super) slack: Option<SegmentSlack>,
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
            slack: None,
            accepted: reasons.is_empty(),
            reasons,
        }
    }

    /// Notes what a calibrated comparison found.
    pub(super) fn note_noise(&mut self, compared: Compared) {
        self.reasons.extend(compared.reasons);
        self.accepted = self.reasons.is_empty();
        self.noise = Some(compared.report);
        self.slack = Some(compared.slack);
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
    /// What the selection is worth against a forger.
    #[serde(skip)]
    pub odds: Option<Odds>,
    /// Segments that stand out from their neighbourhood; absent where that was not looked at.
    pub outliers: Option<Outliers>,
    /// What it takes to forge the whole way; absent where movements are not known, or everything is
    /// replayed.
    pub bridge: Option<Bridge>,
    /// How replays were compared with the logged states.
    pub comparison: Option<Comparison>,
    /// What the tolerances of all segments could have done together, where the comparison is calibrated and
    /// bits differ.
    pub slack: Option<Slack>,
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
        selected: &Selected,
        comparison: &Comparison,
        start: StartReport,
    ) -> Self {
        Self {
            commitment: Some(checked.commitment()),
            verdict: Verdict::Inconclusive,
            reasons: Vec::new(),
            numerics: Some(checked.claim().terms.recipe.numerics),
            states_kept: checked.states_kept(),
            segments_total: checked.segments(),
            segments_selected: selected.segments.len() as u64,
            steps_replayed: 0,
            selection: Some(*selection),
            odds: Some(selected.odds),
            outliers: selected.outliers,
            bridge: selected.bridge,
            comparison: Some(*comparison),
            slack: None,
            start: Some(start),
            policy: String::new(),
            policy_digest: None,
            segments: Vec::new(),
        }
    }

    /// A verdict for these reasons alone: *rejected* if one of them rejects the proof, else *inconclusive*.
    pub fn stopped(commitment: Option<Digest>, reasons: Vec<Reason>) -> Self {
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
            odds: None,
            outliers: None,
            bridge: None,
            comparison: None,
            slack: None,
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
    /// all segments were forged, by somebody who knows how they are selected. It is caught then, unless it
    /// lies below the tolerance.
    pub fn catches(&self, forged: f64) -> f64 {
        self.odds.map_or(0.0, |odds| odds.of_share(forged))
    }

    /// The same probability, if `forged` segments were forged.
    pub fn catches_count(&self, forged: u64) -> f64 {
        self.odds.map_or(0.0, |odds| odds.of_count(forged))
    }
}
