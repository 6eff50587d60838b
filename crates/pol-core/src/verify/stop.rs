//! Why a verification ends before its end.

use crate::learner::LearnerError;

use super::VerifyError;
use super::integrity::IntegrityChecked;
use super::reason::Reason;
use super::report::Report;

/// Why replaying stopped.
pub(super) enum Stop {
    /// The proof is at fault.
    Reject(Reason),
    /// The check could not be made.
    Inconclusive(String),
    /// The proof could not be read.
    Unreadable(VerifyError),
}

impl Stop {
    pub(super) fn into_report(self, checked: &IntegrityChecked<'_>) -> Result<Report, VerifyError> {
        let commitment = Some(checked.commitment());
        match self {
            Self::Reject(reason) => Ok(Report::stopped(commitment, vec![reason])),
            Self::Inconclusive(why) => Ok(Report::inconclusive(commitment, why)),
            Self::Unreadable(error) => Err(error),
        }
    }

    pub(super) fn add_to(self, report: &mut Report) -> Result<(), VerifyError> {
        match self {
            Self::Reject(reason) => report.reject(reason),
            Self::Inconclusive(why) => report.could_not_check(why),
            Self::Unreadable(error) => return Err(error),
        }
        Ok(())
    }

    /// Sorts a learner's error by who is to blame, at `place` in the proof.
    pub(super) fn from_learner(place: &str, error: LearnerError) -> Self {
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
