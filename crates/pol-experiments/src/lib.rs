//! Experiments on proofs of learning. A recipe (TOML) says what is measured, in a quick and a full size;
//! raw rows go to a CSV file as they are measured, so that an interrupted experiment goes on where it
//! was; a summary says what they come to, and on which machine.

mod agreement;
mod attacks;
mod bench;
mod cost;
mod false_rejections;
mod gradient_matching;
mod lab;
mod plan;
mod reference;
mod reproduction;
mod slack;
mod summary;
mod table;

pub use agreement::{reproduction_error, train_few};
pub use bench::{StepTimes, bench};
pub use lab::{DeviceFound, Lab};
pub use plan::{Plan, SHIPPED, Size, shipped};
pub use summary::{Column, Machine, Summary, SummaryTable};
pub use table::Row;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use pol_attacks::AttackError;
use pol_core::learner::LearnerError;
use pol_core::recorder::RecordError;
use pol_core::schedule::ScheduleError;
use pol_core::store::StoreError;
use pol_core::training::TrainError;
use pol_core::verify::VerifyError;
use pol_models::RecipeMismatch;
use pol_models::dataset::DatasetError;
use pol_models::recipe_file::RecipeFileError;

/// Records of noise that are drawn from where the data does not matter, if a batch is not larger.
pub const NOISE_RECORDS: u64 = 4096;
/// The file of the raw rows, in an experiment's folder.
pub const ROWS: &str = "rows.csv";
/// The file of the summary.
pub const SUMMARY: &str = "summary.json";
/// The file of the recipe that is followed there.
pub const PLAN: &str = "recipe.toml";

/// Why an experiment stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExperimentError {
    /// The recipe is not one.
    #[error("{0}")]
    Plan(String),
    /// The folder holds another experiment.
    #[error("{0} holds another experiment; give a new folder")]
    Occupied(PathBuf),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The rows that are there are not this experiment's.
    #[error("{path}: {source}")]
    Rows {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: csv::Error,
    },
    /// A training recipe cannot be followed.
    #[error(transparent)]
    Recipe(#[from] RecipeMismatch),
    /// A training recipe is faulty.
    #[error(transparent)]
    RecipeFile(#[from] RecipeFileError),
    /// The data is not there.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The learner failed.
    #[error(transparent)]
    Learner(#[from] LearnerError),
    /// No batch can be drawn.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// A training failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A proof could not be written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A verification failed.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// A forgery failed.
    #[error(transparent)]
    Attack(#[from] AttackError),
}

/// Runs what of an experiment is not done yet, in `folder`, and writes its summary there.
///
/// # Errors
/// [`ExperimentError`]. What was measured before stays, and need not be measured again.
pub fn run(
    plan: &Plan,
    size: Size,
    lab: &Lab<'_>,
    folder: &Path,
) -> Result<Summary, ExperimentError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| ExperimentError::Io { path, source }
    };
    std::fs::create_dir_all(folder).map_err(io(folder))?;
    let copy = folder.join(PLAN);
    let text = format!("# The {size} size of this recipe.\n{}", plan.text());
    let rows = folder.join(ROWS);
    // A recipe that nothing was measured by is nothing to lose.
    if rows.exists() {
        let there = std::fs::read_to_string(&copy).map_err(io(&copy))?;
        if there != text {
            return Err(ExperimentError::Occupied(folder.to_owned()));
        }
    }
    std::fs::write(&copy, &text).map_err(io(&copy))?;
    let started = Instant::now();
    let found = match plan.experiment() {
        plan::Experiment::Reproduction(sizes) => reproduction::run(sizes.of(size), lab, &rows)?,
        plan::Experiment::ReferenceDistance(sizes) => reference::run(sizes.of(size), lab, &rows)?,
        plan::Experiment::Attacks(sizes) => attacks::run(sizes.of(size), lab, &rows)?,
        plan::Experiment::FalseRejections(sizes) => {
            false_rejections::run(sizes.of(size), lab, &rows)?
        }
        plan::Experiment::GradientMatching(sizes) => {
            gradient_matching::run(sizes.of(size), lab, &rows)?
        }
        plan::Experiment::Slack(sizes) => slack::run(sizes.of(size), lab, &rows)?,
        plan::Experiment::Cost(sizes) => cost::run(sizes.of(size), lab, &rows)?,
    };
    let path = folder.join(SUMMARY);
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    let before = serde_json::from_str::<Summary>(&before).map_or(0.0, |summary| summary.seconds);
    let summary = Summary {
        schema: summary::SCHEMA.to_owned(),
        experiment: plan.name().to_owned(),
        title: plan.title().to_owned(),
        about: plan.about().to_owned(),
        size: size.to_string(),
        seconds: before + started.elapsed().as_secs_f64(),
        machine: Machine::here(lab),
        seeds: found.seeds,
        notes: found.notes,
        tables: found.tables,
    };
    let text = serde_json::to_string_pretty(&summary).unwrap_or_default();
    std::fs::write(&path, text + "\n").map_err(io(&path))?;
    Ok(summary)
}
