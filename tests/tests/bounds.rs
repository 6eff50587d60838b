//! The bounds of a policy, each at its edge and beyond it.

use std::time::{Duration, Instant};

use pol_core::digest::tagged;
use pol_core::manifest::Terms;
use pol_core::policy::{Bounds, Policy};
use pol_core::random::Seed;
use pol_core::recipe::{Decay, LearningRate, MAX_MILESTONES, Optimizer, Recipe};
use pol_core::records::DataCommitment;
use pol_core::schedule::BatchSource;
use pol_core::verify::{Report, Verdict, Verifier};
use pol_tests::forge::Forgery;
use pol_tests::toy::{self, Toy};

fn with_bounds(bounds: Bounds) -> Report {
    let (store, _) = toy::proof();
    let (records, recipe) = (toy::records(), toy::recipe());
    let policy = Policy {
        bounds,
        ..Policy::bits()
    };
    Verifier::new(&records)
        .policy(policy, Seed::from_digest(tagged("verifier", &[])))
        .verify(store.as_ref(), &mut Toy::new(&recipe), |_| {})
        .unwrap()
}

/// The toy: sgd, momentum 0.9, no dampening or decay, rate 0.01, batches of 4 of 30, 23 steps, k = 5,
/// nonce 7.
#[test]
fn every_bound_holds_at_its_edge_and_rejects_beyond_it() {
    macro_rules! bound {
        ($field:ident, $holds:expr, $fails:expr) => {
            let set = |value| {
                with_bounds(Bounds {
                    $field: Some(value),
                    ..Bounds::default()
                })
            };
            let held = set($holds);
            assert_eq!(held.verdict, Verdict::Accepted, "{:?}", held.reasons);
            let exceeded = set($fails);
            assert_eq!(exceeded.verdict, Verdict::Rejected, stringify!($field));
            let reason = exceeded.reasons[0].to_string();
            assert!(reason.contains(stringify!($field)), "{reason}");
            assert!(exceeded.segments.is_empty(), "nothing is replayed");
        };
    }
    bound!(max_interval, 5, 4);
    bound!(min_learning_rate, 0.01, 0.02);
    bound!(max_learning_rate, 0.01, 0.009);
    bound!(min_batch_size, 4, 5);
    bound!(max_batch_size, 4, 3);
    bound!(max_effective_rate, 0.1 + 1e-12, 0.1 - 1e-12);
    bound!(max_momentum, 0.9, 0.8);
    bound!(max_dampening, 0.0, -1.0);
    bound!(max_weight_decay, 0.0, -1.0);
    // Nothing decays, and so all is retained.
    bound!(min_decay_damping, 1e300, f64::NAN);
    bound!(min_retained, 1.0, 1.0 + 1e-12);
    bound!(min_steps, 23, 24);
    bound!(max_steps, 23, 22);
    // 23 steps of 7 an epoch.
    bound!(min_epochs, 3.28, 3.29);
    bound!(max_epochs, 3.29, 3.28);
    bound!(max_nonce, 7, 6);
    bound!(optimizers, vec!["sgd".to_owned()], vec!["adam".to_owned()]);
    bound!(
        decays,
        vec!["constant".to_owned()],
        vec!["cosine".to_owned()]
    );
    bound!(batches, BatchSource::Derived, BatchSource::Explicit);
}

/// Terms of a training on `records` records; the seed is theirs.
fn terms(recipe: Recipe, records: u64, interval: u64) -> Terms {
    let data = DataCommitment {
        records,
        root: tagged("data", &[]),
        salted: false,
    };
    Terms::new(recipe, data, 0, BatchSource::Derived, interval)
}

fn sgd(momentum: f64, dampening: f64, weight_decay: f64) -> Optimizer {
    Optimizer::Sgd {
        momentum,
        dampening,
        weight_decay,
        nesterov: false,
    }
}

fn adam(beta1: f64, beta2: f64, epsilon: f64, weight_decay: f64) -> Optimizer {
    Optimizer::Adam {
        beta1,
        beta2,
        epsilon,
        weight_decay,
    }
}

fn adam_w(beta1: f64, beta2: f64, epsilon: f64, weight_decay: f64) -> Optimizer {
    Optimizer::AdamW {
        beta1,
        beta2,
        epsilon,
        weight_decay,
    }
}

/// The toy's recipe with this update rule, at this rate.
fn with_optimizer(optimizer: Optimizer, rate: f64) -> Recipe {
    let mut recipe = toy::recipe();
    recipe.optimizer = optimizer;
    recipe.learning_rate.base = rate;
    recipe
}

fn names(bounds: &Bounds, recipe: Recipe, interval: u64) -> Vec<&'static str> {
    let exceeded = bounds.exceeded(&terms(recipe, 30, interval));
    exceeded.iter().map(|e| e.bound).collect()
}

#[test]
fn every_optimizer_s_constants_are_bounded() {
    let bounds = Bounds {
        max_momentum: Some(0.95),
        max_beta2: Some(0.999),
        max_dampening: Some(0.1),
        max_weight_decay: Some(0.1),
        max_epsilon: Some(1e-3),
        ..Bounds::default()
    };
    let exceeded = |optimizer| names(&bounds, with_optimizer(optimizer, 0.01), 5);
    assert!(exceeded(sgd(0.9, 0.0, 1e-4)).is_empty());
    assert_eq!(
        exceeded(sgd(0.99, 0.9, 1.0)),
        ["max_momentum", "max_dampening", "max_weight_decay"]
    );
    assert_eq!(exceeded(sgd(f64::NAN, 0.0, 0.0)), ["max_momentum"]);
    for rule in [adam, adam_w] {
        assert!(exceeded(rule(0.9, 0.999, 1e-8, 0.0)).is_empty());
        assert_eq!(exceeded(rule(0.99, 0.999, 1e-8, 0.0)), ["max_momentum"]);
        assert_eq!(exceeded(rule(0.9, 0.9999, 1e-8, 0.0)), ["max_beta2"]);
        assert_eq!(
            exceeded(rule(0.9, 0.95, 1.0, 0.5)),
            ["max_weight_decay", "max_epsilon"]
        );
    }
}

#[test]
fn what_a_bound_found_is_printed_as_it_is() {
    let bounds = Bounds {
        min_learning_rate: Some(1e-6),
        max_weight_decay: Some(-1.0),
        ..Bounds::default()
    };
    let exceeded = |rate| {
        let terms = terms(with_optimizer(sgd(0.9, 0.0, -0.25), rate), 30, 5);
        bounds.exceeded(&terms)
    };
    let found = exceeded(-1.0);
    // A negative rate is below the least one, not above it.
    assert_eq!(found[0].found, "100 % of its steps below");
    assert_eq!(found[1].found, "-0.25");
}

#[test]
fn momentum_that_carries_weights_far_is_bounded_with_the_rate() {
    let bounds = Bounds {
        max_effective_rate: Some(10.0),
        ..Bounds::default()
    };
    let exceeded = |optimizer, rate| !names(&bounds, with_optimizer(optimizer, rate), 5).is_empty();
    assert!(!exceeded(sgd(0.0, 0.0, 0.0), 10.0) && exceeded(sgd(0.0, 0.0, 0.0), 10.1));
    assert!(!exceeded(sgd(0.9, 0.0, 0.0), 0.99) && exceeded(sgd(0.9, 0.0, 0.0), 1.01));
    assert!(!exceeded(sgd(0.999, 0.0, 0.0), 0.0099) && exceeded(sgd(0.999, 0.0, 0.0), 0.0101));
    assert!(!exceeded(sgd(0.999, 0.5, 0.0), 0.0199) && exceeded(sgd(0.999, 0.5, 0.0), 0.0201));
    assert!(
        !exceeded(adam(0.9, 0.999, 1e-8, 0.0), 99.0),
        "Adam's mean is no sum"
    );
}

/// The longest step is one that some gradients really make: those that are aligned with the weights of
/// both moments.
#[test]
fn the_longest_step_of_adam_is_bounded_and_reached() {
    let bounds = |most| Bounds {
        max_adam_step: Some(most),
        ..Bounds::default()
    };
    for (beta1, beta2) in [(0.9, 0.999), (0.9, 0.95), (0.0, 0.9), (0.0, 0.0)] {
        let memory = 400i32;
        let gradients: Vec<f64> = (0..memory)
            .map(|age: i32| match (age, beta1 == 0.0) {
                (0, _) => 1.0,
                (_, true) => 0.0,
                _ => f64::powi(beta1 / beta2, age),
            })
            .collect();
        let moment = |beta: f64, of: &dyn Fn(f64) -> f64| -> f64 {
            let terms = (0..memory).zip(&gradients);
            (1.0 - beta) * terms.map(|(age, g)| beta.powi(age) * of(*g)).sum::<f64>()
        };
        let longest = moment(beta1, &|g| g) / moment(beta2, &|g| g * g).sqrt();
        for rule in [adam, adam_w] {
            let recipe = || with_optimizer(rule(beta1, beta2, 1e-8, 0.0), 0.01);
            let step = 0.01 * longest;
            assert!(
                names(&bounds(1.001 * step), recipe(), 5).is_empty(),
                "{beta1} {beta2}"
            );
            assert_eq!(names(&bounds(0.999 * step), recipe(), 5), ["max_adam_step"]);
        }
    }
    // A second moment that forgets sooner than the first leaves steps without end.
    let endless = with_optimizer(adam(0.9, 0.81, 1e-8, 0.0), 1e-9);
    assert_eq!(names(&bounds(1e9), endless, 5), ["max_adam_step"]);
    let sgd = with_optimizer(sgd(0.9, 0.0, 0.0), 1.0);
    assert!(names(&bounds(1e-9), sgd, 5).is_empty());
}

#[test]
fn decay_that_makes_a_pendulum_of_a_weight_is_refused() {
    let bounds = Bounds {
        min_decay_damping: Some(1.0),
        ..Bounds::default()
    };
    let swings = |optimizer, rate| !names(&bounds, with_optimizer(optimizer, rate), 5).is_empty();
    // Momentum 0.999 and decay 0.5, with which one per cent of each swing pumps a weight up.
    assert!(swings(sgd(0.999, 0.0, 0.5), 0.01));
    // Critical: rate · decay = (1 − √0.81)² = 0.01.
    assert!(!swings(sgd(0.81, 0.0, 0.0999), 0.1) && swings(sgd(0.81, 0.0, 0.1001), 0.1));
    // Dampening weakens the pull.
    assert!(!swings(sgd(0.81, 0.5, 0.1998), 0.1) && swings(sgd(0.81, 0.5, 0.2002), 0.1));
    // The look-ahead damps: (1 − 0.81)² / (1 + 0.81)² = 0.01102.
    let nesterov = |weight_decay| Optimizer::Sgd {
        momentum: 0.81,
        dampening: 0.0,
        weight_decay,
        nesterov: true,
    };
    assert!(!swings(nesterov(0.110), 0.1) && swings(nesterov(0.111), 0.1));
    assert!(!swings(adam_w(0.99, 0.999, 1e-8, 1.0), 1.0));
    assert!(swings(adam_w(0.99, 0.999, 1e-8, 1.0), 1.01));
    // The highest rate counts, whenever it comes.
    let mut late = with_optimizer(sgd(0.81, 0.0, 0.0999), 0.11);
    late.learning_rate.warmup = toy::STEPS;
    assert_eq!(names(&bounds, late, 5), ["min_decay_damping"]);
}

#[test]
fn decay_that_forgets_a_segment_s_start_is_refused() {
    let bounds = Bounds {
        min_retained: Some(0.5),
        ..Bounds::default()
    };
    let forgets = |optimizer, rate, interval| {
        let mut recipe = with_optimizer(optimizer, rate);
        recipe.steps = 1000;
        !names(&bounds, recipe, interval).is_empty()
    };
    // Decay 0.5, rate 0.2, 100 steps: the replay ends near zero whatever happened.
    assert!(forgets(sgd(0.0, 0.0, 0.5), 0.2, 100));
    // 0.5 = (1 − rate · decay)^100 at 0.006908.
    for rule in [sgd(0.0, 0.0, 0.69), adam_w(0.9, 0.999, 1e-8, 0.69)] {
        assert!(!forgets(rule, 0.01, 100));
    }
    for rule in [sgd(0.0, 0.0, 0.692), adam_w(0.9, 0.999, 1e-8, 0.692)] {
        assert!(forgets(rule.clone(), 0.01, 100));
        assert!(!forgets(rule, 0.01, 99), "shorter segments forget less");
    }
    // Momentum adds up: a tenth of the decay does the same.
    assert!(!forgets(sgd(0.9, 0.0, 0.06), 0.01, 100));
    assert!(forgets(sgd(0.9, 0.0, 0.07), 0.01, 100));
    // What swings retains nothing.
    assert!(forgets(sgd(0.999, 0.0, 0.5), 0.01, 1));
    assert!(!forgets(sgd(0.999, 0.0, 0.0), 0.01, 100));
}

#[test]
fn an_epoch_is_one_of_the_schedule() {
    let bounds = |least, most| Bounds {
        min_epochs: Some(least),
        max_epochs: Some(most),
        ..Bounds::default()
    };
    // 1437 records in batches of 32 are 44 steps; 29 records fill no batch.
    let exceeded = |steps, least, most| {
        let mut recipe = toy::recipe();
        (recipe.batch_size, recipe.steps) = (32, steps);
        !bounds(least, most)
            .exceeded(&terms(recipe, 1437, 5))
            .is_empty()
    };
    assert!(!exceeded(44, 1.0, 1.0));
    assert!(exceeded(43, 1.0, 1.0) && exceeded(45, 1.0, 1.0));
    // A batch of the lists that is larger than the data counts by its records.
    let mut recipe = toy::recipe();
    (recipe.batch_size, recipe.steps) = (60, 5);
    assert!(
        bounds(10.0, 10.0)
            .exceeded(&terms(recipe, 30, 5))
            .is_empty()
    );
}

#[test]
fn a_schedule_that_ends_near_zero_is_admitted_and_one_that_stays_there_is_not() {
    let bounds = Bounds {
        min_learning_rate: Some(1e-6),
        ..Bounds::default()
    };
    let exceeded = |base, decay| {
        let mut recipe = toy::recipe();
        recipe.steps = 1000;
        recipe.learning_rate.base = base;
        recipe.learning_rate.decay = decay;
        !bounds.exceeded(&terms(recipe, 30, 5)).is_empty()
    };
    assert!(!exceeded(0.1, Decay::Cosine { min: 0.0 }));
    assert!(exceeded(1e-9, Decay::Constant));
    // One step at a usual rate, then nothing: the infinitesimal update in disguise.
    let milestones = vec![1];
    assert!(exceeded(
        0.1,
        Decay::MultiStep {
            milestones,
            gamma: 1e-9
        }
    ));
}

#[test]
fn a_warm_up_is_counted_apart_up_to_a_fifth_of_the_training() {
    let bounds = Bounds {
        min_learning_rate: Some(1e-5),
        ..Bounds::default()
    };
    let exceeded = |base, warmup| {
        let mut recipe = toy::recipe();
        recipe.steps = 1000;
        recipe.learning_rate = LearningRate {
            base,
            warmup,
            decay: Decay::Constant,
        };
        let exceeded = bounds.exceeded(&terms(recipe, 30, 5));
        exceeded.into_iter().map(|e| e.found).collect::<Vec<_>>()
    };
    // A fine-tuning's usual rate, and a training that ends with its warm-up: 199 of 1000 steps are below.
    assert!(exceeded(5e-5, 1000).is_empty());
    assert!(exceeded(1e-4, 500).is_empty());
    // 249 of them are.
    assert_eq!(
        exceeded(4e-5, 1000),
        ["25 % of its steps below while it warms up"]
    );
    // All warm-up at a rate that vanishes.
    assert_eq!(
        exceeded(1e-9, 1000),
        ["100 % of its steps below while it warms up"]
    );
    // The steps after it count as before.
    assert_eq!(exceeded(1e-9, 100), ["90 % of its steps below"]);
}

#[test]
fn a_claim_of_a_million_milestones_is_refused_at_once() {
    let claimed = |milestones: Vec<u64>| {
        let mut recipe = toy::recipe();
        recipe.steps = 1 << 21;
        recipe.learning_rate.decay = Decay::MultiStep {
            milestones,
            gamma: 0.999,
        };
        terms(recipe, 30, 1 << 20)
    };
    let most = MAX_MILESTONES as u64;
    assert_eq!(claimed((1..=most).collect()).check(), Ok(()));
    let error = claimed((0..=most).collect()).check().unwrap_err();
    assert!(
        error
            .to_string()
            .contains("`learning_rate.milestones` are 1025")
    );
    let began = Instant::now();
    let million = claimed((0..1_000_000).collect());
    assert!(million.check().is_err());
    // Bounds take no longer either, for who asks them about terms that were not checked.
    let bounds = Policy::shipped("strict").unwrap().bounds;
    assert!(!bounds.exceeded(&million).is_empty());
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn a_proof_of_constants_that_no_training_has_is_rejected_for_its_manifest() {
    type Change = fn(&mut Recipe);
    let claims: [(&str, Change); 4] = [
        ("learning_rate.gamma", |recipe| {
            recipe.learning_rate.decay = Decay::MultiStep {
                milestones: vec![22],
                gamma: -1e8,
            };
        }),
        ("optimizer.momentum", |r| r.optimizer = sgd(-0.9, 0.0, 0.0)),
        ("optimizer.dampening", |r| r.optimizer = sgd(0.9, -1.0, 0.0)),
        ("optimizer.weight_decay", |r| {
            r.optimizer = sgd(0.9, 0.0, -1.0)
        }),
    ];
    for (field, change) in claims {
        let (store, _) = toy::proof();
        let mut forgery = Forgery::of(&store);
        change(&mut forgery.terms.recipe);
        forgery.terms = forgery.terms.of_prover(None);
        let report = toy::verify(&forgery.seal());
        assert_eq!(report.verdict, Verdict::Rejected, "{field}");
        let reason = report.reasons[0].to_string();
        assert!(
            reason.contains("manifest.mp") && reason.contains(field),
            "{reason}"
        );
    }
}

/// Recipes of papers, as they are used.
#[test]
fn the_shipped_policies_admit_usual_constants_with_a_margin() {
    let (strict, calibrated) = ("strict", "calibrated");
    let bounds = |name| Policy::shipped(name).unwrap().bounds;
    let usual = [
        (sgd(0.9, 0.0, 1e-4), 0.1),
        (sgd(0.9, 0.0, 5e-4), 0.1),
        (sgd(0.9, 0.0, 5e-4), 0.5),
        (sgd(0.95, 0.0, 1e-4), 0.1),
        (sgd(0.0, 0.0, 1e-3), 0.5),
        (adam(0.9, 0.999, 1e-8, 0.0), 1e-3),
        (adam(0.9, 0.999, 1e-8, 1e-4), 1e-2),
        (adam(0.5, 0.999, 1e-8, 0.0), 2e-4),
        (adam_w(0.9, 0.999, 1e-8, 1e-2), 1e-3),
        (adam_w(0.9, 0.95, 1e-8, 0.1), 6e-4),
        (adam_w(0.9, 0.98, 1e-6, 0.05), 3e-3),
    ];
    for (optimizer, rate) in usual {
        let mut recipe = with_optimizer(optimizer.clone(), rate);
        (recipe.steps, recipe.batch_size) = (64_000, 128);
        let terms = terms(recipe, 50_000, 100);
        for policy in [strict, calibrated] {
            let exceeded = bounds(policy).exceeded(&terms);
            assert!(
                exceeded.is_empty(),
                "{policy}, {optimizer} at {rate}: {exceeded:?}"
            );
        }
    }
    // Those of forgeries.
    let forged = [
        (sgd(0.999, 0.0, 0.5), 0.05, "min_decay_damping"),
        (sgd(0.99, 0.0, 0.5), 0.05, "min_decay_damping"),
        (sgd(0.0, 0.0, 0.5), 0.2, "min_retained"),
        (sgd(0.99, 0.0, 0.0), 1.0, "max_effective_rate"),
        (adam(0.9, 0.5, 1e-8, 0.0), 1e-3, "max_adam_step"),
    ];
    for (optimizer, rate, bound) in forged {
        for policy in [strict, calibrated] {
            let exceeded = names(
                &bounds(policy),
                with_optimizer(optimizer.clone(), rate),
                100,
            );
            assert!(
                exceeded.contains(&bound),
                "{policy}, {optimizer}: {exceeded:?}"
            );
        }
    }
}
