//! What recording costs: training steps without it and with it, in turn, in one process. One
//! JSON object on stdout; `benches/table.py` runs it.
//!
//! `cargo run --example recording -- --model resnet20 --numerics exact --interval 10 --pairs 10`
#![expect(clippy::disallowed_types, reason = "it measures time")]
#![expect(clippy::print_stdout, reason = "its result")]

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use cpu_time::ProcessTime;
use pol_core::learner::Batch;
use pol_core::manifest::Terms;
use pol_core::recipe::Recipe;
use pol_core::recorder::{Recorder, THREAD};
use pol_core::records::DataCommitment;
use pol_core::schedule::{BatchSource, Schedule};
use pol_core::store::{FolderStore, Store};
use pol_models::dataset::{DatasetName, Images};
use pol_models::image_learner;
use pol_models::recipe_file::{Named, RecipeFile};
use serde_json::json;

struct Options {
    model: String,
    numerics: String,
    threads: usize,
    batch: u64,
    /// Steps between checkpoints.
    interval: u64,
    /// Of how many checkpoints one state is kept.
    keep: u64,
    /// Pairs of a block without and a block with recording.
    pairs: usize,
}

/// Seconds of a block of steps.
#[derive(Clone, Copy)]
struct Seconds {
    wall: f64,
    cpu: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads)
        .build_global()?;
    let records = Images::noise(DatasetName::Cifar10, 4096);
    // Longer than what is timed: no proof is sealed.
    let steps = 1_000_000;
    let recipe = recipe(&options.model, &options.numerics, options.batch, steps)?;
    let mut learner = image_learner(&recipe, &Device::flex())?;
    let data = DataCommitment::of(&records);
    let terms = Terms::new(recipe, data, 0, BatchSource::Derived, options.interval);
    learner.initialise(&terms.seed)?;
    let folder = std::env::temp_dir().join(format!("pol-recording-{}", std::process::id()));
    let store = Arc::new(FolderStore::new(&folder));
    let shared: Arc<dyn Store> = Arc::clone(&store) as _;
    let mut recorder = Recorder::start(shared, terms.clone())?.keep(options.keep)?;
    recorder.record(0, || learner.capture())?;

    // Blocks are short and alternate, so that what else the machine does falls on both. At k = 1 a block is
    // of two checkpoints, else of one.
    let block = if options.interval == 1 {
        2
    } else {
        options.interval
    };
    let mut schedule = Schedule::new(terms.seed, 4096, options.batch)?;
    let (mut plain, mut recorded) = (Vec::new(), Vec::new());
    let (mut step, mut recorded_to, mut taking) = (0, 0, 0.0);
    let mut thread_before = 0.0;
    // The first pair warms up.
    for pair in 0..=options.pairs {
        for with in [false, true] {
            let (wall, cpu) = (Instant::now(), ProcessTime::now());
            for _ in 0..block {
                let plan = schedule.batch(step);
                learner.step(&Batch::new(&plan, &records, &terms.seed)?)?;
                learner.last_loss();
                step += 1;
                if with {
                    recorded_to += 1;
                    recorder.record(recorded_to, || {
                        let started = Instant::now();
                        let state = learner.capture();
                        taking += started.elapsed().as_secs_f64();
                        state
                    })?;
                }
            }
            let seconds = Seconds {
                wall: wall.elapsed().as_secs_f64(),
                cpu: cpu.elapsed().as_secs_f64(),
            };
            if pair == 0 {
                settle();
                (taking, thread_before) = (0.0, recorder_cpu());
            } else if with {
                recorded.push(seconds);
            } else {
                plain.push(seconds);
            }
        }
    }
    settle();
    let checkpoints = (options.pairs as u64 * block / options.interval) as f64;
    let recorder_s = (recorder_cpu() - thread_before) / checkpoints;
    let taking_s = taking / checkpoints;
    drop(recorder);
    let proof_bytes = store.size()?;
    std::fs::remove_dir_all(&folder)?;

    let per_step = |seconds: &[Seconds], of: fn(&Seconds) -> f64| {
        let mut all: Vec<f64> = seconds.iter().map(of).collect();
        median(&mut all) / block as f64
    };
    let ratio = |of: fn(&Seconds) -> f64| {
        let pairs = plain.iter().zip(&recorded);
        let mut all: Vec<f64> = pairs
            .map(|(without, with)| of(with) / of(without))
            .collect();
        median(&mut all)
    };
    let step_cpu_s = per_step(&plain, |s| s.cpu);
    println!(
        "{}",
        json!({
            "model": options.model,
            "numerics": options.numerics,
            "threads": options.threads,
            "batch": options.batch,
            "interval": options.interval,
            "keep": options.keep,
            "pairs": options.pairs,
            "step_wall_s": per_step(&plain, |s| s.wall),
            "step_cpu_s": step_cpu_s,
            "wall_ratio": ratio(|s| s.wall),
            "cpu_ratio": ratio(|s| s.cpu),
            // What recording itself computes, which noise of the steps does not hide.
            "taking_s_per_checkpoint": taking_s,
            "recorder_cpu_s_per_checkpoint": recorder_s,
            "own_cpu_ratio": 1.0 + (taking_s + recorder_s) / (options.interval as f64 * step_cpu_s),
            "state_bytes": learner.capture()?.byte_len(),
            "proof_bytes": proof_bytes,
            "peak_rss_mib": peak_rss_mib(),
        })
    );
    Ok(())
}

/// Lets the recorder's thread finish what it was given.
fn settle() {
    std::thread::sleep(Duration::from_millis(500));
}

/// CPU seconds of the recorder's thread, where the system tells them; else NaN.
fn recorder_cpu() -> f64 {
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let tasks = std::fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten();
    let mut recorders = tasks.filter(|task| read(task.path().join("comm")).trim() == THREAD);
    let times = recorders
        .next()
        .map(|task| read(task.path().join("schedstat")));
    let nanoseconds = times.and_then(|times| times.split_whitespace().next()?.parse::<f64>().ok());
    nanoseconds.map_or(f64::NAN, |nanoseconds| nanoseconds / 1e9)
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut options = Options {
        model: "resnet20".to_owned(),
        numerics: "exact".to_owned(),
        threads: 1,
        batch: 128,
        interval: 1,
        keep: 1,
        pairs: 10,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(option) = arguments.next() {
        let value = arguments.next().ok_or("an option lacks its value")?;
        match option.as_str() {
            "--model" => options.model = value,
            "--numerics" => options.numerics = value,
            "--threads" => options.threads = value.parse()?,
            "--batch" => options.batch = value.parse()?,
            "--interval" => options.interval = value.parse()?,
            "--keep" => options.keep = value.parse()?,
            "--pairs" => options.pairs = value.parse()?,
            _ => return Err(format!("there is no option {option}").into()),
        }
    }
    Ok(options)
}

/// The shipped recipe of ResNet-20, with another model (`lenet`, …), numerics, batch and length.
fn recipe(model: &str, numerics: &str, batch: u64, steps: u64) -> Result<Recipe, Box<dyn Error>> {
    let mut file = RecipeFile::shipped("cifar10-resnet20").ok_or("the recipe is shipped")?;
    file.model = Named::new(if model == "lenet" { "lenet5" } else { model });
    file.data = Named::new(DatasetName::Cifar10.name());
    file.batch_size = batch;
    (file.epochs, file.steps) = (None, Some(steps));
    file.numerics = numerics.to_owned().try_into()?;
    Ok(file.resolve(4096)?)
}

/// The middle value.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The most memory that the process held, where the system tells it.
fn peak_rss_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}
