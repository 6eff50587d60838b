//! Trainings, replays and verdicts, as experiments need them.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use burn::tensor::Device;
use pol_core::digest::tagged;
use pol_core::learner::Batch;
use pol_core::manifest::{Manifest, Terms};
use pol_core::policy::Policy;
use pol_core::random::Seed;
use pol_core::recipe::Recipe;
use pol_core::records::{DataCommitment, Records};
use pol_core::schedule::{BatchSource, Schedule};
use pol_core::state::State;
use pol_core::store::{MemoryStore, Store};
use pol_core::training::{Outcome, Training};
use pol_core::verify::{Report, Verifier};
use pol_models::{ImageLearner, image_learner};

use crate::ExperimentError;
use crate::plan::Resolved;

/// What experiments are made with.
pub struct Lab<'a> {
    /// The folder of the data sets.
    pub data: PathBuf,
    /// The devices at hand, by backend. `flex` is the one that trains.
    pub devices: BTreeMap<String, DeviceFound>,
    /// Told of each measurement as it begins.
    pub tell: &'a dyn Fn(&str),
}

/// A device.
#[derive(Debug, Clone)]
pub struct DeviceFound {
    /// The device.
    pub device: Device,
    /// How it calls itself.
    pub name: String,
}

/// Where and how something is replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Setting {
    /// As it was trained.
    Same,
    /// With so many threads.
    Threads(usize),
    /// With the records of each batch in reverse order.
    Order,
    /// With other draws of augmentation.
    Draws,
    /// After the training was broken off and resumed.
    Resumed,
    /// On another backend.
    Backend(String),
    /// After it was trained on another backend.
    From(String),
}

impl Setting {
    pub(crate) fn parse(name: &str) -> Result<Self, ExperimentError> {
        Ok(match name {
            "same" => Self::Same,
            "order" => Self::Order,
            "draws" => Self::Draws,
            "resumed" => Self::Resumed,
            "wgpu" | "vulkan" | "cuda" | "cpu" => Self::Backend(name.to_owned()),
            "from-wgpu" | "from-vulkan" | "from-cuda" | "from-cpu" => {
                Self::From(name.trim_start_matches("from-").to_owned())
            }
            _ => {
                let threads = name.strip_prefix("threads-").and_then(|n| n.parse().ok());
                let threads = threads.filter(|threads| *threads > 0).ok_or_else(|| {
                    ExperimentError::Plan(format!(
                        "`{name}` is no setting: they are same, threads-N, order, draws, resumed, the \
                         backends, and from-BACKEND"
                    ))
                })?;
                Self::Threads(threads)
            }
        })
    }
}

impl Setting {
    /// A setting in which an honest training is honest: randomness and order are as derived.
    pub(crate) fn honest(name: &str) -> Result<Self, ExperimentError> {
        match Self::parse(name)? {
            Self::Order | Self::Draws => Err(ExperimentError::Plan(format!(
                "`{name}` is a setting of replays: it makes another training"
            ))),
            setting => Ok(setting),
        }
    }
}

impl Lab<'_> {
    /// The device that trains in a setting; `None` where it is not present.
    pub(crate) fn trains_on(&self, setting: &Setting) -> Option<Device> {
        match setting {
            Setting::From(name) => self.devices.get(name).map(|found| found.device.clone()),
            _ => Some(Device::flex()),
        }
    }

    /// The device of a setting; `None` where it is not present.
    pub(crate) fn device(&self, setting: &Setting) -> Option<Device> {
        match setting {
            Setting::From(name) => self.devices.get(name).map(|_| Device::flex()),
            Setting::Backend(name) => self.devices.get(name).map(|found| found.device.clone()),
            _ => Some(Device::flex()),
        }
    }
}

/// Calls `work` with this many threads, where the setting says so.
pub(crate) fn with_threads<T: Send>(
    setting: &Setting,
    work: impl FnOnce() -> Result<T, ExperimentError> + Send,
) -> Result<T, ExperimentError> {
    let Setting::Threads(threads) = setting else {
        return work();
    };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(*threads)
        .build();
    let failed =
        |error| ExperimentError::Plan(format!("{threads} threads cannot be started: {error}"));
    pool.map_err(failed)?.install(work)
}

/// The terms of a training with this nonce.
pub(crate) fn terms(training: &Resolved, nonce: u64, interval: u64) -> Terms {
    let data = DataCommitment::of(&training.data.train);
    let recipe = training.recipe.clone();
    Terms::new(recipe, data, nonce, BatchSource::Derived, interval)
}

/// Takes the steps from `first` to `last` as `setting` has it.
pub(crate) fn steps(
    learner: &mut dyn ImageLearner,
    training: &Resolved,
    seed: &Seed,
    (first, last): (u64, u64),
    setting: &Setting,
) -> Result<(), ExperimentError> {
    let records = &training.data.train;
    let mut schedule = Schedule::new(*seed, records.len(), training.recipe.batch_size)?;
    let other = Seed::from_digest(tagged("other draws", &[]));
    let draws = match setting {
        Setting::Draws => &other,
        _ => seed,
    };
    for step in first..last {
        let mut plan = schedule.batch(step);
        if *setting == Setting::Order {
            plan.records.reverse();
        }
        learner.step(&Batch::new(&plan, records, draws)?)?;
    }
    Ok(())
}

/// The states of a training at these steps, ascending.
pub(crate) fn states_at(
    training: &Resolved,
    nonce: u64,
    at: &[u64],
) -> Result<BTreeMap<u64, State>, ExperimentError> {
    let seed = terms(training, nonce, 1).seed;
    let mut learner = image_learner(&training.recipe, &Device::flex())?;
    learner.initialise(&seed)?;
    let mut states = BTreeMap::new();
    let mut now = 0;
    for &step in at {
        steps(
            learner.as_mut(),
            training,
            &seed,
            (now, step),
            &Setting::Same,
        )?;
        now = step;
        states.insert(step, learner.capture()?);
    }
    Ok(states)
}

/// The first nonce whose start the published test of distributions admits; it does not admit all honest
/// ones.
pub(crate) fn presentable_nonce(training: &Resolved) -> Result<u64, ExperimentError> {
    let mut learner = image_learner(&training.recipe, &Device::flex())?;
    let mut nonce = 0;
    loop {
        learner.initialise(&terms(training, nonce, 1).seed)?;
        let start = learner.capture()?;
        if pol_attacks::smallest_p(learner.as_ref(), &start) > 0.01 || nonce >= 1000 {
            return Ok(nonce);
        }
        nonce += 1;
    }
}

/// A training that was proved.
pub(crate) struct Proved {
    pub(crate) manifest: Box<Manifest>,
    pub(crate) store: Arc<MemoryStore>,
}

/// Trains and proves on the CPU; broken off in the middle and resumed, if that is the setting.
pub(crate) fn prove(
    training: &Resolved,
    nonce: u64,
    interval: u64,
    setting: &Setting,
) -> Result<Proved, ExperimentError> {
    prove_on(&Device::flex(), training, nonce, interval, setting)
}

/// The same on another device.
pub(crate) fn prove_on(
    device: &Device,
    training: &Resolved,
    nonce: u64,
    interval: u64,
    setting: &Setting,
) -> Result<Proved, ExperimentError> {
    let store = Arc::new(MemoryStore::new());
    let into = Arc::clone(&store) as _;
    let manifest = prove_into(training, nonce, interval, setting, device, into)?;
    Ok(Proved { manifest, store })
}

pub(crate) fn prove_into(
    training: &Resolved,
    nonce: u64,
    interval: u64,
    setting: &Setting,
    device: &Device,
    store: Arc<dyn Store>,
) -> Result<Box<Manifest>, ExperimentError> {
    let recipe = training.recipe.clone();
    let half = recipe.steps / 2;
    let planned = Training::new(recipe.clone(), &training.data.train, nonce, interval);
    let mut learner = image_learner(&recipe, device)?;
    let mut outcome = planned.run(learner.as_mut(), Arc::clone(&store), |_, step| {
        match *setting == Setting::Resumed && step == half {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })?;
    if matches!(outcome, Outcome::Interrupted { .. }) {
        let mut fresh = image_learner(&recipe, device)?;
        outcome = planned.resume(fresh.as_mut(), store, |_, _| ControlFlow::Continue(()))?;
    }
    match outcome {
        Outcome::Sealed(manifest) => Ok(manifest),
        Outcome::Interrupted { step } => Err(ExperimentError::Plan(format!(
            "the training was broken off at step {step}"
        ))),
    }
}

/// Judges a proof by a shipped policy.
pub(crate) fn judge(
    store: &dyn Store,
    recipe: &Recipe,
    records: &dyn Records,
    policy: &str,
    setting: &Setting,
    device: &Device,
) -> Result<Report, ExperimentError> {
    let policy = policy_named(policy)?;
    let randomness = Seed::from_digest(tagged("verifier", &[policy.name.as_bytes()]));
    with_threads(setting, || {
        let mut learner = image_learner(recipe, device)?;
        let verifier = Verifier::new(records)
            .policy(policy, randomness)
            .fail_fast(true);
        Ok(verifier.verify(store, learner.as_mut(), |_| {})?)
    })
}

/// A shipped policy; or `tolerance alone`, the default without its bounds and whatever the start.
pub(crate) fn policy_named(name: &str) -> Result<Policy, ExperimentError> {
    use pol_core::policy::{Bounds, StartRule};
    if name == TOLERANCE_ALONE {
        let policy = policy_named("calibrated")?;
        return Ok(Policy {
            name: name.to_owned(),
            bounds: Bounds::default(),
            start: StartRule::Distribution {
                level: 1e-3,
                corrected: true,
                max_depth: 0,
            },
            ..policy
        });
    }
    let unknown = || ExperimentError::Plan(format!("there is no shipped policy `{name}`"));
    Policy::shipped(name).ok_or_else(unknown)
}

/// What the default's comparison holds by itself.
pub(crate) const TOLERANCE_ALONE: &str = "tolerance alone";
