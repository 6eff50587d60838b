//! What went wrong, what to do about it, and the exit code.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use pol_attacks::AttackError;
use pol_core::adapter::BackendError;
use pol_core::audit::OpenError;
use pol_core::calibrate::CalibrateError;
use pol_core::learner::LearnerError;
use pol_core::recorder::RecordError;
use pol_core::store::{ArchiveError, StoreError};
use pol_core::thin::ThinError;
use pol_core::training::TrainError;
use pol_core::verify::{Verdict, VerifyError};
use pol_evidence::key::KeyError;
use pol_evidence::timestamp::TimestampError;
use pol_evidence::training::SignatureError;
use pol_experiments::ExperimentError;
use pol_models::RecipeMismatch;
use pol_models::dataset::DatasetError;
use pol_models::fetch::FetchError;
use pol_models::recipe_file::RecipeFileError;
use pol_report::ReportError;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Done,
    Rejected,
    Usage,
    Inconclusive,
    Environment,
    /// What a program started in our place ended with.
    Other(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Rejected => 1,
            Exit::Usage => 2,
            Exit::Inconclusive => 3,
            Exit::Environment => 4,
            Exit::Other(code) => code,
        })
    }
}

impl From<Verdict> for Exit {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Accepted => Self::Done,
            Verdict::Rejected => Self::Rejected,
            Verdict::Inconclusive => Self::Inconclusive,
        }
    }
}

impl From<&CliError> for Exit {
    fn from(error: &CliError) -> Self {
        match error {
            CliError::Usage(_)
            | CliError::RecipeFile(_)
            | CliError::Report(_)
            | CliError::Experiment(ExperimentError::Plan(_) | ExperimentError::Occupied(_))
            | CliError::Key(
                KeyError::Exposed { .. }
                | KeyError::NeedsPassphrase { .. }
                | KeyError::WrongPassphrase { .. }
                | KeyError::Malformed { .. },
            )
            | CliError::Recipe(RecipeMismatch::Model(_) | RecipeMismatch::DataOption { .. }) => {
                Self::Usage
            }
            CliError::Thin(ThinError::NotExact) => Self::Usage,
            CliError::Malformed(_)
            | CliError::Archive(ArchiveError::Cut { .. } | ArchiveError::Foreign { .. }) => {
                Self::Rejected
            }
            _ => Self::Environment,
        }
    }
}

/// Anything that keeps a command from doing its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    RecipeFile(#[from] RecipeFileError),
    #[error(transparent)]
    Recipe(#[from] RecipeMismatch),
    #[error(transparent)]
    Learner(#[from] LearnerError),
    #[error(transparent)]
    Train(#[from] TrainError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Thin(#[from] ThinError),
    #[error(transparent)]
    Verify(#[from] VerifyError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Signature(#[from] SignatureError),
    #[error(transparent)]
    Timestamp(#[from] TimestampError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Attack(#[from] AttackError),
    #[error(transparent)]
    Report(#[from] ReportError),
    #[error(transparent)]
    Experiment(#[from] ExperimentError),
    #[error(transparent)]
    Calibrate(#[from] CalibrateError),
    /// A file that is not what it should be, and was not made by this program as it is.
    #[error("{0}")]
    Malformed(String),
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Environment(String),
}

impl CliError {
    /// What the user can do, where the message does not say it.
    pub(crate) fn remedy(&self) -> Option<String> {
        match self {
            Self::Backend(BackendError::NotCompiled(backend)) => Some(format!(
                "build a program that has it: cargo run -p pol-cli --features {backend} -- …"
            )),
            Self::Key(KeyError::NeedsPassphrase { .. }) => {
                Some("give --passphrase-file, or set POL_PASSPHRASE".to_owned())
            }
            Self::Signature(SignatureError::NotBound { .. }) => Some(
                "sign with the key that the training was begun with (pol train --key FILE); a \
                 signature by another shows nothing"
                    .to_owned(),
            ),
            Self::Open(OpenError::OtherData { salted: true }) => {
                Some("give --key, the key that the training was begun with".to_owned())
            }
            Self::Train(
                TrainError::Learner(LearnerError::Device(_))
                | TrainError::Record(RecordError::Learner(LearnerError::Device(_))),
            ) => Some(
                "the checkpoints that were written are kept; where there is one, go on from it with pol train \
                 --resume --out RUN"
                    .to_owned(),
            ),
            Self::Train(TrainError::Record(error)) => match error {
                RecordError::Occupied { what, .. } if what.contains("resumed") => {
                    Some("go on with --resume, or give another --out".to_owned())
                }
                RecordError::Occupied { .. } => Some("give another --out".to_owned()),
                RecordError::OtherTerms { .. } => Some(
                    "leave the recipe's flags away to go on with that training, or give \
                     another --out"
                        .to_owned(),
                ),
                RecordError::NotFinite { .. } => {
                    Some("lower the learning rate, or add warm-up".to_owned())
                }
                _ => None,
            },
            _ => None,
        }
    }
}

/// Names the path in an error of the operating system.
pub(crate) fn at(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> CliError {
    let path = path.into();
    move |source| CliError::Io { path, source }
}

/// An error in a form that is fit for a terminal: without control characters.
pub(crate) fn printable(error: &dyn fmt::Display) -> String {
    super::output::clean(&error.to_string())
}
