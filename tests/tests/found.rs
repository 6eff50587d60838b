//! Forgeries found on this program, each beside the rule that let it pass: a tolerance relative to
//! movement, over a whole part of the state, with every segment replayed, start and batches derived from the
//! seed and the verifier's own data. The default rejects each, with its bounds and without.

use std::sync::LazyLock;

use burn::tensor::Device;
use pol_attacks::{AttackError, Options};
use pol_core::digest::tagged;
use pol_core::policy::{Bounds, Comparison, EvidenceRule, NumericsRule, Parts, Policy};
use pol_core::random::Seed;
use pol_core::recipe::{
    Component, Decay, LearningRate, Numerics, Optimizer, Profile, Recipe, Value,
};
use pol_core::verify::{Report, Tolerance, Verdict};
use pol_models::image_learner;
use pol_tests::forgeries::{
    Case, Published, forge, judge, publish, shipped, try_forge, unbounded, verifier,
};

fn recipe(model: Component, optimizer: Optimizer, rate: f64, steps: u64) -> Recipe {
    Recipe {
        model,
        data: Component::new("digits"),
        optimizer,
        learning_rate: LearningRate {
            base: rate,
            warmup: 0,
            decay: Decay::Constant,
        },
        batch_size: 32,
        steps,
        numerics: Numerics::Stock,
    }
}

fn perceptron(units: i64, optimizer: Optimizer, rate: f64, steps: u64) -> Recipe {
    let mut model = Component::new("mlp");
    let hidden = Value::Int(units);
    model.options.insert("hidden".to_owned(), hidden);
    recipe(model, optimizer, rate, steps)
}

const SGD: Optimizer = Optimizer::Sgd {
    momentum: 0.9,
    dampening: 0.0,
    weight_decay: 1e-4,
    nesterov: false,
};

const ADAM: Optimizer = Optimizer::Adam {
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-8,
    weight_decay: 0.0,
};

/// The shipped `digits-mlp`: Adam, and dropout. An interval of 58 leaves a last segment of ten steps.
static BY_ADAM: LazyLock<Published> = LazyLock::new(|| {
    let mut recipe = perceptron(128, ADAM, 1e-3, 880);
    let dropout = Value::Float(0.2);
    recipe.model.options.insert("dropout".to_owned(), dropout);
    publish(recipe)
});

/// LeNet-5 trained by SGD.
static LENET: LazyLock<Published> =
    LazyLock::new(|| publish(recipe(Component::new("lenet5"), SGD, 0.02, 88)));

fn options(interval: u64, segments: u64) -> Options {
    Options {
        interval,
        segments,
        ..Options::default()
    }
}

/// The default, but for its bounds, with a tolerance of a hundredth of the movement of parameters, buffers
/// and optimizer.
fn relative() -> Policy {
    Policy {
        comparison: Comparison::Static {
            tolerance: Tolerance::relative(0.01),
            parts: Parts::All,
        },
        ..unbounded()
    }
}

#[track_caller]
fn evades(report: &Report) {
    assert_eq!(report.verdict, Verdict::Accepted, "{:?}", report.reasons);
    assert_eq!(report.segments.len() as u64, report.segments_total);
}

#[track_caller]
fn caught(report: &Report, check: &str) {
    assert_eq!(report.verdict, Verdict::Rejected, "{:?}", report.reasons);
    let checks: Vec<_> = report.reasons.iter().map(|r| r.check()).collect();
    assert!(checks.contains(&check), "{check} is not in {checks:?}");
}

/// The default's verdict, whatever is claimed, once a segment is rejected; the others are not replayed.
fn judge_quickly(case: &Case) -> Report {
    judge_until_rejected(case, unbounded())
}

fn judge_until_rejected(case: &Case, policy: Policy) -> Report {
    let mut learner = image_learner(&case.claimed, &Device::flex()).unwrap();
    verifier(case)
        .policy(policy, Seed::from_digest(tagged("verifier", &[])))
        .fail_fast(true)
        .verify(&case.store, learner.as_mut(), |_| {})
        .unwrap()
}

/// `strict` rejects the forgery: for what it claims and what it lacks, but also by comparison, if the claim
/// were allowed and came with everything.
#[track_caller]
fn refused_by_strict(case: &Case) {
    let strict = shipped("strict");
    let replay_alone = Policy {
        numerics: NumericsRule::Any,
        bounds: Bounds::default(),
        evidence: EvidenceRule::default(),
        ..strict.clone()
    };
    caught(&judge_until_rejected(case, replay_alone), "bits");
    let report = judge_until_rejected(case, strict);
    assert_eq!(report.verdict, Verdict::Rejected, "{:?}", report.reasons);
}

#[test]
fn step_counters_pay_for_moments_only_where_they_are_in_one_sum() {
    let case = forge(&BY_ADAM, &pol_attacks::Counters, options(58, 0));
    assert!(case.claimed == BY_ADAM.manifest.claim.terms.recipe);
    evades(&judge(&case, relative()));
    // The recipe is the victim's: no bound stands in the way.
    caught(&judge(&case, shipped("calibrated")), "tolerance");
    caught(&judge_quickly(&case), "tolerance");
    refused_by_strict(&case);
    let none = try_forge(&LENET, &pol_attacks::Counters, options(58, 0)).map(|_| ());
    assert!(matches!(none, Err(AttackError::NotApplicable(_))));
}

#[test]
fn a_swinging_weight_pays_for_a_stolen_model_only_in_units_of_movement() {
    let victim = publish(perceptron(16, SGD, 0.05, 44));
    let case = forge(&victim, &pol_attacks::Pendulum, options(0, 0));
    evades(&judge(&case, relative()));
    caught(&judge(&case, shipped("calibrated")), "bounds");
    caught(&judge_quickly(&case), "tolerance");
    refused_by_strict(&case);
    let none = try_forge(&LENET, &pol_attacks::Pendulum, options(0, 0)).map(|_| ());
    assert!(matches!(none, Err(AttackError::NotApplicable(_))));
}

#[test]
fn a_training_that_forgets_its_start_shows_a_stolen_function_only_in_units_of_movement() {
    let case = try_forge(&LENET, &pol_attacks::Forgetting, options(0, 0)).unwrap();
    assert_eq!(case.figure("predictions that differ"), 0.0);
    assert!(case.figure("scale") > 0.0);
    evades(&judge(&case, relative()));
    caught(&judge(&case, shipped("calibrated")), "bounds");
    caught(&judge_quickly(&case), "tolerance");
    refused_by_strict(&case);
}

#[test]
fn pushes_add_up_only_where_movement_is_the_yardstick() {
    let case = try_forge(&LENET, &pol_attacks::Push, options(10, 4)).unwrap();
    assert!(case.figure("largest push over movement") < 0.01);
    assert!(case.figure("pushes over the way to the stolen model") > 0.0);
    evades(&judge(&case, relative()));
    caught(&judge(&case, shipped("calibrated")), "tolerance");
    refused_by_strict(&case);
}

/// Whatever the numerics, nothing but a replay of that segment tells.
#[test]
fn a_last_segment_that_is_forged_is_rejected_where_it_is_replayed() {
    let exact = publish(Recipe {
        numerics: Numerics::Exact(Profile::UnfusedV2),
        ..recipe(Component::new("lenet5"), SGD, 0.02, 44)
    });
    for (victim, check) in [(&*LENET, "tolerance"), (&exact, "bits")] {
        let case = forge(victim, &pol_attacks::LastSegment, options(11, 0));
        let report = judge(&case, shipped("calibrated"));
        caught(&report, check);
        let failed = report.segments.iter().filter(|s| !s.accepted).count();
        assert_eq!(failed, 1, "{:?}", report.reasons);
        refused_by_strict(&case);
    }
}
