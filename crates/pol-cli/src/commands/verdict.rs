//! `pol verdict`: a signed verdict, checked and shown.

use pol_core::verify::Verdict;
use pol_evidence::dsse::MAX_ENVELOPE;
use pol_evidence::verdict;
use serde_json::Value;

use crate::args::VerdictArgs;
use crate::error::{CliError, Exit};
use crate::output;

use super::{commitment, keys, read_file};

pub(crate) fn run(args: &VerdictArgs) -> Result<Exit, CliError> {
    let trusted = keys::trusted(&args.trust)?;
    let expected = args.commitment.as_ref().map(commitment).transpose()?;
    let text = read_file(&args.file, MAX_ENVELOPE as u64)?;
    let (found, signer): (Value, _) = verdict::verify(&text, expected, &trusted)
        .map_err(|error| CliError::Malformed(format!("{}: {error}", args.file.display())))?;
    if args.json {
        output::json(&found)?;
    } else {
        let text = |field: &str| match &found[field] {
            Value::String(text) => text.clone(),
            Value::Null => "–".to_owned(),
            other => other.to_string(),
        };
        output::field("signed by", signer.prover_key().to_string());
        for field in ["commitment", "policy", "backend", "device"] {
            output::field(field, text(field));
        }
        output::field(
            "replayed",
            format!(
                "{} of {} segments",
                text("segments_selected"),
                text("segments_total")
            ),
        );
        for reason in found["reasons"].as_array().into_iter().flatten() {
            output::field("reason", reason.as_str().unwrap_or("–"));
        }
        output::field("verdict", text("verdict"));
    }
    Ok(match found["verdict"].as_str() {
        Some("accepted") => Verdict::Accepted.into(),
        Some("rejected") => Verdict::Rejected.into(),
        _ => Verdict::Inconclusive.into(),
    })
}
