//! `pol doctor`.

use pol_core::adapter::Backend;
use pol_exact::simd::Isa;
use serde::Serialize;

use crate::args::DoctorArgs;
use crate::backend::{Found, probe_all, probe_here};
use crate::error::{CliError, Exit};
use crate::output;

#[derive(Serialize)]
struct Doctor {
    schema: &'static str,
    version: &'static str,
    threads: usize,
    /// The instruction set of the exact kernels on the CPU.
    exact_instructions: String,
    backends: Vec<Found>,
}

pub(crate) fn run(args: &DoctorArgs) -> Result<Exit, CliError> {
    if let Some(backend) = args.probe {
        output::json(&probe_here(backend, args.numerics))?;
        return Ok(Exit::Done);
    }
    let doctor = Doctor {
        schema: "pol.doctor/1",
        version: env!("CARGO_PKG_VERSION"),
        threads: rayon::current_num_threads(),
        exact_instructions: Isa::chosen()
            .map_err(|error| CliError::Usage(format!("{}: {error}", Isa::VARIABLE)))?
            .to_string(),
        backends: Backend::ALL.into_iter().map(probe_all).collect(),
    };
    if args.json {
        output::json(&doctor)?;
        return Ok(Exit::Done);
    }
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
        let failed = found.exact.iter().filter(|exact| !exact.passed);
        for (profile, problem) in failed.filter_map(|e| Some((&e.profile, e.problem.as_ref()?))) {
            output::line(output::clean(&format!("         not {profile}: {problem}")));
        }
    }
    Ok(Exit::Done)
}
