//! Honest runs under every policy: none should be rejected.

use std::collections::BTreeMap;
use std::path::Path;

use pol_core::verify::Report;
use serde::{Deserialize, Serialize};

use crate::attacks::decided;
use crate::lab::{Setting, judge, prove_on};
use crate::plan::FalseRejections;
use crate::reproduction::note_absent;
use crate::summary::{Found, SummaryTable, short};
use crate::table::{Row, Table};
use crate::{ExperimentError, Lab};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Measured {
    cell: String,
    training: String,
    numerics: String,
    interval: u64,
    seed: u64,
    /// How it was trained or verified.
    setting: String,
    policy: String,
    verdict: String,
    check: String,
    reason: String,
    /// The largest ε over movement among the segments (l2, parameters).
    epsilon: f64,
    /// The smallest ρ that was measured.
    rho: Option<f64>,
    /// The largest difference over its tolerance, of any entry.
    used: Option<f64>,
}

impl Row for Measured {
    fn cell(&self) -> &str {
        &self.cell
    }
}

pub(crate) fn run(
    plan: &FalseRejections,
    lab: &Lab<'_>,
    rows: &Path,
) -> Result<Found, ExperimentError> {
    let mut table: Table<Measured> = Table::open(rows)?;
    let mut found = Found::default();
    let mut most_seeds = plan.seeds;
    for (number, planned) in plan.trainings.iter().enumerate() {
        let training = planned.resolve(lab)?;
        let numerics = training.recipe.numerics.to_string();
        let seeds = planned.seeds(plan.seeds);
        most_seeds = most_seeds.max(seeds);
        for name in planned.settings(&plan.settings) {
            let setting = Setting::honest(name)?;
            let (Some(device), Some(trains_on)) = (lab.device(&setting), lab.trains_on(&setting))
            else {
                note_absent(&mut found, name);
                continue;
            };
            let intervals = training.intervals(&plan.intervals).into_iter();
            let runs = intervals.flat_map(|k| (0..seeds).map(move |seed| (k, seed)));
            for (interval, seed) in runs {
                let cell = format!("{number}/{name}/{interval}/{seed}");
                if table.has(&cell) {
                    continue;
                }
                (lab.tell)(&format!(
                    "{}, {numerics}: {name}, k = {interval}, seed {seed}",
                    training.name
                ));
                let proved = prove_on(&trains_on, &training, seed, interval, &setting)?;
                let mut rows = Vec::new();
                for policy in &plan.policies {
                    let report = judge(
                        proved.store.as_ref(),
                        &training.recipe,
                        &training.data.train,
                        policy,
                        &setting,
                        &device,
                    )?;
                    let (check, reason) = decided(&report);
                    rows.push(Measured {
                        cell: cell.clone(),
                        training: training.name.clone(),
                        numerics: numerics.clone(),
                        interval,
                        seed,
                        setting: name.clone(),
                        policy: policy.clone(),
                        verdict: report.verdict.to_string(),
                        check,
                        reason,
                        epsilon: largest(&report, |s| s.relative_to_movement).unwrap_or(0.0),
                        rho: largest(&report, |s| Some(-s.noise.as_ref()?.rho)).map(|rho| -rho),
                        used: largest(&report, |s| Some(s.noise.as_ref()?.nearest_of_tolerance)),
                    });
                }
                table.add(rows)?;
            }
        }
    }
    found.seeds = (0..most_seeds).collect();
    found.tables = vec![summarise(table.rows())];
    Ok(found)
}

fn largest(
    report: &Report,
    value: impl Fn(&pol_core::verify::SegmentReport) -> Option<f64>,
) -> Option<f64> {
    report.segments.iter().filter_map(value).reduce(f64::max)
}

fn summarise(rows: &[Measured]) -> SummaryTable {
    let mut table = SummaryTable::new(
        "Honest runs",
        &[
            "training",
            "numerics",
            "setting",
            "k#",
            "policy",
            "runs#",
            "accepted#",
            "rejected#",
            "inconclusive#",
            "largest ε/movement#",
            "smallest ρ#",
            "most of the tolerance used#",
            "rejected by",
        ],
    );
    let mut groups = BTreeMap::<_, Vec<&Measured>>::new();
    for row in rows {
        let key = (
            &row.policy,
            &row.training,
            &row.numerics,
            &row.setting,
            row.interval,
        );
        groups.entry(key).or_default().push(row);
    }
    for ((policy, training, numerics, setting, interval), rows) in groups {
        let count = |verdict: &str| rows.iter().filter(|row| row.verdict == verdict).count();
        let largest = |value: &dyn Fn(&Measured) -> Option<f64>| {
            let values = rows.iter().filter_map(|row| value(row));
            values.reduce(f64::max)
        };
        let mut checks: Vec<&str> = rows.iter().map(|row| row.check.as_str()).collect();
        checks.sort_unstable();
        checks.dedup();
        let show = |value: Option<f64>| value.map_or_else(String::new, short);
        table.rows.push(vec![
            training.clone(),
            numerics.clone(),
            setting.clone(),
            interval.to_string(),
            policy.clone(),
            rows.len().to_string(),
            count("accepted").to_string(),
            count("rejected").to_string(),
            count("inconclusive").to_string(),
            show(largest(&|row| Some(row.epsilon))),
            show(largest(&|row| row.rho.map(|rho| -rho)).map(|rho| -rho)),
            show(largest(&|row| row.used)),
            checks.join(" ").trim().to_owned(),
        ]);
    }
    table
}
