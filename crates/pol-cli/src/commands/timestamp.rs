//! `pol timestamp`, and stamping while a training runs.

use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use pol_core::digest::Digest;
use pol_core::journal::Head;
use pol_core::verify::read_claim;
use pol_evidence::timestamp::{self, MAX_TOKEN};

use crate::args::TimestampArgs;
use crate::error::{CliError, Exit, at};
use crate::output;

use super::{attestations, existing_folder, read_file};

/// How long an authority may take.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn run(args: &TimestampArgs) -> Result<Exit, CliError> {
    let store = existing_folder(&args.run)?;
    let manifest =
        read_claim(&store)?.map_err(|reason| CliError::Environment(reason.to_string()))?;
    let commitment = manifest.claim.commitment();
    if let Some(file) = &args.request {
        std::fs::write(file, timestamp::request(&commitment, nonce()?)).map_err(at(file))?;
        output::field("request", file.display().to_string());
        return Ok(Exit::Done);
    }
    let answer = match (&args.answer, &args.authority) {
        (Some(file), _) => {
            let answer = read_file(file, MAX_TOKEN)?;
            timestamp::check_digest(&answer, &commitment)?;
            answer
        }
        (None, Some(authority)) => ask(authority, &commitment)?,
        (None, None) => return Err(CliError::Usage("--authority is missing".to_owned())),
    };
    attestations::write(&args.run, attestations::COMMITMENT_TOKEN, &answer)?;
    output::field("timestamped", commitment.to_string());
    Ok(Exit::Done)
}

/// An authority's answer, which is of this digest and of this request. Whether the authority is to
/// be trusted is for a verifier to decide.
pub(crate) fn ask(authority: &str, digest: &Digest) -> Result<Vec<u8>, CliError> {
    let failed = |error: ureq::Error| {
        CliError::Environment(format!(
            "the authority at {authority} does not answer: {error}"
        ))
    };
    let request = timestamp::request(digest, nonce()?);
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .build()
        .new_agent();
    let mut response = agent
        .post(authority)
        .header("Content-Type", "application/timestamp-query")
        .send(&request[..])
        .map_err(failed)?;
    let body = response.body_mut().with_config().limit(MAX_TOKEN);
    let answer = body.read_to_vec().map_err(failed)?;
    timestamp::check_answer(&request, &answer)?;
    Ok(answer)
}

fn nonce() -> Result<u64, CliError> {
    getrandom::u64().map_err(|error| CliError::Environment(error.to_string()))
}

/// Has every `every`-th head of a journal stamped, as long as heads come. An authority that fails
/// is noted, and the training goes on.
pub(crate) fn stamp_heads(heads: &Receiver<Head>, every: u64, authority: &str, run: &Path) {
    for head in heads {
        if !head.checkpoints.is_multiple_of(every.max(1)) {
            continue;
        }
        let stamped = ask(authority, &head.digest).and_then(|answer| {
            attestations::write(run, &attestations::journal_token(head.checkpoints), &answer)
        });
        if let Err(error) = stamped {
            output::note(format!(
                "checkpoint {} is not timestamped: {error}",
                head.checkpoints
            ));
        }
    }
}

/// The certificates in these files.
pub(crate) fn roots(files: &[PathBuf]) -> Result<timestamp::Roots, CliError> {
    let mut roots = timestamp::Roots::default();
    for file in files {
        let text = std::fs::read_to_string(file).map_err(at(file))?;
        roots.extend(timestamp::Roots::parse(&text)?);
    }
    Ok(roots)
}
