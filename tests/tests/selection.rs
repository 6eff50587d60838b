//! Which segments are replayed, and what is stated about it: the forger here forges one segment, knows the
//! rule, and is met as often as the report says.

use std::ops::ControlFlow;
use std::sync::Arc;

use pol_core::audit::{Challenge, Draw, PublicCommitment, open};
use pol_core::digest::tagged;
use pol_core::learner::{Batch, Initial, Learner, LearnerError};
use pol_core::policy::{Bounds, Comparison, OpeningRule, Policy, SegmentRule};
use pol_core::random::Seed;
use pol_core::recipe::{Numerics, Profile, Recipe};
use pol_core::state::{Entry, Part, State};
use pol_core::store::{MemoryStore, Store};
use pol_core::training::Training;
use pol_core::verify::{
    Integrity, OutlierRule, Report, Resources, Selection, Verdict, Verifier, check_and_measure,
    read_claim,
};
use pol_tests::toy::{self, Toy};

const STEPS: u64 = 60;
/// Two steps to a segment: thirty of them.
const INTERVAL: u64 = 2;
const OUTLIERS: OutlierRule = OutlierRule {
    factor: 3.0,
    most: 32,
};

fn seed(name: &str, number: u64) -> Seed {
    Seed::from_digest(tagged(name, &[&number.to_le_bytes()]))
}

fn recipe() -> Recipe {
    Recipe {
        steps: STEPS,
        ..toy::recipe()
    }
}

fn exact() -> Recipe {
    Recipe {
        numerics: Numerics::Exact(Profile::UnfusedV2),
        ..recipe()
    }
}

/// Moves the first weight of a learner by `jump`, which no training would.
fn jump(learner: &mut Toy, jump: f32) {
    let state = learner.capture().unwrap();
    let entries = state.entries().iter().map(|entry| match entry.name() {
        "model/w" => {
            let w: Vec<f32> = entry.values().map(|value| value as f32).collect();
            Entry::f32("model/w", vec![2], &[w[0] + jump, w[1]])
        }
        _ => entry.clone(),
    });
    let jumped = State::new(entries.collect()).unwrap();
    learner.restore(&jumped).unwrap();
}

/// A toy whose velocity is written at the end of segment 13.
struct Injecting(Toy);

impl Learner for Injecting {
    fn initialise(&mut self, seed: &Seed) -> Result<(), LearnerError> {
        self.0.initialise(seed)
    }

    fn step(&mut self, batch: &Batch<'_>) -> Result<(), LearnerError> {
        self.0.step(batch)?;
        if batch.step() + 1 != 14 * INTERVAL {
            return Ok(());
        }
        let state = self.0.capture()?;
        let entries = state.entries().iter().map(|entry| match entry.name() {
            "optim/w/momentum.velocity" => {
                Entry::f32("optim/w/momentum.velocity", vec![2], &[-300.0, 0.0])
            }
            _ => entry.clone(),
        });
        self.0.restore(&State::new(entries.collect()).unwrap())
    }

    fn capture(&mut self) -> Result<State, LearnerError> {
        self.0.capture()
    }

    fn restore(&mut self, state: &State) -> Result<(), LearnerError> {
        self.0.restore(state)
    }

    fn part(&self, name: &str) -> Part {
        self.0.part(name)
    }

    fn initial(&self, name: &str) -> Option<Initial> {
        self.0.initial(name)
    }
}

/// A training that is honest but for a jump after step `at`.
fn forged(training: &Training<'_>, at: u64, by: f32) -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::new());
    let mut learner = Toy::new(&training.terms().recipe);
    let observe = |learner: &mut Toy, step: u64| {
        if step == at {
            jump(learner, by);
        }
        ControlFlow::Continue(())
    };
    training.run(&mut learner, store.clone(), observe).unwrap();
    store
}

/// The default policy for a sample of `q` segments, with nothing tolerated: this is about which segments are
/// looked at.
fn sampling(q: u64) -> Policy {
    Policy {
        bounds: Bounds::default(),
        comparison: Comparison::Bits,
        segments: SegmentRule {
            all: false,
            sample: Some(q),
            ..Policy::shipped("calibrated").unwrap().segments
        },
        ..Policy::shipped("calibrated").unwrap()
    }
}

fn judge(store: &MemoryStore, policy: Policy, randomness: Seed) -> Report {
    let records = toy::records();
    let recipe = read_claim(store).unwrap().unwrap().claim.terms.recipe;
    Verifier::new(&records)
        .policy(policy, randomness)
        .verify(store, &mut Toy::new(&recipe), |_| {})
        .unwrap()
}

/// How many of 10,000 audits replay `segment`, and what the last of them was stated to be worth against
/// one forged segment.
fn met(store: &MemoryStore, segment: u64, drawn: u64) -> (u64, f64) {
    let part = |name: &str| Toy::new(&recipe()).part(name);
    let checked = check_and_measure(store, Resources::default(), Some(&part), &mut |_| {});
    let Integrity::Holds(checked) = checked.unwrap() else {
        unreachable!("the forgery is consistent in itself")
    };
    let rule = sampling(drawn).segments;
    let mut stated = 0.0;
    let met = (0..10_000)
        .filter(|&audit| {
            let selection = rule.selection(checked.segments(), seed("audit", audit));
            let selected = selection.select(&checked);
            stated = selected.odds.of_count(1);
            selected.segments.contains(&segment)
        })
        .count();
    (met as u64, stated)
}

#[test]
fn an_exchanged_end_is_always_met() {
    let records = toy::records();
    let training = Training::new(recipe(), &records, 7, INTERVAL);
    // Within the last segment, and within the first: however little it moves.
    for (at, segment) in [(STEPS - 1, 29), (1, 0)] {
        for by in [1e-5, 3.0] {
            let store = forged(&training, at, by);
            let (met, stated) = met(&store, segment, 3);
            assert_eq!(met, 10_000);
            assert!(stated < 1.0, "other segments are not met as often");
            for audit in 0..20 {
                let report = judge(&store, sampling(3), seed("audit", audit));
                assert_ne!(report.verdict, Verdict::Accepted);
            }
        }
    }
}

#[test]
fn a_jump_in_the_middle_is_always_met_and_a_creep_with_the_stated_probability() {
    let records = toy::records();
    let training = Training::new(recipe(), &records, 7, INTERVAL);
    let jumped = forged(&training, 29, 2.0);
    assert_eq!(met(&jumped, 14, 3).0, 10_000);
    let report = judge(&jumped, sampling(3), seed("audit", 0));
    assert_eq!(report.verdict, Verdict::Rejected, "{:?}", report.reasons);
    let outliers = report.outliers.unwrap();
    assert!(outliers.found >= 1 && outliers.replayed == outliers.found);

    let crept = forged(&training, 29, 0.01);
    let (found, stated) = met(&crept, 14, 3);
    assert!((stated - 0.1).abs() < 1e-12, "3 of 30: {stated}");
    let deviation = (10_000.0 * stated * (1.0 - stated)).sqrt();
    let off = (found as f64 - 10_000.0 * stated).abs();
    assert!(off < 4.0 * deviation, "{found} of 10,000");
    // Met is rejected, and not met is accepted: the probability is that of the verdict.
    let mut verdicts = [0, 0];
    for audit in 0..100 {
        let report = judge(&crept, sampling(3), seed("audit", audit));
        let replayed = report.segments.iter().any(|segment| segment.index == 14);
        let expected = match replayed {
            true => Verdict::Rejected,
            false => Verdict::Accepted,
        };
        assert_eq!(report.verdict, expected, "{:?}", report.reasons);
        assert_eq!(report.catches_count(1), stated);
        verdicts[usize::from(replayed)] += 1;
    }
    assert!(verdicts[0] > 0 && verdicts[1] > 0, "{verdicts:?}");
}

#[test]
fn an_injected_velocity_is_met_though_the_segment_that_jumps_is_honest() {
    let records = toy::records();
    let training = Training::new(recipe(), &records, 7, INTERVAL);
    // At the end of segment 13 the weights are where they should be, and the velocity is not.
    let store = Arc::new(MemoryStore::new());
    let mut learner = Injecting(Toy::new(&recipe()));
    let observe = |_: &mut Injecting, _| ControlFlow::Continue(());
    training.run(&mut learner, store.clone(), observe).unwrap();
    for audit in 0..20 {
        let report = judge(&store, sampling(1), seed("audit", audit));
        assert_eq!(report.verdict, Verdict::Rejected, "{:?}", report.outliers);
        let reason = report.reasons[0].to_string();
        assert!(reason.contains("segment 13"), "{reason}");
    }
}

#[test]
fn a_jump_between_kept_states_is_met_wherever_they_are() {
    let records = toy::records();
    let training = Training::new(exact(), &records, 7, 1).keep(6);
    // The segment in the middle of a gap of six, none of whose states is there.
    let store = forged(&training, 33, 2.0);
    for audit in 0..20 {
        let report = judge(&store, sampling(1), seed("audit", audit));
        assert_eq!(report.verdict, Verdict::Rejected);
        let reason = report.reasons[0].to_string();
        assert!(reason.contains("segment 33"), "{reason}");
    }
    let honest = forged(&training, 0, 0.0);
    let report = judge(&honest, sampling(1), seed("audit", 0));
    assert_eq!(report.verdict, Verdict::Accepted, "{:?}", report.reasons);
    // One state at the start and one at the end: all lies in one gap, on the way to the last segment.
    let training = Training::new(exact(), &records, 7, 1).keep(STEPS);
    let report = judge(&forged(&training, 0, 0.0), sampling(1), seed("audit", 0));
    assert_eq!(
        (report.steps_replayed, report.catches_count(1)),
        (STEPS, 1.0)
    );
}

#[test]
fn the_whole_way_takes_more_segments_than_one() {
    let records = toy::records();
    let training = Training::new(recipe(), &records, 7, INTERVAL);
    let report = judge(&forged(&training, 0, 0.0), sampling(10), seed("audit", 0));
    assert_eq!(report.verdict, Verdict::Accepted, "{:?}", report.reasons);
    let bridge = report.bridge.unwrap();
    assert!(bridge.distance_l2 > 0.0);
    // At least the ends are out of a forger's reach, and no segment may move thrice its neighbours.
    let forged = bridge.segments;
    assert!(forged.is_none_or(|forged| forged >= 2), "{bridge:?}");
    let one = report.catches_count(1);
    assert!(bridge.probability > one, "{bridge:?} against {one}");
    assert_eq!(
        bridge.probability,
        forged.map_or(1.0, |m| report.catches_count(m))
    );
}

#[test]
fn more_outliers_than_the_policy_replays_are_counted_and_left_to_the_draw() {
    let records = toy::records();
    let training = Training::new(recipe(), &records, 7, INTERVAL);
    let store = forged(&training, 29, 2.0);
    let mut policy = sampling(3);
    policy.segments.outliers = Some(OutlierRule {
        most: 1,
        ..OUTLIERS
    });
    let report = judge(&store, policy, seed("audit", 0));
    let outliers = report.outliers.unwrap();
    assert_eq!(outliers.replayed, 1);
    assert_eq!(report.verdict, Verdict::Rejected, "the largest comes first");
}

#[test]
fn the_largest_of_each_epoch_are_worth_what_they_take_in() {
    let (store, _) = toy::proof();
    let (records, recipe) = (toy::records(), toy::recipe());
    let judged = |selection| {
        Verifier::new(&records)
            .select(selection)
            .verify(store.as_ref(), &mut Toy::new(&recipe), |_| {})
            .unwrap()
    };
    let some = judged(Selection::top(1));
    assert_eq!(some.catches_count(1), 0.0, "a forger forges another");
    assert_eq!(some.catches_count(3), 1.0, "three of five, two left out");
    let all = judged(Selection::top(99));
    assert_eq!(all.segments.len(), 5);
    assert_eq!((all.catches_count(1), all.catches(0.01)), (1.0, 1.0));
}

#[test]
fn a_caller_s_sample_leaves_what_the_policy_adds_to_it_and_is_named() {
    let records = toy::records();
    let training = Training::new(recipe(), &records, 7, INTERVAL);
    let store = forged(&training, 29, 2.0);
    let policy = Policy {
        bounds: Bounds::default(),
        ..Policy::shipped("calibrated").unwrap()
    };
    let digest = policy.digest();
    let report = (Verifier::new(&records).policy(policy, seed("noise", 0)))
        .select(Selection::random(1, seed("audit", 0)))
        .verify(store.as_ref(), &mut Toy::new(&recipe()), |_| {})
        .unwrap();
    assert_eq!(report.verdict, Verdict::Rejected, "the jump stands out");
    let indices: Vec<u64> = report.segments.iter().map(|s| s.index).collect();
    assert!(indices.contains(&0) && indices.contains(&29), "{indices:?}");
    assert_eq!(report.policy, "calibrated, changed by a selection");
    assert_ne!(report.policy_digest, Some(digest));
}

/// A challenge of so many segments to an honest proof, answered, under a policy's rule.
fn opened(draw: Draw, rule: SegmentRule) -> Report {
    let records = toy::records();
    let (store, manifest) = toy::proof();
    let public = PublicCommitment::new(manifest.claim, vec![]);
    let challenge = Challenge::fresh(public.digest(), draw, seed("challenge", 0));
    let mut learner = || -> Result<_, LearnerError> { unreachable!("every state is kept") };
    let opening = open(
        store.as_ref() as &dyn Store,
        &records,
        None,
        &challenge,
        &mut learner,
    );
    let policy = Policy {
        segments: rule,
        ..Policy::bits()
    };
    Verifier::without_data()
        .policy(policy, seed("noise", 0))
        .verify_opening(
            &public,
            &challenge,
            opening.unwrap(),
            &mut Toy::new(&toy::recipe()),
            None,
            |_| {},
        )
        .unwrap()
}

#[test]
fn a_policy_of_all_segments_is_not_met_by_a_challenge_of_one() {
    let strict = Policy::shipped("strict").unwrap().segments;
    let report = opened(Draw::Sample(4), strict);
    assert_eq!(report.verdict, Verdict::Inconclusive);
    let reason = report.reasons[0].to_string();
    assert!(reason.contains("4 of 5 segments"), "{reason}");
    assert_eq!(opened(Draw::Sample(5), strict).verdict, Verdict::Accepted);
    assert_eq!(opened(Draw::All, strict).verdict, Verdict::Accepted);
    // The default takes the verifier's own challenge, and states what it is worth.
    let calibrated = Policy::shipped("calibrated").unwrap().segments;
    let report = opened(Draw::Sample(1), calibrated);
    assert_eq!(report.verdict, Verdict::Accepted);
    assert!((report.catches_count(1) - 0.2).abs() < 1e-12);
    assert_eq!(
        (report.outliers, report.bridge),
        (None, None),
        "nobody knows"
    );
    let least = SegmentRule {
        opened: Some(OpeningRule::Sample(3)),
        ..calibrated
    };
    let report = opened(Draw::Sample(2), least);
    assert_eq!(report.verdict, Verdict::Inconclusive);
}

#[test]
fn an_opening_holds_the_last_segment_whatever_is_drawn() {
    for q in 1..=4 {
        let report = opened(Draw::Sample(q), Policy::bits().segments);
        assert_eq!(report.verdict, Verdict::Accepted);
        assert_eq!(report.segments.last().unwrap().index, 4);
        assert!((q..=q + 1).contains(&(report.segments.len() as u64)));
    }
}
