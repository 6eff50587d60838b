//! Reproduction error ε against k, in several settings, beside movement and d_ref.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use pol_core::records::Records;
use pol_core::schedule::Schedule;
use pol_core::state::{Part, State};
use pol_core::verify::Distances;
use pol_models::{ImageLearner, image_learner};
use serde::{Deserialize, Serialize};

use crate::lab::{Setting, states_at, steps, terms, with_threads};
use crate::plan::{Reproduction, Resolved};
use crate::summary::{Found, SummaryTable, median, short};
use crate::table::{Row, Table};
use crate::{ExperimentError, Lab};

/// The setting of rows that hold d_ref.
pub(crate) const REFERENCE: &str = "reference";
const NONCE: u64 = 0;

/// One distance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Measured {
    cell: String,
    training: String,
    numerics: String,
    setting: String,
    interval: u64,
    start: u64,
    metric: String,
    /// ε; in rows of d_ref, that.
    epsilon: f64,
    /// How far the training itself moves.
    movement: f64,
}

impl Row for Measured {
    fn cell(&self) -> &str {
        &self.cell
    }
}

pub(crate) fn metrics(distances: &Distances) -> [(&'static str, f64); 4] {
    [
        ("l1", distances.l1),
        ("l2", distances.l2),
        ("linf", distances.linf),
        ("cosine", distances.cosine),
    ]
}

/// The distances of the parameters; infinite where there are none.
pub(crate) fn distances(learner: &dyn ImageLearner, a: &State, b: &State) -> Distances {
    let part = |name: &str| learner.part(name);
    let apart = Distances {
        l1: f64::INFINITY,
        l2: f64::INFINITY,
        linf: f64::INFINITY,
        cosine: f64::INFINITY,
    };
    Distances::between(a, b, Part::Parameters, &part).unwrap_or(apart)
}

pub(crate) fn run(
    plan: &Reproduction,
    lab: &Lab<'_>,
    rows: &Path,
) -> Result<Found, ExperimentError> {
    let mut table = Table::open(rows)?;
    let mut found = Found::default();
    let settings = plan
        .settings
        .iter()
        .map(|name| Ok((name.as_str(), Setting::parse(name)?)))
        .collect::<Result<Vec<_>, ExperimentError>>()?;
    for (number, training) in plan.trainings.iter().enumerate() {
        let training = training.resolve(lab)?;
        measure(
            plan, lab, &settings, number, &training, &mut table, &mut found,
        )?;
    }
    found.seeds = (NONCE..=plan.references).collect();
    found.tables = vec![summarise(table.rows())];
    Ok(found)
}

fn measure(
    plan: &Reproduction,
    lab: &Lab<'_>,
    settings: &[(&str, Setting)],
    number: usize,
    training: &Resolved,
    table: &mut Table<Measured>,
    found: &mut Found,
) -> Result<(), ExperimentError> {
    let recipe = &training.recipe;
    let per_epoch = Schedule::steps_per_epoch(training.data.train.len(), recipe.batch_size);
    let intervals: BTreeSet<u64> = plan.intervals.iter().map(|k| k.steps(per_epoch)).collect();
    let numerics = recipe.numerics.to_string();
    let row = |setting: &str, interval, start, (metric, epsilon): (&str, f64), movement| Measured {
        cell: cell(number, setting, interval, start),
        training: training.name.clone(),
        numerics: numerics.clone(),
        setting: setting.to_owned(),
        interval,
        start,
        metric: metric.to_owned(),
        epsilon,
        movement,
    };
    let ends = |start: u64| intervals.iter().map(move |k| (*k, start + k));
    let within = |end: u64| end <= recipe.steps;
    let mut needed: BTreeSet<u64> = BTreeSet::new();
    for &start in &plan.starts {
        for (interval, end) in ends(start).filter(|(_, end)| within(*end)) {
            let missing = settings.iter().any(|(name, setting)| {
                lab.device(setting).is_some() && !table.has(&cell(number, name, interval, start))
            });
            if missing {
                needed.extend([start, end]);
            }
        }
    }
    let needed: Vec<u64> = needed.into_iter().collect();
    if !needed.is_empty() {
        (lab.tell)(&format!("{}, {numerics}: the training", training.name));
    }
    let states = states_at(training, NONCE, &needed)?;
    let seed = terms(training, NONCE, 1).seed;
    for (name, setting) in settings {
        let Some(device) = lab.device(setting) else {
            note_absent(found, name);
            continue;
        };
        for &start in &plan.starts {
            let all = ends(start).filter(|(_, end)| within(*end));
            let missing: Vec<(u64, u64)> = all
                .filter(|(interval, _)| !table.has(&cell(number, name, *interval, start)))
                .collect();
            let (Some(from), Some(_)) = (states.get(&start), missing.first()) else {
                continue;
            };
            (lab.tell)(&format!(
                "{}, {numerics}: {name}, from step {start}",
                training.name
            ));
            // One replay passes all ends.
            let measured = with_threads(setting, || {
                let mut learner = image_learner(recipe, &device)?;
                learner.restore(from)?;
                let mut now = start;
                let mut measured = Vec::new();
                for &(interval, end) in &missing {
                    steps(learner.as_mut(), training, &seed, (now, end), setting)?;
                    now = end;
                    let logged = &states[&end];
                    let replayed = learner.capture()?;
                    let epsilon = distances(learner.as_ref(), &replayed, logged);
                    let movement = distances(learner.as_ref(), from, logged);
                    measured.push((interval, epsilon, movement));
                }
                Ok::<_, ExperimentError>(measured)
            })?;
            for (interval, epsilon, movement) in measured {
                let pairs = metrics(&epsilon).into_iter().zip(metrics(&movement));
                let rows = pairs.map(|(e, (_, moved))| row(name, interval, start, e, moved));
                table.add(rows.collect())?;
            }
        }
    }
    let last = recipe.steps;
    let mut others: Option<Vec<State>> = None;
    for other in 1..=plan.references {
        if table.has(&cell(number, REFERENCE, last, other)) {
            continue;
        }
        let others = match &mut others {
            Some(others) => others,
            none => none.insert(vec![]),
        };
        while (others.len() as u64) <= other {
            let nonce = others.len() as u64;
            (lab.tell)(&format!("{}, {numerics}: seed {nonce}", training.name));
            let mut state = states_at(training, nonce, &[last])?;
            others.extend(state.remove(&last));
        }
        let learner = image_learner(recipe, &burn::tensor::Device::flex())?;
        let apart = distances(learner.as_ref(), &others[0], &others[other as usize]);
        let rows = metrics(&apart).map(|e| row(REFERENCE, last, other, e, 0.0));
        table.add(rows.to_vec())?;
    }
    Ok(())
}

fn cell(number: usize, setting: &str, interval: u64, start: u64) -> String {
    format!("{number}/{setting}/{interval}/{start}")
}

pub(crate) fn note_absent(found: &mut Found, name: &str) {
    let note = format!(
        "There is no `{name}` device on this machine; what it would show was not measured."
    );
    if !found.notes.contains(&note) {
        found.notes.push(note);
    }
}

fn summarise(rows: &[Measured]) -> SummaryTable {
    let mut table = SummaryTable::new(
        "Reproduction error ε of the parameters: medians over the starts; d_ref is the mean distance \
         between trainings from independent seeds",
        &[
            "training",
            "numerics",
            "replayed",
            "k#",
            "ε/movement (l2)#",
            "largest#",
            "ε/d_ref l1#",
            "l2#",
            "l∞#",
            "cosine#",
        ],
    );
    let mut reference = BTreeMap::<_, Vec<f64>>::new();
    let mut groups = BTreeMap::<_, Vec<&Measured>>::new();
    for row in rows {
        let (training, numerics, metric) = (&row.training, &row.numerics, row.metric.as_str());
        match row.setting == REFERENCE {
            true => reference
                .entry((training, numerics, metric))
                .or_default()
                .push(row.epsilon),
            false => groups
                .entry((training, numerics, &row.setting, row.interval))
                .or_default()
                .push(row),
        }
    }
    for ((training, numerics, setting, interval), rows) in groups {
        let of = |metric: &'static str| rows.iter().filter(move |row| row.metric == metric);
        let mut relative: Vec<f64> = of("l2")
            .map(|row| row.epsilon / row.movement.max(f64::MIN_POSITIVE))
            .collect();
        let largest = relative.iter().copied().fold(0.0, f64::max);
        let mut cells = vec![
            training.clone(),
            numerics.clone(),
            setting.clone(),
            interval.to_string(),
            median(&mut relative).map_or_else(String::new, short),
            short(largest),
        ];
        for metric in ["l1", "l2", "linf", "cosine"] {
            let distances = reference.get(&(training, numerics, metric));
            let mean = distances.map(|d| d.iter().sum::<f64>() / d.len() as f64);
            let mut of_reference: Vec<f64> = mean.map_or_else(Vec::new, |mean| {
                of(metric).map(|row| row.epsilon / mean).collect()
            });
            cells.push(median(&mut of_reference).map_or_else(String::new, short));
        }
        table.rows.push(cells);
    }
    table
}
