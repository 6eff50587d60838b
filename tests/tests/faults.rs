//! A store that fails, at every operation in turn; a recorder that is pressed, dropped, or loses its
//! thread.

use std::io;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use pol_core::digest::Digest;
use pol_core::learner::LearnerError;
use pol_core::recorder::{MAX_IN_FLIGHT, RecordError, Recorder};
use pol_core::state::{Entry, STEP_ENTRY, State};
use pol_core::store::{Item, MemoryStore, Store, StoreError};
use pol_core::training::{Outcome, TrainError, Training};
use pol_tests::toy::{self, INTERVAL, STEPS, Toy};

/// How an operation fails.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// Nothing is done: a full disk, a folder that may not be written to.
    Refused,
    /// It is done, and then making it durable fails.
    NotDurable,
    /// A part of it is done: the disk is full in the middle of the journal.
    Half,
    /// The program is at fault.
    Panic,
}

/// A store in memory whose operation of this number fails, and all after it.
struct Faulty {
    inner: MemoryStore,
    fault: Fault,
    at: usize,
    operations: AtomicUsize,
}

impl Faulty {
    fn new(inner: MemoryStore, fault: Fault, at: usize) -> Self {
        Self {
            inner,
            fault,
            at,
            operations: AtomicUsize::new(0),
        }
    }

    fn does(
        &self,
        whole: impl FnOnce(&MemoryStore) -> Result<(), StoreError>,
        half: impl FnOnce(&MemoryStore) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        if self.operations.fetch_add(1, Ordering::SeqCst) < self.at {
            return whole(&self.inner);
        }
        match self.fault {
            Fault::Refused => {}
            Fault::NotDurable => whole(&self.inner)?,
            Fault::Half => half(&self.inner)?,
            Fault::Panic => panic!("a bug in the store, on purpose"),
        }
        Err(StoreError::Io {
            path: "the store".to_owned(),
            source: io::Error::from(io::ErrorKind::StorageFull),
        })
    }
}

impl Store for Faulty {
    fn location(&self) -> String {
        "the store".to_owned()
    }
    fn read(&self, item: Item, limit: u64) -> Result<Vec<u8>, StoreError> {
        self.inner.read(item, limit)
    }
    fn length(&self, item: Item) -> Result<u64, StoreError> {
        self.inner.length(item)
    }
    fn write(&self, item: Item, bytes: &[u8]) -> Result<(), StoreError> {
        // Writing an item is atomic: there is no half of it.
        self.does(|store| store.write(item, bytes), |_| Ok(()))
    }
    fn append_journal(&self, bytes: &[u8]) -> Result<(), StoreError> {
        let half = &bytes[..bytes.len() / 2];
        self.does(
            |store| store.append_journal(bytes),
            |store| store.append_journal(half),
        )
    }
    fn truncate_journal(&self, len: u64) -> Result<(), StoreError> {
        self.does(|store| store.truncate_journal(len), |_| Ok(()))
    }
    fn remove_journal(&self) -> Result<(), StoreError> {
        self.does(MemoryStore::remove_journal, |_| Ok(()))
    }
    fn contains(&self, item: Item) -> bool {
        self.inner.contains(item)
    }
    fn size(&self) -> Result<u64, StoreError> {
        self.inner.size()
    }
}

fn go_on(_: &mut Toy, _: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn commitment(outcome: &Outcome) -> Digest {
    match outcome {
        Outcome::Sealed(manifest) => manifest.claim.commitment(),
        Outcome::Interrupted { .. } => panic!("it was interrupted"),
    }
}

/// A training into a store that fails at operation `at`. What is left of the store, and whether it failed.
fn trained(fault: Fault, at: usize, found: MemoryStore) -> (MemoryStore, bool) {
    let records = toy::records();
    let training = Training::new(toy::recipe(), &records, 7, INTERVAL);
    let store = Arc::new(Faulty::new(found, fault, at));
    let shared: Arc<dyn Store> = Arc::clone(&store) as _;
    // A panic of the store on the training's own thread is one of the training.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        training.resume(&mut Toy::new(&toy::recipe()), shared, go_on)
    }));
    let left = store.inner.clone();
    (left, !matches!(outcome, Ok(Ok(_))))
}

#[test]
fn a_store_that_fails_at_any_operation_loses_nothing_that_was_kept() {
    let (_, manifest) = toy::proof();
    let expected = manifest.claim.commitment();
    let records = toy::records();
    let training = Training::new(toy::recipe(), &records, 7, INTERVAL);
    for fault in [Fault::Refused, Fault::NotDurable, Fault::Half, Fault::Panic] {
        for at in 0.. {
            let (left, failed) = trained(fault, at, MemoryStore::new());
            if !failed {
                // It got through before that operation came.
                assert!(at > 10, "{fault:?} at {at}");
                break;
            }
            // Where the manifest stands already, the proof is whole; else it can be resumed.
            let sealed = left.contains(Item::Manifest);
            if !sealed {
                // No step is made again but those since the last checkpoint in the journal.
                let journal = pol_core::journal::Journal::open(&left);
                let kept = journal.map_or(0, |journal| journal.checkpoints.len() as u64);
                let made = STEPS - (kept.saturating_sub(1) * INTERVAL).min(STEPS);
                let mut toy = Toy::new(&toy::recipe());
                let resumed = training.resume(&mut toy, Arc::new(left.clone()), go_on);
                let resumed = resumed.unwrap_or_else(|e| panic!("{fault:?} at {at}: {e}"));
                assert_eq!(commitment(&resumed), expected, "{fault:?} at {at}");
                assert_eq!(toy.steps_taken, made, "{fault:?} at {at}");
            } else {
                let report = toy::verify(&left);
                assert_eq!(report.commitment, Some(expected), "{fault:?} at {at}");
            }
        }
    }
}

#[test]
fn a_training_that_fails_again_and_again_still_arrives() {
    let (_, manifest) = toy::proof();
    let mut store = MemoryStore::new();
    // Three operations each time: a resume, an object, its record.
    for attempt in 0.. {
        let (left, failed) = trained(Fault::Half, 4, store);
        store = left;
        assert!(attempt < 40);
        if !failed || store.contains(Item::Manifest) {
            break;
        }
    }
    let report = toy::verify(&store);
    assert_eq!(report.commitment, Some(manifest.claim.commitment()));
}

#[test]
fn a_panic_of_the_recording_thread_is_an_error_of_the_training() {
    let records = toy::records();
    let training = Training::new(toy::recipe(), &records, 7, INTERVAL);
    let store = Arc::new(Faulty::new(MemoryStore::new(), Fault::Panic, 4));
    let outcome = training.run(&mut Toy::new(&toy::recipe()), store, go_on);
    assert!(
        matches!(outcome, Err(TrainError::Record(RecordError::ThreadLost))),
        "{outcome:?}"
    );
}

/// A store in which writing waits until it is let through.
#[derive(Default)]
struct Slow {
    inner: MemoryStore,
    open: AtomicBool,
    written: AtomicUsize,
}

impl Store for Slow {
    fn location(&self) -> String {
        "the store".to_owned()
    }
    fn read(&self, item: Item, limit: u64) -> Result<Vec<u8>, StoreError> {
        self.inner.read(item, limit)
    }
    fn length(&self, item: Item) -> Result<u64, StoreError> {
        self.inner.length(item)
    }
    fn write(&self, item: Item, bytes: &[u8]) -> Result<(), StoreError> {
        while !self.open.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
        self.written.fetch_add(1, Ordering::SeqCst);
        self.inner.write(item, bytes)
    }
    fn append_journal(&self, bytes: &[u8]) -> Result<(), StoreError> {
        self.inner.append_journal(bytes)
    }
    fn truncate_journal(&self, len: u64) -> Result<(), StoreError> {
        self.inner.truncate_journal(len)
    }
    fn remove_journal(&self) -> Result<(), StoreError> {
        self.inner.remove_journal()
    }
    fn contains(&self, item: Item) -> bool {
        self.inner.contains(item)
    }
    fn size(&self) -> Result<u64, StoreError> {
        self.inner.size()
    }
}

fn state(step: u64) -> Result<State, LearnerError> {
    let entries = vec![
        Entry::f32("model/w", vec![1], &[step as f32]),
        Entry::u64(STEP_ENTRY, step),
    ];
    State::new(entries).map_err(|error| LearnerError::Unfit(error.to_string()))
}

#[test]
fn no_more_states_are_taken_than_may_be_in_flight() {
    let records = toy::records();
    let training = Training::new(toy::recipe(), &records, 7, 1);
    let store = Arc::new(Slow::default());
    let shared: Arc<dyn Store> = Arc::clone(&store) as _;
    let mut recorder = Recorder::start(shared, training.terms().clone()).unwrap();
    let taken = AtomicUsize::new(0);
    thread::scope(|scope| {
        let training = scope.spawn(|| {
            for step in 0..=STEPS {
                let capture = || {
                    taken.fetch_add(1, Ordering::SeqCst);
                    state(step)
                };
                recorder.record(step, capture).unwrap();
            }
            recorder.stop().unwrap()
        });
        // Nothing can be written: the training takes as many states as it may, and no more however long
        // it waits.
        while taken.load(Ordering::SeqCst) < MAX_IN_FLIGHT {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(100));
        assert_eq!(taken.load(Ordering::SeqCst), MAX_IN_FLIGHT);
        store.open.store(true, Ordering::SeqCst);
        assert_eq!(training.join().unwrap(), STEPS);
    });
    assert_eq!(store.written.load(Ordering::SeqCst) as u64, STEPS + 1);
}

#[test]
fn a_recorder_that_is_dropped_writes_what_it_was_given() {
    let records = toy::records();
    let training = Training::new(toy::recipe(), &records, 7, INTERVAL);
    let store = Arc::new(MemoryStore::new());
    let shared: Arc<dyn Store> = Arc::clone(&store) as _;
    let mut recorder = Recorder::start(shared, training.terms().clone()).unwrap();
    recorder.record(0, || state(0)).unwrap();
    recorder.record(INTERVAL, || state(INTERVAL)).unwrap();
    drop(recorder);
    let journal = pol_core::journal::Journal::open(store.as_ref()).unwrap();
    assert_eq!(journal.checkpoints.len(), 2);
    assert!(!store.contains(Item::Manifest));
}

#[test]
fn a_state_that_cannot_be_taken_takes_no_room() {
    let records = toy::records();
    let training = Training::new(toy::recipe(), &records, 7, INTERVAL);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let mut recorder = Recorder::start(store, training.terms().clone()).unwrap();
    let fails = || Err(LearnerError::Device("the device is busy".to_owned()));
    for _ in 0..3 * MAX_IN_FLIGHT {
        assert!(recorder.record(0, fails).is_err());
    }
    assert!(recorder.record(0, || state(0)).unwrap());
    assert_eq!(recorder.stop().unwrap(), 0);
}
