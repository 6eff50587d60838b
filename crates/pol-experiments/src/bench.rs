//! How long training steps take.

use std::time::Instant;

use burn::tensor::Device;
use cpu_time::ProcessTime;
use pol_core::learner::Batch;
use pol_core::manifest::Terms;
use pol_core::recipe::Recipe;
use pol_core::records::{DataCommitment, Records};
use pol_core::schedule::{BatchSource, Schedule};
use pol_exact::launches::Launches;
use pol_models::dataset::Images;
use pol_models::{dataset_of, unprobed_learner};
use serde::{Deserialize, Serialize};

use crate::summary::median;
use crate::{ExperimentError, NOISE_RECORDS};

/// What training steps took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepTimes {
    /// Steps that were timed, after the warm-up.
    pub steps: u64,
    /// Records in a step.
    pub batch_size: u64,
    /// Wall seconds of a step: the median, and the shortest and longest.
    pub median_step_s: f64,
    /// The shortest.
    pub least_step_s: f64,
    /// The longest.
    pub most_step_s: f64,
    /// CPU seconds of a step, of all threads of this process: the median.
    pub median_step_cpu_s: f64,
    /// Records a second, at the median.
    pub records_per_s: f64,
    /// Kernels launched in a step; 0 on the CPU.
    pub launches_per_step: f64,
    /// Bytes that a step sends to the device: its images, its labels and these as vectors, 32 bits a
    /// number.
    pub uploaded_bytes_per_step: u64,
    /// Bytes that the device's allocator holds after the last step, where it tells.
    pub device_bytes: Option<u64>,
    /// The most memory that this process held, where the system tells.
    pub peak_rss_bytes: Option<u64>,
}

/// Times `steps` training steps of `recipe` on `device`, after `warmup` others, each until its loss has been
/// read back. The records are noise in the layout of the recipe's data set: what is timed does not
/// depend on them. Whether the device computes what exact numerics define is the caller's to ask.
///
/// # Errors
/// If the recipe cannot be followed, or the device fails.
pub fn bench(
    recipe: &Recipe,
    device: &Device,
    (warmup, steps): (u64, u64),
) -> Result<StepTimes, ExperimentError> {
    let dataset = dataset_of(recipe)?;
    let records = Images::noise(dataset, NOISE_RECORDS.max(recipe.batch_size));
    let mut learner = unprobed_learner(recipe, device)?;
    let data = DataCommitment::of(&records);
    let terms = Terms::new(recipe.clone(), data, 0, BatchSource::Derived, 1);
    learner.initialise(&terms.seed)?;
    let mut schedule = Schedule::new(terms.seed, records.len(), recipe.batch_size)?;
    let (mut wall, mut cpu) = (Vec::new(), Vec::new());
    let mut launches = None;
    for step in 0..warmup + steps {
        if step == warmup {
            launches = Some(Launches::watch());
        }
        let (started, started_cpu) = (Instant::now(), ProcessTime::now());
        let plan = schedule.batch(step);
        learner.step(&Batch::new(&plan, &records, &terms.seed)?)?;
        // What did not come back says why when the state is read.
        if learner.last_loss().is_none() {
            learner.capture()?;
        }
        if step >= warmup {
            wall.push(started.elapsed().as_secs_f64());
            cpu.push(started_cpu.elapsed().as_secs_f64());
        }
    }
    let launched = launches.map_or(0, |launches| launches.count());
    let median_step_s = median(&mut wall).unwrap_or(f64::NAN);
    let values = dataset.image().len() + dataset.classes() + 1;
    Ok(StepTimes {
        steps,
        batch_size: recipe.batch_size,
        median_step_s,
        least_step_s: wall.first().copied().unwrap_or(f64::NAN),
        most_step_s: wall.last().copied().unwrap_or(f64::NAN),
        median_step_cpu_s: median(&mut cpu).unwrap_or(f64::NAN),
        records_per_s: recipe.batch_size as f64 / median_step_s,
        launches_per_step: launched as f64 / steps as f64,
        uploaded_bytes_per_step: recipe.batch_size * 4 * values as u64,
        device_bytes: device.memory_pool_usage().map(|pool| pool.bytes_reserved),
        peak_rss_bytes: peak_rss_bytes(),
    })
}

/// The most memory that the process held, where the system tells it.
fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
