//! Verification (SPEC.md §14): integrity, then the initial state, then a choice of segments
//! replayed and compared as whole states.
//!
//! The verifier brings its own expectations. What a proof says about itself is a claim, to be
//! compared with them; nothing in it weakens a check.

mod distance;
mod integrity;
mod replay;
mod report;
mod select;

pub use distance::{Distances, Tolerance};
pub use integrity::{Integrity, IntegrityChecked, Segment, check_integrity, read_claim};
pub use report::{PartReport, Reason, Report, SegmentReport, Verdict};
pub use select::{Selection, catch_probability};

use crate::digest::Digest;
use crate::learner::{Learner, LearnerError};
use crate::recipe::Recipe;
use crate::records::{DataCommitment, Records};
use crate::store::{Store, StoreError};

use replay::Replayer;

/// Why a proof could not be judged: the machine is at fault, not the proof.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The proof could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a verifier expects, demands and chooses. Every field is the verifier's own.
pub struct Verifier<'a> {
    records: &'a dyn Records,
    recipe: Option<&'a Recipe>,
    commitment: Option<Digest>,
    selection: Selection,
    tolerance: Tolerance,
    reference_distance: Option<f64>,
}

/// Progress of a verification, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Checkpoints read and hashed so far, of all.
    Integrity(u64, u64),
    /// Steps replayed so far, of those selected.
    Replay(u64, u64),
}

impl<'a> Verifier<'a> {
    /// A verifier that holds a copy of the training data, replays everything and allows no
    /// difference at all.
    pub fn new(records: &'a dyn Records) -> Self {
        Self {
            records,
            recipe: None,
            commitment: None,
            selection: Selection::all(),
            tolerance: Tolerance::EXACT,
            reference_distance: None,
        }
    }

    /// Demands this recipe. Without it the proof's own recipe is replayed, and the verdict is
    /// about that recipe only.
    pub fn expect_recipe(mut self, recipe: &'a Recipe) -> Self {
        self.recipe = Some(recipe);
        self
    }

    /// Demands the proof with this commitment.
    pub fn expect_commitment(mut self, commitment: Digest) -> Self {
        self.commitment = Some(commitment);
        self
    }

    /// Chooses the segments to replay.
    pub fn select(mut self, selection: Selection) -> Self {
        self.selection = selection;
        self
    }

    /// Allows replays to differ by this much; with exact numerics they never may.
    pub fn tolerance(mut self, tolerance: Tolerance) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// d_ref, the distance of two trainings from independent seeds, for the report.
    pub fn reference_distance(mut self, distance: f64) -> Self {
        self.reference_distance = Some(distance);
        self
    }

    /// Judges the proof in `store` by replaying on `learner`, which follows the recipe that the
    /// verifier expects.
    ///
    /// # Errors
    /// [`VerifyError`] if the proof could not be read for a reason that is not its own fault.
    /// A faulty proof is a [`Verdict::Rejected`], a check that could not be made a
    /// [`Verdict::Inconclusive`].
    pub fn verify<L: Learner + ?Sized>(
        &self,
        store: &dyn Store,
        learner: &mut L,
        mut progress: impl FnMut(Progress),
    ) -> Result<Report, VerifyError> {
        let part = |name: &str| learner.part(name);
        let checked = match check_integrity(store, &part, &mut progress)? {
            Integrity::Holds(checked) => checked,
            Integrity::Broken { commitment, reason } => {
                return Ok(Report::rejected(commitment, vec![reason]));
            }
        };
        let unexpected = self.compare_with_expectations(&checked);
        if !unexpected.is_empty() {
            return Ok(Report::rejected(Some(checked.commitment()), unexpected));
        }
        let mut replayer = match Replayer::prepare(&checked, learner, self.records) {
            Ok(replayer) => replayer,
            Err(stop) => return Ok(stop.into_report(&checked)),
        };
        // Exact numerics leave nothing to tolerate.
        let tolerance = match checked.is_exact() {
            true => Tolerance::EXACT,
            false => self.tolerance,
        };
        let selected = self.selection.segments(&checked);
        let total = steps_to_replay(&checked, &selected);
        let mut report =
            Report::begin(&checked, &self.selection, &tolerance, selected.len() as u64);
        let mut done = 0;
        for index in selected {
            let outcome = replayer.replay(index, &mut || {
                done += 1;
                progress(Progress::Replay(done, total));
            });
            match outcome {
                Ok(replay) => report.add(replay.judge(&tolerance, self.reference_distance)),
                Err(stop) => {
                    stop.add_to(&mut report)?;
                    break;
                }
            }
        }
        report.steps_replayed = done;
        report.conclude();
        Ok(report)
    }

    fn compare_with_expectations(&self, checked: &IntegrityChecked<'_>) -> Vec<Reason> {
        let terms = &checked.manifest().claim.terms;
        let mut reasons = Vec::new();
        if let Some(expected) = self.commitment.filter(|e| *e != checked.commitment()) {
            reasons.push(Reason::OtherCommitment {
                expected,
                found: checked.commitment(),
            });
        }
        let differences = self
            .recipe
            .map(|expected| expected.differences(&terms.recipe));
        if let Some(differences) = differences.filter(|d| !d.is_empty()) {
            reasons.push(Reason::OtherRecipe { differences });
        }
        let data = DataCommitment::of(self.records);
        if data != terms.data {
            reasons.push(Reason::OtherData {
                expected: data,
                found: terms.data,
            });
        }
        reasons
    }
}

/// The steps of the selected segments, and of those before them that have to be replayed since
/// their states are not kept.
fn steps_to_replay(checked: &IntegrityChecked<'_>, selected: &[u64]) -> u64 {
    let mut at = 0;
    let steps = selected.iter().map(|&index| {
        let from = checked.kept_at_or_before(index);
        // With exact numerics a replay goes on from where the one before ended.
        let from = if checked.is_exact() && at <= index {
            from.max(at)
        } else {
            from
        };
        at = index + 1;
        checked.segment(index).last - checked.segment(from).first
    });
    steps.sum()
}

/// Why replaying stopped.
enum Stop {
    /// The proof is at fault.
    Reject(Reason),
    /// The check could not be made.
    Inconclusive(String),
    /// The proof could not be read.
    Unreadable(VerifyError),
}

impl Stop {
    fn into_report(self, checked: &IntegrityChecked<'_>) -> Report {
        let commitment = Some(checked.commitment());
        match self {
            Self::Reject(reason) => Report::rejected(commitment, vec![reason]),
            Self::Inconclusive(why) => Report::inconclusive(commitment, why),
            Self::Unreadable(error) => Report::inconclusive(commitment, error.to_string()),
        }
    }

    fn add_to(self, report: &mut Report) -> Result<(), VerifyError> {
        match self {
            Self::Reject(reason) => report.reject(reason),
            Self::Inconclusive(why) => report.could_not_check(why),
            Self::Unreadable(error) => return Err(error),
        }
        Ok(())
    }

    /// Sorts a learner's error by who is to blame, at `place` in the proof.
    fn from_learner(place: &str, error: LearnerError) -> Self {
        match error {
            LearnerError::Unfit(problem) => Self::Reject(Reason::UnfitState {
                place: place.to_owned(),
                problem,
            }),
            LearnerError::Unsupported(why) | LearnerError::Device(why) => {
                Self::Inconclusive(format!("{place}: {why}"))
            }
        }
    }
}
