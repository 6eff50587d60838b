//! The report of a proof, from what `pol verify --json` prints and what the training noted for people.

mod facts;
mod figures;

use serde_json::Value;

use crate::ReportError;
use crate::page::{Cell, Note, Page, Section, Table, Tone};

use facts::{environments, table, training, trust};
use figures::{curves, replays};

/// The schema of verifications that are understood.
const SCHEMA: &str = "pol.verify/3";
/// Rows of a table.
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
    let mut claim = match run.inspected {
        None => Value::Null,
        Some(inspected) => parse("the proof's claim", inspected)?,
    };
    // Another proof may lie there by now, or the verification may be of another: its claims are not put
    // beside this verdict.
    let judged = &verified["commitment"];
    let is_other = !claim.is_null() && !judged.is_null() && claim["commitment"] != *judged;
    if is_other {
        claim = Value::Null;
    }
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
    if is_other {
        page.notes.push(Note::new(
            "What lies in the folder is another proof than the one that was judged; its claims are left out.",
        ));
    }
    let warning = text(&verified, "warning");
    if !warning.is_empty() {
        page.notes.push(Note::new(&warning));
    }
    if verified["claimed_recipe"].is_object() {
        page.notes.push(Note::new(
            "The recipe is the proof's own claim; the verifier did not hold it to one of its own.",
        ));
    }
    let changes = list(&verified, "policy_changes").iter();
    let changes: Vec<&str> = changes.filter_map(Value::as_str).collect();
    if !changes.is_empty() {
        page.notes.push(Note::new(&format!(
            "The verifier changed its policy for this audit, by --{}.",
            changes.join(" and --")
        )));
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
                "; had one segment been forged, it was met with probability {}; of one segment in a hundred, \
                 one with {}",
                percent(verified, "catches_one_segment"),
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
