//! Several segments replayed at once: the same report as in turn.

use std::sync::atomic::{AtomicUsize, Ordering};

use pol_core::learner::{Learner, LearnerError};
use pol_core::store::{MemoryStore, Store};
use pol_core::verify::{MakeLearner, Report, Resources, Selection, Verdict, Verifier};
use pol_tests::forge::Forgery;
use pol_tests::toy::{self, Toy};

fn verify(store: &dyn Store, jobs: usize, fail_fast: bool, make: &MakeLearner<'_>) -> Report {
    let (records, recipe) = (toy::records(), toy::recipe());
    Verifier::new(&records)
        .expect_recipe(&recipe)
        .fail_fast(fail_fast)
        .at_once(jobs, make)
        .verify(store, &mut Toy::new(&recipe), |_| {})
        .unwrap()
}

fn toys() -> Result<Box<dyn Learner>, LearnerError> {
    Ok(Box::new(Toy::new(&toy::recipe())))
}

/// But for the steps: past the first rejection some may have been made already.
fn alike(a: &Report, b: &Report) {
    let without_steps = |report: &Report| Report {
        steps_replayed: 0,
        ..report.clone()
    };
    assert_eq!(without_steps(a), without_steps(b));
}

#[test]
fn any_number_of_jobs_gives_the_same_report() {
    let (honest, _) = toy::proof();
    let forged = |index: usize| {
        let mut forgery = Forgery::of(&honest);
        forgery.alter(index, "model/w", |entry| entry.bytes[0] ^= 1);
        forgery.seal()
    };
    let mut proofs = vec![MemoryStore::clone(&honest)];
    proofs.extend((1..=4).map(forged));
    for (number, proof) in proofs.iter().enumerate() {
        for fail_fast in [false, true] {
            let alone = verify(proof, 1, fail_fast, &toys);
            assert_eq!(alone.verdict == Verdict::Accepted, number == 0);
            for jobs in [2, 3, 5, 20] {
                alike(&verify(proof, jobs, fail_fast, &toys), &alone);
            }
        }
    }
}

#[test]
fn a_job_without_a_learner_leaves_its_work_to_others_and_none_at_all_is_inconclusive() {
    let (honest, _) = toy::proof();
    let made = AtomicUsize::new(0);
    let one_of_two = || match made.fetch_add(1, Ordering::SeqCst) % 2 {
        0 => Err(LearnerError::Device("out of memory".to_owned())),
        _ => toys(),
    };
    let alone = verify(honest.as_ref(), 1, false, &toys);
    alike(&verify(honest.as_ref(), 2, false, &one_of_two), &alone);

    let none = || Err(LearnerError::Device("out of memory".to_owned()));
    let panics = || panic!("a driver that panics, on purpose");
    let makers: [&MakeLearner<'_>; 2] = [&none, &panics];
    for make in makers {
        let report = verify(honest.as_ref(), 2, false, make);
        assert_eq!(
            report.verdict,
            Verdict::Inconclusive,
            "{:?}",
            report.reasons
        );
        assert!(report.reasons[0].to_string().contains("another learner"));
    }
}

#[test]
fn memory_bounds_how_many_are_replayed_at_once() {
    let (honest, _) = toy::proof();
    let (records, recipe) = (toy::records(), toy::recipe());
    let made = AtomicUsize::new(0);
    let make = || {
        made.fetch_add(1, Ordering::SeqCst);
        toys()
    };
    let with = |memory| {
        made.store(0, Ordering::SeqCst);
        let resources = Resources { threads: 2, memory };
        let report = Verifier::new(&records)
            .resources(resources)
            .at_once(4, &make)
            .select(Selection::all())
            .verify(honest.as_ref(), &mut Toy::new(&recipe), |_| {})
            .unwrap();
        assert_eq!(report.verdict, Verdict::Accepted);
        made.load(Ordering::SeqCst)
    };
    assert_eq!(with(u64::MAX), 4);
    // Eight states of 36 bytes for each, and an order of thirty records.
    assert_eq!(with(2 * 8 * (36 + 30)), 2);
    // One is the learner that was given.
    assert_eq!(with(0), 0);
}
