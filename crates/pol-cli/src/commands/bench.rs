//! `pol bench`.

use pol_core::adapter::Backend;
use pol_core::recipe::{Numerics, Profile, Recipe};
use pol_exact::simd::Isa;
use pol_experiments::{NOISE_RECORDS, StepTimes, bench};
use pol_models::model::ModelSpec;
use pol_models::recipe_file::Named;
use pol_models::{RecipeMismatch, dataset_of};
use serde::{Deserialize, Serialize};

use crate::args::BenchArgs;
use crate::backend::{self, Opened, Opening};
use crate::child;
use crate::commands::{once_each, recipe_file};
use crate::error::{CliError, Exit};
use crate::output;

#[derive(Serialize)]
struct Bench {
    schema: &'static str,
    version: &'static str,
    model: String,
    dataset: String,
    warmup: u64,
    threads: usize,
    /// The instruction set of the exact kernels on the CPU.
    exact_instructions: String,
    runs: Vec<Run>,
}

/// One combination of backend and numerics.
#[derive(Debug, Serialize, Deserialize)]
struct Run {
    backend: String,
    device: Option<String>,
    numerics: String,
    /// What was measured; or the problem.
    #[serde(flatten)]
    times: Option<StepTimes>,
    problem: Option<String>,
}

/// What is timed where no numerics are asked for, as far as a device may run them.
const USUAL: [Numerics; 3] = [
    Numerics::Exact(Profile::UnfusedV2),
    Numerics::Exact(Profile::FmaV2),
    Numerics::Stock,
];

pub(crate) fn run(args: &BenchArgs) -> Result<Exit, CliError> {
    let usual = args.numerics.is_empty();
    let numerics = match usual {
        true => USUAL.to_vec(),
        false => once_each(&args.numerics),
    };
    let recipes: Vec<Recipe> = numerics
        .iter()
        .map(|numerics| recipe(args, *numerics))
        .collect::<Result<_, _>>()?;
    if args.here {
        let (Some(backend), Some(recipe)) = (args.backend.first(), recipes.first()) else {
            return Err(CliError::Usage("--here times one combination".to_owned()));
        };
        child::end_with_parent();
        return here(args, *backend, recipe);
    }
    let backends = once_each(&args.backend);
    for &missing in backends.iter().filter(|backend| !backend.is_compiled()) {
        // Started by cargo, the build that has it takes over; else its rows say what is missing.
        if let Ok(Opening::Delegated(exit)) = backend::open_named(missing, Numerics::Stock) {
            return Ok(exit);
        }
    }
    let (model, dataset) = match recipes.first() {
        Some(recipe) => (recipe.model.name.clone(), recipe.data.name.clone()),
        None => return Err(CliError::Usage("--numerics names none".to_owned())),
    };
    let mut found = Bench {
        schema: "pol.bench/1",
        version: env!("CARGO_PKG_VERSION"),
        model,
        dataset,
        warmup: args.warmup,
        threads: rayon::current_num_threads(),
        exact_instructions: Isa::chosen()
            .map_err(|error| CliError::Usage(format!("{}: {error}", Isa::VARIABLE)))?
            .to_string(),
        runs: Vec::new(),
    };
    if !args.json {
        output::line(format!(
            "{} on {}, steps: {} after {} to warm up; threads: {}, exact kernels on the CPU with {}",
            found.model,
            found.dataset,
            args.steps,
            args.warmup,
            found.threads,
            found.exact_instructions
        ));
        output::line(
            "backend  numerics          ms a step     least–most   CPU ms  records/s  launches  \
             sent kB  device MiB  peak MiB",
        );
    }
    for &backend in &backends {
        for &numerics in &numerics {
            output::progress_note(&format!("{backend}, {numerics}"));
            let run = child(args, backend, numerics);
            let unfit = |problem: &String| problem.contains(backend::MAY_NOT_RUN);
            if usual && run.problem.as_ref().is_some_and(unfit) {
                output::note(run.problem.unwrap_or_default());
                continue;
            }
            if !args.json {
                print(&run);
            }
            found.runs.push(run);
        }
    }
    let failed = found.runs.iter().any(|run| run.problem.is_some());
    if args.json {
        output::json(&found)?;
    }
    Ok(if failed {
        Exit::Environment
    } else {
        Exit::Done
    })
}

/// The recipe to time, with these numerics.
fn recipe(args: &BenchArgs, numerics: Numerics) -> Result<Recipe, CliError> {
    let mut file = recipe_file(&args.recipe)?;
    if let Some(model) = args.model.as_deref().filter(|m| *m != file.model.name) {
        file.model = Named::new(model);
    }
    file.batch_size = args.batch_size.unwrap_or(file.batch_size);
    (file.epochs, file.steps) = (None, Some(args.warmup + args.steps));
    // A rate costs the same whatever it is, and its warm-up may be longer than what is timed.
    file.learning_rate.warmup_epochs = 0.0;
    file.numerics = numerics;
    let recipe = file.resolve(NOISE_RECORDS.max(file.batch_size))?;
    // A slip is the user's, whatever the device: found before anything is begun.
    fits(&recipe)?;
    Ok(recipe)
}

/// Whether there are such a model and such images, and the one is for the other.
fn fits(recipe: &Recipe) -> Result<(), RecipeMismatch> {
    let (name, image) = (&recipe.model.name, dataset_of(recipe)?.image());
    let spec = ModelSpec::of(&recipe.model)?;
    spec.check(name, image)?;
    Ok(spec.check_batch(name, image, recipe.batch_size)?)
}

/// Times one combination in this process and prints what was measured.
fn here(args: &BenchArgs, backend: Backend, recipe: &Recipe) -> Result<Exit, CliError> {
    let opened = match args.unprobed {
        true => Opened {
            device: backend.device()?,
            name: backend.device_name()?,
        },
        false => match backend::open_named(backend, recipe.numerics)? {
            Opening::Ready(opened) => opened,
            Opening::Delegated(exit) => return Ok(exit),
        },
    };
    let times = bench(recipe, &opened.device, (args.warmup, args.steps))?;
    output::json(&Run {
        backend: backend.name().to_owned(),
        device: Some(opened.name),
        numerics: recipe.numerics.to_string(),
        times: Some(times),
        problem: None,
    })?;
    Ok(Exit::Done)
}

/// Times one combination in a process of its own.
fn child(args: &BenchArgs, backend: Backend, numerics: Numerics) -> Run {
    let mut arguments = vec!["bench".to_owned(), "--here".to_owned()];
    let mut give = |option: &str, value: Option<String>| {
        arguments.extend(
            value
                .into_iter()
                .flat_map(|value| [option.to_owned(), value]),
        );
    };
    give("--recipe", Some(args.recipe.clone()));
    give("--backend", Some(backend.name().to_owned()));
    give("--numerics", Some(numerics.to_string()));
    give("--steps", Some(args.steps.to_string()));
    give("--warmup", Some(args.warmup.to_string()));
    give("--model", args.model.clone());
    give("--batch-size", args.batch_size.map(|size| size.to_string()));
    give("--threads", args.threads.map(|threads| threads.to_string()));
    arguments.extend(args.unprobed.then(|| "--unprobed".to_owned()));
    // As long as it takes: a million steps are what may be asked for.
    child::ask(arguments, None).unwrap_or_else(|error| Run {
        backend: backend.name().to_owned(),
        device: None,
        numerics: numerics.to_string(),
        times: None,
        problem: Some(error.to_string()),
    })
}

fn print(run: &Run) {
    let Some(times) = &run.times else {
        let problem = run.problem.as_deref().unwrap_or("not measured");
        let line = format!("{:<8} {:<16} {problem}", run.backend, run.numerics);
        return output::line(output::clean(&line));
    };
    let ms = |seconds: f64| seconds * 1e3;
    let mib = |bytes: Option<u64>| match bytes {
        Some(bytes) => format!("{:.0}", bytes as f64 / f64::from(1 << 20)),
        None => "–".to_owned(),
    };
    let range = format!("{:.2}–{:.2}", ms(times.least_step_s), ms(times.most_step_s));
    output::line(format!(
        "{:<8} {:<16} {:>10.2} {range:>14} {:>8.2} {:>10.0} {:>9.0} {:>8.0} {:>11} {:>9}",
        run.backend,
        run.numerics,
        ms(times.median_step_s),
        ms(times.median_step_cpu_s),
        times.records_per_s,
        times.launches_per_step,
        times.uploaded_bytes_per_step as f64 / 1e3,
        mib(times.device_bytes),
        mib(times.peak_rss_bytes),
    ));
}
