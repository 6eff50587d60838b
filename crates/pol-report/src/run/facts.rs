//! What is listed: the training, what a verdict rests on, environments, segments.

use serde_json::Value;

use super::{ROWS, list, number, percent, recipe, short, text};
use crate::page::{Cell, Fact, Section, Table, Tone};

pub(super) fn training(verified: &Value, claim: &Value) -> Section {
    let recipe = recipe(verified, claim);
    let terms = &claim["claim"]["terms"];
    let mut facts = Vec::new();
    if recipe.is_object() {
        let options = |value: &Value| {
            let name = text(value, "name");
            match value["options"].as_object().filter(|o| !o.is_empty()) {
                None => name,
                Some(options) => {
                    let options = options.iter().map(|(key, value)| format!("{key} {value}"));
                    format!("{name} ({})", options.collect::<Vec<_>>().join(", "))
                }
            }
        };
        facts.push(Fact::new("model", options(&recipe["model"])));
        facts.push(Fact::new("data", options(&recipe["data"])));
        facts.push(Fact::new("optimizer", flat(&recipe["optimizer"])));
        facts.push(Fact::new("learning rate", flat(&recipe["learning_rate"])));
        facts.push(Fact::new("batch size", text(recipe, "batch_size")));
        facts.push(Fact::new("steps", text(recipe, "steps")));
        facts.push(Fact::new("numerics", text(recipe, "numerics")));
    }
    if terms.is_object() {
        facts.push(Fact::new("interval k", text(terms, "interval")));
        facts.push(Fact::new("batches", text(terms, "batches")));
        facts.push(Fact::new("nonce", text(terms, "nonce")));
        facts.push(Fact::code("data root", text(&terms["data"], "root")));
        facts.push(Fact::new("records", text(&terms["data"], "records")));
        facts.push(Fact::code("seed", text(terms, "seed")));
    }
    Section {
        id: "training".to_owned(),
        heading: "What was trained".to_owned(),
        facts: facts.into_iter().filter(|f| !f.value.is_empty()).collect(),
        ..Section::default()
    }
}

/// Nested names and numbers in one line.
fn flat(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let parts = map.iter().map(|(key, value)| match value {
                Value::Object(inner) if inner.is_empty() => key.clone(),
                Value::Object(_) => format!("{key} ({})", flat(value)),
                other => format!("{key} {}", flat(other)),
            });
            parts.collect::<Vec<_>>().join(", ")
        }
        Value::Array(items) => items.iter().map(flat).collect::<Vec<_>>().join(" "),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Who and what the verdict rests on.
pub(super) fn trust(verified: &Value, claim: &Value) -> Section {
    let expected = &verified["expected"];
    let or = |value: String, otherwise: &str| match value.is_empty() {
        true => otherwise.to_owned(),
        false => value,
    };
    let mut facts = vec![
        Fact::code("commitment", text(verified, "commitment")),
        Fact::new("initial state", text(verified, "start")),
        Fact::new(
            "signed by",
            or(
                text(&verified["evidence"], "signed_by"),
                "nobody whom the verifier trusts",
            ),
        ),
    ];
    let key = text(&claim["claim"]["terms"], "key");
    facts.push(Fact::new("prover's key", or(key, "none")));
    for timestamp in list(&verified["evidence"], "timestamps") {
        let (of, seconds) = (text(timestamp, "of"), text(timestamp, "seconds"));
        facts.push(Fact::new(
            "timestamp",
            format!("{of}, {seconds} s after 1970"),
        ));
    }
    for prior in list(verified, "chain") {
        facts.push(Fact::code(
            "prior proof",
            prior.as_str().unwrap_or_default(),
        ));
    }
    for prior in list(verified, "priors") {
        let recipe = &prior["recipe"];
        let held = match prior["held_to"].is_null() {
            true => "its own claim",
            false => "held to the verifier's",
        };
        facts.push(Fact::new(
            "prior proof's recipe",
            format!(
                "{} on {}, {} steps: {held}",
                text(&recipe["model"], "name"),
                text(&recipe["data"], "name"),
                text(prior, "steps"),
            ),
        ));
    }
    for (key, label) in [
        ("recipe", "held to the recipe"),
        ("commitment", "held to the commitment"),
        ("data_root", "held to the data"),
        ("model", "held to the model"),
    ] {
        let digest = text(expected, key);
        facts.push(match digest.is_empty() {
            true => Fact::new(label, "no: the proof's own"),
            false => Fact::code(label, digest),
        });
    }
    facts.push(Fact::new("policy", text(verified, "policy")));
    facts.push(Fact::code(
        "the policy's digest",
        text(verified, "policy_digest"),
    ));
    let recipes = &verified["recipes"];
    for (label, recipe) in [
        ("recipe as claimed", &recipes["claimed"]),
        ("recipe as expected", &recipes["expected"]),
    ] {
        facts.push(Fact::new(label, text(recipe, "description")));
        facts.push(Fact::code("its digest", text(recipe, "digest")));
    }
    facts.push(Fact::new("data compared", text(verified, "data")));
    facts.push(Fact::new(
        "replays compared",
        text(&verified["comparison"], "kind"),
    ));
    facts.extend(odds(verified));
    facts.push(Fact::new(
        "randomness from",
        text(verified, "randomness_from"),
    ));
    facts.push(Fact::code(
        "verifier's randomness",
        text(verified, "randomness"),
    ));
    Section {
        id: "trust".to_owned(),
        heading: "What the verdict rests on".to_owned(),
        facts: facts.into_iter().filter(|f| !f.value.is_empty()).collect(),
        ..Section::default()
    }
}

/// What the audit is worth against a forger who knows how it is drawn.
fn odds(verified: &Value) -> Vec<Fact> {
    let mut facts: Vec<Fact> = [
        ("catches_one_segment", "one forged segment is met"),
        ("catches_1_percent", "1 % forged are met"),
        ("catches_10_percent", "10 % forged are met"),
    ]
    .into_iter()
    .map(|(key, label)| Fact::new(label, percent(verified, key)))
    .collect();
    let bridge = &verified["bridge"];
    if let Some(segments) = bridge["segments"].as_u64() {
        let met = percent(bridge, "probability");
        let text = format!("at least {segments} segments, met with probability {met}");
        facts.push(Fact::new("forging the whole way", text));
    }
    facts
}

/// Where it was trained and where it was verified.
pub(super) fn environments(verified: &Value, trained: Option<&str>) -> Section {
    let trained: Value = trained
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or(Value::Null);
    let mut verifier = verified["environment"].clone();
    for key in ["backend", "device"] {
        verifier[key] = verified[key].clone();
    }
    let keys = [
        "program",
        "burn",
        "backend",
        "device",
        "threads",
        "autotune",
        "fusion",
        "os",
        "architecture",
    ];
    let rows = keys.iter().filter_map(|key| {
        let (theirs, ours) = (text(&trained, key), text(&verifier, key));
        if theirs.is_empty() && ours.is_empty() {
            return None;
        }
        let differs = !theirs.is_empty() && !ours.is_empty() && theirs != ours;
        let cell = |text: String| Cell {
            text,
            tone: if differs { Tone::Unsure } else { Tone::Plain },
        };
        Some(vec![Cell::plain(*key), cell(theirs), cell(ours)])
    });
    let table = Table {
        caption: "Where it was trained, as the prover says, and where it was verified".to_owned(),
        columns: ["", "trained", "verified"]
            .map(|name| (name.to_owned(), false))
            .to_vec(),
        rows: rows.collect(),
    };
    let seconds = number(verified, "verify_seconds").map_or_else(String::new, short);
    Section {
        id: "environment".to_owned(),
        heading: "Environment".to_owned(),
        facts: vec![Fact::new("seconds to verify", seconds)],
        tables: vec![table],
        ..Section::default()
    }
}

pub(super) fn table(segments: &[Value]) -> Section {
    let columns = [
        ("segment", true),
        ("steps", false),
        ("held", false),
        ("error l2", true),
        ("l1", true),
        ("l∞", true),
        ("cosine", true),
        ("of movement", true),
        ("noise", true),
        ("tolerance", true),
        ("ρ", true),
    ];
    let show = |value: Option<f64>| Cell::plain(value.map_or_else(String::new, short));
    let rows = segments.iter().take(ROWS).map(|segment| {
        let noise = &segment["noise"];
        let held = segment["accepted"] == true;
        let bits = segment["digests_equal"] == true;
        vec![
            Cell::plain(text(segment, "index")),
            Cell::plain(format!(
                "{} to {}",
                text(segment, "first_step"),
                text(segment, "last_step")
            )),
            Cell {
                text: match (held, bits) {
                    (true, true) => "bit for bit".to_owned(),
                    (true, false) => "within tolerance".to_owned(),
                    (false, _) => "no".to_owned(),
                },
                tone: if held { Tone::Good } else { Tone::Bad },
            },
            show(number(segment, "l2")),
            show(number(segment, "l1")),
            show(number(segment, "linf")),
            show(number(segment, "cosine")),
            show(number(segment, "relative_to_movement")),
            show(number(noise, "l2")),
            show(number(noise, "tolerance_l2")),
            show(number(noise, "rho").filter(|rho| *rho < 1e300)),
        ]
    });
    let caption = match segments.len() > ROWS {
        true => format!("The first {ROWS} of {} replayed segments", segments.len()),
        false => "All replayed segments; distances are those of the parameters".to_owned(),
    };
    Section {
        id: "segments".to_owned(),
        heading: "Segments".to_owned(),
        tables: vec![Table {
            caption,
            columns: columns
                .map(|(name, number)| (name.to_owned(), number))
                .to_vec(),
            rows: rows.collect(),
        }],
        ..Section::default()
    }
}
