//! `pol doctor --thorough`: the same few steps on every backend, compared.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use burn::tensor::Device;
use pol_core::adapter::Backend;
use pol_core::recipe::{Numerics, Profile, Recipe};
use pol_experiments::{NOISE_RECORDS, reproduction_error, train_few};
use pol_models::recipe_file::RecipeFile;
use serde::{Deserialize, Serialize};

use crate::args::{DoctorArgs, DoctorModel};
use crate::backend::Found;
use crate::child;
use crate::commands::once_each;
use crate::error::CliError;
use crate::output;

/// How long one training may take. Drivers compile kernels on first use, and llvmpipe is slow.
const LIMIT: Duration = Duration::from_secs(600);

/// What was compared.
#[derive(Debug, Serialize)]
pub(super) struct Thorough {
    /// Of each training.
    steps: u64,
    trainings: Vec<Compared>,
    /// Whether all that must be equal is, and every training came to its end. Nothing, where none was
    /// compared with another.
    pub(super) agree: Option<bool>,
}

/// A model and numerics, on every backend that may run them.
#[derive(Debug, Serialize)]
struct Compared {
    model: &'static str,
    numerics: String,
    runs: Vec<Trained>,
    /// For exact numerics on more than one backend: whether all commitments are the same.
    equal: Option<bool>,
    /// For stock numerics: ε over movement (l2) of each two backends.
    errors: Vec<Apart>,
}

#[derive(Debug, Serialize)]
struct Trained {
    backend: &'static str,
    commitment: Option<String>,
    seconds: f64,
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct Apart {
    backends: [&'static str; 2],
    error: Option<f64>,
}

/// What a child prints.
#[derive(Serialize, Deserialize)]
struct Answer {
    commitment: Option<String>,
    problem: Option<String>,
}

impl Compared {
    fn failed(&self) -> bool {
        self.runs.iter().any(|run| run.problem.is_some())
    }
}

impl DoctorModel {
    const fn name(self) -> &'static str {
        match self {
            Self::Lenet5 => "lenet5",
            Self::Mlp => "mlp",
            Self::Resnet20 => "resnet20",
        }
    }

    fn recipe(self, numerics: Numerics, steps: u64) -> Result<Recipe, CliError> {
        let (shipped, batch_size) = match self {
            Self::Lenet5 => ("digits-lenet", 32),
            Self::Mlp => ("digits-mlp", 32),
            Self::Resnet20 => ("cifar10-resnet20", 16),
        };
        let mut file = RecipeFile::shipped(shipped)
            .ok_or_else(|| CliError::Usage(format!("there is no recipe `{shipped}`")))?;
        file.batch_size = batch_size;
        (file.epochs, file.steps) = (None, Some(steps));
        file.numerics = numerics;
        Ok(file.resolve(NOISE_RECORDS)?)
    }
}

/// Trains in this process; what `--probe --train` is for.
pub(super) fn train_here(
    args: &DoctorArgs,
    backend: Backend,
    model: DoctorModel,
    into: &Path,
) -> Result<(), CliError> {
    let trained = backend
        .device()
        .map_err(CliError::from)
        .and_then(|device: Device| {
            let recipe = model.recipe(args.numerics, args.steps)?;
            Ok(train_few(&recipe, &device, into)?)
        });
    output::json(&match trained {
        Ok(commitment) => Answer {
            commitment: Some(commitment.to_string()),
            problem: None,
        },
        Err(error) => Answer {
            commitment: None,
            problem: Some(error.to_string()),
        },
    })
}

/// Trains every model on every backend that is present, each in a process of its own, and compares.
pub(super) fn run(args: &DoctorArgs, found: &[Found], folder: &Path) -> Result<Thorough, CliError> {
    let mut trainings = Vec::new();
    let numerics = [
        Numerics::Exact(Profile::UnfusedV2),
        Numerics::Exact(Profile::FmaV2),
        Numerics::Stock,
    ];
    for model in once_each(&args.models) {
        for numerics in numerics {
            let able = Backend::ALL
                .into_iter()
                .zip(found)
                .filter(|(_, found)| may_run(found, numerics));
            let mut runs = Vec::new();
            let mut folders = Vec::new();
            for (backend, _) in able {
                let into = folder.join(format!("{}-{}", trainings.len(), backend.name()));
                output::progress_note(&format!("{}, {numerics}, {backend}", model.name()));
                runs.push(trained(args, backend, numerics, model, &into));
                folders.push(into);
            }
            trainings.push(compare(model, numerics, runs, &folders));
        }
    }
    let compared = |of: &Compared| of.runs.len() > 1 || of.failed();
    let agree = trainings.iter().any(compared).then(|| {
        let fine = |of: &Compared| !of.failed() && of.equal != Some(false);
        trainings.iter().all(fine)
    });
    Ok(Thorough {
        steps: args.steps,
        trainings,
        agree,
    })
}

fn may_run(found: &Found, numerics: Numerics) -> bool {
    match numerics {
        Numerics::Stock => found.present,
        Numerics::Exact(_) => {
            let name = numerics.to_string();
            let profiles = found.exact.iter().filter(|exact| exact.passed);
            profiles
                .map(|exact| format!("exact/{}", exact.profile))
                .any(|of| of == name)
        }
    }
}

fn compare(
    model: DoctorModel,
    numerics: Numerics,
    runs: Vec<Trained>,
    folders: &[PathBuf],
) -> Compared {
    let commitments: Vec<_> = runs
        .iter()
        .filter_map(|run| run.commitment.as_ref())
        .collect();
    let comparable = numerics.is_exact() && commitments.len() > 1;
    let equal = comparable.then(|| commitments.windows(2).all(|pair| pair[0] == pair[1]));
    let mut errors = Vec::new();
    if !numerics.is_exact() {
        for (i, first) in runs.iter().enumerate() {
            for (j, second) in runs.iter().enumerate().skip(i + 1) {
                errors.push(Apart {
                    backends: [first.backend, second.backend],
                    error: reproduction_error(&folders[i], &folders[j]).ok(),
                });
            }
        }
    }
    Compared {
        model: model.name(),
        numerics: numerics.to_string(),
        runs,
        equal,
        errors,
    }
}

/// One training, in a process of its own: a driver that falls over takes nothing else with it.
fn trained(
    args: &DoctorArgs,
    backend: Backend,
    numerics: Numerics,
    model: DoctorModel,
    into: &Path,
) -> Trained {
    let started = Instant::now();
    let (numerics, steps) = (numerics.to_string(), args.steps.to_string());
    let options = [
        ["--probe", backend.name()],
        ["--numerics", &numerics],
        ["--train", model.name()],
        ["--steps", &steps],
    ];
    let mut arguments = vec![OsStr::new("doctor"), OsStr::new("--thorough")];
    arguments.extend(options.iter().flatten().map(OsStr::new));
    arguments.extend([OsStr::new("--into"), into.as_os_str()]);
    let answer = child::ask(arguments, Some(LIMIT)).unwrap_or_else(|error| Answer {
        commitment: None,
        problem: Some(error.to_string()),
    });
    Trained {
        backend: backend.name(),
        commitment: answer.commitment,
        seconds: started.elapsed().as_secs_f64(),
        problem: answer.problem,
    }
}

/// Prints what was compared as a matrix: a row for each training, a column for each backend.
pub(super) fn print(thorough: &Thorough) {
    output::line("");
    output::line(format!(
        "the same {} steps on each; exact: the commitment, stock: how far from `{}`, over how far it moved",
        thorough.steps,
        Backend::Flex
    ));
    let mut backends: Vec<&str> = Vec::new();
    for run in thorough
        .trainings
        .iter()
        .flat_map(|compared| &compared.runs)
    {
        if !backends.contains(&run.backend) {
            backends.push(run.backend);
        }
    }
    let columns: String = backends.iter().map(|name| format!(" {name:<14}")).collect();
    output::line(format!("{:<9} {:<17}{columns} agree", "model", "numerics"));
    for compared in &thorough.trainings {
        let cell = |backend: &&str| {
            let run = compared.runs.iter().find(|run| run.backend == *backend);
            let text = match run {
                None => "–".to_owned(),
                Some(Trained {
                    problem: Some(_), ..
                }) => "failed".to_owned(),
                Some(run) if compared.errors.is_empty() && compared.numerics != "stock" => {
                    let commitment = run.commitment.as_deref().unwrap_or("–");
                    commitment.chars().take(12).collect()
                }
                Some(run) => from_first(compared, run.backend),
            };
            format!(" {text:<14}")
        };
        let cells: String = backends.iter().map(cell).collect();
        let agree = match compared.equal {
            Some(true) => "yes",
            Some(false) => "NO",
            _ => "",
        };
        output::line(format!(
            "{:<9} {:<17}{cells} {agree}",
            compared.model, compared.numerics
        ));
    }
    for compared in &thorough.trainings {
        for run in &compared.runs {
            if let Some(problem) = &run.problem {
                output::line(output::clean(&format!(
                    "failed: {}, {}, {}: {problem}",
                    compared.model, compared.numerics, run.backend
                )));
            }
        }
    }
    let failed = thorough.trainings.iter().any(Compared::failed);
    output::line(match thorough.agree {
        None => "nothing to compare with: only one backend here may run them",
        Some(true) => "all that must be equal is",
        Some(false) if !failed => {
            "NOT all that must be equal is: exact proofs made here may not be accepted elsewhere"
        }
        Some(false) => "not all of it ran: see above",
    });
}

fn from_first(compared: &Compared, backend: &str) -> String {
    let first = compared.runs.first().map_or("", |run| run.backend);
    let apart = compared
        .errors
        .iter()
        .find(|apart| apart.backends == [first, backend]);
    match apart.and_then(|apart| apart.error) {
        Some(error) => format!("{error:.1e}"),
        None if backend == first => "0".to_owned(),
        None => "–".to_owned(),
    }
}
