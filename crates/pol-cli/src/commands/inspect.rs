//! `pol inspect`: what a proof claims.

use std::path::Path;

use pol_core::manifest::{Manifest, Start};
use pol_core::verify::read_claim;
use serde::Serialize;

use crate::args::InspectArgs;
use crate::error::{CliError, Exit};
use crate::output;

use super::{attestations, existing_store};

#[derive(Serialize)]
struct Inspection<'a> {
    schema: &'static str,
    commitment: String,
    proof_bytes: u64,
    #[serde(flatten)]
    manifest: &'a Manifest,
}

/// What a proof claims, as `pol inspect --json` prints it.
pub(super) fn as_json(run: &Path) -> Result<String, CliError> {
    let store = existing_store(run)?;
    let manifest =
        read_claim(store.as_ref())?.map_err(|reason| CliError::Malformed(reason.to_string()))?;
    let inspection = Inspection {
        schema: "pol.inspect/2",
        commitment: manifest.claim.commitment().to_string(),
        proof_bytes: store.size()?,
        manifest: &manifest,
    };
    serde_json::to_string(&inspection).map_err(|error| CliError::Environment(error.to_string()))
}

pub(crate) fn run(args: &InspectArgs) -> Result<Exit, CliError> {
    let store = existing_store(&args.run)?;
    let manifest = match read_claim(store.as_ref())? {
        Ok(manifest) => manifest,
        Err(reason) => {
            output::note(format!("{}: {reason}", args.run.display()));
            return Ok(Exit::Rejected);
        }
    };
    let commitment = manifest.claim.commitment().to_string();
    let proof_bytes = store.size()?;
    if args.json {
        output::json(&Inspection {
            schema: "pol.inspect/2",
            commitment,
            proof_bytes,
            manifest: &manifest,
        })?;
        return Ok(Exit::Done);
    }
    let claim = &manifest.claim;
    let terms = &claim.terms;
    output::line("These are the proof's own claims; `pol verify` checks them.");
    output::field("commitment", commitment);
    output::field("format", &terms.format);
    output::field("network", terms.recipe.model.to_string());
    output::field("data", terms.recipe.data.to_string());
    output::field(
        "data root",
        format!(
            "{} ({} records{})",
            terms.data.root,
            terms.data.records,
            if terms.data.salted { ", salted" } else { "" }
        ),
    );
    output::field("optimizer", terms.recipe.optimizer.to_string());
    output::field("rate", terms.recipe.learning_rate.to_string());
    output::field("numerics", terms.recipe.numerics.to_string());
    output::field(
        "length",
        format!(
            "{} steps of {} records",
            terms.recipe.steps, terms.recipe.batch_size
        ),
    );
    output::field(
        "checkpoints",
        format!("{}, one every {} steps", claim.checkpoints, terms.interval),
    );
    output::field(
        "seed",
        format!("{} (from nonce {})", terms.seed.digest(), terms.nonce),
    );
    output::field("model", format!("{} (root of its tensors)", claim.model));
    output::field(
        "prover",
        match &terms.key {
            None => "no key".to_owned(),
            Some(key) => format!("the key {key}"),
        },
    );
    output::field(
        "start",
        match terms.start {
            Start::Derived => "derived from the seed".to_owned(),
            Start::Claimed => "claimed to be freshly drawn".to_owned(),
            Start::Prior { commitment } => format!("the final model of {commitment}"),
        },
    );
    let attestations = attestations::read(store.as_ref())?;
    if !attestations.is_empty() {
        let names: Vec<_> = attestations
            .iter()
            .map(|found| found.name.as_str())
            .collect();
        output::field("attested", names.join(", "));
    }
    output::field("proof", output::bytes(proof_bytes));
    Ok(Exit::Done)
}
