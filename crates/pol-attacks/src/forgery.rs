//! What forgers share: claims, states made up from others, and sealing them as a proof.

use pol_core::learner::Batch;
use pol_core::manifest::{Checkpoint, Claim, Manifest, Terms};
use pol_core::merkle::Tree;
use pol_core::model_file::{self, is_model};
use pol_core::object;
use pol_core::random::Seed;
use pol_core::recipe::{Decay, LearningRate, Optimizer, Recipe};
use pol_core::records::{DataCommitment, Records};
use pol_core::schedule::{BatchPlan, BatchSource, Schedule};
use pol_core::state::{DType, Entry, RATE_ENTRY, STEP_ENTRY, State};
use pol_core::store::{Item, Store};
use pol_core::verify::read_claim;
use pol_models::ImageLearner;

use crate::{AttackError, Options, Victim};

/// The victim's recipe over the options' steps, with a constant rate.
pub fn constant_rate(victim: &Victim<'_>, options: &Options, rate: f64) -> Recipe {
    Recipe {
        learning_rate: LearningRate {
            base: rate,
            warmup: 0,
            decay: Decay::Constant,
        },
        steps: options.interval * options.segments,
        ..victim.terms.recipe.clone()
    }
}

/// The same, with the simplest update rule, `w ← w − η∇`, and images as they are.
pub fn plain(victim: &Victim<'_>, options: &Options, rate: f64) -> Recipe {
    let mut recipe = constant_rate(victim, options, rate);
    recipe.optimizer = Optimizer::Sgd {
        momentum: 0.0,
        dampening: 0.0,
        weight_decay: 0.0,
        nesterov: false,
    };
    recipe.data.options.clear();
    recipe
}

/// The victim's base rate, or the one that the options say.
pub fn honest_rate(victim: &Victim<'_>, options: &Options) -> f64 {
    let honest = victim.terms.recipe.learning_rate.base;
    options.learning_rate.unwrap_or(honest)
}

/// Terms of a training on the victim's data.
pub fn on_their_data(victim: &Victim<'_>, options: &Options, recipe: Recipe) -> Terms {
    let data = DataCommitment::of(&victim.data.train);
    let (nonce, interval) = (options.nonce, options.interval);
    Terms::new(recipe, data, nonce, BatchSource::Derived, interval)
}

/// The manifest and the states of a published proof.
///
/// # Errors
/// If it does not hold all of its states.
pub fn published(proof: &dyn Store) -> Result<(Manifest, Vec<State>), AttackError> {
    let not_whole = |why: String| AttackError::NotApplicable(format!("the victim's proof: {why}"));
    let manifest = read_claim(proof)
        .map_err(|error| not_whole(error.to_string()))?
        .map_err(|reason| not_whole(reason.to_string()))?;
    let states = manifest.checkpoints.iter().map(|checkpoint| {
        let name = checkpoint.state;
        object::read_state(proof, &name, None).map_err(|error| not_whole(error.to_string()))
    });
    let states = states.collect::<Result<_, AttackError>>()?;
    Ok((manifest, states))
}

/// What somebody really trains with, whatever the terms say.
#[derive(Clone, Copy)]
pub struct Practice<'r> {
    /// The records.
    pub records: &'r dyn Records,
    /// What the order of records follows from.
    pub order: Seed,
    /// What augmentation follows from.
    pub draws: Seed,
}

/// A proof in the making.
pub struct Forgery<'a> {
    terms: Terms,
    records: &'a dyn Records,
    store: &'a dyn Store,
    checkpoints: Vec<Checkpoint>,
    last: Option<State>,
    model: Option<State>,
    /// Steps taken on the learner.
    pub steps: u64,
}

impl<'a> Forgery<'a> {
    /// Begins a proof under these terms.
    pub fn begin(terms: Terms, records: &'a dyn Records, store: &'a dyn Store) -> Self {
        Self {
            terms,
            records,
            store,
            checkpoints: Vec::new(),
            last: None,
            model: None,
            steps: 0,
        }
    }

    /// Its terms.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// What honest training under these terms is.
    pub fn honest(&self) -> Practice<'a> {
        Practice {
            records: self.records,
            order: self.terms.seed,
            draws: self.terms.seed,
        }
    }

    /// Takes the honest steps of the segment at `index` from `start`, and gives the state that they
    /// lead to.
    ///
    /// # Errors
    /// If the learner fails.
    pub fn train(
        &mut self,
        learner: &mut dyn ImageLearner,
        start: &State,
        index: u64,
    ) -> Result<State, AttackError> {
        self.train_as(learner, start, index, self.honest())
    }

    /// The same with another practice.
    ///
    /// # Errors
    /// If the learner fails, or there are too few records for a batch.
    pub fn train_as(
        &mut self,
        learner: &mut dyn ImageLearner,
        start: &State,
        index: u64,
        practice: Practice<'_>,
    ) -> Result<State, AttackError> {
        learner.restore(start)?;
        for plan in plans(&self.terms, index, practice.order, practice.records.len())? {
            learner.step(&Batch::new(&plan, practice.records, &practice.draws)?)?;
            self.steps += 1;
        }
        Ok(learner.capture()?)
    }

    /// Commits to a state as the next checkpoint.
    ///
    /// # Errors
    /// If the store fails.
    pub fn log(&mut self, state: &State) -> Result<(), AttackError> {
        self.log_after(state, None)
    }

    /// Commits to a state, and to the batches that lead there, where the terms have them listed.
    ///
    /// # Errors
    /// If the store fails.
    pub fn log_after(
        &mut self,
        state: &State,
        batches: Option<&[BatchPlan]>,
    ) -> Result<(), AttackError> {
        let state = self.at_step(state, self.next_step());
        self.log_as_it_is(&state, batches)
    }

    /// The same with a state that says what it likes of its step and its rate.
    ///
    /// # Errors
    /// If the store fails.
    pub fn log_as_it_is(
        &mut self,
        state: &State,
        batches: Option<&[BatchPlan]>,
    ) -> Result<(), AttackError> {
        let step = self.next_step();
        let digest = state.digest();
        let bytes = object::encode_state(state)
            .map_err(|error| AttackError::NotApplicable(error.to_string()))?;
        self.store.write(Item::Object(digest), &bytes)?;
        let batches = match batches {
            None => None,
            Some(plans) => {
                let name = object::batches_digest(plans);
                let bytes = object::encode_batches(plans);
                self.store.write(Item::Object(name), &bytes)?;
                Some(name)
            }
        };
        self.checkpoints.push(Checkpoint {
            step,
            state: digest,
            batches,
        });
        self.last = Some(state.clone());
        Ok(())
    }

    /// Commits to states at equal distances on the line from `start` to `end`, one for each segment, which
    /// are as `template` in all that is not the model.
    ///
    /// # Errors
    /// If the store fails.
    pub fn log_line(
        &mut self,
        template: &State,
        start: &State,
        end: &State,
    ) -> Result<(), AttackError> {
        let segments = self.terms.segments();
        for segment in 1..=segments {
            let share = segment as f64 / segments as f64;
            self.log(&between(template, start, end, share))?;
        }
        Ok(())
    }

    /// The claim as it would be with these states as the last ones, which are not written. The model is
    /// that of the very last.
    pub fn claim_with(&self, following: &[&State]) -> Claim {
        let mut checkpoints = self.checkpoints.clone();
        let mut last = self.last.clone();
        for state in following {
            let step = self.step_of(checkpoints.len());
            let state = self.at_step(state, step);
            checkpoints.push(Checkpoint {
                step,
                state: state.digest(),
                batches: None,
            });
            last = Some(state);
        }
        // Without any state there is no model: the root of nothing.
        let root = last
            .as_ref()
            .map_or_else(|| Tree::Model.root(&[]), model_file::root);
        Manifest::seal(self.terms.clone(), checkpoints, root).claim
    }

    fn next_step(&self) -> u64 {
        self.step_of(self.checkpoints.len())
    }

    /// The steps made before the checkpoint at `index`.
    fn step_of(&self, index: usize) -> u64 {
        let index = index as u64;
        let first = self.terms.segment_steps(index).0;
        first.min(self.terms.recipe.steps)
    }

    /// The state as it has to say of itself at `step`.
    pub fn at_step(&self, state: &State, step: u64) -> State {
        let rate = self
            .terms
            .recipe
            .learning_rate
            .at(step, self.terms.recipe.steps);
        with_entries(state, |entry| match entry.name() {
            STEP_ENTRY => Some(Entry::u64(STEP_ENTRY, step)),
            RATE_ENTRY => Some(Entry::f64(RATE_ENTRY, rate)),
            _ => None,
        })
    }

    /// Passes off the model in `state` as the trained one.
    pub fn with_model(&mut self, state: &State) {
        self.model = Some(state.clone());
    }

    /// Seals the proof, with the last state's model.
    ///
    /// # Errors
    /// If nothing was logged, or the store fails.
    pub fn seal(self) -> Result<(), AttackError> {
        let model = self.model.or(self.last);
        let model =
            model.ok_or_else(|| AttackError::NotApplicable("nothing was logged".to_owned()))?;
        let file = model_file::encode(&model)
            .map_err(|error| AttackError::NotApplicable(error.to_string()))?;
        self.store.write(Item::Model, &file)?;
        let manifest = Manifest::seal(self.terms, self.checkpoints, model_file::root(&model));
        self.store.write(Item::Manifest, &manifest.encode())?;
        Ok(())
    }
}

/// The batches of the segment at `index` that follow from `order`.
///
/// # Errors
/// If there are too few records for a batch.
pub fn plans(
    terms: &Terms,
    index: u64,
    order: Seed,
    records: u64,
) -> Result<Vec<BatchPlan>, AttackError> {
    let mut schedule = Schedule::new(order, records, terms.recipe.batch_size)
        .map_err(|error| AttackError::NotApplicable(error.to_string()))?;
    let (first, last) = terms.segment_steps(index);
    Ok((first..last).map(|step| schedule.batch(step)).collect())
}

/// A whole proof under terms that differ from what is done.
///
/// # Errors
/// If the learner or the store fails.
pub fn train_otherwise(
    terms: Terms,
    victim: &Victim<'_>,
    learner: &mut dyn ImageLearner,
    store: &dyn Store,
    practice: Practice<'_>,
) -> Result<u64, AttackError> {
    let segments = terms.segments();
    learner.initialise(&terms.seed)?;
    let mut state = learner.capture()?;
    let mut forgery = Forgery::begin(terms, &victim.data.train, store);
    forgery.log(&state)?;
    for segment in 0..segments {
        state = forgery.train_as(learner, &state, segment, practice)?;
        forgery.log(&state)?;
    }
    let steps = forgery.steps;
    forgery.seal()?;
    Ok(steps)
}

/// The state with some entries replaced.
pub fn with_entries(state: &State, replace: impl Fn(&Entry) -> Option<Entry>) -> State {
    let entries = state.entries().iter();
    let entries = entries.map(|entry| replace(entry).unwrap_or_else(|| entry.clone()));
    // Names and shapes stay, so this is a state as the first was.
    State::new(entries.collect()).unwrap_or_else(|_| state.clone())
}

/// The entry with other values.
pub fn with_values(entry: &Entry, values: impl Iterator<Item = f64>) -> Entry {
    let values: Vec<f32> = values.map(|value| value as f32).collect();
    Entry::f32(entry.name(), entry.header.shape.clone(), &values)
}

/// The entry with each value changed; other types than `f32` are left as they are.
pub fn map_values(entry: &Entry, change: impl Fn(f64) -> f64) -> Option<Entry> {
    if entry.header.dtype != DType::F32 {
        return None;
    }
    Some(with_values(entry, entry.values().map(change)))
}

/// `template` with the model at `from + share · (to − from)`: a point on the line between two models.
/// Whole numbers are those of `to`.
pub fn between(template: &State, from: &State, to: &State, share: f64) -> State {
    with_entries(template, |entry| {
        if !is_model(entry.name()) {
            return None;
        }
        let (a, b) = (from.entry(entry.name())?, to.entry(entry.name())?);
        if entry.header.dtype != DType::F32 || share == 1.0 {
            return Some(b.clone());
        }
        let pairs = a.values().zip(b.values());
        Some(with_values(entry, pairs.map(|(a, b)| a + share * (b - a))))
    })
}

/// The l2 distance of two models, over all their numbers.
pub fn model_distance(a: &State, b: &State) -> f64 {
    let squares = a
        .entries()
        .iter()
        .filter(|entry| is_model(entry.name()))
        .map(|entry| {
            let other = b.entry(entry.name());
            let pairs = entry
                .values()
                .zip(other.into_iter().flat_map(Entry::values));
            pairs.map(|(x, y)| (x - y) * (x - y)).sum::<f64>()
        });
    squares.sum::<f64>().sqrt()
}
