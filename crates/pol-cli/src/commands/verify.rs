//! `pol verify`.

use std::time::Instant;

use pol_core::adapter::Backend;
use pol_core::digest::{Digest, tagged};
use pol_core::random::Seed;
use pol_core::recipe::{Numerics, Recipe};
use pol_core::records::Records;
use pol_core::state::Part;
use pol_core::store::{FolderStore, Store};
use pol_core::verify::{
    Integrity, Progress, Reason, Report, SegmentReport, Selection, Tolerance, Verifier,
    check_integrity, read_claim,
};
use pol_models::dataset::default_folder;
use pol_models::recipe_file::RecipeFile;
use pol_models::{RecipeMismatch, dataset_of, image_learner};
use serde::Serialize;

use crate::args::VerifyArgs;
use crate::backend::{self, Opened, Opening};
use crate::error::{CliError, Exit, printable};
use crate::output;

use super::{existing_store, recipe_file};

/// Rows of the table before it is cut to the largest distances.
const MAX_ROWS: usize = 24;

pub(crate) fn run(args: &VerifyArgs) -> Result<Exit, CliError> {
    let selection = selection(args)?;
    backend::use_threads(&args.machine)?;
    let store = existing_store(&args.run)?;
    let claimed = read_claim(&store)?.map(|manifest| manifest.claim.terms.recipe);
    let file = args.recipe.as_deref().map(recipe_file).transpose()?;
    let numerics = match (&file, &claimed) {
        (Some(file), _) => file.numerics,
        (None, Ok(recipe)) => recipe.numerics,
        (None, Err(_)) => Numerics::Stock,
    };
    if numerics.is_exact() && args.tolerance.is_some() {
        return Err(CliError::Usage(
            "--tolerance is for stock numerics: replays of an exact recipe agree in every bit or \
             are wrong"
                .to_owned(),
        ));
    }
    let opened = match backend::open(&args.machine, numerics)? {
        Opening::Ready(opened) => opened,
        Opening::Delegated(exit) => return Ok(exit),
    };
    let verified = judge(args, selection, &opened, &store, (claimed, file))?;
    if args.json {
        output::json(&verified)?;
    } else {
        verified.print();
    }
    Ok(verified.exit())
}

/// Judges a proof of the `claimed` recipe; `file` is the verifier's own, if there is one.
fn judge(
    args: &VerifyArgs,
    selection: Selection,
    opened: &Opened,
    store: &FolderStore,
    (claimed, file): (Result<Recipe, Reason>, Option<RecipeFile>),
) -> Result<Verified, CliError> {
    let started = Instant::now();
    let backend = args.machine.backend;
    let unread = |report| Verified::new(report, backend, opened, None, started);
    let claimed = match claimed {
        Ok(recipe) => recipe,
        Err(reason) => return Ok(unread(Report::rejected(None, vec![reason]))),
    };
    let folder = args.machine.data_dir.clone().unwrap_or_else(default_folder);
    // The recipe whose data is loaded and whose model is built: the verifier's own if given.
    let dataset = match &file {
        Some(file) => file.data.name.parse()?,
        None => match dataset_of(&claimed) {
            Ok(dataset) => dataset,
            Err(error) => return Ok(unread(not_replayable(store, &error)?)),
        },
    };
    let loaded = dataset.load(&folder)?;
    if let Some(notice) = &loaded.notice {
        output::note(notice);
    }
    let expected = (file.as_ref())
        .map(|file| file.resolve(loaded.train.len()))
        .transpose()?;
    let audit = Audit {
        recipe: expected.as_ref(),
        commitment: args.commitment,
        selection,
        tolerance: args.tolerance.unwrap_or(Tolerance::EXACT),
        reference_distance: args.reference_distance,
        backend,
    };
    let recipe = expected.as_ref().unwrap_or(&claimed);
    match audit.run(recipe, &loaded.train, opened, store) {
        // A device that is unfit says nothing about the proof.
        Err(CliError::Recipe(error))
            if expected.is_none() || matches!(error, RecipeMismatch::Probe(_)) =>
        {
            Ok(unread(not_replayable(store, &error)?))
        }
        result => result,
    }
}

/// A proof of a recipe that this program lacks: its integrity can still be broken.
fn not_replayable(store: &dyn Store, error: &dyn std::fmt::Display) -> Result<Report, CliError> {
    Ok(
        match check_integrity(store, &Part::by_prefix, &mut |_| {})? {
            Integrity::Broken { commitment, reason } => Report::rejected(commitment, vec![reason]),
            Integrity::Holds(checked) => Report::inconclusive(
                Some(checked.commitment()),
                format!(
                    "this program cannot replay the recipe: {}",
                    printable(error)
                ),
            ),
        },
    )
}

fn selection(args: &VerifyArgs) -> Result<Selection, CliError> {
    if args.audit_seed.is_some() && args.sample.is_none() {
        return Err(CliError::Usage("--audit-seed needs --sample".to_owned()));
    }
    if args.sample == Some(0) || args.top == Some(0) {
        return Err(CliError::Usage(
            "--sample and --top need at least 1".to_owned(),
        ));
    }
    if args.all || (args.sample.is_none() && args.top.is_none()) {
        return Ok(Selection::all());
    }
    let mut selection = match args.sample {
        Some(count) => Selection::random(count, audit_seed(args.audit_seed)?),
        None => Selection::top(0),
    };
    selection.top = args.top;
    Ok(selection)
}

/// The given seed, or a fresh one.
fn audit_seed(given: Option<Digest>) -> Result<Seed, CliError> {
    if let Some(digest) = given {
        return Ok(Seed::from_digest(digest));
    }
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| CliError::Environment(error.to_string()))?;
    Ok(Seed::from_digest(tagged("pol.v1.audit", &[&bytes])))
}

/// A verification with everything settled but the proof.
pub(super) struct Audit<'a> {
    pub(super) recipe: Option<&'a Recipe>,
    pub(super) commitment: Option<Digest>,
    pub(super) selection: Selection,
    pub(super) tolerance: Tolerance,
    pub(super) reference_distance: Option<f64>,
    pub(super) backend: Backend,
}

impl Audit<'_> {
    /// Everything replayed, not a bit of difference allowed.
    pub(super) fn all(backend: Backend) -> Self {
        Self {
            recipe: None,
            commitment: None,
            selection: Selection::all(),
            tolerance: Tolerance::EXACT,
            reference_distance: None,
            backend,
        }
    }

    pub(super) fn run(
        &self,
        recipe: &Recipe,
        records: &dyn Records,
        opened: &Opened,
        store: &dyn Store,
    ) -> Result<Verified, CliError> {
        let started = Instant::now();
        let mut learner = image_learner(recipe, &opened.device)?;
        let mut verifier = Verifier::new(records)
            .select(self.selection)
            .tolerance(self.tolerance);
        if let Some(recipe) = self.recipe {
            verifier = verifier.expect_recipe(recipe);
        }
        if let Some(commitment) = self.commitment {
            verifier = verifier.expect_commitment(commitment);
        }
        if let Some(distance) = self.reference_distance {
            verifier = verifier.reference_distance(distance);
        }
        let bar = output::progress(0, "{msg} {bar:30} {pos}/{len}, {eta} left");
        let report = verifier.verify(store, learner.as_mut(), |progress| {
            let (what, done, total) = match progress {
                Progress::Integrity(done, total) => ("hashing", done, total),
                Progress::Replay(done, total) => ("replaying", done, total),
            };
            bar.set_length(total);
            bar.set_message(what);
            bar.set_position(done);
        });
        bar.finish_and_clear();
        let claimed = self.recipe.is_none().then(|| recipe.clone());
        Ok(Verified::new(
            report?,
            self.backend,
            opened,
            claimed,
            started,
        ))
    }
}

/// The result of `pol verify`; see docs/json.md.
#[derive(Serialize)]
pub(super) struct Verified {
    schema: &'static str,
    backend: &'static str,
    device: String,
    /// The recipe that was replayed, where it is only the proof's own claim.
    claimed_recipe: Option<Recipe>,
    catches_1_percent: f64,
    catches_10_percent: f64,
    audit_seed: Option<Digest>,
    verify_seconds: f64,
    #[serde(flatten)]
    report: Report,
}

impl Verified {
    fn new(
        report: Report,
        backend: Backend,
        opened: &Opened,
        claimed_recipe: Option<Recipe>,
        started: Instant,
    ) -> Self {
        Self {
            schema: "pol.verify/1",
            backend: backend.name(),
            device: opened.name.clone(),
            claimed_recipe,
            catches_1_percent: report.catches(0.01),
            catches_10_percent: report.catches(0.1),
            audit_seed: (report.selection)
                .and_then(|selection| selection.seed)
                .map(|seed| *seed.digest()),
            verify_seconds: started.elapsed().as_secs_f64(),
            report,
        }
    }

    fn is_exact(&self) -> bool {
        (self.report.tolerance).is_none_or(|tolerance| tolerance.is_exact())
    }

    pub(super) fn exit(&self) -> Exit {
        self.report.verdict.into()
    }

    /// For people, to stdout.
    pub(super) fn print(&self) {
        let report = &self.report;
        if let Some(commitment) = report.commitment {
            output::field("commitment", commitment.to_string());
        }
        if let Some(recipe) = &self.claimed_recipe {
            output::field(
                "recipe",
                format!(
                    "{} on {}, {} steps, as the proof claims; hold it to yours with --recipe",
                    recipe.model.name, recipe.data.name, recipe.steps
                ),
            );
        }
        if !report.segments.is_empty() {
            output::field(
                "replayed",
                format!(
                    "{} of {} segments, {} steps on {} ({}) in {:.1} s",
                    report.segments.len(),
                    report.segments_total,
                    report.steps_replayed,
                    self.backend,
                    self.device,
                    self.verify_seconds
                ),
            );
            self.print_segments();
            output::field("audit", self.describe_audit());
        }
        for reason in &report.reasons {
            output::field("reason", reason.to_string());
        }
        output::field("verdict", report.verdict.to_string());
        let bits_differ = |reason: &Reason| matches!(reason, Reason::BitsDiffer { .. });
        if self.is_exact()
            && report.numerics == Some(Numerics::Stock)
            && report.reasons.iter().any(bits_differ)
        {
            output::note(
                "stock kernels give other bits on other hardware; if this proof was made \
                 elsewhere, say with --tolerance how far a replay may end from it",
            );
        }
    }

    fn print_segments(&self) {
        let segments = &self.report.segments;
        let equal = segments.iter().filter(|s| s.digests_equal).count();
        if equal == segments.len() {
            output::field("", "every replay arrived at the logged state, bit for bit");
            return;
        }
        let mut rows: Vec<&SegmentReport> = segments.iter().collect();
        if rows.len() > MAX_ROWS {
            let distance = |s: &SegmentReport| s.parameters.map_or(f64::MAX, |p| p.distances.l2);
            rows.sort_by(|a, b| distance(b).total_cmp(&distance(a)));
            rows.truncate(MAX_ROWS);
            output::field(
                "",
                format!("{equal} equal bit for bit; the {MAX_ROWS} farthest:"),
            );
        }
        output::line(
            "   segment        steps  bits          l1          l2        linf      cosine  of movement",
        );
        for segment in rows {
            let steps = format!("{}–{}", segment.first_step, segment.last_step);
            let number = |value: Option<f64>| {
                value.map_or_else(|| format!("{:>11}", "–"), |v| format!("{v:>11.3e}"))
            };
            let distances = segment.parameters.map(|part| part.distances);
            output::line(format!(
                "{:>10} {steps:>12}  {:<5} {} {} {} {}  {}",
                segment.index,
                if segment.digests_equal {
                    "equal"
                } else {
                    "–"
                },
                number(distances.map(|d| d.l1)),
                number(distances.map(|d| d.l2)),
                number(distances.map(|d| d.linf)),
                number(distances.map(|d| d.cosine)),
                number(segment.relative_to_movement),
            ));
        }
    }

    fn describe_audit(&self) -> String {
        let mut text = if self.report.selection.is_some_and(|selection| selection.all) {
            "every segment was replayed".to_owned()
        } else {
            format!(
                "a forger of 1 % of the segments is met with probability {:.3}, of 10 % with {:.3}",
                self.catches_1_percent, self.catches_10_percent
            )
        };
        if !self.is_exact() {
            text += "; a forgery below the tolerance is not seen";
        }
        if let Some(seed) = self.audit_seed {
            text += &format!("; --audit-seed {seed}");
        }
        text
    }
}
