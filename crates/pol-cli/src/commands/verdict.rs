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
        output::field("commitment", text("commitment"));
        print_basis(&found);
        for field in ["backend", "device"] {
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
        print_odds(&found);
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

/// What the verdict rests on, as far as its verifier's program said.
fn print_basis(found: &Value) {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let recipes = &found["recipes"];
    let (claimed, expected) = (&recipes["claimed"], &recipes["expected"]);
    let held = match expected.is_object() {
        false => "as the proof claims, held to no other",
        true if expected["digest"] == claimed["digest"] => "as the verifier expects",
        true => "as the proof claims; the verifier expects another",
    };
    if let (Some(what), Some(digest)) = (text(&claimed["description"]), text(&claimed["digest"])) {
        output::field("recipe", format!("{what}, {held} (digest {digest})"));
    }
    for (label, value) in [
        ("data", &found["data"]),
        ("policy", &found["policy"]),
        ("", &found["policy_digest"]),
        ("comparison", &found["comparison"]["kind"]),
        ("start", &found["start"]),
        ("randomness", &found["randomness_from"]),
    ] {
        output::field(label, text(value).unwrap_or_else(|| "–".to_owned()));
    }
    for prior in found["chain"].as_array().into_iter().flatten() {
        output::field("starts from", text(prior).unwrap_or_else(|| "–".to_owned()));
    }
}

/// What the audit is worth against a forger.
fn print_odds(found: &Value) {
    let odds = [
        ("catches_one_segment", "one forged segment"),
        ("catches_1_percent", "1 % of the segments"),
        ("catches_10_percent", "10 %"),
    ];
    let stated = odds.into_iter().filter_map(|(key, forged)| {
        let probability = found[key].as_f64()?;
        Some(format!("{forged} with probability {probability:.3}"))
    });
    let stated: Vec<String> = stated.collect();
    if !stated.is_empty() {
        output::field("meets", stated.join(", "));
    }
    let bridge = &found["bridge"];
    if let (Some(segments), Some(probability)) =
        (bridge["segments"].as_u64(), bridge["probability"].as_f64())
    {
        output::field(
            "",
            format!(
                "the whole way, {segments} segments at least, with probability {probability:.3}"
            ),
        );
    }
}
