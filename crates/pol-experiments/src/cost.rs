//! What a proof costs: recording, size, verification.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::Device;
use pol_core::digest::tagged;
use pol_core::policy::Policy;
use pol_core::random::Seed;
use pol_core::store::{FolderStore, Store};
use pol_core::verify::{Selection, Verifier, final_state};
use pol_models::image_learner;
use serde::{Deserialize, Serialize};

use crate::lab::{Setting, prove_into, steps, terms};
use crate::plan::{Cost, Resolved};
use crate::summary::{Found, SummaryTable, median, short};
use crate::table::{Row, Table};
use crate::{ExperimentError, Lab};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Measured {
    cell: String,
    training: String,
    numerics: String,
    interval: u64,
    checkpoints: u64,
    /// Seconds of the training loop without and with recording, medians of interleaved runs.
    plain_seconds: f64,
    recorded_seconds: f64,
    proof_bytes: u64,
    /// The bytes of all states without compression.
    state_bytes: u64,
    /// Segments drawn; 0 for all of them.
    audit: u64,
    steps_replayed: u64,
    verify_seconds: f64,
}

impl Row for Measured {
    fn cell(&self) -> &str {
        &self.cell
    }
}

pub(crate) fn run(plan: &Cost, lab: &Lab<'_>, rows: &Path) -> Result<Found, ExperimentError> {
    let mut table: Table<Measured> = Table::open(rows)?;
    for (number, training) in plan.trainings.iter().enumerate() {
        let training = training.resolve(lab)?;
        for &interval in &plan.intervals {
            let interval = interval.min(training.recipe.steps);
            let cell = format!("{number}/{interval}");
            if table.has(&cell) {
                continue;
            }
            (lab.tell)(&format!(
                "{}, {}: k = {interval}",
                training.name, training.recipe.numerics
            ));
            table.add(measure(plan, &training, interval, &cell)?)?;
        }
    }
    Ok(Found {
        seeds: vec![0],
        tables: vec![recording(table.rows()), verification(table.rows())],
        notes: vec![
            "Seconds are of this machine, and of whatever else ran on it: take ratios.".to_owned(),
        ],
    })
}

fn measure(
    plan: &Cost,
    training: &Resolved,
    interval: u64,
    cell: &str,
) -> Result<Vec<Measured>, ExperimentError> {
    let recipe = &training.recipe;
    let seed = terms(training, 0, interval).seed;
    let (mut plain, mut recorded) = (Vec::new(), Vec::new());
    let mut kept = None;
    let failed = |source| ExperimentError::Io {
        path: std::env::temp_dir(),
        source,
    };
    for _ in 0..plan.repeats.max(1) {
        let mut learner = image_learner(recipe, &Device::flex())?;
        learner.initialise(&seed)?;
        let started = Instant::now();
        let all = (0, recipe.steps);
        steps(learner.as_mut(), training, &seed, all, &Setting::Same)?;
        learner.capture()?;
        plain.push(started.elapsed().as_secs_f64());

        let folder = tempfile::tempdir().map_err(failed)?;
        let store = Arc::new(FolderStore::new(folder.path().join("run")));
        let started = Instant::now();
        let into = Arc::clone(&store) as _;
        let manifest = prove_into(training, 0, interval, &Setting::Same, &Device::flex(), into)?;
        recorded.push(started.elapsed().as_secs_f64());
        kept = Some((folder, store, manifest));
    }
    let Some((_folder, store, manifest)) = kept else {
        return Ok(Vec::new());
    };
    let state_bytes = final_state(store.as_ref()).map_or(0, |(_, state)| state.byte_len());
    let checkpoints = manifest.claim.checkpoints;
    let (plain, recorded) = (median(&mut plain), median(&mut recorded));
    let segments = manifest.claim.terms.segments();
    let mut rows = Vec::new();
    let audits = plan.audits.iter().copied().filter(|q| *q < segments);
    for audit in audits.chain([0]) {
        let randomness = Seed::from_digest(tagged("verifier", &[]));
        let selection = match audit {
            0 => Selection::all(),
            q => Selection::random(q, randomness),
        };
        let mut learner = image_learner(recipe, &Device::flex())?;
        let started = Instant::now();
        let report = Verifier::new(&training.data.train)
            .policy(Policy::bits(), randomness)
            .select(selection)
            .verify(store.as_ref(), learner.as_mut(), |_| {})?;
        rows.push(Measured {
            cell: cell.to_owned(),
            training: training.name.clone(),
            numerics: recipe.numerics.to_string(),
            interval,
            checkpoints,
            plain_seconds: plain.unwrap_or(0.0),
            recorded_seconds: recorded.unwrap_or(0.0),
            proof_bytes: store.size()?,
            state_bytes: state_bytes * checkpoints,
            audit,
            steps_replayed: report.steps_replayed,
            verify_seconds: started.elapsed().as_secs_f64(),
        });
    }
    Ok(rows)
}

fn recording(rows: &[Measured]) -> SummaryTable {
    let mut table = SummaryTable::new(
        "Recording: seconds with it over seconds without, and bytes of the proof over bytes of its states",
        &[
            "training",
            "numerics",
            "k#",
            "checkpoints#",
            "seconds#",
            "recorded#",
            "ratio#",
            "proof MB#",
            "of raw#",
        ],
    );
    for row in rows.iter().filter(|row| row.audit == 0) {
        table.rows.push(vec![
            row.training.clone(),
            row.numerics.clone(),
            row.interval.to_string(),
            row.checkpoints.to_string(),
            short(row.plain_seconds),
            short(row.recorded_seconds),
            short(row.recorded_seconds / row.plain_seconds.max(f64::MIN_POSITIVE)),
            short(row.proof_bytes as f64 / 1e6),
            short(row.proof_bytes as f64 / row.state_bytes.max(1) as f64),
        ]);
    }
    table
}

fn verification(rows: &[Measured]) -> SummaryTable {
    let mut table = SummaryTable::new(
        "Verification: seconds over those of the training",
        &[
            "training",
            "numerics",
            "k#",
            "audit",
            "steps replayed#",
            "seconds#",
            "of training#",
        ],
    );
    for row in rows {
        let audit = match row.audit {
            0 => "all segments".to_owned(),
            q => format!("{q} segments"),
        };
        table.rows.push(vec![
            row.training.clone(),
            row.numerics.clone(),
            row.interval.to_string(),
            audit,
            row.steps_replayed.to_string(),
            short(row.verify_seconds),
            short(row.verify_seconds / row.plain_seconds.max(f64::MIN_POSITIVE)),
        ]);
    }
    table
}
