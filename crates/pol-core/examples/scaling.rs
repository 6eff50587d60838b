//! How recording and the integrity check grow: synthetic states, as many and as large as one likes. One
//! JSON object on stdout; `benches/table.py` runs it.
//!
//! `cargo run --example scaling -- --checkpoints 1000 --elements 256 --in /dev/shm`
#![expect(clippy::disallowed_types, reason = "it measures time")]
#![expect(clippy::print_stdout, reason = "its result")]

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use pol_core::digest::tagged;
use pol_core::learner::LearnerError;
use pol_core::manifest::Terms;
use pol_core::recipe::{Component, Decay, LearningRate, Numerics, Optimizer, Recipe};
use pol_core::recorder::Recorder;
use pol_core::records::{DataCommitment, MemoryRecords};
use pol_core::schedule::BatchSource;
use pol_core::state::{Entry, RATE_ENTRY, STEP_ENTRY, State};
use pol_core::store::{FolderStore, Store};
use pol_core::verify::{Integrity, Resources, check_integrity};

struct Options {
    checkpoints: u64,
    /// Elements of the model and of its velocity together.
    elements: usize,
    threads: usize,
    folder: PathBuf,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let records = MemoryRecords((0..64).map(|i| (i, vec![i as u8])).collect());
    let data = DataCommitment::of(&records);
    let terms = Terms::new(
        recipe(options.checkpoints),
        data,
        0,
        BatchSource::Derived,
        1,
    );
    let run = options
        .folder
        .join(format!("pol-scaling-{}", std::process::id()));
    let store: Arc<dyn Store> = Arc::new(FolderStore::new(&run));

    forget_peak();
    let mut weights = Weights::new(options.elements);
    let before = peak_rss_mib();
    let started = Instant::now();
    let mut recorder = Recorder::start(Arc::clone(&store), terms.clone())?;
    for step in 0..terms.recipe.steps {
        recorder.record(step, || weights.state(step))?;
        weights.step();
    }
    let last = terms.recipe.steps;
    recorder.record(last, || weights.state(last))?;
    recorder.seal()?;
    let record_s = started.elapsed().as_secs_f64();
    let record_peak = peak_rss_mib();
    let state_bytes = weights.state(last)?.byte_len();
    drop(weights);

    forget_peak();
    let resources = Resources {
        threads: options.threads,
        // One thread works however large states are.
        memory: Resources::default().memory.max(8 * state_bytes),
    };
    let started = Instant::now();
    let integrity = check_integrity(store.as_ref(), resources, &mut |_| {})?;
    let check_s = started.elapsed().as_secs_f64();
    let check_peak = peak_rss_mib();
    if !matches!(integrity, Integrity::Holds(_)) {
        return Err("the proof is not whole".into());
    }
    drop(integrity);
    let (proof_bytes, raw_bytes) = (store.size()?, state_bytes * options.checkpoints);
    fs::remove_dir_all(&run)?;
    println!(
        "{}",
        json_line(&[
            ("checkpoints", options.checkpoints as f64),
            ("state_bytes", state_bytes as f64),
            ("threads", options.threads as f64),
            ("record_s", record_s),
            ("record_peak_mib", record_peak - before),
            ("check_s", check_s),
            ("check_peak_mib", check_peak),
            ("sha3_s", sha3_seconds(raw_bytes, options.threads)),
            ("proof_bytes", proof_bytes as f64),
            ("raw_bytes", raw_bytes as f64),
        ])
    );
    Ok(())
}

/// Seconds that SHA3-256 takes for so many bytes on so many threads.
fn sha3_seconds(bytes: u64, threads: usize) -> f64 {
    let block = vec![7u8; 1 << 20];
    let blocks = bytes.div_ceil(block.len() as u64).div_ceil(threads as u64);
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..blocks {
                    black_box(tagged("bench", &[black_box(&block)]));
                }
            });
        }
    });
    let whole = started.elapsed().as_secs_f64();
    whole * bytes as f64 / (blocks * threads as u64 * block.len() as u64) as f64
}

/// A model in a random walk with momentum, as SGD moves one.
struct Weights {
    w: Vec<f32>,
    v: Vec<f32>,
    noise: u64,
}

const RATE: f32 = 0.001;

impl Weights {
    fn new(elements: usize) -> Self {
        let count = elements / 2;
        let mut weights = Self {
            w: vec![0.0; count],
            v: vec![0.0; count],
            noise: 1,
        };
        for index in 0..count {
            weights.w[index] = weights.draw() * 0.1;
        }
        weights
    }

    /// Uniform in −1 … 1, by a linear congruential generator.
    fn draw(&mut self) -> f32 {
        self.noise = (self.noise.wrapping_mul(6_364_136_223_846_793_005)).wrapping_add(1);
        ((self.noise >> 40) as f32) / ((1u64 << 23) as f32) - 1.0
    }

    fn step(&mut self) {
        for index in 0..self.w.len() {
            self.v[index] = 0.9 * self.v[index] + 0.01 * self.draw();
            self.w[index] -= RATE * self.v[index];
        }
    }

    /// In sixteen tensors, as models have many.
    fn state(&self, step: u64) -> Result<State, LearnerError> {
        let len = self.w.len().div_ceil(16).max(1);
        let mut entries = vec![
            Entry::u64(STEP_ENTRY, step),
            Entry::f64(RATE_ENTRY, f64::from(RATE)),
        ];
        for (index, (w, v)) in self.w.chunks(len).zip(self.v.chunks(len)).enumerate() {
            let shape = || vec![w.len() as u64];
            let name = format!("{index:02}.weight");
            entries.push(Entry::f32(format!("model/{name}"), shape(), w));
            let velocity = format!("optim/{name}/momentum.velocity");
            entries.push(Entry::f32(velocity, shape(), v));
        }
        State::new(entries).map_err(|error| LearnerError::Unfit(error.to_string()))
    }
}

fn recipe(checkpoints: u64) -> Recipe {
    Recipe {
        model: Component::new("synthetic"),
        data: Component::new("none"),
        optimizer: Optimizer::Sgd {
            momentum: 0.9,
            dampening: 0.0,
            weight_decay: 0.0,
            nesterov: false,
        },
        learning_rate: LearningRate {
            base: f64::from(RATE),
            warmup: 0,
            decay: Decay::Constant,
        },
        batch_size: 4,
        steps: checkpoints - 1,
        numerics: Numerics::Stock,
    }
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut options = Options {
        checkpoints: 1000,
        elements: 256,
        threads: Resources::default().threads,
        folder: std::env::temp_dir(),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(option) = arguments.next() {
        let value = arguments.next().ok_or("an option lacks its value")?;
        match option.as_str() {
            "--checkpoints" => options.checkpoints = value.parse::<u64>()?.max(2),
            "--elements" => options.elements = value.parse()?,
            "--threads" => options.threads = value.parse::<usize>()?.max(1),
            "--in" => options.folder = value.into(),
            _ => return Err(format!("there is no option {option}").into()),
        }
    }
    Ok(options)
}

/// Starts the count of the most memory held anew, where the system can.
fn forget_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// The most memory that the process held since; NaN where the system does not tell it.
fn peak_rss_mib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    kib.map_or(f64::NAN, |kib| kib / 1024.0)
}

fn json_line(values: &[(&str, f64)]) -> String {
    let fields: Vec<String> = (values.iter())
        .map(|(name, value)| format!("\"{name}\": {value}"))
        .collect();
    format!("{{{}}}", fields.join(", "))
}
