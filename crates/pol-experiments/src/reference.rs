//! d_ref: distances between trainings from independent seeds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn::tensor::Device;
use pol_models::image_learner;
use serde::{Deserialize, Serialize};

use crate::lab::states_at;
use crate::plan::ReferenceDistance;
use crate::reproduction::{distances, metrics};
use crate::summary::{Found, SummaryTable, short};
use crate::table::{Row, Table};
use crate::{ExperimentError, Lab};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Measured {
    cell: String,
    training: String,
    numerics: String,
    step: u64,
    first: u64,
    second: u64,
    metric: String,
    distance: f64,
}

impl Row for Measured {
    fn cell(&self) -> &str {
        &self.cell
    }
}

pub(crate) fn run(
    plan: &ReferenceDistance,
    lab: &Lab<'_>,
    rows: &Path,
) -> Result<Found, ExperimentError> {
    let mut table: Table<Measured> = Table::open(rows)?;
    for (number, training) in plan.trainings.iter().enumerate() {
        let training = training.resolve(lab)?;
        let numerics = training.recipe.numerics.to_string();
        let last = training.recipe.steps;
        let at: BTreeSet<u64> = plan.steps.iter().copied().chain([last]).collect();
        let at: Vec<u64> = at.into_iter().filter(|step| *step <= last).collect();
        let pairs: Vec<(u64, u64)> = (0..plan.seeds)
            .flat_map(|first| (first + 1..plan.seeds).map(move |second| (first, second)))
            .collect();
        let cell = |first, second| format!("{number}/{first}/{second}");
        if pairs.iter().all(|(a, b)| table.has(&cell(*a, *b))) {
            continue;
        }
        let mut states = Vec::new();
        for seed in 0..plan.seeds {
            (lab.tell)(&format!("{}, {numerics}: seed {seed}", training.name));
            states.push(states_at(&training, seed, &at)?);
        }
        let learner = image_learner(&training.recipe, &Device::flex())?;
        for (first, second) in pairs {
            let mut rows = Vec::new();
            for step in &at {
                let (a, b) = (
                    &states[first as usize][step],
                    &states[second as usize][step],
                );
                for (metric, distance) in metrics(&distances(learner.as_ref(), a, b)) {
                    rows.push(Measured {
                        cell: cell(first, second),
                        training: training.name.clone(),
                        numerics: numerics.clone(),
                        step: *step,
                        first,
                        second,
                        metric: metric.to_owned(),
                        distance,
                    });
                }
            }
            table.add(rows)?;
        }
    }
    Ok(Found {
        seeds: (0..plan.seeds).collect(),
        tables: vec![summarise(table.rows())],
        ..Found::default()
    })
}

fn summarise(rows: &[Measured]) -> SummaryTable {
    let mut table = SummaryTable::new(
        "d_ref: mean distance of the parameters over pairs of independent seeds, and its standard deviation",
        &[
            "training", "numerics", "step#", "pairs#", "l1#", "l2#", "± #", "l∞#", "cosine#",
        ],
    );
    let mut groups = BTreeMap::<_, Vec<&Measured>>::new();
    for row in rows {
        let key = (&row.training, &row.numerics, row.step);
        groups.entry(key).or_default().push(row);
    }
    for ((training, numerics, step), rows) in groups {
        let of = |metric: &str| -> Vec<f64> {
            let of = rows.iter().filter(|row| row.metric == metric);
            of.map(|row| row.distance).collect()
        };
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let l2 = of("l2");
        let centre = mean(&l2);
        let squares: f64 = l2.iter().map(|d| (d - centre) * (d - centre)).sum();
        let deviation = (squares / (l2.len().max(2) - 1) as f64).sqrt();
        table.rows.push(vec![
            training.clone(),
            numerics.clone(),
            step.to_string(),
            l2.len().to_string(),
            short(mean(&of("l1"))),
            short(centre),
            short(deviation),
            short(mean(&of("linf"))),
            short(mean(&of("cosine"))),
        ]);
    }
    table
}
