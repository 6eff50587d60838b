//! Cost before trust: what a small proof or opening can make its verifier do, held by a counting allocator and
//! by counts. `memory` is a promise: nothing takes more than that and a fixed sum.

use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;
use pol_core::audit::{Challenge, Draw, Opening, PublicCommitment, open};
use pol_core::digest::{Digest, tagged};
use pol_core::learner::{Batch, Learner, LearnerError};
use pol_core::manifest::{Checkpoint, Manifest};
use pol_core::object::{MAX_OBJECT_BYTES, encode_difference, encode_state};
use pol_core::random::Seed;
use pol_core::recipe::Recipe;
use pol_core::records::DataCommitment;
use pol_core::schedule::{BatchPlan, MAX_RECORDS};
use pol_core::state::{Entry, Part, RATE_ENTRY, STEP_ENTRY, State};
use pol_core::store::{ArchiveStore, FolderStore, Item, MemoryStore, Store, pack};
use pol_core::training::{Outcome, Training};
use pol_core::verify::{
    Integrity, Proof, Reason, Report, Resources, Verdict, Verifier, check_integrity,
};
use pol_tests::forge::Forgery;
use pol_tests::toy::{self, INTERVAL, STEPS, Toy};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Memory is the process's: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// What a verification may take beside the memory that was allowed.
const FIXED: usize = 64 << 20;
const MIB: u64 = 1 << 20;

fn alone() -> MutexGuard<'static, ()> {
    ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Runs `action`, and holds it to `allowed` bytes of memory and the fixed sum.
#[track_caller]
fn within<T>(allowed: u64, action: impl FnOnce() -> T) -> T {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let outcome = action();
    let taken = MEMORY.peak_usage().saturating_sub(before);
    let bound = allowed as usize + FIXED;
    assert!(taken <= bound, "{taken} bytes were taken, {bound} allowed");
    outcome
}

fn little(threads: usize) -> Resources {
    Resources { threads, memory: 0 }
}

#[track_caller]
fn costs(report: &Report) {
    assert_eq!(
        report.verdict,
        Verdict::Inconclusive,
        "{:?}",
        report.reasons
    );
    let cost = report.reasons.iter().any(|reason| reason.check() == "cost");
    assert!(cost, "{:?}", report.reasons);
}

#[track_caller]
fn rejected(report: &Report, words: &str) {
    assert_eq!(report.verdict, Verdict::Rejected, "{:?}", report.reasons);
    let reasons: Vec<String> = report.reasons.iter().map(ToString::to_string).collect();
    assert!(
        reasons.iter().any(|reason| reason.contains(words)),
        "{words:?} is not in {reasons:?}"
    );
}

fn verify(store: &dyn Store, resources: Resources) -> Report {
    let (records, recipe) = (toy::records(), toy::recipe());
    (Verifier::new(&records).resources(resources))
        .verify(store, &mut Toy::new(&recipe), |_| {})
        .unwrap()
}

fn public(store: &dyn Store) -> PublicCommitment {
    let bytes = store.read(Item::Manifest, u64::MAX).unwrap();
    PublicCommitment::new(Manifest::decode(&bytes).unwrap().claim, vec![])
}

fn everything(public: &PublicCommitment) -> Challenge {
    let seed = Seed::from_digest(tagged("cost", &[]));
    Challenge::fresh(public.digest(), Draw::All, seed)
}

/// The toy proof opened as a whole.
fn honest_opening() -> Opening {
    let (store, _) = toy::proof();
    let challenge = everything(&public(store.as_ref()));
    let mut none = || -> Result<Box<dyn Learner>, LearnerError> { unreachable!() };
    open(store.as_ref(), &toy::records(), None, &challenge, &mut none).unwrap()
}

/// A claim of as many records as the format allows, and an opening that fits it in everything but them.
fn claim_of_many_records() -> (PublicCommitment, Challenge, Opening) {
    let (store, _) = toy::proof();
    let mut forgery = Forgery::of(&store);
    forgery.terms.data = DataCommitment {
        records: MAX_RECORDS,
        ..forgery.terms.data
    };
    forgery.terms = forgery.terms.of_prover(None);
    let public = public(&forgery.seal());
    let challenge = everything(&public);
    let mut opening = honest_opening();
    opening.challenge = challenge.digest();
    (public, challenge, opening)
}

#[test]
fn a_claim_of_many_records_makes_no_work_that_the_opening_does_not_pay_for() {
    let _alone = alone();
    let (public, challenge, opening) = claim_of_many_records();
    assert!(opening.encode().len() < 10_000);
    let judged = |opening: Opening| {
        let started = Instant::now();
        let mut learner = Toy::new(&toy::recipe());
        let report = within(16 * MIB, || {
            Verifier::without_data()
                .verify_opening(&public, &challenge, opening, &mut learner, None, |_| {})
                .unwrap()
        });
        assert_eq!(learner.steps_taken, 0);
        // A permutation of all of them takes many times as long.
        assert!(started.elapsed() < Duration::from_secs(2));
        report
    };
    // As many records as the steps may use: which ones costs more than these are worth.
    costs(&judged(opening.clone()));
    // Fewer than one step uses, and more than all steps do.
    let mut few = opening.clone();
    few.records.truncate(3);
    rejected(&judged(few), "withholds records");
    let mut many = opening.clone();
    let record = many.records[0].clone();
    many.records = vec![record; 4 * STEPS as usize + 1];
    rejected(&judged(many), "at most 92");
    // A verifier with data of its own has less of it.
    let records = toy::records();
    let report = within(16 * MIB, || {
        Verifier::new(&records)
            .verify_opening(
                &public,
                &challenge,
                opening,
                &mut Toy::new(&toy::recipe()),
                None,
                |_| {},
            )
            .unwrap()
    });
    rejected(&report, "training data is not the verifier's");
}

#[test]
fn an_order_that_takes_more_memory_than_is_allowed_is_not_drawn() {
    let _alone = alone();
    let (public, challenge, opening) = claim_of_many_records();
    let report = within(256 * MIB, || {
        (Verifier::without_data().resources(Resources {
            threads: 1,
            memory: 256 * MIB,
        }))
        .verify_opening(
            &public,
            &challenge,
            opening,
            &mut Toy::new(&toy::recipe()),
            None,
            |_| {},
        )
        .unwrap()
    });
    costs(&report);
    assert!(
        report.reasons[0]
            .to_string()
            .contains("order of the records")
    );
}

/// What counts are wrong is said before anything is hashed or decompressed.
#[test]
fn an_opening_with_other_numbers_than_the_challenge_needs_is_rejected_by_them() {
    let (store, _) = toy::proof();
    let public = public(store.as_ref());
    let challenge = everything(&public);
    let broken = |change: fn(&mut Opening)| {
        let mut opening = honest_opening();
        change(&mut opening);
        // Nothing of it would hold.
        opening.checkpoint_nodes = vec![tagged("no node", &[])];
        opening.states.iter_mut().for_each(|state| state.clear());
        let mut learner = Toy::new(&toy::recipe());
        Verifier::without_data()
            .verify_opening(&public, &challenge, opening, &mut learner, None, |_| {})
            .unwrap()
    };
    rejected(
        &broken(|o| o.checkpoints.truncate(o.checkpoints.len() - 1)),
        "withholds checkpoints",
    );
    rejected(&broken(|o| drop(o.states.pop())), "withholds states");
    rejected(
        &broken(|o| o.batches.push(Default::default())),
        "withholds lists of batches",
    );
    rejected(&broken(|o| o.final_leaves = Some(vec![])), "opened twice");
}

/// A tensor of zeros that compresses to almost nothing.
const BOMB: u64 = 96 * MIB;

fn bomb(step: u64) -> State {
    State::new(vec![
        Entry::tensor(
            "model/bomb",
            pol_core::state::DType::U8,
            vec![BOMB],
            vec![0; BOMB as usize],
        ),
        Entry::u64(STEP_ENTRY, step),
    ])
    .unwrap()
}

/// The toy proof with such states in the place of those that `exchanged` chooses.
fn with_bombs(exchanged: impl Fn(usize) -> bool) -> MemoryStore {
    let (honest, manifest) = toy::proof();
    let store = (*honest).clone();
    let mut base: Option<(Digest, State)> = None;
    let checkpoints: Vec<Checkpoint> = (manifest.checkpoints.iter().enumerate())
        .map(|(index, checkpoint)| {
            if !exchanged(index) {
                return checkpoint.clone();
            }
            let state = bomb(checkpoint.step);
            let name = state.digest();
            let object = match &base {
                None => encode_state(&state),
                Some((base, before)) => encode_difference(&state, (base, before)),
            };
            let object = object.unwrap();
            assert!(object.len() < 100_000);
            store.put(Item::Object(name), object);
            base.get_or_insert((name, state));
            Checkpoint {
                state: name,
                ..checkpoint.clone()
            }
        })
        .collect();
    let model = manifest.claim.model;
    let manifest = Manifest::seal(manifest.claim.terms, checkpoints, model);
    store.put(Item::Manifest, manifest.encode());
    store
}

#[test]
fn states_of_another_layout_are_not_decompressed() {
    let _alone = alone();
    type Which = fn(usize) -> bool;
    let cases: [(Which, &str); 3] = [
        (|index| index == 0, "the state at step 0: it lacks"),
        (|index| index == 1, "the state at step 5: it lacks"),
        (|index| index > 0, "the state at step"),
    ];
    for (exchanged, words) in cases {
        let store = with_bombs(exchanged);
        // The verifier's own learner says which tensors there are.
        for threads in [1, 2] {
            let report = within(16 * MIB, || verify(&store, little(threads)));
            rejected(&report, words);
            let report = within(16 * MIB, || verify(&store, Resources::default()));
            rejected(&report, words);
        }
        // Without one, memory does: whatever else is wrong, no such state is decompressed.
        let integrity = within(16 * MIB, || {
            match check_integrity(&store, little(2), &mut |_| {}).unwrap() {
                Integrity::Holds(_) => panic!("a bomb is no state of the toy's"),
                Integrity::Broken { reason, .. } => reason,
            }
        });
        let by_layout = matches!(integrity, Reason::UnfitState { .. });
        assert!(by_layout || integrity.check() == "cost", "{integrity}");
        assert!(integrity.to_string().len() < 300);
    }
}

#[test]
fn opened_states_of_another_layout_are_not_decompressed() {
    let _alone = alone();
    let store = with_bombs(|index| index > 0);
    let public = public(&store);
    let challenge = everything(&public);
    let mut opening = honest_opening();
    opening.challenge = challenge.digest();
    let bytes = store.read(Item::Manifest, u64::MAX).unwrap();
    opening.checkpoints = Manifest::decode(&bytes).unwrap().checkpoints;
    let whole = encode_state(&bomb(5)).unwrap();
    (opening.states.iter_mut().skip(1)).for_each(|state| state.clone_from(&whole.clone().into()));
    let report = within(16 * MIB, || {
        Verifier::without_data()
            .verify_opening(
                &public,
                &challenge,
                opening,
                &mut Toy::new(&toy::recipe()),
                None,
                |_| {},
            )
            .unwrap()
    });
    rejected(&report, "the state at step 5: it lacks");
}

/// Lengths are looked at before anything is read: these files take no space on the disk.
#[test]
fn sparse_files_are_not_read() {
    let _alone = alone();
    let (honest, manifest) = toy::proof();
    let made = |sparse: Item, len: u64| {
        let place = tempfile::tempdir().unwrap();
        let store = FolderStore::new(place.path());
        for item in honest.items() {
            let bytes = honest.read(item, u64::MAX).unwrap();
            store.write(item, &bytes).unwrap();
        }
        let file = File::options()
            .write(true)
            .open(place.path().join(sparse.path()));
        file.unwrap().set_len(len).unwrap();
        place
    };
    let first = Item::Object(manifest.checkpoints[0].state);
    let later = Item::Object(manifest.checkpoints[2].state);
    for (item, len) in [
        (Item::Model, 8 << 30),
        (Item::Model, 1 << 20),
        (Item::Manifest, 8 << 30),
        (first, 8 << 30),
        (later, 8 << 30),
        (later, 1 << 30),
    ] {
        let place = made(item, len);
        let store = FolderStore::new(place.path());
        let report = within(16 * MIB, || verify(&store, Resources::default()));
        rejected(&report, &item.path());
        let integrity = within(16 * MIB, || {
            match check_integrity(&store, little(2), &mut |_| {}).unwrap() {
                Integrity::Holds(_) => panic!("it is not whole"),
                Integrity::Broken { reason, .. } => reason,
            }
        });
        assert!(integrity.to_string().contains(&item.path()), "{integrity}");
    }
    // A signature is over the file: it is not read for that either.
    let place = made(Item::Model, 8 << 30);
    let store = FolderStore::new(place.path());
    let proof = Proof::read(&store, Resources::default()).unwrap().unwrap();
    let reason = within(16 * MIB, || proof.model_file().unwrap().unwrap_err());
    assert_eq!(reason.check(), "final model");
    // Manifests of the longest kind are a matter of memory.
    let place = made(Item::Manifest, 256 << 20);
    let store = FolderStore::new(place.path());
    costs(&within(16 * MIB, || verify(&store, little(1))));
}

/// Lists of batches too.
#[test]
fn long_lists_of_batches_are_not_read_where_they_do_not_fit() {
    let _alone = alone();
    let batches: Vec<BatchPlan> = (0..STEPS)
        .map(|step| BatchPlan {
            step,
            epoch: 0,
            records: (0..4).map(|i| (7 * step + i) % 30).collect(),
        })
        .collect();
    let records = toy::records();
    let store = Arc::new(MemoryStore::new());
    let training = Training::new(toy::recipe(), &records, 7, INTERVAL).with_batches(&batches);
    let outcome = training.run(
        &mut Toy::new(&toy::recipe()),
        Arc::clone(&store) as _,
        |_, _| ControlFlow::Continue(()),
    );
    let Ok(Outcome::Sealed(manifest)) = outcome else {
        panic!("it was not sealed")
    };
    assert_eq!(verify(store.as_ref(), little(1)).verdict, Verdict::Accepted);
    let name = manifest.checkpoints[1].batches.unwrap();
    store.put(Item::Object(name), vec![0; 8 << 20]);
    costs(&within(16 * MIB, || verify(store.as_ref(), little(1))));
    store.put(Item::Object(name), vec![0; 64 << 10]);
    rejected(&verify(store.as_ref(), little(1)), "checksum");
}

#[test]
fn a_pipe_is_not_waited_for() {
    let place = tempfile::tempdir().unwrap();
    let mkfifo = |path: &Path| {
        let made = std::process::Command::new("mkfifo").arg(path).status();
        made.is_ok_and(|status| status.success())
    };
    let pipe = place.path().join("proof.tar");
    if !mkfifo(&pipe) {
        return;
    }
    let error = ArchiveStore::open(&pipe).unwrap_err();
    assert!(error.to_string().contains("not a regular file"), "{error}");
    let error = pol_core::store::open_regular(&pipe).unwrap_err();
    assert!(error.to_string().contains("not a regular file"), "{error}");
    assert!(ArchiveStore::open(place.path()).is_err());
    // A regular file is opened through a link, for whoever names one.
    let (honest, _) = toy::proof();
    let packed = place.path().join("packed");
    pack(
        honest.as_ref(),
        &packed,
        &mut File::create(&packed).unwrap(),
    )
    .unwrap();
    #[cfg(unix)]
    {
        let link = place.path().join("link");
        std::os::unix::fs::symlink(&packed, &link).unwrap();
        assert!(ArchiveStore::open(&link).is_ok());
    }
    let archive = ArchiveStore::open(&packed).unwrap();
    for item in [Item::Manifest, Item::Model] {
        let bytes = honest.read(item, u64::MAX).unwrap();
        assert_eq!(archive.length(item).unwrap(), bytes.len() as u64);
        assert_eq!(honest.length(item).unwrap(), bytes.len() as u64);
    }
    assert!(archive.length(Item::Journal).is_err());
}

/// A network of so many weights that does almost nothing.
struct Wide {
    rate: f64,
    step: u64,
    w: Vec<f32>,
}

const WEIGHTS: usize = 1 << 21;

impl Wide {
    fn new(recipe: &Recipe) -> Self {
        Self {
            rate: recipe.learning_rate.base,
            step: 0,
            w: vec![0.0; WEIGHTS],
        }
    }
}

impl Learner for Wide {
    fn initialise(&mut self, seed: &Seed) -> Result<(), LearnerError> {
        let first = f32::from(seed.digest().as_bytes()[0]);
        // In place, as on a device.
        (self.w.iter_mut().enumerate()).for_each(|(i, w)| *w = (first + i as f32).sin());
        self.step = 0;
        Ok(())
    }

    fn step(&mut self, batch: &Batch<'_>) -> Result<(), LearnerError> {
        let sum: f32 = batch.records().map(|(_, record)| record.label as f32).sum();
        let moved = self.rate as f32 * sum;
        (self.w.iter_mut()).for_each(|w| *w -= moved * *w / 90.0);
        self.step += 1;
        Ok(())
    }

    fn capture(&mut self) -> Result<State, LearnerError> {
        let entries = vec![
            Entry::f32("model/w", vec![WEIGHTS as u64], &self.w),
            Entry::u64(STEP_ENTRY, self.step),
            Entry::f64(RATE_ENTRY, self.rate),
        ];
        State::new(entries).map_err(|error| LearnerError::Unfit(error.to_string()))
    }

    fn restore(&mut self, state: &State) -> Result<(), LearnerError> {
        let unfit = || LearnerError::Unfit("it is not a state of this network".to_owned());
        let w = state.entry("model/w").ok_or_else(unfit)?;
        (self.w.iter_mut().zip(w.values())).for_each(|(w, value)| *w = value as f32);
        let step = state.entry(STEP_ENTRY).and_then(Entry::to_u64);
        self.step = step.ok_or_else(unfit)?;
        Ok(())
    }

    fn part(&self, name: &str) -> Part {
        Part::by_prefix(name)
    }
}

/// Honest runs are verified within the memory that was allowed, or said to need more; with enough of it they
/// are accepted, however many threads there are.
#[test]
fn an_honest_proof_is_verified_within_the_memory_allowed_or_said_to_need_more() {
    let _alone = alone();
    let (records, recipe) = (toy::records(), toy::recipe());
    let store = Arc::new(MemoryStore::new());
    let training = Training::new(recipe.clone(), &records, 7, INTERVAL);
    let outcome = training.run(&mut Wide::new(&recipe), Arc::clone(&store) as _, |_, _| {
        ControlFlow::Continue(())
    });
    assert!(matches!(outcome, Ok(Outcome::Sealed(_))));
    let mut learner = Wide::new(&recipe);
    let mut accepted = Vec::new();
    for memory in [0, 48, 72, 512].map(|mib| mib * MIB) {
        for threads in [1, 4] {
            let resources = Resources { threads, memory };
            // Beyond the smallest, no fixed sum is needed: it is subtracted again.
            let allowed = memory.max(16 * MIB);
            let report = within(allowed, || {
                (Verifier::new(&records).resources(resources))
                    .verify(store.as_ref(), &mut learner, |_| {})
                    .unwrap()
            });
            match report.verdict {
                Verdict::Accepted => accepted.push(memory / MIB),
                _ => costs(&report),
            }
        }
    }
    assert_eq!(accepted, [72, 72, 512, 512]);
}

#[test]
fn no_object_is_longer_than_the_format_allows_whatever_memory_there_is() {
    let _alone = alone();
    let (honest, manifest) = toy::proof();
    let place = tempfile::tempdir().unwrap();
    let store = FolderStore::new(place.path());
    for item in honest.items() {
        let bytes = honest.read(item, u64::MAX).unwrap();
        store.write(item, &bytes).unwrap();
    }
    let object = Item::Object(manifest.checkpoints[1].state);
    let file = File::options()
        .write(true)
        .open(place.path().join(object.path()));
    file.unwrap().set_len(MAX_OBJECT_BYTES + 1).unwrap();
    let unlimited = Resources {
        threads: 1,
        memory: u64::MAX,
    };
    let reason = within(16 * MIB, || {
        match check_integrity(&store, unlimited, &mut |_| {}).unwrap() {
            Integrity::Holds(_) => panic!("it is not whole"),
            Integrity::Broken { reason, .. } => reason,
        }
    });
    assert!(reason.is_rejection(), "{reason}");
}
