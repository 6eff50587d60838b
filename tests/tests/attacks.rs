//! Published forgeries, each against the published rules, which those that the literature reports as
//! working evade, and against this verifier's default, which none does. Small models on the digits, on
//! the CPU.

use std::sync::LazyLock;

use burn::tensor::Device;
use pol_attacks::{Access, Attack, AttackError, Options};
use pol_core::audit::{Challenge, Draw, PublicCommitment, open};
use pol_core::digest::tagged;
use pol_core::learner::LearnerError;
use pol_core::policy::{Bounds, Policy, StartRule};
use pol_core::random::Seed;
use pol_core::recipe::{
    Component, Decay, LearningRate, Numerics, Optimizer, Profile, Recipe, Value,
};
use pol_core::records::Records;
use pol_core::verify::{Report, Verdict, Verifier};
use pol_models::image_learner;
use pol_tests::forgeries::{
    DIGITS, Published, forge, judge, publish, shipped, try_forge, unbounded, verifier,
};

fn recipe() -> Recipe {
    Recipe {
        model: Component::new("lenet5"),
        data: Component::new("digits"),
        optimizer: Optimizer::Sgd {
            momentum: 0.9,
            dampening: 0.0,
            weight_decay: 1e-4,
            nesterov: false,
        },
        learning_rate: LearningRate {
            base: 0.02,
            warmup: 0,
            decay: Decay::Constant,
        },
        batch_size: 32,
        steps: 132,
        numerics: Numerics::Stock,
    }
}

/// LeNet-5 with stock numerics.
static LENET: LazyLock<Published> = LazyLock::new(|| publish(recipe()));

/// The same with exact numerics.
static EXACT: LazyLock<Published> = LazyLock::new(|| {
    publish(Recipe {
        numerics: Numerics::Exact(Profile::UnfusedV2),
        ..recipe()
    })
});

/// The default's comparison alone, without its bounds and whatever the start.
fn comparison_alone() -> Policy {
    Policy {
        bounds: Bounds::default(),
        start: StartRule::Distribution {
            level: 0.01,
            corrected: true,
            max_depth: 0,
        },
        ..shipped("calibrated")
    }
}

#[track_caller]
fn evades(report: &Report) {
    assert_eq!(report.verdict, Verdict::Accepted, "{:?}", report.reasons);
}

#[track_caller]
fn caught(report: &Report, words: &str) {
    assert_eq!(report.verdict, Verdict::Rejected, "{:?}", report.reasons);
    let reasons: Vec<String> = report.reasons.iter().map(ToString::to_string).collect();
    assert!(
        reasons.iter().any(|r| r.contains(words)),
        "{words:?} is not in {reasons:?}"
    );
}

/// Not accepted, whichever way.
#[track_caller]
fn refused(report: &Report, words: &str) {
    assert_ne!(report.verdict, Verdict::Accepted);
    let reasons: Vec<String> = report.reasons.iter().map(ToString::to_string).collect();
    assert!(
        reasons.iter().any(|r| r.contains(words)),
        "{words:?} is not in {reasons:?}"
    );
}

fn options(interval: u64, segments: u64) -> Options {
    Options {
        interval,
        segments,
        ..Options::default()
    }
}

#[test]
fn infinitesimal_updates_evade_the_published_rules_and_are_caught_three_times_over() {
    let case = forge(&LENET, &pol_attacks::Infinitesimal, options(100, 5));
    let spent = case.made.spent;
    assert!(spent.gradients < spent.honest_steps, "{spent:?}");
    evades(&judge(&case, shipped("paper")));
    caught(&judge(&case, shipped("calibrated")), "min_learning_rate");
    caught(&judge(&case, unbounded()), "not derived from the seed");
    caught(&judge(&case, comparison_alone()), "tolerance");
}

#[test]
fn infinitesimal_updates_within_the_default_s_bounds_are_held_to_what_was_learned() {
    let adaptive = Options {
        adaptive: true,
        ..options(10, 20)
    };
    let case = forge(&LENET, &pol_attacks::Infinitesimal, adaptive);
    caught(&judge(&case, shipped("calibrated")), "tolerance");
}

#[test]
fn blindfold_top_q_evades_the_published_rules_and_no_audit_of_the_verifier_s_own_choice() {
    let fast = Options {
        learning_rate: Some(0.05),
        ..options(1, 440)
    };
    let case = forge(&LENET, &pol_attacks::Blindfold, fast);
    let spent = case.made.spent;
    assert!(spent.gradients < spent.honest_steps, "{spent:?}");
    evades(&judge(&case, shipped("paper")));
    let mut sampled = shipped("calibrated");
    sampled.segments.all = false;
    sampled.segments.sample = Some(5);
    caught(&judge(&case, sampled), "tolerance");
}

#[test]
fn an_injected_optimizer_state_evades_the_published_rules_and_is_compared_here() {
    let slow = Options {
        learning_rate: Some(1e-3),
        ..options(100, 2)
    };
    let case = forge(&LENET, &pol_attacks::Injection, slow);
    evades(&judge(&case, shipped("paper")));
    caught(&judge(&case, shipped("calibrated")), "optim/");
}

/// Zhang II and III, with the training data and without.
#[test]
fn made_up_records_evade_the_published_rules_and_steer_too_loosely_for_a_measured_tolerance() {
    for (attack, access, iterations) in [
        (&pol_attacks::NearZero as &dyn Attack, Access::Training, 3),
        (&pol_attacks::NearZero, Access::Sibling, 1),
        (&pol_attacks::Joint, Access::Training, 3),
        (&pol_attacks::Joint, Access::Noise, 1),
    ] {
        let with = Options {
            access,
            iterations,
            learning_rate: Some(0.01),
            ..options(20, 4)
        };
        let case = forge(&LENET, attack, with);
        let count = case.made.records.as_ref().unwrap().len();
        assert_eq!(count, 4 * 20 * 32);
        evades(&judge(&case, shipped("paper")));
        caught(&judge(&case, shipped("calibrated")), "`batches`");
        caught(&judge(&case, unbounded()), "not derived from the seed");
        caught(&judge(&case, comparison_alone()), "tolerance");
        // A verifier with the data needs no replay.
        let mut learner = image_learner(&case.claimed, &Device::flex()).unwrap();
        let with_data = Verifier::new(&DIGITS.train)
            .policy(shipped("paper"), Seed::from_digest(tagged("verifier", &[])))
            .verify(&case.store, learner.as_mut(), |_| {})
            .unwrap();
        caught(&with_data, "the training data is not the verifier's");
    }
}

/// The strongest that is known here: every segment but the last is honest training, on records made
/// to steer it.
#[test]
fn steering_by_made_up_records_does_not_arrive() {
    let with = Options {
        adaptive: true,
        iterations: 3,
        ..options(10, 4)
    };
    let case = forge(&LENET, &pol_attacks::NearZero, with);
    let report = judge(&case, comparison_alone());
    let failed = report.segments.iter().filter(|s| !s.accepted).count();
    assert_eq!(failed, 1, "only the last: {:?}", report.reasons);
    caught(&report, "tolerance");
    assert!(case.figure("largest miss over movement") > 0.01);
}

#[test]
fn a_one_step_jump_misses_what_it_jumps_to() {
    let case = forge(&LENET, &pol_attacks::OneStepJump, options(10, 3));
    assert!(case.figure("missed by") < 1.01 * case.figure("way"));
    caught(&judge(&case, shipped("calibrated")), "`batches`");
    caught(&judge(&case, unbounded()), "not derived from the seed");
    caught(&judge(&case, comparison_alone()), "tolerance");
}

#[test]
fn lines_are_told_from_training() {
    let slow = Options {
        learning_rate: Some(1e-3),
        ..options(10, 40)
    };
    let case = forge(&LENET, &pol_attacks::Lazy, slow);
    evades(&judge(&case, shipped("paper")));
    caught(&judge(&case, shipped("calibrated")), "tolerance");
}

/// Where replays are noisiest nothing is accepted, forged or not.
#[test]
fn noise_is_no_place_to_hide() {
    let case = forge(&LENET, &pol_attacks::HighNoise, options(20, 10));
    let report = judge(&case, shipped("calibrated"));
    assert_ne!(report.verdict, Verdict::Accepted, "{:?}", report.reasons);
    let waived = judge(&case, comparison_alone());
    assert_ne!(waived.verdict, Verdict::Accepted, "{:?}", waived.reasons);
}

#[test]
fn rates_and_states_that_are_not_numbers_are_refused_under_any_policy() {
    for policy in ["paper", "calibrated"] {
        let case = forge(&LENET, &pol_attacks::RateOverride, options(10, 10));
        caught(&judge(&case, shipped(policy)), "schedule/learning_rate");
        let case = forge(&LENET, &pol_attacks::NanStates, options(10, 10));
        caught(&judge(&case, shipped(policy)), "not finite");
    }
}

#[test]
fn buffers_are_compared_and_the_published_rules_look_away() {
    let small = Recipe {
        model: Component::new("resnet20"),
        steps: 12,
        batch_size: 16,
        ..recipe()
    };
    let victim = publish(small);
    let case = try_forge(&victim, &pol_attacks::BufferSwap, options(11, 2)).unwrap();
    assert!(case.figure("buffers") > 0.0);
    evades(&judge(&case, shipped("paper")));
    caught(&judge(&case, shipped("calibrated")), "running_mean");
    let none = try_forge(&LENET, &pol_attacks::BufferSwap, options(11, 2)).map(|_| ());
    assert!(matches!(none, Err(AttackError::NotApplicable(_))));
}

#[test]
fn a_proof_of_another_model_is_refused_under_any_policy() {
    let case = try_forge(&LENET, &pol_attacks::ModelSwap, options(11, 2)).unwrap();
    for policy in ["paper", "calibrated"] {
        caught(&judge(&case, shipped(policy)), "model");
    }
}

/// What a tolerance lets pass that a hash of images alone would have let pass.
#[test]
fn other_labels_order_pixels_and_draws_are_seen_in_the_replay() {
    let mut augmented = recipe();
    let how = Value::Text("crop-flip".to_owned());
    augmented
        .data
        .options
        .insert("augmentation".to_owned(), how);
    augmented.steps = 22;
    let victim = publish(augmented);
    for attack in [
        &pol_attacks::LabelSwap as &dyn Attack,
        &pol_attacks::OrderSwap,
        &pol_attacks::AugmentationSwap,
        &pol_attacks::ElidedData,
    ] {
        let slow = Options {
            learning_rate: Some(2e-3),
            nonce: 2,
            ..options(10, 6)
        };
        let case = try_forge(&victim, attack, slow).unwrap();
        evades(&judge(&case, shipped("paper")));
        caught(&judge(&case, shipped("calibrated")), "tolerance");
    }
    let plain = try_forge(&LENET, &pol_attacks::AugmentationSwap, options(10, 2)).map(|_| ());
    assert!(matches!(plain, Err(AttackError::NotApplicable(_))));
}

/// An abbreviated print-out is the same whatever happens in the middle; a root is not.
#[test]
fn an_abbreviated_print_out_hides_what_a_root_does_not() {
    let record = DIGITS.train.record(0).unwrap();
    let mut altered = record.bytes.to_vec();
    altered[3 * 8 + 4] ^= 7;
    let print = |pixels: &[u8]| pol_attacks::abbreviated(pixels, 8, 8);
    assert_eq!(print(record.bytes), print(&altered));
    assert_ne!(record.bytes, altered);
    let other = pol_core::records::Record {
        label: record.label,
        bytes: &altered,
    };
    assert_ne!(record.digest(None), other.digest(None));
}

#[test]
fn a_pull_towards_the_stolen_model_is_seen_in_the_replay() {
    let slow = Options {
        learning_rate: Some(5e-3),
        ..options(5, 90)
    };
    let case = forge(&LENET, &pol_attacks::Splice, slow);
    evades(&judge(&case, shipped("paper")));
    caught(&judge(&case, shipped("calibrated")), "tolerance");
}

#[test]
fn two_proofs_are_not_one() {
    let case = forge(&LENET, &pol_attacks::Mix, options(11, 12));
    caught(&judge(&case, shipped("calibrated")), "tolerance");
}

#[test]
fn somebody_else_s_proof_is_bound_by_its_start() {
    let case = forge(&LENET, &pol_attacks::Copied, options(11, 12));
    assert_eq!(case.made.spent.gradients, 0);
    evades(&judge(&case, shipped("paper")));
    caught(&judge(&case, shipped("calibrated")), "`batches`");
    caught(&judge(&case, unbounded()), "not derived from the seed");
    // Every segment is honest training: nothing but the start tells.
    evades(&judge(&case, comparison_alone()));
}

#[test]
fn a_draw_from_the_commitment_is_ground_and_one_by_the_verifier_is_not() {
    let with = Options {
        sample: 5,
        ..options(10, 8)
    };
    let case = try_forge(&LENET, &pol_attacks::Grinding, with).unwrap();
    assert!(case.figure("distance") > 0.0, "the last segment is trained");
    let manifest = pol_core::verify::read_claim(&case.store).unwrap().unwrap();
    let public = PublicCommitment::new(manifest.claim, vec![]);
    let mut learner = image_learner(&case.claimed, &Device::flex()).unwrap();
    let mut judge_opening = |challenge: &Challenge| {
        let mut none = || -> Result<_, LearnerError> { unreachable!("every state is kept") };
        let opening = open(&case.store, &DIGITS.train, None, challenge, &mut none).unwrap();
        Verifier::without_data()
            .policy(shipped("calibrated"), challenge.seed())
            .verify_opening(&public, challenge, opening, learner.as_mut(), None, |_| {})
            .unwrap()
    };
    let ground = Challenge::offline(public.digest(), Draw::Sample(5));
    evades(&judge_opening(&ground));
    let mut met = 0;
    for draw in 0..16u64 {
        let seed = Seed::from_digest(tagged("fresh", &[&draw.to_le_bytes()]));
        let challenge = Challenge::fresh(public.digest(), Draw::Sample(5), seed);
        met += u64::from(judge_opening(&challenge).verdict == Verdict::Rejected);
    }
    // 5 of 8 are drawn: 10 of 16 are expected, and fewer than 3 have a chance of 2e-4.
    assert!((3..=16).contains(&met), "{met}");
    // Whoever has the folder sees the jump, whatever is drawn.
    let report = verifier(&case)
        .policy(shipped("calibrated"), ground.seed())
        .select(ground.selection())
        .verify(&case.store, learner.as_mut(), |_| {})
        .unwrap();
    caught(&report, "tolerance");
}

#[test]
fn other_batches_with_near_gradients_are_seen_in_the_replay() {
    let slow = Options {
        learning_rate: Some(5e-3),
        ..options(10, 3)
    };
    let case = try_forge(&LENET, &pol_attacks::DataForging, slow).unwrap();
    evades(&judge(&case, shipped("paper")));
    caught(&judge(&case, shipped("calibrated")), "`batches`");
    caught(&judge(&case, unbounded()), "tolerance");
}

/// With exact numerics nothing is tolerated, under any policy.
#[test]
fn exact_numerics_let_no_forgery_of_a_replay_pass() {
    for attack in [
        &pol_attacks::Infinitesimal as &dyn Attack,
        &pol_attacks::Injection,
        &pol_attacks::Lazy,
        &pol_attacks::Splice,
        &pol_attacks::DataForging,
        &pol_attacks::NearZero,
    ] {
        let with = Options {
            iterations: 1,
            ..options(5, 2)
        };
        let case = try_forge(&EXACT, attack, with).unwrap();
        for policy in [shipped("paper"), comparison_alone()] {
            refused(&judge(&case, policy), "does not arrive at the logged state");
        }
    }
}

#[test]
fn attacks_have_names_of_their_own_and_say_where_they_are_from() {
    let mut names: Vec<_> = pol_attacks::ALL.map(|attack| attack.name()).to_vec();
    for attack in pol_attacks::ALL {
        let found = pol_attacks::named(attack.name()).unwrap();
        assert_eq!(found.source(), attack.source());
        assert!(!attack.source().is_empty() && !attack.needs().is_empty());
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), pol_attacks::ALL.len());
    assert!(pol_attacks::named("none").is_none());
}
