//! What forgers share: states made up from a template, and sealing them as a proof.

use pol_core::learner::{Batch, Learner, LearnerError};
use pol_core::manifest::{Checkpoint, Manifest, Terms};
use pol_core::model_file::{self, is_model};
use pol_core::object;
use pol_core::records::Records;
use pol_core::schedule::Schedule;
use pol_core::state::{DType, Entry, RATE_ENTRY, STEP_ENTRY, State};
use pol_core::store::{Item, Store};

use crate::AttackError;

/// A proof in the making.
pub struct Forgery<'a> {
    terms: Terms,
    records: &'a dyn Records,
    schedule: Schedule,
    store: &'a dyn Store,
    checkpoints: Vec<Checkpoint>,
    last: Option<State>,
    /// Steps taken on the learner.
    pub steps: u64,
}

impl<'a> Forgery<'a> {
    /// Begins a proof under these terms.
    ///
    /// # Errors
    /// If there are too few records for a batch.
    pub fn begin(
        terms: Terms,
        records: &'a dyn Records,
        store: &'a dyn Store,
    ) -> Result<Self, AttackError> {
        let schedule = Schedule::new(terms.seed, records.len(), terms.recipe.batch_size)
            .map_err(|error| AttackError::NotApplicable(error.to_string()))?;
        Ok(Self {
            terms,
            records,
            schedule,
            store,
            checkpoints: Vec::new(),
            last: None,
            steps: 0,
        })
    }

    /// Takes the honest steps of the segment at `index` from `start`, and gives the state that they
    /// lead to.
    ///
    /// # Errors
    /// If the learner fails.
    pub fn train(
        &mut self,
        learner: &mut dyn Learner,
        start: &State,
        index: u64,
    ) -> Result<State, LearnerError> {
        learner.restore(start)?;
        let (first, last) = self.terms.segment_steps(index);
        for step in first..last {
            let plan = self.schedule.batch(step);
            learner.step(&Batch::new(&plan, self.records, &self.terms.seed)?)?;
            self.steps += 1;
        }
        learner.capture()
    }

    /// Commits to a state as the next checkpoint.
    ///
    /// # Errors
    /// If the store fails.
    pub fn log(&mut self, state: State) -> Result<(), AttackError> {
        let index = self.checkpoints.len() as u64;
        let step = self
            .terms
            .segment_steps(index)
            .0
            .min(self.terms.recipe.steps);
        let state = self.at_step(&state, step);
        let digest = state.digest();
        let bytes = object::encode_state(&state)
            .map_err(|error| AttackError::NotApplicable(error.to_string()))?;
        self.store.write(Item::Object(digest), &bytes)?;
        self.checkpoints.push(Checkpoint {
            step,
            state: digest,
            batches: None,
        });
        self.last = Some(state);
        Ok(())
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

    /// Seals the proof, with the last state's model.
    ///
    /// # Errors
    /// If nothing was logged, or the store fails.
    pub fn seal(self) -> Result<(), AttackError> {
        let last = self
            .last
            .ok_or_else(|| AttackError::NotApplicable("nothing was logged".to_owned()))?;
        let file = model_file::encode(&last)
            .map_err(|error| AttackError::NotApplicable(error.to_string()))?;
        self.store.write(Item::Model, &file)?;
        let root = model_file::root(&last);
        let manifest = Manifest::seal(self.terms, self.checkpoints, root);
        self.store.write(Item::Manifest, &manifest.encode())?;
        Ok(())
    }
}

/// The state with some entries replaced.
pub fn with_entries(state: &State, replace: impl Fn(&Entry) -> Option<Entry>) -> State {
    let entries = state.entries().iter();
    let entries = entries.map(|entry| replace(entry).unwrap_or_else(|| entry.clone()));
    // Names and shapes stay, so this is a state as the first was.
    State::new(entries.collect()).unwrap_or_else(|_| state.clone())
}

/// `template` with the model at `from + share · (to − from)`: a point on the line between two models.
/// Whole numbers are those of `to`.
pub fn between(template: &State, from: &State, to: &State, share: f64) -> State {
    with_entries(template, |entry| {
        if !is_model(entry.name()) {
            return None;
        }
        let (a, b) = (from.entry(entry.name())?, to.entry(entry.name())?);
        if entry.header.dtype != DType::F32 {
            return Some(b.clone());
        }
        let values: Vec<f32> = (a.values().zip(b.values()))
            .map(|(a, b)| (a + share * (b - a)) as f32)
            .collect();
        let end = (share == 1.0).then(|| b.clone());
        Some(end.unwrap_or_else(|| Entry::f32(entry.name(), entry.header.shape.clone(), &values)))
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
