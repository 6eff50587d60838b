//! `pol doctor`.

use pol_core::adapter::Backend;
use serde::Serialize;

use crate::args::DoctorArgs;
use crate::backend::{Found, probe, probe_here};
use crate::error::{CliError, Exit};
use crate::output;

#[derive(Serialize)]
struct Doctor {
    schema: &'static str,
    version: &'static str,
    threads: usize,
    backends: Vec<Found>,
}

pub(crate) fn run(args: &DoctorArgs) -> Result<Exit, CliError> {
    if let Some(backend) = args.probe {
        output::json(&probe_here(backend))?;
        return Ok(Exit::Done);
    }
    let doctor = Doctor {
        schema: "pol.doctor/1",
        version: env!("CARGO_PKG_VERSION"),
        threads: rayon::current_num_threads(),
        backends: Backend::ALL.into_iter().map(probe).collect(),
    };
    if args.json {
        output::json(&doctor)?;
        return Ok(Exit::Done);
    }
    output::line(format!(
        "pol {}, {} threads",
        doctor.version, doctor.threads
    ));
    output::line("backend  compiled  present  deterministic  device");
    for found in &doctor.backends {
        let yes = |is: bool| if is { "yes" } else { "no" };
        let note = found.device.as_ref().or(found.problem.as_ref());
        output::line(output::clean(&format!(
            "{:<8} {:<9} {:<8} {:<14} {}",
            found.name,
            yes(found.compiled),
            yes(found.present),
            yes(found.deterministic),
            note.map_or("", String::as_str)
        )));
    }
    Ok(Exit::Done)
}
