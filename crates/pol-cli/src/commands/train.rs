//! `pol train`.

mod curve;
mod plan;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

use indicatif::ProgressBar;
use pol_core::adapter::Backend;
use pol_core::estimate::Estimate;
use pol_core::manifest::Manifest;
use pol_core::records::Records;
use pol_core::schedule::Schedule;
use pol_core::store::{FolderStore, Item, Store};
use pol_core::training::{Outcome, Training};
use pol_core::verify::Resources;
use pol_models::dataset::Dataset;
use pol_models::{ImageLearner, image_learner};
use serde::Serialize;

use crate::args::TrainArgs;
use crate::backend::{self, Opened, Opening};
use crate::error::{CliError, Exit, at};
use crate::output;

use super::verify::{Audit, Verified};
use super::{attestations, keys, timestamp};
use curve::Curve;
use plan::Plan;

#[derive(Serialize)]
struct Trained {
    schema: &'static str,
    run: String,
    commitment: String,
    steps: u64,
    interval: u64,
    backend: &'static str,
    device: String,
    threads: usize,
    /// Checkpoints to a kept state.
    keep: u64,
    numerics: String,
    /// `None` if there are no test images.
    test_accuracy: Option<f64>,
    test_records: u64,
    train_seconds: f64,
    steps_per_second: f64,
    proof_bytes: u64,
    /// What `proof_bytes` was estimated not to exceed.
    proof_bytes_at_most: u64,
    checkpoints: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    verification: Option<Verified>,
}

/// What a `Box<dyn ImageLearner>` holds.
type BoxedLearner = dyn ImageLearner + 'static;

pub(crate) fn run(args: &TrainArgs) -> Result<Exit, CliError> {
    let plan = Plan::of(args)?;
    let opened = match backend::open(&args.machine, plan.recipe.numerics)? {
        Opening::Ready(opened) => opened,
        Opening::Delegated(exit) => return Ok(exit),
    };
    let dataset = &plan.dataset;
    if let Some(notice) = &dataset.notice {
        output::note(notice);
    }
    let run = match &args.out {
        Some(run) => {
            refuse_foreign_folder(run)?;
            run.clone()
        }
        None => new_run_folder(&plan.label),
    };
    let store = Arc::new(FolderStore::new(&run));
    let mut learner = image_learner(&plan.recipe, &opened.device)?;
    let training = training(&plan);
    let size = Estimate::of(training.terms(), plan.keep, learner.as_mut())?;
    refuse_too_large(args, &plan, &size)?;
    let (training, stamping) = match (&args.authority, args.timestamp_every) {
        (Some(authority), Some(every)) => {
            let (send, heads) = channel();
            let (authority, run) = (authority.clone(), run.clone());
            let stamping =
                thread::spawn(move || timestamp::stamp_heads(&heads, every, &authority, &run));
            (training.send_heads(send), Some(stamping))
        }
        _ => (training, None),
    };

    if !args.json {
        describe(args, &plan, &opened, &run, &size);
    }
    let started = Instant::now();
    let (outcome, steps_made) = train(args, &training, learner.as_mut(), &store, &run)?;
    let seconds = started.elapsed();
    drop(training);
    if let Some(stamping) = stamping {
        // It ends when nobody can send it another head.
        let _ = stamping.join();
    }
    let manifest = match outcome {
        Outcome::Sealed(manifest) => manifest,
        Outcome::Interrupted { step } => {
            output::note(format!(
                "stopped; the last checkpoint is at step {step}. Go on with: pol train --resume \
                 --out {}",
                run.display()
            ));
            return Ok(Exit::Environment);
        }
    };
    write_environment(&run, args, &opened)?;
    if let Some(key) = &plan.key {
        keys::sign_with(store.as_ref(), &run, key)?;
    }
    if let Some(authority) = &args.authority {
        let answer = timestamp::ask(authority, &manifest.claim.commitment())?;
        attestations::write(&run, attestations::COMMITMENT_TOKEN, &answer)?;
    }
    let limit = if args.test_records == 0 {
        u64::MAX
    } else {
        args.test_records
    };
    let evaluation = learner.evaluate(&dataset.test, limit)?;
    let mut trained = Trained {
        schema: "pol.train/1",
        run: run.display().to_string(),
        commitment: manifest.claim.commitment().to_string(),
        steps: plan.recipe.steps,
        interval: plan.interval,
        keep: plan.keep,
        backend: args.machine.backend.name(),
        device: opened.name.clone(),
        threads: rayon::current_num_threads(),
        numerics: plan.recipe.numerics.to_string(),
        test_accuracy: evaluation.accuracy(),
        test_records: evaluation.records,
        train_seconds: seconds.as_secs_f64(),
        steps_per_second: steps_made as f64 / seconds.as_secs_f64(),
        proof_bytes: store.size()?,
        proof_bytes_at_most: size.at_most(),
        checkpoints: manifest.claim.checkpoints,
        verification: None,
    };
    if !args.json {
        summarise(&trained, steps_made, seconds);
    }
    let mut exit = Exit::Done;
    if args.verify {
        let verified = verify(args, &plan, dataset, &opened, &manifest, store.as_ref())?;
        exit = verified.exit();
        if !args.json {
            output::line("");
            verified.print();
        }
        trained.verification = Some(verified);
    }
    if args.json {
        output::json(&trained)?;
    }
    Ok(exit)
}

/// The training that is planned.
fn training(plan: &Plan) -> Training<'_> {
    let records = &plan.dataset.train;
    let mut training =
        Training::new(plan.recipe.clone(), records, plan.nonce, plan.interval).keep(plan.keep);
    if let Some(key) = &plan.key {
        training = training.of_prover(key.public().prover_key());
        if plan.private_data {
            training = training.with_private_data(&key.salt_secret());
        }
    }
    if let Some((commitment, state)) = &plan.prior {
        training = training.from_prior(*commitment, state);
    }
    training
}

fn describe(args: &TrainArgs, plan: &Plan, opened: &Opened, run: &Path, size: &Estimate) {
    let recipe = &plan.recipe;
    let per_epoch = Schedule::steps_per_epoch(plan.dataset.train.len(), recipe.batch_size);
    output::field(
        "recipe",
        format!(
            "{} on {}, {} steps of {} records ({per_epoch} steps an epoch), {} numerics",
            recipe.model.name, recipe.data.name, recipe.steps, recipe.batch_size, recipe.numerics
        ),
    );
    output::field(
        "backend",
        format!(
            "{}: {}, {} threads",
            args.machine.backend,
            opened.name,
            rayon::current_num_threads()
        ),
    );
    output::field("run", run.display().to_string());
    output::field(
        "disk",
        format!(
            "at most {}: {} states of {}",
            output::bytes(size.at_most()),
            size.states,
            output::bytes(size.state_bytes)
        ),
    );
}

/// Refuses a training whose proof may become larger than the user allows.
fn refuse_too_large(args: &TrainArgs, plan: &Plan, size: &Estimate) -> Result<(), CliError> {
    let Some(most) = args.max_disk.filter(|most| size.at_most() > *most) else {
        return Ok(());
    };
    let remedy = match size.factor_for(most) {
        Some(factor) if plan.recipe.numerics.is_exact() => {
            format!("--keep {} fits", plan.keep * factor)
        }
        Some(factor) => format!("--interval {} fits", plan.interval * factor),
        None => "not even two states fit".to_owned(),
    };
    Err(CliError::Usage(format!(
        "the proof may take {} ({} states of {}), more than the {} of --max-disk; {remedy}",
        output::bytes(size.at_most()),
        size.states,
        output::bytes(size.state_bytes),
        output::bytes(most),
    )))
}

fn summarise(trained: &Trained, steps_made: u64, seconds: std::time::Duration) {
    output::field(
        "trained",
        format!(
            "{steps_made} steps in {} ({:.2} steps/s)",
            output::duration(seconds),
            trained.steps_per_second
        ),
    );
    output::field(
        "accuracy",
        match trained.test_accuracy {
            Some(share) => format!(
                "{:.2} % of {} test images",
                100.0 * share,
                trained.test_records
            ),
            None => "not measured: the data set has no test images".to_owned(),
        },
    );
    output::field(
        "proof",
        format!(
            "{} checkpoints, one every {} steps{}; {}",
            trained.checkpoints,
            trained.interval,
            match trained.keep {
                1 => String::new(),
                keep => format!(", the state of one in {keep} kept"),
            },
            output::bytes(trained.proof_bytes)
        ),
    );
    output::field("commitment", &trained.commitment);
}

/// Trains, with a progress bar, a curve and an ear for Ctrl-C. Returns the steps made now.
fn train(
    args: &TrainArgs,
    training: &Training<'_>,
    learner: &mut BoxedLearner,
    store: &Arc<FolderStore>,
    run: &Path,
) -> Result<(Outcome, u64), CliError> {
    let stop = listen_for_interrupts();
    let recipe = &training.terms().recipe;
    let per_epoch = Schedule::steps_per_epoch(training.terms().data.records, recipe.batch_size);
    let bar = output::progress(
        recipe.steps,
        "{bar:24} {pos}/{len} steps, {msg}, {eta} left",
    );
    let mut curve = Curve::new(run, training.terms().recipe.batch_size);
    let mut curve_error = None;
    let mut steps_made = 0;
    let observe = |learner: &mut BoxedLearner, step: u64| {
        steps_made += 1;
        if let Err(error) = curve.record(learner, step, (step - 1) / per_epoch) {
            curve_error.get_or_insert(error);
        }
        show(&bar, &curve, step);
        if stop.load(Ordering::Relaxed) || curve_error.is_some() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let store: Arc<dyn Store> = Arc::clone(store) as Arc<dyn Store>;
    let outcome = if args.resume {
        training.resume(learner, store, observe)
    } else {
        training.run(learner, store, observe)
    };
    bar.finish_and_clear();
    let outcome = outcome?;
    if let Some(error) = curve_error {
        return Err(error);
    }
    curve.finish()?;
    Ok((outcome, steps_made))
}

fn show(bar: &ProgressBar, curve: &Curve, step: u64) {
    bar.set_message(format!(
        "loss {:.4}, accuracy {:.1} %, {:.3} steps/s",
        curve.recent_loss(),
        100.0 * curve.recent_accuracy(),
        curve.steps_per_second()
    ));
    bar.set_position(step);
}

/// A flag that Ctrl-C sets. The second one ends the program at once; the run can be resumed then
/// too.
fn listen_for_interrupts() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    // Fails only if a handler is set already, which then serves.
    let _ = ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(4);
        }
        output::note("stopping after this step; press Ctrl-C again to stop at once");
    });
    stop
}

fn verify(
    args: &TrainArgs,
    plan: &Plan,
    dataset: &Dataset,
    opened: &Opened,
    manifest: &Manifest,
    store: &FolderStore,
) -> Result<Verified, CliError> {
    let secret = plan.key.as_ref().map(|key| key.salt_secret());
    let audit = Audit {
        recipe: Some(&plan.recipe),
        commitment: Some(manifest.claim.commitment()),
        secret: secret.as_ref(),
        resources: Resources {
            threads: rayon::current_num_threads(),
            ..Resources::default()
        },
        ..Audit::bits()
    };
    let backend = args.machine.backend;
    audit.run(&plan.recipe, &dataset.train, backend, opened, store)
}

/// Refuses a folder that holds something, but no training.
fn refuse_foreign_folder(run: &Path) -> Result<(), CliError> {
    let store = FolderStore::new(run);
    let is_run = store.contains(Item::Manifest) || store.contains(Item::Journal);
    let has_entries = std::fs::read_dir(run).is_ok_and(|mut entries| entries.next().is_some());
    if has_entries && !is_run {
        return Err(CliError::Usage(format!(
            "{} holds other files; give --out a new folder",
            run.display()
        )));
    }
    Ok(())
}

/// `runs/LABEL-N` with the smallest N that is free.
fn new_run_folder(label: &str) -> PathBuf {
    (1u64..)
        .map(|n| Path::new("runs").join(format!("{label}-{n}")))
        .find(|folder| !folder.exists())
        .unwrap_or_else(|| PathBuf::from("runs"))
}

#[derive(Serialize)]
struct Environment<'a> {
    note: &'static str,
    program: &'static str,
    burn: &'static str,
    backend: &'static str,
    device: &'a str,
    threads: usize,
    autotune: bool,
    fusion: bool,
    os: &'static str,
    architecture: &'static str,
}

fn write_environment(run: &Path, args: &TrainArgs, opened: &Opened) -> Result<(), CliError> {
    let environment = Environment {
        note: "for people; not part of what is proved",
        program: concat!("pol ", env!("CARGO_PKG_VERSION")),
        burn: "0.22.1",
        backend: args.machine.backend.name(),
        device: &opened.name,
        threads: rayon::current_num_threads(),
        autotune: Backend::AUTOTUNE,
        fusion: Backend::FUSION,
        os: std::env::consts::OS,
        architecture: std::env::consts::ARCH,
    };
    let folder = run.join("metrics");
    std::fs::create_dir_all(&folder).map_err(at(&folder))?;
    let path = folder.join("environment.json");
    let text = serde_json::to_string_pretty(&environment).unwrap_or_default();
    std::fs::write(&path, text + "\n").map_err(at(path))
}
