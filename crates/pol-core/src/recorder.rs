//! The recorder: takes a training's states and commits them, in the background.
//!
//! Training is held up only while a state is copied off the device. Hashing, compression and
//! writing run on a thread of their own; where that cannot keep up, training waits before it takes
//! another state, so that memory holds few. An error there stops the training at the next call, and
//! what was recorded before stays on disk for `resume`.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use crate::journal::{Head, Journal, JournalError};
use crate::learner::LearnerError;
use crate::manifest::{Checkpoint, Manifest, Terms, TermsError};
use crate::model_file::{self, ModelFileError};
use crate::object::{self, Encoder, ReadStateError};
use crate::schedule::{BatchPlan, BatchSource};
use crate::state::State;
use crate::store::{Item, Store, StoreError};

/// States taken and not yet written. One being written and one waiting keep the training from
/// stalling on a slow write; more would only hide that the disk cannot keep up.
pub const MAX_IN_FLIGHT: usize = 2;

/// The name of the background thread.
pub const THREAD: &str = "pol-recorder";

/// Why a training could not be recorded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The terms do not describe a training.
    #[error(transparent)]
    Terms(#[from] TermsError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A training is already there.
    #[error("{location} already holds {what}")]
    Occupied {
        /// The store.
        location: String,
        /// A finished proof or a training that can be resumed.
        what: &'static str,
    },
    /// The journal is of another training.
    #[error("{location} holds a training with other terms: {differences}")]
    OtherTerms {
        /// The store.
        location: String,
        /// What differs.
        differences: String,
    },
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A checkpoint was skipped or given twice.
    #[error("the next checkpoint stands at step {expected}, not at step {found}")]
    OutOfOrder {
        /// The step that is due.
        expected: u64,
        /// The step given.
        found: u64,
    },
    /// The batches given do not cover the segment.
    #[error("the explicit schedule lacks the batch of step {0}")]
    MissingBatch(u64),
    /// The training has diverged; a proof of it would be rejected.
    #[error("at step {step} `{entry}` holds a value that is not finite: the training has diverged")]
    NotFinite {
        /// The step.
        step: u64,
        /// The tensor.
        entry: String,
    },
    /// Digests instead of states, without exact numerics.
    #[error(
        "only with exact numerics may states be left out of a proof: elsewhere a replay does not \
         arrive at them bit for bit"
    )]
    NotExact,
    /// The training ended before its last step.
    #[error("the training ended at step {found} of {expected}; it can be resumed")]
    Incomplete {
        /// The last step by the recipe.
        expected: u64,
        /// The last checkpoint.
        found: u64,
    },
    /// The state could not be taken.
    #[error(transparent)]
    Learner(#[from] LearnerError),
    /// The final state cannot be read back.
    #[error("the final state: {0}")]
    FinalState(#[from] ReadStateError),
    /// The final model cannot be written as a file.
    #[error("model.safetensors: {0}")]
    Model(#[from] ModelFileError),
    /// The background thread is gone without an error of its own.
    #[error("the recording thread stopped unexpectedly")]
    ThreadLost,
}

/// A checkpoint on its way to the store.
struct Job {
    step: u64,
    state: State,
    keep: bool,
    batches: Option<Vec<BatchPlan>>,
}

/// The way to the background thread and back.
struct Queue {
    jobs: Sender<Job>,
    /// One message for each state written.
    written: Receiver<()>,
}

/// Where a resumed training goes on.
#[derive(Debug, Clone, PartialEq)]
pub struct Resumed {
    /// The step of the last checkpoint.
    pub step: u64,
    /// The state there.
    pub state: State,
}

/// Records one training into a store.
pub struct Recorder {
    store: Arc<dyn Store>,
    terms: Terms,
    keep: u64,
    next: Option<u64>,
    batches: Vec<BatchPlan>,
    heads: Arc<OnceLock<Sender<Head>>>,
    /// States that may still be taken before one is written.
    free: usize,
    queue: Option<Queue>,
    worker: Option<JoinHandle<Result<Journal, RecordError>>>,
}

impl Recorder {
    /// Begins a new proof in an empty store.
    ///
    /// # Errors
    /// If the terms are faulty, the store is occupied or fails.
    pub fn start(store: Arc<dyn Store>, terms: Terms) -> Result<Self, RecordError> {
        terms.check()?;
        refuse_if_sealed(store.as_ref())?;
        if store.contains(Item::Journal) {
            return Err(RecordError::Occupied {
                location: store.location(),
                what: "an unfinished training, which can be resumed",
            });
        }
        store.lock()?;
        // Another one may have ended meanwhile.
        refuse_if_sealed(store.as_ref())?;
        let journal = Journal::begin(store.as_ref(), terms)?;
        Ok(Self::spawn(store, journal))
    }

    /// Goes on with an unfinished training, from its last whole checkpoint; begins a new one
    /// where there is none.
    ///
    /// # Errors
    /// If the store holds a finished proof, or a training with other terms.
    pub fn resume(
        store: Arc<dyn Store>,
        terms: Terms,
    ) -> Result<(Self, Option<Resumed>), RecordError> {
        terms.check()?;
        refuse_if_sealed(store.as_ref())?;
        if !store.contains(Item::Journal) {
            return Ok((Self::start(store, terms)?, None));
        }
        store.lock()?;
        refuse_if_sealed(store.as_ref())?;
        let mut journal = match Journal::open(store.as_ref()) {
            Ok(journal) => journal,
            Err(JournalError::Empty) => {
                store.remove_journal()?;
                return Ok((Self::start(store, terms)?, None));
            }
            Err(error) => return Err(error.into()),
        };
        if journal.terms != terms {
            return Err(RecordError::OtherTerms {
                location: store.location(),
                differences: term_differences(&journal.terms, &terms),
            });
        }
        // The journal is written after the objects, so the last checkpoint is normally whole.
        // If it isn't, an earlier one will do.
        let due: Vec<u64> = terms.checkpoint_steps().collect();
        let in_order = (journal.checkpoints.iter().zip(&due))
            .take_while(|(checkpoint, due)| checkpoint.step == **due)
            .count();
        let last_whole = (0..in_order).rev().find_map(|index| {
            let checkpoint = &journal.checkpoints[index];
            let state = object::read_state(store.as_ref(), &checkpoint.state, None).ok()?;
            Some((index, checkpoint.step, state))
        });
        let keep = last_whole.as_ref().map_or(0, |(index, ..)| index + 1);
        journal.rewind(store.as_ref(), keep)?;
        let resumed = last_whole.map(|(_, step, state)| Resumed { step, state });
        Ok((Self::spawn(store, journal), resumed))
    }

    fn spawn(store: Arc<dyn Store>, journal: Journal) -> Self {
        let (send, jobs) = channel();
        let (done, written) = channel();
        let terms = journal.terms.clone();
        let next = terms.checkpoint_steps().nth(journal.checkpoints.len());
        let heads = Arc::new(OnceLock::new());
        let worker = {
            let (store, heads) = (Arc::clone(&store), Arc::clone(&heads));
            let write = move || write_checkpoints(store.as_ref(), journal, &jobs, &done, &heads);
            thread::Builder::new().name(THREAD.to_owned()).spawn(write)
        };
        Self {
            store,
            terms,
            keep: 1,
            next,
            batches: Vec::new(),
            heads,
            free: MAX_IN_FLIGHT,
            queue: Some(Queue {
                jobs: send,
                written,
            }),
            // Where there can be no thread, that is said when it is needed.
            worker: worker.ok(),
        }
    }

    /// Keeps the state of every `keep`-th checkpoint only, and of the last; of the others the proof
    /// holds the digest, and a verifier recomputes them from the one before.
    ///
    /// 0 counts as 1.
    ///
    /// # Errors
    /// If states would be left out and the recipe's numerics are not exact.
    pub fn keep(mut self, keep: u64) -> Result<Self, RecordError> {
        if keep > 1 && !self.terms.recipe.numerics.is_exact() {
            return Err(RecordError::NotExact);
        }
        self.keep = keep.max(1);
        Ok(self)
    }

    /// Sends the head of the journal after each checkpoint, to be timestamped while the training
    /// runs.
    pub fn send_heads(self, to: Sender<Head>) -> Self {
        // It is set only here, and `self` is consumed.
        let _ = self.heads.set(to);
        self
    }

    /// The terms of this training.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Notes the batch of a step; needed only where batches are explicit.
    pub fn record_batch(&mut self, plan: &BatchPlan) {
        if self.terms.batches == BatchSource::Explicit {
            self.batches.push(plan.clone());
        }
    }

    /// Records the state at `step` if a checkpoint stands there, else does nothing. Returns
    /// whether it did; `capture` is called only then.
    ///
    /// # Errors
    /// If the state cannot be taken, a checkpoint was skipped, or an earlier one could not be
    /// written.
    pub fn record(
        &mut self,
        step: u64,
        capture: impl FnOnce() -> Result<State, LearnerError>,
    ) -> Result<bool, RecordError> {
        if !self.terms.is_checkpoint(step) {
            return match self.next {
                Some(expected) if expected < step => Err(RecordError::OutOfOrder {
                    expected,
                    found: step,
                }),
                _ => Ok(false),
            };
        }
        if self.next != Some(step) {
            return Err(RecordError::OutOfOrder {
                expected: self.next.unwrap_or(self.terms.recipe.steps),
                found: step,
            });
        }
        let batches = match self.terms.batches {
            BatchSource::Derived => None,
            BatchSource::Explicit if step == 0 => None,
            BatchSource::Explicit => Some(self.take_batches(step)?),
        };
        self.wait_for_room()?;
        let last = step == self.terms.recipe.steps;
        let job = Job {
            step,
            state: capture()?,
            keep: last || (step / self.terms.interval).is_multiple_of(self.keep),
            batches,
        };
        self.next = self.terms.next_checkpoint(step);
        self.free -= 1;
        match &self.queue {
            Some(queue) if queue.jobs.send(job).is_ok() => Ok(true),
            _ => Err(self.lost()),
        }
    }

    /// Waits until another state may be taken.
    fn wait_for_room(&mut self) -> Result<(), RecordError> {
        let Some(queue) = &self.queue else {
            return Err(self.lost());
        };
        self.free += queue.written.try_iter().count();
        if self.free == 0 {
            match queue.written.recv() {
                Ok(()) => self.free = 1,
                Err(_) => return Err(self.lost()),
            }
        }
        Ok(())
    }

    /// Why the thread has ended: its result says so.
    fn lost(&mut self) -> RecordError {
        self.join().err().unwrap_or(RecordError::ThreadLost)
    }

    /// Writes all that is waiting and stops, leaving a training that can be resumed. Returns the
    /// step of its last checkpoint.
    ///
    /// # Errors
    /// If something could not be written.
    pub fn stop(mut self) -> Result<u64, RecordError> {
        let journal = self.join()?;
        Ok(journal.checkpoints.last().map_or(0, |last| last.step))
    }

    /// Seals the proof: writes the final model's file, and binds it and all checkpoints.
    ///
    /// # Errors
    /// If the training is not complete, or something could not be written.
    pub fn seal(mut self) -> Result<Manifest, RecordError> {
        let journal = self.join()?;
        let expected = self.terms.recipe.steps;
        let last = match journal.checkpoints.last() {
            Some(last) if last.step == expected => last.state,
            other => {
                let found = other.map_or(0, |last| last.step);
                return Err(RecordError::Incomplete { expected, found });
            }
        };
        let state = object::read_state(self.store.as_ref(), &last, None)?;
        self.store
            .write(Item::Model, &model_file::encode(&state)?)?;
        let root = model_file::root(&state);
        let manifest = Manifest::seal(journal.terms, journal.checkpoints, root);
        self.store.write(Item::Manifest, &manifest.encode())?;
        self.store.remove_journal()?;
        Ok(manifest)
    }

    /// The batches of the segment that ends at `step`.
    fn take_batches(&mut self, step: u64) -> Result<Vec<BatchPlan>, RecordError> {
        let k = self.terms.interval;
        let first = (step - 1) / k * k;
        let batches = std::mem::take(&mut self.batches);
        let missing = (first..step)
            .enumerate()
            .find(|(i, due)| batches.get(*i).is_none_or(|plan| plan.step != *due));
        match missing {
            Some((_, due)) => Err(RecordError::MissingBatch(due)),
            None => Ok(batches),
        }
    }

    /// Closes the queue and waits for the thread.
    fn join(&mut self) -> Result<Journal, RecordError> {
        self.queue = None;
        match self.worker.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            _ => Err(RecordError::ThreadLost),
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // What was handed over is written even if the caller gives up.
        let _ = self.join();
    }
}

/// The background thread: objects first, then the journal that names them.
fn write_checkpoints(
    store: &dyn Store,
    mut journal: Journal,
    jobs: &Receiver<Job>,
    written: &Sender<()>,
    heads: &OnceLock<Sender<Head>>,
) -> Result<Journal, RecordError> {
    let mut encoder = Encoder::default();
    for Job {
        step,
        state,
        keep,
        batches,
    } in jobs
    {
        if let Some(entry) = state.entries().iter().find(|entry| !entry.is_finite()) {
            return Err(RecordError::NotFinite {
                step,
                entry: entry.name().to_owned(),
            });
        }
        let digest = state.digest();
        if keep {
            let encoded = encoder.encode(digest, state);
            let encoded = encoded.map_err(|source| StoreError::Io {
                path: Item::Object(digest).path(),
                source,
            })?;
            store.write(Item::Object(digest), &encoded)?;
        }
        let batches = match batches {
            Some(list) => {
                let name = object::batches_digest(&list);
                store.write(Item::Object(name), &object::encode_batches(&list))?;
                Some(name)
            }
            None => None,
        };
        let checkpoint = Checkpoint {
            step,
            state: digest,
            batches,
        };
        journal.append(store, checkpoint)?;
        if let Some(heads) = heads.get() {
            // Whoever listened may have gone; the training goes on.
            let _ = heads.send(journal.head());
        }
        // Nor is it an error where nobody takes states any more.
        let _ = written.send(());
    }
    Ok(journal)
}

fn refuse_if_sealed(store: &dyn Store) -> Result<(), RecordError> {
    if store.contains(Item::Manifest) {
        return Err(RecordError::Occupied {
            location: store.location(),
            what: "a finished proof",
        });
    }
    Ok(())
}

fn term_differences(there: &Terms, here: &Terms) -> String {
    let mut differences = here.recipe.differences(&there.recipe);
    if there.data != here.data {
        differences.push("the training data".to_owned());
    }
    if there.nonce != here.nonce {
        differences.push(format!(
            "seed: asked for {}, there {}",
            here.nonce, there.nonce
        ));
    }
    if there.interval != here.interval {
        differences.push(format!(
            "interval: asked for {}, there {}",
            here.interval, there.interval
        ));
    }
    if there.key != here.key {
        differences.push("the prover's key".to_owned());
    }
    if there.start != here.start {
        differences.push("the initial state".to_owned());
    }
    if there.batches != here.batches {
        differences.push("the source of the batches".to_owned());
    }
    differences.join("; ")
}
