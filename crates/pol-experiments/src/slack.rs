//! What tolerances are worth to a forger who uses all of them: in every segment, in every entry, always
//! towards a stolen model.

mod forger;

use std::collections::BTreeMap;
use std::path::Path;

use pol_attacks::forgery::model_distance;
use pol_core::policy::{Calibration, Comparison};
use pol_core::state::State;
use serde::{Deserialize, Serialize};

use crate::attacks::decided;
use crate::lab::{policy_named, states_at};
use crate::plan::Slack;
use crate::summary::{Found, SummaryTable, short};
use crate::table::{Row, Table};
use crate::{ExperimentError, Lab};
use forger::{Adversary, Forger, Made};

/// What of each tolerance the forger uses, who measures with other randomness than the verifier and
/// pushes all entries in concert.
const CAUTION: f64 = 0.4;
/// How often the forger tries again with less, where the verifier finds an entry beyond its tolerance.
const TRIES: u32 = 4;
/// What of the policy's budget the forger uses.
const OF_BUDGET: f64 = 0.8;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Measured {
    cell: String,
    training: String,
    numerics: String,
    interval: u64,
    segments: u64,
    policy: String,
    /// How the forger goes about it.
    adversary: String,
    /// What of its tolerance each difference uses, as the forger measures it.
    strength: f64,
    verdict: String,
    check: String,
    /// The shares of the way that the verifier found used and tolerated.
    used: f64,
    tolerated: f64,
    /// The nearest to its tolerance that any entry comes.
    nearest: f64,
    /// The share of the distance between an honest model and the stolen one that is closed.
    closed: f64,
}

impl Row for Measured {
    fn cell(&self) -> &str {
        &self.cell
    }
}

pub(crate) fn run(plan: &Slack, lab: &Lab<'_>, rows: &Path) -> Result<Found, ExperimentError> {
    let mut table: Table<Measured> = Table::open(rows)?;
    for (number, training) in plan.trainings.iter().enumerate() {
        let training = training.resolve(lab)?;
        let steps = training.recipe.steps;
        let last = |nonce| -> Result<State, ExperimentError> {
            let mut states = states_at(&training, nonce, &[steps])?;
            let absent = || ExperimentError::Plan("a training has no last state".to_owned());
            states.remove(&steps).ok_or_else(absent)
        };
        let mut ends = None;
        for interval in training.intervals(&plan.intervals) {
            for policy in &plan.policies {
                for (adversary, name) in Adversary::ALL {
                    let cell = format!("{number}/{interval}/{policy}/{name}");
                    if table.has(&cell) {
                        continue;
                    }
                    (lab.tell)(&format!(
                        "{}: k = {interval}, {policy}, {name}",
                        training.name
                    ));
                    let (honest, stolen) = match &ends {
                        Some(ends) => ends,
                        None => ends.insert((last(0)?, last(1)?)),
                    };
                    let forger = Forger {
                        training: &training,
                        interval,
                        stolen,
                        adversary,
                        rule: rule(policy)?,
                    };
                    let row = |made: Made| -> Measured {
                        let (check, _) = decided(&made.report);
                        let slack = made.report.slack.as_ref();
                        let nearest = made.report.segments.iter().filter_map(|s| s.noise.as_ref());
                        let apart = model_distance(&made.end, stolen);
                        Measured {
                            cell: cell.clone(),
                            training: training.name.clone(),
                            numerics: training.recipe.numerics.to_string(),
                            interval,
                            segments: made.report.segments_total,
                            policy: policy.clone(),
                            adversary: name.to_owned(),
                            strength: made.strength,
                            verdict: made.report.verdict.to_string(),
                            check,
                            used: slack.map_or(0.0, |slack| slack.used),
                            tolerated: slack.map_or(0.0, |slack| slack.tolerated),
                            nearest: nearest.map(|n| n.nearest_of_tolerance).fold(0.0, f64::max),
                            closed: 1.0 - apart / model_distance(honest, stolen),
                        }
                    };
                    let mut all = row(forger.judged(CAUTION, policy)?);
                    for _ in 0..TRIES {
                        if all.nearest <= 1.0 || training.recipe.numerics.is_exact() {
                            break;
                        }
                        let strength = all.strength * f64::max(0.8 / all.nearest, 0.3);
                        all = row(forger.judged(strength, policy)?);
                    }
                    // Once more, within what the policy admits of all differences together.
                    let budget = OF_BUDGET * forger.rule.max_used;
                    let within = match all.used > budget {
                        true => {
                            let strength = all.strength * budget / all.used;
                            Some(row(forger.judged(strength, policy)?))
                        }
                        false => None,
                    };
                    table.add(std::iter::once(all).chain(within).collect())?;
                }
            }
        }
    }
    Ok(Found {
        seeds: vec![0, 1],
        tables: vec![summarise(table.rows())],
        ..Found::default()
    })
}

/// The policy's calibration, or for one that has none what the default would tolerate.
fn rule(policy: &str) -> Result<Calibration, ExperimentError> {
    match (
        policy_named(policy)?.comparison,
        policy_named("calibrated")?.comparison,
    ) {
        (Comparison::Calibrated(rule), _) | (_, Comparison::Calibrated(rule)) => Ok(rule),
        _ => Err(ExperimentError::Plan(
            "the default is not calibrated".to_owned(),
        )),
    }
}

fn summarise(rows: &[Measured]) -> SummaryTable {
    let mut table = SummaryTable::new(
        "A forger who uses every tolerance in every segment",
        &[
            "training",
            "numerics",
            "k#",
            "segments#",
            "policy",
            "adversary",
            "of its tolerance#",
            "verdict",
            "check",
            "used of the way#",
            "tolerated of the way#",
            "gap closed#",
            "gap closed, accepted#",
        ],
    );
    let mut groups = BTreeMap::<_, Vec<&Measured>>::new();
    for row in rows {
        let key = (
            &row.training,
            &row.numerics,
            row.interval,
            &row.policy,
            &row.adversary,
        );
        groups.entry(key).or_default().push(row);
    }
    for row in groups.into_values().flatten() {
        let accepted = match row.verdict.as_str() {
            "accepted" => short(row.closed),
            _ => "0".to_owned(),
        };
        table.rows.push(vec![
            row.training.clone(),
            row.numerics.clone(),
            row.interval.to_string(),
            row.segments.to_string(),
            row.policy.clone(),
            row.adversary.clone(),
            short(row.nearest),
            row.verdict.clone(),
            row.check.clone(),
            short(row.used),
            short(row.tolerated),
            short(row.closed),
            accepted,
        ]);
    }
    table
}
