//! Opening a backend without falling over: Burn's device initialisation panics, or aborts, where
//! a driver is missing or broken, so a child process tries it first.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use burn::tensor::{Device, Tensor};
use pol_core::adapter::{Backend, BackendError, device_failure};
use pol_core::recipe::{Numerics, Profile};
use pol_models::layers::kernels;
use pol_models::{RecipeMismatch, probed};
use serde::{Deserialize, Serialize};

use crate::args::MachineArgs;
use crate::child::{self, ChildError};
use crate::error::{CliError, Exit};
use crate::output;

/// How long a child may take to open a device. Drivers compile shaders on first use.
const PROBE_LIMIT: Duration = Duration::from_secs(120);
/// What is said of a device that does not compute what exact numerics define.
pub(crate) const MAY_NOT_RUN: &str = "may not run";
/// Of each thread: what a program's first thread usually has.
const STACK: usize = 8 << 20;
/// More threads than this only wait for one another.
const MAX_THREADS: usize = 1024;
/// Set for the program that cargo was asked to run in our place.
const REBUILT: &str = "POL_REBUILT";

/// What a probe found; also a row of `pol doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) name: String,
    pub(crate) compiled: bool,
    pub(crate) present: bool,
    pub(crate) device: Option<String>,
    pub(crate) deterministic: bool,
    pub(crate) problem: Option<String>,
    /// Whether the problem is that the device computes otherwise than a profile defines.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub(crate) unfit: bool,
    /// Only in `pol doctor`: whether exact recipes may run here.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) exact: Vec<FoundExact>,
}

/// Whether a device computes what a numerics profile defines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FoundExact {
    pub(crate) profile: String,
    pub(crate) passed: bool,
    /// Why not.
    pub(crate) problem: Option<String>,
}

/// A backend ready for use.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) device: Device,
    pub(crate) name: String,
}

/// Either a device, or the end of this process: cargo ran a build that has the backend.
pub(crate) enum Opening {
    Ready(Opened),
    Delegated(Exit),
}

/// Does `work` on one of so many threads, those that kernels share their work between: a thread outside of them would
/// have to be woken for each operator.
pub(crate) fn in_pool<R: Send>(
    threads: Option<usize>,
    work: impl FnOnce() -> R + Send,
) -> Result<R, CliError> {
    if threads.is_some_and(|threads| !(1..=MAX_THREADS).contains(&threads)) {
        return Err(CliError::Usage(format!(
            "--threads must be from 1 to {MAX_THREADS}"
        )));
    }
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads.unwrap_or(0))
        .stack_size(STACK);
    match pool.build_global() {
        Ok(()) => Ok(rayon::scope(|_| work())),
        // Most commands do without.
        Err(_) if threads.is_none() => Ok(work()),
        Err(error) => Err(CliError::Environment(format!(
            "{} threads cannot be started: {error}",
            threads.unwrap_or(0)
        ))),
    }
}

/// Opens the backend that the user asked for, for recipes of these numerics.
pub(crate) fn open(machine: &MachineArgs, numerics: Numerics) -> Result<Opening, CliError> {
    open_named(machine.backend, numerics)
}

/// As [`open`], for a backend that was asked for elsewhere.
pub(crate) fn open_named(backend: Backend, numerics: Numerics) -> Result<Opening, CliError> {
    if !backend.is_compiled() {
        return match rerun_with_feature(backend)? {
            Some(exit) => Ok(Opening::Delegated(exit)),
            None => Err(BackendError::NotCompiled(backend).into()),
        };
    }
    let found = probe(backend, numerics);
    if !found.present {
        let problem = found.problem.unwrap_or_default();
        if found.unfit {
            return Err(CliError::Environment(format!(
                "the backend `{backend}` {MAY_NOT_RUN} {numerics} recipes on this machine \
                 ({problem}); `pol doctor` shows which may, `flex` always does, and recipes with \
                 `--numerics stock` run on any backend, within a tolerance"
            )));
        }
        // A device that was opened and fails says itself what to do.
        let remedy = match found.device {
            None => format!("; {}", backend.remedy()),
            Some(_) => String::new(),
        };
        return Err(CliError::Environment(format!(
            "the backend `{backend}` cannot be used on this machine ({problem}){remedy}"
        )));
    }
    Ok(Opening::Ready(Opened {
        device: backend.device()?,
        name: found.device.unwrap_or_default(),
    }))
}

/// Where this program was started by `cargo run`, runs the same command in a build that has
/// the backend.
fn rerun_with_feature(backend: Backend) -> Result<Option<Exit>, CliError> {
    let cargo = std::env::var_os("CARGO");
    let manifest = std::env::var_os("CARGO_MANIFEST_PATH");
    let (Some(cargo), Some(manifest)) = (cargo, manifest) else {
        return Ok(None);
    };
    let ours = Path::new(&manifest).ends_with("crates/pol-cli/Cargo.toml");
    if !ours || std::env::var_os(REBUILT).is_some() {
        return Ok(None);
    }
    let mut command = Command::new(cargo);
    command.args(["run", "-p", "pol-cli", "--features", backend.name()]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    command.arg("--manifest-path").arg(&manifest).arg("--");
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let shown: Vec<_> = arguments.iter().map(|a| a.to_string_lossy()).collect();
    output::note(format!(
        "this build has no `{backend}` backend; running the build that has it:\n      \
         cargo run -p pol-cli --features {backend} -- {}",
        shown.join(" ")
    ));
    let status = command
        .args(arguments)
        .env(REBUILT, "1")
        .status()
        .map_err(|error| CliError::Environment(format!("cargo could not be started: {error}")))?;
    Ok(Some(match status.code() {
        // What cargo itself ends with when a build fails.
        Some(101) | None => {
            output::note(format!("the build with `--features {backend}` failed"));
            Exit::Environment
        }
        Some(code) => Exit::Other(u8::try_from(code).unwrap_or(4)),
    }))
}

/// Tries a backend in a child process, with the kernels of these numerics.
pub(crate) fn probe(backend: Backend, numerics: Numerics) -> Found {
    if !backend.is_compiled() {
        return Found {
            present: false,
            device: None,
            problem: Some(format!("not compiled in; cargo feature `{backend}`")),
            ..bare(backend)
        };
    }
    if backend == Backend::Flex {
        return probe_here(backend, numerics);
    }
    match probe_child(backend, numerics) {
        Ok(found) => found,
        Err(problem) => Found {
            problem: Some(problem),
            ..bare(backend)
        },
    }
}

/// Tries a backend with stock kernels, and with those of every exact profile.
pub(crate) fn probe_all(backend: Backend) -> Found {
    let mut found = probe(backend, Numerics::Stock);
    if !found.compiled {
        return found;
    }
    for profile in [Profile::UnfusedV2, Profile::FmaV2] {
        let tried = probe(backend, Numerics::Exact(profile));
        // A driver that stock kernels crash may run exact ones.
        found.device = found.device.or_else(|| tried.device.clone());
        found.exact.push(FoundExact {
            profile: kernels(profile).to_string(),
            passed: tried.present,
            problem: tried.problem,
        });
    }
    found
}

/// Tries a backend in this process: opens its device, and multiplies two matrices or runs the probe
/// of a profile.
pub(crate) fn probe_here(backend: Backend, numerics: Numerics) -> Found {
    let mut unfit = false;
    let opened = backend.device().and_then(|device| {
        let name = backend.device_name()?;
        let problem = match numerics {
            Numerics::Stock => {
                let ones = Tensor::<2>::ones([8, 8], &device);
                let product = ones.clone().matmul(ones).try_into_data();
                // One value at a time, as the loss does: CUDA's library of such functions is apart.
                let power = Tensor::<1>::ones([3], &device).exp().try_into_data();
                (product.and(power).err()).map(|error| device_failure(&error).to_string())
            }
            Numerics::Exact(profile) => probed(&device, profile).err().map(|error| {
                unfit = matches!(error, RecipeMismatch::Probe(_));
                error.to_string()
            }),
        };
        Ok((name, problem))
    });
    match opened {
        Ok((name, problem)) => Found {
            present: problem.is_none(),
            device: Some(name),
            problem,
            unfit,
            ..bare(backend)
        },
        Err(error) => Found {
            problem: Some(match error {
                BackendError::Absent { .. } => {
                    (backend.refusal()).unwrap_or_else(|| "no device found".to_owned())
                }
                other => other.to_string(),
            }),
            ..bare(backend)
        },
    }
}

fn bare(backend: Backend) -> Found {
    Found {
        name: backend.name().to_owned(),
        compiled: backend.is_compiled(),
        present: false,
        device: None,
        deterministic: backend.is_deterministic(),
        problem: None,
        unfit: false,
        exact: Vec::new(),
    }
}

fn probe_child(backend: Backend, numerics: Numerics) -> Result<Found, String> {
    let numerics = numerics.to_string();
    let arguments = ["doctor", "--probe", backend.name(), "--numerics", &numerics];
    child::ask(arguments, Some(PROBE_LIMIT)).map_err(|error| match error {
        ChildError::Late(limit) => format!("its driver did not answer in {limit:?}"),
        ChildError::Signal => "its driver crashed when it was tried".to_owned(),
        ChildError::Said(said) => format!("opening it failed: {}", device_failure(&said)),
        begin @ ChildError::Begin(_) => begin.to_string(),
    })
}
