//! The learning curve, for people: `metrics/curve.csv`.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use pol_models::ImageLearner;

use crate::error::{CliError, at};

const HEADER: &str = "step,epoch,loss,accuracy,learning_rate,seconds";

/// Weight of the newest step in the averages that are shown.
const RECENT: f64 = 0.05;

pub(super) struct Curve {
    path: PathBuf,
    batch_size: f64,
    file: Option<BufWriter<File>>,
    started: Instant,
    rows: u64,
    loss: Option<f64>,
    accuracy: Option<f64>,
}

impl Curve {
    pub(super) fn new(run: &Path, batch_size: u64) -> Self {
        Self {
            path: run.join("metrics/curve.csv"),
            batch_size: batch_size as f64,
            file: None,
            started: Instant::now(),
            rows: 0,
            loss: None,
            accuracy: None,
        }
    }

    /// Adds the step just made. Of a resumed run, rows from this step on are written anew.
    pub(super) fn record(
        &mut self,
        learner: &dyn ImageLearner,
        step: u64,
        epoch: u64,
    ) -> Result<(), CliError> {
        if self.file.is_none() {
            self.open(step)?;
        }
        let loss = learner.last_loss().unwrap_or(f64::NAN);
        let accuracy = learner.last_correct().unwrap_or(f64::NAN) / self.batch_size;
        let blend =
            |old: Option<f64>, new: f64| Some(old.map_or(new, |old| old + RECENT * (new - old)));
        self.loss = blend(self.loss, loss);
        self.accuracy = blend(self.accuracy, accuracy);
        self.rows += 1;
        let rate = learner.learning_rate();
        let seconds = self.started.elapsed().as_secs_f64();
        match &mut self.file {
            Some(file) => writeln!(
                file,
                "{step},{epoch},{loss:.6},{accuracy:.4},{rate:.6e},{seconds:.3}"
            )
            .map_err(at(&self.path)),
            None => Ok(()),
        }
    }

    pub(super) fn recent_loss(&self) -> f64 {
        self.loss.unwrap_or(f64::NAN)
    }

    pub(super) fn recent_accuracy(&self) -> f64 {
        self.accuracy.unwrap_or(f64::NAN)
    }

    /// Of the steps made in this call.
    pub(super) fn steps_per_second(&self) -> f64 {
        self.rows as f64 / self.started.elapsed().as_secs_f64().max(1e-9)
    }

    pub(super) fn finish(mut self) -> Result<(), CliError> {
        match &mut self.file {
            Some(file) => file.flush().map_err(at(&self.path)),
            None => Ok(()),
        }
    }

    fn open(&mut self, step: u64) -> Result<(), CliError> {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        fs::create_dir_all(folder).map_err(at(folder))?;
        let old = if step > 1 {
            fs::read_to_string(&self.path).unwrap_or_default()
        } else {
            String::new()
        };
        let earlier = |row: &&str| {
            let row_step = row.split(',').next().and_then(|s| s.parse::<u64>().ok());
            row_step.is_some_and(|row_step| row_step < step)
        };
        let file = File::create(&self.path).map_err(at(&self.path))?;
        let mut file = BufWriter::new(file);
        std::iter::once(HEADER)
            .chain(old.lines().skip(1).filter(earlier))
            .try_for_each(|row| writeln!(file, "{row}"))
            .map_err(at(&self.path))?;
        self.file = Some(file);
        Ok(())
    }
}
