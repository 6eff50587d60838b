//! What a verifier demands: every bound, what is replayed, and what the stated probabilities are
//! worth.

use std::ops::ControlFlow;
use std::sync::Arc;

use pol_core::digest::tagged;
use pol_core::ks::{holm, kolmogorov_smirnov, normal};
use pol_core::policy::{Bounds, Comparison, NumericsRule, Policy, SegmentRule};
use pol_core::random::{Purpose, Seed};
use pol_core::recipe::{Numerics, Profile};
use pol_core::store::MemoryStore;
use pol_core::training::Training;
use pol_core::verify::{Evidence, Odds, Reason, Report, Verdict, Verifier, catch_probability};
use pol_tests::forge::Forgery;
use pol_tests::toy::{self, Toy};

fn seed(name: &str) -> Seed {
    Seed::from_digest(tagged(name, &[]))
}

fn judge(policy: Policy) -> Report {
    let (store, _) = toy::proof();
    let (records, recipe) = (toy::records(), toy::recipe());
    Verifier::new(&records)
        .policy(policy, seed("verifier"))
        .verify(store.as_ref(), &mut Toy::new(&recipe), |_| {})
        .unwrap()
}

#[test]
fn what_the_policy_wants_with_a_proof_has_to_come_with_it() {
    let demanding = || {
        let mut policy = Policy::bits();
        policy.evidence.signature = true;
        policy.evidence.timestamp = true;
        policy.evidence.recipe = true;
        policy
    };
    let report = judge(demanding());
    assert_eq!(report.verdict, Verdict::Rejected);
    let reasons: Vec<String> = report.reasons.iter().map(ToString::to_string).collect();
    for words in ["a signature", "a trusted timestamp", "own recipe"] {
        assert!(
            reasons.iter().any(|r| r.contains(words)),
            "{words}: {reasons:?}"
        );
    }
    let (store, _) = toy::proof();
    let (records, recipe) = (toy::records(), toy::recipe());
    let with = |evidence| {
        Verifier::new(&records)
            .policy(demanding(), seed("verifier"))
            .expect_recipe(&recipe)
            .evidence(evidence)
            .verify(store.as_ref(), &mut Toy::new(&recipe), |_| {})
            .unwrap()
    };
    let complete = Evidence {
        signed: true,
        timestamped: true,
        problems: vec![],
    };
    assert_eq!(with(complete.clone()).verdict, Verdict::Accepted);
    let faulty = Evidence {
        problems: vec!["the signature does not hold".to_owned()],
        ..complete
    };
    assert_eq!(with(faulty).verdict, Verdict::Rejected);
}

#[test]
fn numerics_are_a_demand() {
    let strict = Policy {
        numerics: NumericsRule::Exact,
        ..Policy::bits()
    };
    let report = judge(strict);
    assert_eq!(report.verdict, Verdict::Rejected);
    assert!(report.reasons[0].to_string().contains("numerics"));
}

#[test]
fn an_audit_beyond_the_cap_is_not_made_and_not_accepted() {
    let capped = |max_steps| {
        judge(Policy {
            segments: SegmentRule {
                all: true,
                max_steps: Some(max_steps),
                ..SegmentRule::default()
            },
            ..Policy::bits()
        })
    };
    assert_eq!(capped(23).verdict, Verdict::Accepted);
    let report = capped(22);
    assert_eq!(report.verdict, Verdict::Inconclusive);
    assert_eq!(report.steps_replayed, 0);
}

/// A proof whose logged weights are off by a factor of `1 + noise`, as another machine's would be, and
/// one of them in the middle by `forged · movement` more.
fn noisy(movement: f32, noise: f32, forged: Option<f32>) -> Report {
    let (store, _) = toy::proof();
    let mut forgery = Forgery::of(&store);
    let count = forgery.states.len();
    for index in 1..count {
        forgery.alter(index, "model/w", |entry| {
            for bytes in entry.bytes.as_chunks_mut::<4>().0 {
                let value = f32::from_le_bytes(*bytes) * (1.0 + noise);
                *bytes = value.to_le_bytes();
            }
        });
    }
    if let Some(off) = forged {
        forgery.alter(2, "model/w", |entry| {
            let value =
                f32::from_le_bytes(std::array::from_fn(|i| entry.bytes[i])) + off * movement;
            entry.bytes[..4].copy_from_slice(&value.to_le_bytes());
        });
    }
    forgery.export();
    let store = forgery.seal();
    let (records, recipe) = (toy::records(), toy::recipe());
    let policy = Policy {
        bounds: Bounds::default(),
        ..Policy::shipped("calibrated").unwrap()
    };
    Verifier::new(&records)
        .policy(policy, seed("verifier"))
        .verify(&store, &mut Toy::new(&recipe), |_| {})
        .unwrap()
}

#[test]
fn a_calibrated_tolerance_admits_rounding_and_no_forgery() {
    // The toy moves by about 0.1 in a segment.
    let honest = noisy(0.1, 1e-7, None);
    assert_eq!(honest.verdict, Verdict::Accepted, "{:?}", honest.reasons);
    let measured: Vec<_> = honest
        .segments
        .iter()
        .filter_map(|s| s.noise.as_ref())
        .collect();
    assert!(!measured.is_empty(), "bits differ, so noise was measured");
    for noise in measured {
        assert!(noise.l2 > 0.0 && noise.rho > 400.0 && noise.tolerance_l2 > noise.l2);
        assert_eq!(noise.replays, 6);
    }
    for off in [0.05, 0.2, 1.0] {
        let forged = noisy(0.1, 1e-7, Some(off));
        assert_eq!(forged.verdict, Verdict::Rejected, "{off}");
        let beyond =
            |r: &Reason| matches!(r, Reason::BeyondNoise { entry, .. } if entry == "model/w");
        assert!(forged.reasons.iter().any(beyond), "{:?}", forged.reasons);
    }
    // Little enough for rounding far coarser than this verifier's, and more than its own.
    let doubtful = noisy(0.1, 1e-7, Some(5e-4));
    assert_eq!(doubtful.verdict, Verdict::Inconclusive);
    let unexplained = |r: &Reason| matches!(r, Reason::Unexplained { .. });
    assert!(
        doubtful.reasons.iter().any(unexplained),
        "{:?}",
        doubtful.reasons
    );
}

#[test]
fn a_segment_that_moves_no_more_than_its_noise_shows_nothing() {
    let (store, _) = toy::proof();
    let mut forgery = Forgery::of(&store);
    // A training at next to no rate: nothing moves, so what is logged is all noise.
    forgery.terms.recipe.learning_rate.base = 1e-30;
    forgery.terms = forgery.terms.of_prover(None);
    let mut learner = Toy::new(&forgery.terms.recipe);
    let records = toy::records();
    let training = Training::new(forgery.terms.recipe.clone(), &records, 7, toy::INTERVAL);
    let store = Arc::new(MemoryStore::new());
    training
        .run(
            &mut learner,
            store.clone(),
            |_, _| ControlFlow::Continue(()),
        )
        .unwrap();
    let mut forgery = Forgery::of(&store);
    forgery.alter(2, "model/mean", |entry| entry.bytes[0] ^= 1);
    let store = forgery.seal();
    let policy = Policy {
        bounds: Bounds::default(),
        ..Policy::shipped("calibrated").unwrap()
    };
    let mut learner = Toy::new(&training.terms().recipe);
    let report = Verifier::new(&records)
        .policy(policy, seed("verifier"))
        .verify(&store, &mut learner, |_| {})
        .unwrap();
    assert_eq!(
        report.verdict,
        Verdict::Inconclusive,
        "{:?}",
        report.reasons
    );
    assert!(report.reasons[0].to_string().contains("shows nothing"));
    // Its bounds reject it at once.
    let report = Verifier::new(&records)
        .policy(Policy::shipped("calibrated").unwrap(), seed("verifier"))
        .verify(&store, &mut learner, |_| {})
        .unwrap();
    assert_eq!(report.verdict, Verdict::Rejected);
    assert!(report.reasons[0].to_string().contains("min_learning_rate"));
}

#[test]
fn the_published_rules_look_at_weights_alone() {
    let (store, _) = toy::proof();
    let mut forgery = Forgery::of(&store);
    forgery.alter(5, "optim/w/momentum.velocity", |entry| {
        entry.bytes[..4].copy_from_slice(&9f32.to_le_bytes());
    });
    let store = forgery.seal();
    let (records, recipe) = (toy::records(), toy::recipe());
    let judged = |policy: Policy| {
        Verifier::new(&records)
            .policy(policy, seed("verifier"))
            .verify(&store, &mut Toy::new(&recipe), |_| {})
            .unwrap()
    };
    let paper = Policy::shipped("paper").unwrap();
    assert!(matches!(paper.comparison, Comparison::Static { .. }));
    assert_eq!(
        judged(paper).verdict,
        Verdict::Accepted,
        "the velocity is not compared"
    );
    assert_eq!(judged(Policy::bits()).verdict, Verdict::Rejected);
}

/// The probability that is stated, against 10,000 audits of a proof of which some segments are forged.
#[test]
fn forgers_are_met_as_often_as_stated() {
    for (segments, forged, drawn) in [
        (100u64, 1u64, 20u64),
        (50, 5, 10),
        (1000, 10, 200),
        (12, 3, 4),
    ] {
        let draws = 10_000u64;
        let met = (0..draws)
            .filter(|draw| {
                let seed = Seed::from_digest(tagged("simulated", &[&draw.to_le_bytes()]));
                let sample = seed.stream(Purpose::Audit).sample(segments, drawn);
                // Which ones are forged does not matter; let it be every third from the fifth.
                sample
                    .iter()
                    .any(|s| (0..forged).any(|i| (5 + 3 * i) % segments == *s))
            })
            .count() as f64;
        let share = forged as f64 / segments as f64;
        let stated = catch_probability(share, segments, drawn);
        assert_eq!(stated, Odds::new(segments, 0, drawn).of_share(share));
        assert_eq!(stated, Odds::new(segments, 2, drawn).of_count(forged));
        let deviation = (stated * (1.0 - stated) / draws as f64).sqrt();
        let found = met / draws as f64;
        assert!(
            (found - stated).abs() < 4.0 * deviation,
            "{found} against {stated}"
        );
    }
}

/// A start of eight layers, tested as a claimed one: the corrected test rejects honest ones at its
/// level, the published one many times as often.
#[test]
fn the_kolmogorov_smirnov_test_rejects_honest_starts_at_its_level() {
    let layers = [432usize, 2304, 1152, 640, 320, 288, 160, 90];
    let (starts, level) = (10_000u64, 0.01);
    let (mut corrected, mut published) = (0u32, 0u32);
    for start in 0..starts {
        let seed = Seed::from_digest(tagged("start", &[&start.to_le_bytes()]));
        let mut stream = seed.stream(Purpose::Weights("layer"));
        let p_values: Vec<f64> = (layers.iter())
            .map(|&len| {
                let deviation = (2.0 / len as f64).sqrt();
                let mut values: Vec<f64> = (0..len)
                    .map(|_| f64::from((stream.normal() * deviation) as f32))
                    .collect();
                kolmogorov_smirnov(&mut values, |x| normal(x, 0.0, deviation)).p
            })
            .collect();
        corrected += u32::from(!holm(&p_values, level).is_empty());
        published += u32::from(p_values.iter().any(|p| *p <= level));
    }
    let rate = f64::from(corrected) / starts as f64;
    // 1 % within four standard deviations of 10,000 draws.
    assert!(
        (rate - level).abs() < 4.0 * (level / starts as f64).sqrt(),
        "{rate}"
    );
    let published = f64::from(published) / starts as f64;
    assert!(
        (0.06..0.095).contains(&published),
        "1 − 0.99⁸ = 0.077: {published}"
    );
}

#[test]
fn exact_recipes_are_compared_by_bits_under_every_policy() {
    let mut recipe = toy::recipe();
    recipe.numerics = Numerics::Exact(Profile::UnfusedV2);
    let records = toy::records();
    let training = Training::new(recipe.clone(), &records, 7, toy::INTERVAL);
    let store = Arc::new(MemoryStore::new());
    training
        .run(&mut Toy::new(&recipe), store.clone(), |_, _| {
            ControlFlow::Continue(())
        })
        .unwrap();
    let mut forgery = Forgery::of(&store);
    forgery.alter(2, "model/w", |entry| entry.bytes[0] ^= 1);
    let forged = forgery.seal();
    for name in ["paper", "calibrated"] {
        let mut policy = Policy::shipped(name).unwrap();
        policy.segments = SegmentRule::default();
        policy.bounds = Bounds::default();
        let report = Verifier::new(&records)
            .policy(policy, seed("verifier"))
            .verify(&forged, &mut Toy::new(&recipe), |_| {})
            .unwrap();
        assert_eq!(report.verdict, Verdict::Rejected, "{name}");
    }
}
