//! The report of a proof, from what `pol verify --json` prints and what the training noted for people.

use serde_json::Value;

use crate::ReportError;
use crate::page::{
    Axis, Cell, Fact, Figure, Note, Page, Section, Series, Strip, Style, Table, Tone,
};

/// The schema of verifications that are understood.
const SCHEMA: &str = "pol.verify/2";
/// Bins of the strip of segments.
const BINS: usize = 240;
/// Points of a curve.
const POINTS: usize = 2000;
/// Rows of the table of segments.
const ROWS: usize = 400;

/// What a report of a proof is made of.
#[derive(Debug, Clone, Default)]
pub struct Run<'a> {
    /// What the proof is called: its folder's name.
    pub name: &'a str,
    /// What `pol verify --json` printed.
    pub verified: &'a str,
    /// The proof's own claim: what `pol inspect --json` prints, if it is at hand.
    pub inspected: Option<&'a str>,
    /// `metrics/curve.csv`, if there is one.
    pub curve: Option<&'a str>,
    /// `metrics/environment.json`, if there is one.
    pub environment: Option<&'a str>,
}

/// The page about a proof.
///
/// # Errors
/// If the verification is not one that this program prints.
pub fn run(run: &Run<'_>) -> Result<Page, ReportError> {
    let verified: Value = parse("the verification", run.verified)?;
    if text(&verified, "schema") != SCHEMA {
        return Err(ReportError::Malformed {
            file: "the verification",
            problem: format!("its schema is not `{SCHEMA}`: give what `pol verify --json` printed"),
        });
    }
    let claim = match run.inspected {
        None => Value::Null,
        Some(inspected) => parse("the proof's claim", inspected)?,
    };
    let verdict = text(&verified, "verdict");
    let tone = match verdict.as_str() {
        "accepted" => Tone::Good,
        "rejected" => Tone::Bad,
        _ => Tone::Unsure,
    };
    let segments = list(&verified, "segments");
    let reasons = list(&verified, "reasons");
    let mut page = Page {
        title: run.name.to_owned(),
        kind: "Proof of learning".to_owned(),
        outcome: Some(Cell {
            text: verdict,
            tone,
        }),
        lead: lead(&verified, &claim),
        notes: Vec::new(),
        sections: Vec::new(),
        program: text(&verified["environment"], "program"),
    };
    let warning = text(&verified, "warning");
    if !warning.is_empty() {
        page.notes.push(Note::new(&warning));
    }
    if verified["claimed_recipe"].is_object() {
        page.notes.push(Note::new(
            "The recipe is the proof's own claim; the verifier did not hold it to one of its own.",
        ));
    }
    if verified["offline_challenge"] == true {
        page.notes.push(Note::new(
            "The audit was drawn from the commitment itself, which a forger can try again and again.",
        ));
    }
    if !reasons.is_empty() {
        let rows = reasons.iter().take(ROWS).map(|reason| {
            vec![Cell {
                text: reason.as_str().unwrap_or_default().to_owned(),
                tone,
            }]
        });
        page.sections.push(Section {
            id: "reasons".to_owned(),
            heading: "Why".to_owned(),
            tables: vec![Table {
                columns: vec![("reason".to_owned(), false)],
                rows: rows.collect(),
                ..Table::default()
            }],
            ..Section::default()
        });
    }
    page.sections.push(replays(&verified, segments));
    page.sections.extend(curves(run.curve));
    page.sections.push(training(&verified, &claim));
    page.sections.push(trust(&verified, &claim));
    page.sections.push(environments(&verified, run.environment));
    if !segments.is_empty() {
        page.sections.push(table(segments));
    }
    Ok(page)
}

fn parse(file: &'static str, text: &str) -> Result<Value, ReportError> {
    serde_json::from_str(text).map_err(|error| ReportError::Malformed {
        file,
        problem: error.to_string(),
    })
}

/// The value as text; nothing for what is not there.
fn text(value: &Value, key: &str) -> String {
    match &value[key] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn number(value: &Value, key: &str) -> Option<f64> {
    value[key].as_f64()
}

fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if (0.001..100_000.0).contains(&size) => {
            let digits = format!("{value:.4}");
            digits
                .trim_end_matches('0')
                .trim_end_matches('.')
                .to_owned()
        }
        _ => format!("{value:.2e}"),
    }
}

fn percent(value: &Value, key: &str) -> String {
    number(value, key).map_or_else(String::new, |share| format!("{:.2} %", 100.0 * share))
}

fn lead(verified: &Value, claim: &Value) -> String {
    let recipe = recipe(verified, claim);
    let what = match recipe.is_null() {
        true => String::new(),
        false => format!(
            "{} trained on {} in {} steps. ",
            text(&recipe["model"], "name"),
            text(&recipe["data"], "name"),
            text(recipe, "steps"),
        ),
    };
    let all = verified["segments_selected"] == verified["segments_total"];
    format!(
        "{what}{} of {} segments were selected and {} steps replayed under the policy “{}”{}.",
        text(verified, "segments_selected"),
        text(verified, "segments_total"),
        text(verified, "steps_replayed"),
        text(verified, "policy"),
        match all {
            true => String::new(),
            false => format!(
                "; had one segment in a hundred been forged, one of them was met with probability {}",
                percent(verified, "catches_1_percent")
            ),
        }
    )
}

fn recipe<'v>(verified: &'v Value, claim: &'v Value) -> &'v Value {
    match verified["claimed_recipe"].is_object() {
        true => &verified["claimed_recipe"],
        false => &claim["claim"]["terms"]["recipe"],
    }
}

/// Error against tolerance, and which segments were looked at.
fn replays(verified: &Value, segments: &[Value]) -> Section {
    let points = |value: &dyn Fn(&Value) -> Option<f64>| -> Vec<(f64, f64)> {
        let of = segments.iter();
        of.filter_map(|segment| Some((number(segment, "last_step")?, value(segment)?)))
            .collect()
    };
    let error = points(&|s| number(s, "l2"));
    let equal = segments
        .iter()
        .filter(|s| s["digests_equal"] == true)
        .count();
    let fixed = number(&verified["comparison"]["tolerance"], "l2");
    let floor = number(&verified["comparison"], "floor");
    let tolerance = points(&|segment| {
        let measured = number(&segment["noise"], "tolerance_l2");
        let moved = || Some(floor? * number(segment, "movement_l2")?);
        measured.or(fixed).or_else(moved)
    });
    let mut series = vec![
        Series {
            label: "movement".to_owned(),
            style: Style::Line,
            points: points(&|s| number(s, "movement_l2")),
        },
        Series {
            label: "tolerance".to_owned(),
            style: Style::Dashed,
            points: tolerance,
        },
        Series {
            label: "measured noise".to_owned(),
            style: Style::Line,
            points: points(&|s| number(&s["noise"], "l2")),
        },
        Series {
            label: "reproduction error".to_owned(),
            style: Style::Line,
            points: error,
        },
    ];
    series.retain(|series| !series.points.is_empty());
    let figure = Figure {
        id: "error".to_owned(),
        title: "Reproduction error of each segment".to_owned(),
        caption: format!(
            "l2 distance of the replayed from the logged parameters, beside how far the segment moves \
             them and what was tolerated. {equal} of {} replays arrived at the logged state bit for bit{}.",
            segments.len(),
            match equal {
                0 => "",
                _ => "; their error is zero and lies below the axis",
            }
        ),
        x: Axis {
            label: "step".to_owned(),
            log: false,
        },
        y: Axis {
            label: "l2 distance".to_owned(),
            log: true,
        },
        series,
    };
    // With digests alone there are no distances, and nothing to draw where all are zero.
    let drawn = (figure.series.iter())
        .flat_map(|series| &series.points)
        .any(|(_, y)| *y > 0.0);
    let text = match (drawn, segments.len()) {
        (true, _) | (_, 0) => String::new(),
        (false, all) => {
            format!("{equal} of {all} replays arrived at what was committed to, bit for bit.")
        }
    };
    Section {
        id: "replays".to_owned(),
        heading: "Replays".to_owned(),
        text,
        strip: strip(verified, segments),
        figures: if drawn { vec![figure] } else { vec![] },
        ..Section::default()
    }
}

fn strip(verified: &Value, segments: &[Value]) -> Option<Strip> {
    let total = verified["segments_total"].as_u64().filter(|n| *n > 0)?;
    let bins = (total as usize).min(BINS);
    let mut strip = vec![Tone::Plain; bins];
    for segment in segments {
        let index = segment["index"].as_u64().filter(|index| *index < total)?;
        let bin = (u128::from(index) * bins as u128 / u128::from(total)) as usize;
        let held = segment["accepted"] == true;
        if strip[bin] != Tone::Bad {
            strip[bin] = if held { Tone::Good } else { Tone::Bad };
        }
    }
    Some(Strip {
        caption: format!(
            "{} of {total} segments replayed, from the first step to the last",
            segments.len()
        ),
        bins: strip,
    })
}

/// Loss and accuracy, as the training noted them.
fn curves(curve: Option<&str>) -> Option<Section> {
    let mut reader = csv::Reader::from_reader(curve?.as_bytes());
    let headers = reader.headers().ok()?.clone();
    let place = |name: &str| headers.iter().position(|header| header == name);
    let step = place("step")?;
    let records: Vec<csv::StringRecord> = reader.records().filter_map(Result::ok).collect();
    let stride = records.len().div_ceil(POINTS).max(1);
    let figure = |name: &str, title: &str, label: &str| {
        let column = place(name)?;
        let read = |record: &csv::StringRecord, place: usize| record.get(place)?.parse().ok();
        let all: Vec<(f64, f64)> = (records.iter())
            .filter_map(|record| Some((read(record, step)?, read(record, column)?)))
            .filter(|(x, y): &(f64, f64)| x.is_finite() && y.is_finite())
            .collect();
        // Means, where there are more steps than pixels.
        let points = all.chunks(stride).map(|chunk| {
            let sum: f64 = chunk.iter().map(|(_, y)| y).sum();
            (chunk[0].0, sum / chunk.len() as f64)
        });
        Some(Figure {
            id: name.to_owned(),
            title: title.to_owned(),
            caption: String::new(),
            x: Axis {
                label: "step".to_owned(),
                log: false,
            },
            y: Axis {
                label: label.to_owned(),
                log: false,
            },
            series: vec![Series {
                label: label.to_owned(),
                style: Style::Curve,
                points: points.collect(),
            }],
        })
    };
    let figures = [
        figure("loss", "Training loss", "cross-entropy"),
        figure("accuracy", "Accuracy on the batches", "share of records"),
        figure("learning_rate", "Learning rate", "learning rate"),
    ];
    Some(Section {
        id: "curves".to_owned(),
        heading: "Curves".to_owned(),
        text: "Noted by the prover for people; not part of what is proved.".to_owned(),
        figures: figures.into_iter().flatten().collect(),
        ..Section::default()
    })
}

fn training(verified: &Value, claim: &Value) -> Section {
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
fn trust(verified: &Value, claim: &Value) -> Section {
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
    facts.push(Fact::code("policy", text(verified, "policy_digest")));
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

/// Where it was trained and where it was verified.
fn environments(verified: &Value, trained: Option<&str>) -> Section {
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

fn table(segments: &[Value]) -> Section {
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
