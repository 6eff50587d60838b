//! `pol calibrate`: which interval and tolerance a recipe can be verified with on stock kernels.

use pol_core::calibrate::{Plan, Point, calibrate, suggested_interval};
use pol_core::manifest::Terms;
use pol_core::policy::{Calibration, Comparison, Policy};
use pol_core::recipe::Numerics;
use pol_core::records::{DataCommitment, Records};
use pol_core::schedule::BatchSource;
use pol_models::dataset::default_folder;
use pol_models::image_learner;
use serde::Serialize;

use crate::args::CalibrateArgs;
use crate::backend::{self, Opening};
use crate::error::{CliError, Exit};
use crate::output;

use super::{policy, recipe_file};

#[derive(Serialize)]
struct Calibrated {
    schema: &'static str,
    backend: &'static str,
    device: String,
    second: Option<String>,
    rule: Calibration,
    points: Vec<Row>,
    /// The longest interval at which every point learns enough over its noise.
    interval: Option<u64>,
    /// What replays would be allowed there, as a fraction of what is learned.
    tolerance: Option<f64>,
}

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    point: Point,
    noise_of_learned: f64,
    rho: f64,
}

pub(crate) fn run(args: &CalibrateArgs) -> Result<Exit, CliError> {
    let rule = rule(&policy(&args.policy)?)?;
    let file = recipe_file(&args.recipe)?;
    let folder = args.machine.data_dir.clone().unwrap_or_else(default_folder);
    let dataset = file
        .data
        .name
        .parse::<pol_models::dataset::DatasetName>()?
        .load(&folder)?;
    let records = &dataset.train;
    let mut recipe = file.resolve(records.len())?;
    if recipe.numerics.is_exact() {
        output::note(
            "exact numerics have no noise: any interval will do, and nothing is tolerated. This is about the \
             same recipe with --numerics stock",
        );
        recipe.numerics = Numerics::Stock;
    }
    let (intervals, points) = (sorted(&args.intervals), sorted(&args.points));
    let longest = intervals.last().copied().unwrap_or(0);
    let end = points.last().map_or(0, |last| last.saturating_add(longest));
    if intervals.first().is_none_or(|k| *k == 0) || points.is_empty() || end > recipe.steps {
        return Err(CliError::Usage(format!(
            "--intervals are at least 1, and the last of --points plus the longest of them is within \
             the {} steps of the recipe",
            recipe.steps
        )));
    }
    let opened = match backend::open(&args.machine, recipe.numerics)? {
        Opening::Ready(opened) => opened,
        Opening::Delegated(exit) => return Ok(exit),
    };
    let second = match args.second_backend {
        None => None,
        Some(other) => match backend::open_named(other, recipe.numerics)? {
            Opening::Ready(opened) => Some(opened),
            Opening::Delegated(exit) => return Ok(exit),
        },
    };
    let mut learner = image_learner(&recipe, &opened.device)?;
    let mut other = (second.as_ref())
        .map(|second| image_learner(&recipe, &second.device))
        .transpose()?;
    let data = DataCommitment::of(records);
    let terms = Terms::new(recipe.clone(), data, args.seed, BatchSource::Derived, 1);
    let plan = Plan {
        recipe: &recipe,
        records,
        seed: terms.seed,
        intervals: &intervals,
        points: &points,
        rule,
    };
    let replays = 1 + u64::from(rule.replays) + u64::from(second.is_some());
    let each: u64 = intervals.iter().sum();
    let total = points.last().copied().unwrap_or(0) + points.len() as u64 * each * replays;
    let bar = output::progress(total, "measuring {bar:30} {pos}/{len} steps, {eta} left");
    let measured = calibrate(
        &plan,
        learner.as_mut(),
        other.as_mut().map(|other| other.as_mut() as _),
        &mut || bar.inc(1),
    );
    bar.finish_and_clear();
    let measured = measured?;
    let interval = suggested_interval(&measured, rule.min_rho());
    let calibrated = Calibrated {
        schema: "pol.calibrate/2",
        backend: args.machine.backend.name(),
        device: opened.name,
        second: second.map(|second| second.name),
        tolerance: interval.map(|interval| tolerance(&measured, interval, &rule)),
        interval,
        rule,
        points: measured.into_iter().map(row).collect(),
    };
    match args.json {
        true => output::json(&calibrated)?,
        false => print(&calibrated),
    }
    Ok(Exit::Done)
}

fn rule(policy: &Policy) -> Result<Calibration, CliError> {
    match policy.comparison {
        Comparison::Calibrated(rule) => Ok(rule),
        _ => Err(CliError::Usage(format!(
            "the policy `{}` measures no noise; `calibrated` does",
            policy.name
        ))),
    }
}

fn sorted(values: &[u64]) -> Vec<u64> {
    let mut values = values.to_vec();
    values.sort_unstable();
    values.dedup();
    values
}

fn row(point: Point) -> Row {
    Row {
        rho: point.rho(),
        noise_of_learned: 1.0 / point.rho(),
        point,
    }
}

/// The largest tolerance that the rule gives at this interval, as a fraction of what is learned.
fn tolerance(points: &[Point], interval: u64, rule: &Calibration) -> f64 {
    let of = points.iter().filter(|point| point.interval == interval);
    let fractions = of.map(|point| rule.multiple / point.rho());
    fractions.fold(0.0, f64::max)
}

fn print(calibrated: &Calibrated) {
    output::line("interval   at step      learned        noise       second        ρ");
    for Row { point, rho, .. } in &calibrated.points {
        let second = match point.second {
            None => format!("{:>12}", "–"),
            Some(second) => format!("{second:>12.3e}"),
        };
        output::line(format!(
            "{:>8} {:>9} {:>12.3e} {:>12.3e} {second} {rho:>8.1e}",
            point.interval, point.step, point.learned, point.noise
        ));
    }
    match (calibrated.interval, calibrated.tolerance) {
        (Some(interval), Some(tolerance)) => {
            output::field(
                "interval",
                format!(
                    "{interval} or less: ρ is at least {} there",
                    calibrated.rule.min_rho()
                ),
            );
            output::field(
                "tolerance",
                format!("at most {tolerance:.1e} of what a segment learns"),
            );
        }
        _ => output::field(
            "interval",
            format!(
                "none of these: somewhere ρ is below {}; shorter ones may do, and exact numerics do",
                calibrated.rule.min_rho()
            ),
        ),
    }
}
