//! Hostile input: every decoder on altered valid inputs and on noise, with a bound on memory. `fuzz/` runs
//! the same functions for longer.

use std::sync::Mutex;

use peak_alloc::PeakAlloc;
use pol_hostile::{Edit, TARGETS, Target, target};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Memory is the process's: one input at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Inputs for each decoder. Set `POL_HOSTILE_CASES` for a longer run (docs/robustness.md).
fn cases() -> u32 {
    let given = std::env::var("POL_HOSTILE_CASES").ok();
    given.map_or(1000, |cases| cases.parse().unwrap())
}

/// Runs a decoder, and holds it to its bound on memory.
fn run(target: &Target, bytes: &[u8]) -> Result<(), TestCaseError> {
    let _alone = ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    (target.run)(bytes);
    let taken = MEMORY.peak_usage().saturating_sub(before);
    let bound = target.memory.of(bytes.len());
    prop_assert!(
        taken <= bound,
        "{} bytes of {} took {taken}, the bound is {bound}",
        bytes.len(),
        target.name
    );
    Ok(())
}

fn edit() -> impl Strategy<Value = Edit> {
    let place = any::<usize>;
    prop_oneof![
        4 => (place(), 0..8u8).prop_map(|(at, bit)| Edit::Flip { at, bit }),
        4 => (place(), any::<u8>()).prop_map(|(at, to)| Edit::Set { at, to }),
        1 => (place(), place()).prop_map(|(at, len)| Edit::Drop { at, len }),
        2 => (place(), prop::collection::vec(any::<u8>(), 1..9))
            .prop_map(|(at, bytes)| Edit::Insert { at, bytes }),
        1 => place().prop_map(|at| Edit::Cut { at }),
        1 => (place(), place(), place()).prop_map(|(from, to, len)| Edit::Copy { from, to, len }),
        1 => (place(), place(), place()).prop_map(|(a, b, len)| Edit::Swap { a, b, len }),
        // Lengths, as the formats have them: beyond all bounds.
        2 => (place(), prop::sample::select(vec![
            vec![0xff; 4], vec![0xff; 8], vec![0xdd, 0xff, 0xff, 0xff, 0xff], vec![0xc6, 0x7f, 0xff, 0xff, 0xff],
        ])).prop_map(|(at, bytes)| Edit::Insert { at, bytes }),
    ]
}

fn survives(name: &str) {
    let target = target(name);
    let seeds = (target.seeds)();
    assert!(!seeds.is_empty());
    for seed in &seeds {
        run(target, seed).unwrap();
    }
    let config = Config {
        cases: cases(),
        failure_persistence: None,
        ..Config::default()
    };
    let altered = (0..seeds.len(), prop::collection::vec(edit(), 1..6));
    let mut runner = TestRunner::new(config.clone());
    let outcome = runner.run(&altered, |(seed, edits)| {
        let mut bytes = seeds[seed].clone();
        edits.iter().for_each(|edit| edit.apply(&mut bytes));
        run(target, &bytes)
    });
    outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
    let noise = prop::collection::vec(any::<u8>(), 0..1024);
    let outcome = TestRunner::new(config).run(&noise, |bytes| run(target, &bytes));
    outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
}

macro_rules! every_target {
    ($($name:ident)*) => {
        $(#[test] fn $name() { survives(stringify!($name)); })*

        #[test]
        fn no_target_is_left_out() {
            let named = [$(stringify!($name)),*];
            let all: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(named[..], all);
        }
    };
}

every_target! {
    manifest journal state batches model_file recipe policy commitment challenge opening envelope
    timestamp key cifar idx archive
}

/// Bombs: a small file that stands for much.
#[test]
fn a_kilobyte_does_not_take_more_than_its_bound() {
    // A list that claims four billion elements, as each field of a manifest in turn.
    let manifest = &(target("manifest").seeds)()[0];
    for at in 0..manifest.len() {
        let mut bytes = manifest[..at].to_vec();
        bytes.extend([0xdd, 0xff, 0xff, 0xff, 0xff]);
        run(target("manifest"), &bytes).unwrap();
        let mut bytes = manifest[..at].to_vec();
        bytes.extend([0xc6, 0xff, 0xff, 0xff, 0xff]);
        run(target("manifest"), &bytes).unwrap();
    }
}
