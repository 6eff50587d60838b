//! Times training steps, as `benches/step_ratio.py` wants them: one JSON object on stdout, with the
//! keys of the PyTorch program that it is compared with.
//!
//! `cargo run --example step_time -- --model resnet20 --numerics exact --threads 1`
#![expect(clippy::disallowed_types, reason = "it measures time")]
#![expect(clippy::print_stdout, reason = "its result")]

mod noise;

use std::error::Error;
use std::time::Instant;

use burn::tensor::Device;
use cpu_time::ProcessTime;
use noise::{Noise, median, peak_rss_mib, recipe};
use pol_core::learner::Batch;
use pol_core::manifest::Terms;
use pol_core::records::{DataCommitment, Records};
use pol_core::schedule::{BatchSource, Schedule};
use pol_models::image_learner;
use serde_json::json;

struct Options {
    model: String,
    numerics: String,
    threads: usize,
    steps: u64,
    warmup: u64,
    batch: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads)
        .build_global()?;
    let records = Noise::new(4096);
    let steps = options.warmup + options.steps;
    let recipe = recipe(&options.model, &options.numerics, options.batch, steps)?;
    let mut learner = image_learner(&recipe, &Device::flex())?;

    let data = DataCommitment::of(&records);
    let terms = Terms::new(recipe.clone(), data, 0, BatchSource::Derived, 1);
    learner.initialise(&terms.seed)?;
    let mut schedule = Schedule::new(terms.seed, records.len(), recipe.batch_size)?;
    let (mut wall, mut cpu) = (Vec::new(), Vec::new());
    let mut timed = None;
    for step in 0..recipe.steps {
        if step == options.warmup {
            timed = Some((Instant::now(), ProcessTime::now()));
        }
        let (started, started_cpu) = (Instant::now(), ProcessTime::now());
        let plan = schedule.batch(step);
        learner.step(&Batch::new(&plan, &records, &terms.seed)?)?;
        learner.last_loss();
        if step >= options.warmup {
            wall.push(started.elapsed().as_secs_f64());
            cpu.push(started_cpu.elapsed().as_secs_f64());
        }
    }
    let (all_wall, all_cpu) = timed.map_or((0.0, 0.0), |(wall, cpu)| {
        (wall.elapsed().as_secs_f64(), cpu.elapsed().as_secs_f64())
    });
    let steps = wall.len() as f64;
    let line = json!({
        "model": options.model,
        "numerics": recipe.numerics.to_string(),
        "isa": pol_exact::simd::Isa::chosen()?.to_string(),
        "threads": options.threads,
        "batch": options.batch,
        "steps": steps,
        "median_step_s": median(&mut wall),
        "median_step_cpu_s": median(&mut cpu),
        "loop_s": all_wall,
        "loop_cpu_s": all_cpu,
        "loop_cpu_s_per_step": all_cpu / steps,
        "peak_rss_mib": peak_rss_mib(),
    });
    println!("{line}");
    Ok(())
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut options = Options {
        model: "resnet20".to_owned(),
        numerics: "exact".to_owned(),
        threads: 1,
        steps: 10,
        warmup: 2,
        batch: 128,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(option) = arguments.next() {
        let value = arguments.next().ok_or("an option lacks its value")?;
        match option.as_str() {
            "--model" => options.model = value,
            "--numerics" => options.numerics = value,
            "--threads" => options.threads = value.parse()?,
            "--steps" => options.steps = value.parse()?,
            "--warmup" => options.warmup = value.parse()?,
            "--batch" => options.batch = value.parse()?,
            _ => return Err(format!("there is no option {option}").into()),
        }
    }
    Ok(options)
}
