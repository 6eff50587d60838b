//! What recording costs: the same training steps without it and with it, in turn, in one process. One
//! JSON object on stdout; `benches/table.py` runs it.
//!
//! `cargo run --example recording -- --model resnet20 --numerics exact --interval 10 --rounds 3`
#![expect(clippy::disallowed_types, reason = "it measures time")]
#![expect(clippy::print_stdout, reason = "its result")]

mod noise;

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::Device;
use cpu_time::ProcessTime;
use noise::{Noise, median, peak_rss_mib};
use pol_core::learner::Batch;
use pol_core::manifest::Terms;
use pol_core::recipe::Recipe;
use pol_core::recorder::Recorder;
use pol_core::records::DataCommitment;
use pol_core::schedule::{BatchSource, Schedule};
use pol_core::store::{FolderStore, Store};
use pol_models::dataset::DatasetName;
use pol_models::recipe_file::{Named, RecipeFile};
use pol_models::{ImageLearner, image_learner};
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
    /// Steps without, and as many with recording, in each round.
    steps: u64,
    rounds: u64,
}

/// Seconds of one round's steps.
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
    let records = Noise::new(4096);
    let recipe = recipe(&options)?;
    let mut learner = image_learner(&recipe, &Device::flex())?;
    let data = DataCommitment::of(&records);
    let terms = Terms::new(recipe, data, 0, BatchSource::Derived, options.interval);
    learner.initialise(&terms.seed)?;
    let folder = std::env::temp_dir().join(format!("pol-recording-{}", std::process::id()));
    let (mut plain, mut recorded, mut stored) = (Vec::new(), Vec::new(), Vec::new());
    // One round to warm up.
    for round in 0..=options.rounds {
        let without = steps(&options, &terms, learner.as_mut(), &records, None)?;
        let store = Arc::new(FolderStore::new(folder.join(round.to_string())));
        let shared: Arc<dyn Store> = Arc::clone(&store) as _;
        let with = steps(&options, &terms, learner.as_mut(), &records, Some(shared))?;
        if round > 0 {
            plain.push(without);
            recorded.push(with);
            stored.push(store.size()? as f64);
        }
    }
    std::fs::remove_dir_all(&folder)?;
    let per_step = |seconds: &[Seconds], of: fn(&Seconds) -> f64| {
        let mut all: Vec<f64> = seconds.iter().map(of).collect();
        median(&mut all) / options.steps as f64
    };
    // Of neighbouring runs, so that what else the machine does falls on both.
    let ratio = |of: fn(&Seconds) -> f64| {
        let pairs = plain.iter().zip(&recorded);
        let mut all: Vec<f64> = pairs
            .map(|(without, with)| of(with) / of(without))
            .collect();
        median(&mut all)
    };
    let state_bytes = learner.capture()?.byte_len();
    println!(
        "{}",
        json!({
            "model": options.model,
            "numerics": options.numerics,
            "threads": options.threads,
            "batch": options.batch,
            "interval": options.interval,
            "keep": options.keep,
            "steps": options.steps,
            "rounds": options.rounds,
            "plain_wall_s": per_step(&plain, |s| s.wall),
            "recorded_wall_s": per_step(&recorded, |s| s.wall),
            "plain_cpu_s": per_step(&plain, |s| s.cpu),
            "recorded_cpu_s": per_step(&recorded, |s| s.cpu),
            "wall_ratio": ratio(|s| s.wall),
            "cpu_ratio": ratio(|s| s.cpu),
            "state_bytes": state_bytes,
            "proof_bytes": median(&mut stored),
            "peak_rss_mib": peak_rss_mib(),
        })
    );
    Ok(())
}

/// Steps from the initial state, into a proof or not. What waits to be written at the end is written
/// within the time.
fn steps(
    options: &Options,
    terms: &Terms,
    learner: &mut dyn ImageLearner,
    records: &Noise,
    store: Option<Arc<dyn Store>>,
) -> Result<Seconds, Box<dyn Error>> {
    learner.initialise(&terms.seed)?;
    let mut schedule = Schedule::new(terms.seed, 4096, options.batch)?;
    let recorder = |store| Recorder::start(store, terms.clone())?.keep(options.keep);
    let mut recorder = store.map(recorder).transpose()?;
    let (wall, cpu) = (Instant::now(), ProcessTime::now());
    if let Some(recorder) = &mut recorder {
        recorder.record(0, || learner.capture())?;
    }
    for step in 0..options.steps {
        let plan = schedule.batch(step);
        learner.step(&Batch::new(&plan, records, &terms.seed)?)?;
        learner.last_loss();
        if let Some(recorder) = &mut recorder {
            recorder.record(step + 1, || learner.capture())?;
        }
    }
    if let Some(recorder) = recorder {
        recorder.stop()?;
    }
    Ok(Seconds {
        wall: wall.elapsed().as_secs_f64(),
        cpu: cpu.elapsed().as_secs_f64(),
    })
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut options = Options {
        model: "resnet20".to_owned(),
        numerics: "exact".to_owned(),
        threads: 1,
        batch: 128,
        interval: 1,
        keep: 1,
        steps: 20,
        rounds: 3,
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
            "--steps" => options.steps = value.parse()?,
            "--rounds" => options.rounds = value.parse()?,
            _ => return Err(format!("there is no option {option}").into()),
        }
    }
    Ok(options)
}

/// Longer than what is timed: no proof is sealed.
fn recipe(options: &Options) -> Result<Recipe, Box<dyn Error>> {
    let mut file = RecipeFile::shipped("cifar10-resnet20").ok_or("the recipe is shipped")?;
    let model = match options.model.as_str() {
        "lenet" => "lenet5",
        other => other,
    };
    file.model = Named::new(model);
    file.data = Named::new(DatasetName::Cifar10.name());
    file.batch_size = options.batch;
    (file.epochs, file.steps) = (None, Some(1_000_000));
    file.numerics = options.numerics.clone().try_into()?;
    Ok(file.resolve(4096)?)
}
