//! How near records can be brought to a wanted gradient, and what that costs.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use burn::tensor::Device;
use pol_attacks::matching::{self, Problem, direction};
use pol_core::learner::Batch;
use pol_core::records::Records;
use pol_core::schedule::Schedule;
use pol_core::state::State;
use pol_models::{ImageLearner, image_learner};
use serde::{Deserialize, Serialize};

use crate::lab::{states_at, terms};
use crate::plan::{GradientMatching, Resolved};
use crate::summary::{Found, SummaryTable, median, short};
use crate::table::{Row, Table};
use crate::{ExperimentError, Lab};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Measured {
    cell: String,
    training: String,
    numerics: String,
    batch_size: u64,
    start: u64,
    iterations: u64,
    /// ‖g*‖.
    wanted: f64,
    /// ‖∇ − g*‖ of the records as they are.
    before: f64,
    /// The same of those found, before and after rounding to bytes.
    unrounded: f64,
    after: f64,
    gradients: u64,
    /// Medians, interleaved: a training step, and an evaluation of the objective with its gradient.
    step_seconds: f64,
    evaluation_seconds: f64,
}

impl Row for Measured {
    fn cell(&self) -> &str {
        &self.cell
    }
}

pub(crate) fn run(
    plan: &GradientMatching,
    lab: &Lab<'_>,
    rows: &Path,
) -> Result<Found, ExperimentError> {
    if plan.interval == 0 || plan.segments == 0 {
        return Err(ExperimentError::Plan(
            "`interval` and `segments` are at least 1".to_owned(),
        ));
    }
    let mut table: Table<Measured> = Table::open(rows)?;
    for (number, training) in plan.trainings.iter().enumerate() {
        let training = training.resolve(lab)?;
        let missing: Vec<u64> = (plan.starts.iter().copied())
            .filter(|start| !table.has(&cell(number, *start)))
            .collect();
        if missing.is_empty() {
            continue;
        }
        let numerics = training.recipe.numerics;
        (lab.tell)(&format!("{}, {numerics}: the training", training.name));
        let last = training.recipe.steps;
        let at: BTreeSet<u64> = missing.iter().copied().chain([last]).collect();
        let at: Vec<u64> = at.into_iter().collect();
        let states = states_at(&training, 0, &at)?;
        for start in missing {
            (lab.tell)(&format!("{}, {numerics}: from step {start}", training.name));
            let cell = cell(number, start);
            let towards = (&states[&start], &states[&last]);
            table.add(measure(plan, &training, start, towards, &cell)?)?;
        }
    }
    Ok(Found {
        seeds: vec![0],
        tables: vec![summarise(table.rows())],
        ..Found::default()
    })
}

fn cell(number: usize, start: u64) -> String {
    format!("{number}/{start}")
}

fn measure(
    plan: &GradientMatching,
    training: &Resolved,
    start: u64,
    (from, to): (&State, &State),
    cell: &str,
) -> Result<Vec<Measured>, ExperimentError> {
    let (recipe, data) = (&training.recipe, &training.data);
    let mut learner = image_learner(recipe, &Device::flex())?;
    let seed = terms(training, 0, 1).seed;
    let records = &data.train;
    let plan_of = Schedule::new(seed, records.len(), recipe.batch_size)?.batch(start);
    let (pixels, labels) = data.shares(&plan_of.records);
    // One of so many equal moves, made in k steps.
    let rate = recipe.learning_rate.base;
    let moves = (plan.segments * plan.interval) as f64;
    let wanted = direction(learner.as_ref(), from, to, 1.0 / (rate * moves));
    let mut problem = Problem {
        weights: from,
        wanted: &wanted,
        pixels: &pixels,
        labels: &labels,
        step: matching::STEPS[0],
    };
    problem.step = matching::suitable_step(&problem, learner.as_mut())?;
    let (mut steps, mut evaluations) = (Vec::new(), Vec::new());
    for _ in 0..plan.repeats.max(1) {
        learner.restore(from)?;
        let started = Instant::now();
        learner.step(&Batch::new(&plan_of, records, &seed)?)?;
        wait(learner.as_ref());
        steps.push(started.elapsed().as_secs_f64());
        let started = Instant::now();
        matching::evaluate(&problem, &pixels, learner.as_mut())?;
        evaluations.push(started.elapsed().as_secs_f64());
    }
    let (step_seconds, evaluation_seconds) = (median(&mut steps), median(&mut evaluations));
    let mut rows = Vec::new();
    for &iterations in &plan.iterations {
        let found = matching::minimise(&problem, iterations, data.name, learner.as_mut())?;
        rows.push(Measured {
            cell: cell.to_owned(),
            training: training.name.clone(),
            numerics: recipe.numerics.to_string(),
            batch_size: recipe.batch_size,
            start,
            iterations,
            wanted: matching::length(&wanted),
            before: found.before,
            unrounded: found.unrounded,
            after: found.after,
            gradients: found.gradients,
            step_seconds: step_seconds.unwrap_or(0.0),
            evaluation_seconds: evaluation_seconds.unwrap_or(0.0),
        });
    }
    Ok(rows)
}

/// Devices compute behind our back until something is read.
fn wait(learner: &dyn ImageLearner) {
    learner.last_loss();
}

fn summarise(rows: &[Measured]) -> SummaryTable {
    let mut table = SummaryTable::new(
        "Residual of the gradient over that of the records as they were, before and after rounding to bytes, and \
         over the gradient that is wanted; cost of an evaluation in honest training steps",
        &[
            "training",
            "numerics",
            "batch#",
            "from step#",
            "iterations#",
            "gradients#",
            "residual#",
            "in bytes#",
            "of g*#",
            "evaluation#",
        ],
    );
    for row in rows {
        let of = |value: f64| short(value / row.before.max(f64::MIN_POSITIVE));
        table.rows.push(vec![
            row.training.clone(),
            row.numerics.clone(),
            row.batch_size.to_string(),
            row.start.to_string(),
            row.iterations.to_string(),
            row.gradients.to_string(),
            of(row.unrounded),
            of(row.after),
            short(row.after / row.wanted.max(f64::MIN_POSITIVE)),
            short(row.evaluation_seconds / row.step_seconds.max(f64::MIN_POSITIVE)),
        ]);
    }
    table
}
