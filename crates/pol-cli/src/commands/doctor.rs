//! `pol doctor`.

mod thorough;

use pol_core::adapter::Backend;
use pol_exact::simd::Isa;
use serde::Serialize;

use crate::args::DoctorArgs;
use crate::backend::{Found, probe_all, probe_here};
use crate::child;
use crate::error::{CliError, Exit};
use crate::output;
use thorough::Thorough;

#[derive(Serialize)]
struct Doctor {
    schema: &'static str,
    version: &'static str,
    threads: usize,
    /// The instruction set of the exact kernels on the CPU.
    exact_instructions: String,
    backends: Vec<Found>,
    /// With --thorough.
    #[serde(skip_serializing_if = "Option::is_none")]
    thorough: Option<Thorough>,
}

pub(crate) fn run(args: &DoctorArgs) -> Result<Exit, CliError> {
    if args.probe.is_some() {
        child::end_with_parent();
    }
    if let (Some(backend), Some(model), Some(into)) = (args.probe, args.train, &args.into) {
        thorough::train_here(args, backend, model, into)?;
        return Ok(Exit::Done);
    }
    if let Some(backend) = args.probe {
        output::json(&probe_here(backend, args.numerics))?;
        return Ok(Exit::Done);
    }
    // Before anything that takes long.
    let folder = match args.thorough {
        true => Some(place()?),
        false => None,
    };
    let mut doctor = Doctor {
        schema: "pol.doctor/1",
        version: env!("CARGO_PKG_VERSION"),
        threads: rayon::current_num_threads(),
        exact_instructions: Isa::chosen()
            .map_err(|error| CliError::Usage(format!("{}: {error}", Isa::VARIABLE)))?
            .to_string(),
        backends: Backend::ALL.into_iter().map(probe_all).collect(),
        thorough: None,
    };
    if !args.json {
        print(&doctor);
    }
    if let Some(folder) = &folder {
        let compared = thorough::run(args, &doctor.backends, folder.path())?;
        if !args.json {
            thorough::print(&compared);
        }
        doctor.thorough = Some(compared);
    }
    if args.json {
        output::json(&doctor)?;
    }
    let disagree = (doctor.thorough).is_some_and(|thorough| thorough.agree == Some(false));
    Ok(match disagree {
        true => Exit::Environment,
        false => Exit::Done,
    })
}

/// A folder for the trainings, that is gone afterwards, also if it is Ctrl-C that ends them.
fn place() -> Result<tempfile::TempDir, CliError> {
    let failed = |error: &dyn std::fmt::Display| {
        CliError::Environment(format!(
            "no folder for the trainings ({error}); TMPDIR names where one may be made"
        ))
    };
    let folder = tempfile::tempdir().map_err(|error| failed(&error))?;
    let path = folder.path().to_owned();
    ctrlc::set_handler(move || {
        let _ = std::fs::remove_dir_all(&path);
        std::process::exit(130);
    })
    .map_err(|error| failed(&error))?;
    Ok(folder)
}

fn print(doctor: &Doctor) {
    output::line(format!(
        "pol {}, {} threads, exact kernels on the CPU with {}",
        doctor.version, doctor.threads, doctor.exact_instructions
    ));
    output::line("backend  compiled  present  deterministic  exact              device");
    for found in &doctor.backends {
        let yes = |is: bool| if is { "yes" } else { "no" };
        let passed: Vec<_> = (found.exact.iter())
            .filter(|exact| exact.passed)
            .map(|exact| exact.profile.as_str())
            .collect();
        let note = found.device.as_ref().or(found.problem.as_ref());
        output::line(output::clean(&format!(
            "{:<8} {:<9} {:<8} {:<14} {:<18} {}",
            found.name,
            yes(found.compiled),
            yes(found.present),
            yes(found.deterministic),
            if passed.is_empty() {
                "no".to_owned()
            } else {
                passed.join(" ")
            },
            note.map_or("", String::as_str)
        )));
        if let (Some(_), Some(problem)) = (&found.device, &found.problem) {
            output::line(output::clean(&format!("         not stock: {problem}")));
        }
        let failed = found.exact.iter().filter(|exact| !exact.passed);
        for (profile, problem) in failed.filter_map(|e| Some((&e.profile, e.problem.as_ref()?))) {
            output::line(output::clean(&format!("         not {profile}: {problem}")));
        }
    }
}
