//! The protocol on the toy training: what an honest prover and verifier can rely on.

use std::ops::ControlFlow;
use std::sync::Arc;

use pol_core::digest::{Digest, tagged};
use pol_core::learner::{Learner, LearnerError};
use pol_core::random::Seed;
use pol_core::recorder::{RecordError, Recorder};
use pol_core::records::Records;
use pol_core::schedule::BatchPlan;
use pol_core::state::State;
use pol_core::store::{Item, MemoryStore, Store};
use pol_core::training::{Outcome, TrainError, Training};
use pol_core::verify::{Progress, Selection, Verdict, Verifier};
use pol_tests::toy::{self, INTERVAL, STEPS, Toy};

fn go_on<L: ?Sized>(_: &mut L, _: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn commitment(outcome: &Outcome) -> Digest {
    match outcome {
        Outcome::Sealed(manifest) => manifest.claim.commitment(),
        Outcome::Interrupted { step } => panic!("interrupted at step {step}"),
    }
}

#[test]
fn an_honest_proof_is_accepted_with_equal_digests() {
    let (store, manifest) = toy::proof();
    let report = toy::verify(&store);
    assert_eq!(report.verdict, Verdict::Accepted, "{:?}", report.reasons);
    assert_eq!(report.commitment, Some(manifest.claim.commitment()));
    assert_eq!(report.segments.len() as u64, STEPS.div_ceil(INTERVAL));
    assert_eq!(report.steps_replayed, STEPS);
    for segment in &report.segments {
        assert!(segment.digests_equal && segment.accepted);
        let parts = [segment.parameters, segment.buffers, segment.optimizer];
        for part in parts.map(Option::unwrap) {
            let d = part.distances;
            assert_eq!((d.l1, d.l2, d.linf), (0.0, 0.0, 0.0));
            assert!(
                part.movement_l2.unwrap() > 0.0,
                "an optimizer moves from zero"
            );
        }
    }
    assert_eq!(report.catches(0.01), 1.0);
}

#[test]
fn the_same_recipe_data_and_nonce_give_the_same_commitment_and_others_do_not() {
    let records = toy::records();
    let run = |nonce, interval| {
        let training = Training::new(toy::recipe(), &records, nonce, interval);
        let store = Arc::new(MemoryStore::new());
        commitment(
            &training
                .run(&mut Toy::new(&toy::recipe()), store, go_on)
                .unwrap(),
        )
    };
    assert_eq!(run(1, 5), run(1, 5));
    assert_ne!(run(1, 5), run(2, 5));
    assert_ne!(run(1, 5), run(1, 4));
}

#[test]
fn a_run_broken_off_at_any_step_resumes_to_the_same_commitment() {
    let (_, manifest) = toy::proof();
    let records = toy::records();
    let training = Training::new(toy::recipe(), &records, 7, INTERVAL);
    for stop in 1..STEPS {
        let store = Arc::new(MemoryStore::new());
        let stopped = training.run(
            &mut Toy::new(&toy::recipe()),
            Arc::clone(&store) as _,
            |_, step| {
                if step == stop {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            },
        );
        let last = stop / INTERVAL * INTERVAL;
        assert_eq!(stopped.unwrap(), Outcome::Interrupted { step: last });
        assert_eq!(toy::verify(&store).verdict, Verdict::Rejected, "unfinished");

        let mut learner = Toy::new(&toy::recipe());
        let resumed = training
            .resume(&mut learner, Arc::clone(&store) as _, go_on)
            .unwrap();
        assert_eq!(commitment(&resumed), manifest.claim.commitment());
        assert_eq!(
            learner.steps_taken,
            STEPS - last,
            "nothing is trained twice"
        );
        assert!(!store.contains(Item::Journal));
    }
}

#[test]
fn a_run_killed_between_its_last_checkpoint_and_its_seal_is_sealed_by_a_resume() {
    let (sealed, manifest) = toy::proof();
    let records = toy::records();
    let training = Training::new(toy::recipe(), &records, 7, INTERVAL);
    let killed = Arc::new(MemoryStore::new());
    let mut toy = Toy::new(&toy::recipe());
    let mut recorder = Recorder::start(Arc::clone(&killed) as _, training.terms().clone()).unwrap();
    for checkpoint in &manifest.checkpoints {
        let state = pol_core::object::read_state(sealed.as_ref(), &checkpoint.state, None).unwrap();
        recorder.record(checkpoint.step, || Ok(state)).unwrap();
    }
    assert_eq!(recorder.stop().unwrap(), STEPS);
    let resumed = training.resume(&mut toy, killed, go_on).unwrap();
    assert_eq!(commitment(&resumed), manifest.claim.commitment());
    assert_eq!(toy.steps_taken, 0);
}

#[test]
fn a_journal_cut_at_any_byte_resumes_to_the_same_commitment() {
    let (_, manifest) = toy::proof();
    let records = toy::records();
    let training = Training::new(toy::recipe(), &records, 7, INTERVAL);
    let killed = Arc::new(MemoryStore::new());
    let _ = training.run(
        &mut Toy::new(&toy::recipe()),
        Arc::clone(&killed) as _,
        |_, step| {
            if step == 17 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        },
    );
    let journal = killed.read(Item::Journal, u64::MAX).unwrap();
    for len in (0..=journal.len()).rev() {
        let store = Arc::new(MemoryStore::clone(&killed));
        store.write(Item::Journal, &journal[..len]).unwrap();
        let resumed = training
            .resume(&mut Toy::new(&toy::recipe()), store, go_on)
            .unwrap();
        assert_eq!(
            commitment(&resumed),
            manifest.claim.commitment(),
            "cut at {len}"
        );
    }
}

#[test]
fn a_resumed_run_steps_back_over_a_damaged_checkpoint() {
    let (_, manifest) = toy::proof();
    let records = toy::records();
    let training = Training::new(toy::recipe(), &records, 7, INTERVAL);
    let store = Arc::new(MemoryStore::new());
    let _ = training.run(
        &mut Toy::new(&toy::recipe()),
        Arc::clone(&store) as _,
        |_, step| {
            if step == 17 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        },
    );
    let last = Item::Object(manifest.checkpoints[3].state);
    store.write(last, b"cut short").unwrap();
    let mut learner = Toy::new(&toy::recipe());
    let resumed = training.resume(&mut learner, store, go_on).unwrap();
    assert_eq!(commitment(&resumed), manifest.claim.commitment());
    assert_eq!(learner.steps_taken, STEPS - 10);
}

#[test]
fn a_store_in_use_is_not_overwritten() {
    let records = toy::records();
    let (sealed, _) = toy::proof();
    let training = |nonce| Training::new(toy::recipe(), &records, nonce, INTERVAL);
    let run = |store: &Arc<MemoryStore>| {
        training(7).run(&mut Toy::new(&toy::recipe()), Arc::clone(store) as _, go_on)
    };
    let occupied = |result| {
        matches!(
            result,
            Err(TrainError::Record(RecordError::Occupied { .. }))
        )
    };
    assert!(occupied(run(&sealed)));

    let begun = Arc::new(MemoryStore::new());
    let _ = training(7).run(
        &mut Toy::new(&toy::recipe()),
        Arc::clone(&begun) as _,
        |_, _| ControlFlow::Break(()),
    );
    assert!(occupied(run(&begun)));
    let other = training(8).resume(&mut Toy::new(&toy::recipe()), begun, go_on);
    assert!(matches!(
        other,
        Err(TrainError::Record(RecordError::OtherTerms { .. }))
    ));
}

#[test]
fn explicit_batches_are_committed_and_replayed() {
    let records = toy::records();
    let plans: Vec<BatchPlan> = (0..STEPS)
        .map(|step| BatchPlan {
            step,
            epoch: 0,
            records: vec![step % 30, (step * 7 + 1) % 30],
        })
        .collect();
    let training = Training::new(toy::recipe(), &records, 7, INTERVAL).with_batches(&plans);
    let store = Arc::new(MemoryStore::new());
    let outcome = training.run(
        &mut Toy::new(&toy::recipe()),
        Arc::clone(&store) as _,
        go_on,
    );
    let Outcome::Sealed(manifest) = outcome.unwrap() else {
        panic!("interrupted");
    };
    assert_eq!(toy::verify(&store).verdict, Verdict::Accepted);

    let listed = Item::Object(manifest.checkpoints[2].batches.unwrap());
    let other = manifest.checkpoints[3].batches.unwrap();
    let swapped = store.read(Item::Object(other), u64::MAX).unwrap();
    store.write(listed, &swapped).unwrap();
    assert_eq!(toy::verify(&store).verdict, Verdict::Rejected);
    store.remove(listed);
    assert!(
        toy::verify(&store).reasons[0]
            .to_string()
            .contains("missing")
    );

    let few = Training::new(toy::recipe(), &records, 7, INTERVAL).with_batches(&plans[..9]);
    let outcome = few.run(
        &mut Toy::new(&toy::recipe()),
        Arc::new(MemoryStore::new()),
        go_on,
    );
    assert!(outcome.unwrap_err().to_string().contains("step 9"));
}

#[test]
fn a_sample_replays_only_what_it_selects() {
    let (store, _) = toy::proof();
    let (records, recipe) = (toy::records(), toy::recipe());
    let seed = Seed::from_digest(tagged("audit", &[]));
    let verify = |selection| {
        let mut learner = Toy::new(&recipe);
        let report = Verifier::new(&records)
            .select(selection)
            .verify(store.as_ref(), &mut learner, |_| {})
            .unwrap();
        // One more step shows the verifier what a state of this training looks like.
        assert_eq!(learner.steps_taken, report.steps_replayed + 1);
        report
    };
    let sampled = verify(Selection::random(2, seed));
    assert_eq!(
        (sampled.segments.len(), sampled.verdict),
        (2, Verdict::Accepted)
    );
    assert!((sampled.catches(0.2) - 0.4).abs() < 1e-12);

    // Seven steps are an epoch of thirty points in fours, so there are four epochs.
    let top = verify(Selection::top(1));
    let epochs: Vec<u64> = top.segments.iter().map(|s| s.first_step / 7).collect();
    assert_eq!(epochs, [0, 1, 2]);
    let all: Vec<u64> = verify(Selection::top(99))
        .segments
        .iter()
        .map(|s| s.index)
        .collect();
    assert_eq!(all, [0, 1, 2, 3, 4]);
    assert!(verify(Selection::random(2, seed).and_top(1)).segments.len() >= 3);

    let none = verify(Selection::top(0));
    assert_eq!(
        none.verdict,
        Verdict::Inconclusive,
        "nothing checked is nothing accepted"
    );
}

#[test]
fn progress_reaches_its_end() {
    let (store, manifest) = toy::proof();
    let (records, recipe) = (toy::records(), toy::recipe());
    let mut last = Vec::new();
    let verifier = Verifier::new(&records);
    let mut learner = Toy::new(&recipe);
    verifier
        .verify(store.as_ref(), &mut learner, |progress| last.push(progress))
        .unwrap();
    assert!(last.contains(&Progress::Integrity(
        manifest.claim.checkpoints,
        manifest.claim.checkpoints
    )));
    assert_eq!(last.last(), Some(&Progress::Replay(STEPS, STEPS)));
}

/// A toy whose training diverges.
struct Diverging(Toy);

impl Learner for Diverging {
    fn initialise(&mut self, seed: &Seed) -> Result<(), LearnerError> {
        self.0.initialise(seed)
    }
    fn step(&mut self, batch: &pol_core::learner::Batch<'_>) -> Result<(), LearnerError> {
        self.0.step(batch)
    }
    fn capture(&mut self) -> Result<State, LearnerError> {
        let state = self.0.capture()?;
        let mut entries = state.entries().to_vec();
        let diverged = state.entry("schedule/step").and_then(|e| e.to_u64()) >= Some(10);
        for entry in entries
            .iter_mut()
            .filter(|e| diverged && e.name() == "model/w")
        {
            entry.bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        }
        State::new(entries).map_err(|error| LearnerError::Device(error.to_string()))
    }
    fn restore(&mut self, state: &State) -> Result<(), LearnerError> {
        self.0.restore(state)
    }
}

#[test]
fn a_diverged_training_is_not_recorded_as_a_proof() {
    let records = toy::records();
    let training = Training::new(toy::recipe(), &records, 7, INTERVAL);
    let store = Arc::new(MemoryStore::new());
    let outcome = training.run(&mut Diverging(Toy::new(&toy::recipe())), store, go_on);
    let message = outcome.unwrap_err().to_string();
    assert!(
        message.contains("step 10") && message.contains("model/w"),
        "{message}"
    );
}

#[test]
fn the_recorder_refuses_checkpoints_out_of_order_and_incomplete_proofs() {
    let records = toy::records();
    let training = Training::new(toy::recipe(), &records, 7, INTERVAL);
    let mut toy = Toy::new(&toy::recipe());
    toy.initialise(&training.terms().seed).unwrap();
    let start = || Recorder::start(Arc::new(MemoryStore::new()), training.terms().clone()).unwrap();

    let mut recorder = start();
    let skipped = recorder.record(5, || toy.capture());
    assert!(matches!(
        skipped,
        Err(RecordError::OutOfOrder {
            expected: 0,
            found: 5
        })
    ));

    let mut recorder = start();
    assert!(recorder.record(0, || toy.capture()).unwrap());
    assert!(!recorder.record(3, || panic!("nothing is due")).unwrap());
    assert!(
        recorder.record(7, || toy.capture()).is_err(),
        "step 5 was skipped"
    );
    assert!(
        recorder.record(0, || toy.capture()).is_err(),
        "step 0 was recorded"
    );
    assert!(matches!(
        recorder.seal(),
        Err(RecordError::Incomplete {
            expected: STEPS,
            found: 0
        })
    ));
}

#[test]
fn terms_that_describe_no_training_are_refused() {
    let records = toy::records();
    let refused = |change: fn(&mut pol_core::recipe::Recipe), interval| {
        let mut recipe = toy::recipe();
        change(&mut recipe);
        let training = Training::new(recipe, &records, 7, interval);
        let store = Arc::new(MemoryStore::new());
        training
            .run(&mut Toy::new(&toy::recipe()), store, go_on)
            .unwrap_err()
            .to_string()
    };
    assert!(refused(|_| {}, 0).contains("interval"));
    assert!(refused(|_| {}, STEPS + 1).contains("interval"));
    assert!(refused(|r| r.steps = 0, 1).contains("steps"));
    assert!(refused(|r| r.learning_rate.base = f64::NAN, 1).contains("learning_rate"));
    assert!(refused(|r| r.batch_size = records_len() + 1, 1).contains("batches of"));
}

fn records_len() -> u64 {
    toy::records().len()
}
