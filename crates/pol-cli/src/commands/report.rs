//! `pol report`.

use std::io::Read;
use std::path::Path;

use clap::Parser;
use pol_core::store::Beside;
use pol_experiments::{ROWS, SUMMARY};
use pol_report::{Page, Run};

use crate::args::{Cli, Command, ReportArgs};
use crate::error::{CliError, Exit, at};
use crate::output;

use super::{existing_store, inspect, read_file, verify};

/// The longest file that a report is made from.
const MAX_BYTES: u64 = 256 << 20;

pub(crate) fn run(args: &ReportArgs) -> Result<Exit, CliError> {
    let is_experiment = args.subject.join(SUMMARY).is_file();
    if is_experiment && (args.verified.is_some() || !args.verify.is_empty()) {
        return Err(CliError::Usage(format!(
            "{} is an experiment; there is nothing to verify",
            args.subject.display()
        )));
    }
    let (page, exit) = match is_experiment {
        true => (experiment(&args.subject)?, Exit::Done),
        false => match proof(args)? {
            Proof::Judged(page, exit) => (*page, exit),
            Proof::Delegated(exit) => return Ok(exit),
        },
    };
    let html = pol_report::render(&page)?;
    std::fs::write(&args.output, &html).map_err(at(&args.output))?;
    output::field(
        "report",
        format!(
            "{} ({})",
            args.output.display(),
            output::bytes(html.len() as u64)
        ),
    );
    Ok(exit)
}

fn experiment(folder: &Path) -> Result<Page, CliError> {
    let summary = read_text(&folder.join(SUMMARY))?;
    let rows = read_text(&folder.join(ROWS))?;
    Ok(pol_report::experiment(&summary, &rows)?)
}

enum Proof {
    /// The page, and the exit code of the verdict.
    Judged(Box<Page>, Exit),
    /// Cargo ran a build that has the backend, and that wrote the page.
    Delegated(Exit),
}

fn proof(args: &ReportArgs) -> Result<Proof, CliError> {
    let (verified, exit) = match &args.verified {
        Some(file) if file == Path::new("-") => {
            let mut text = String::new();
            (std::io::stdin().take(MAX_BYTES).read_to_string(&mut text)).map_err(at("stdin"))?;
            (text, Exit::Done)
        }
        Some(file) => (read_text(file)?, Exit::Done),
        None => {
            let subject = args.subject.as_os_str().to_owned();
            let arguments = ["pol".into(), "verify".into(), subject].into_iter();
            let parsed = Cli::try_parse_from(arguments.chain(args.verify.iter().cloned()));
            let parsed = parsed.map_err(|error| CliError::Usage(error.to_string()))?;
            let Command::Verify(verify_args) = parsed.command else {
                return Err(CliError::Usage(
                    "what follows `--` is for pol verify".to_owned(),
                ));
            };
            match verify::verified(&verify_args)? {
                verify::Outcome::Judged(judged) => {
                    let text = serde_json::to_string(&judged)
                        .map_err(|error| CliError::Environment(error.to_string()))?;
                    (text, judged.exit())
                }
                verify::Outcome::Delegated(exit) => return Ok(Proof::Delegated(exit)),
            }
        }
    };
    // What the proof says of itself, and what was noted beside it, where that can be read.
    let inspected = inspect::as_json(&args.subject).ok();
    let store = existing_store(&args.subject)?;
    let metrics = |name| {
        let bytes = store.read_beside(Beside::Metrics, name).ok()?;
        String::from_utf8(bytes).ok()
    };
    let curve = metrics("curve.csv");
    let environment = metrics("environment.json");
    let name = args.subject.file_name().unwrap_or(args.subject.as_os_str());
    let page = pol_report::run(&Run {
        name: &name.to_string_lossy(),
        verified: &verified,
        inspected: inspected.as_deref(),
        curve: curve.as_deref(),
        environment: environment.as_deref(),
    })?;
    Ok(Proof::Judged(Box::new(page), exit))
}

fn read_text(path: &Path) -> Result<String, CliError> {
    let bytes = read_file(path, MAX_BYTES)?;
    String::from_utf8(bytes)
        .map_err(|_| CliError::Malformed(format!("{}: it is not text", path.display())))
}
