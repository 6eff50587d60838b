//! Published forgeries, each against the published rules, which it evades, and against this verifier's
//! default, which it does not. LeNet-5 on the digits, stock numerics, on the CPU.

use std::ops::ControlFlow;
use std::sync::Arc;

use burn::tensor::Device;
use pol_attacks::{Attack, Options, Spent, Victim};
use pol_core::digest::tagged;
use pol_core::learner::Learner;
use pol_core::manifest::Manifest;
use pol_core::policy::{Bounds, Policy, StartRule};
use pol_core::random::Seed;
use pol_core::recipe::{Component, Decay, LearningRate, Numerics, Optimizer, Recipe};
use pol_core::store::MemoryStore;
use pol_core::training::{Outcome, Training};
use pol_core::verify::{Report, Verdict, Verifier, final_state};
use pol_models::dataset::{Dataset, DatasetName};
use pol_models::image_learner;

fn digits() -> Dataset {
    DatasetName::Digits.load("".as_ref()).unwrap()
}

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

struct Forged {
    store: MemoryStore,
    claimed: Recipe,
    spent: Spent,
}

/// Steals the model of an honest training and forges a proof of it.
fn forge(attack: &dyn Attack, options: Options) -> Forged {
    let digits = digits();
    let store = Arc::new(MemoryStore::new());
    let training = Training::new(recipe(), &digits.train, 0, 11);
    let mut learner = image_learner(&recipe(), &Device::flex()).unwrap();
    let outcome = training.run(learner.as_mut(), Arc::clone(&store) as _, |_, _| {
        ControlFlow::Continue(())
    });
    let manifest: Box<Manifest> = match outcome.unwrap() {
        Outcome::Sealed(manifest) => manifest,
        Outcome::Interrupted { .. } => unreachable!(),
    };
    let (_, stolen) = final_state(store.as_ref()).unwrap();
    let victim = Victim {
        terms: &manifest.claim.terms,
        stolen: &stolen,
        records: &digits.train,
    };
    let claimed = attack.claimed(&victim, &options);
    let mut learner = image_learner(&claimed, &Device::flex()).unwrap();
    let forged = MemoryStore::new();
    let learner: &mut dyn Learner = learner.as_mut();
    let spent = attack.forge(&victim, &options, learner, &forged).unwrap();
    let (_, forged_state) = final_state(&forged).unwrap();
    let model = pol_core::model_file::root(&stolen);
    assert_eq!(
        pol_core::model_file::root(&forged_state),
        model,
        "the forgery is of that model"
    );
    Forged {
        store: forged,
        claimed,
        spent,
    }
}

fn judge(forged: &Forged, policy: Policy) -> Report {
    let digits = digits();
    let mut learner = image_learner(&forged.claimed, &Device::flex()).unwrap();
    Verifier::new(&digits.train)
        .policy(policy, Seed::from_digest(tagged("verifier", &[])))
        .verify(&forged.store, learner.as_mut(), |_| {})
        .unwrap()
}

fn shipped(name: &str) -> Policy {
    Policy::shipped(name).unwrap()
}

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

#[test]
fn infinitesimal_updates_evade_the_published_rules_and_are_caught_three_times_over() {
    let forged = forge(
        &pol_attacks::infinitesimal::Infinitesimal,
        Options::default(),
    );
    assert!(
        10 * forged.spent.steps <= forged.spent.honest_steps,
        "{:?}",
        forged.spent
    );
    evades(&judge(&forged, shipped("paper")));
    let report = judge(&forged, shipped("calibrated"));
    caught(&report, "min_learning_rate");
    let bounds = Bounds::default();
    caught(
        &judge(
            &forged,
            Policy {
                bounds,
                ..shipped("calibrated")
            },
        ),
        "not derived from the seed",
    );
    caught(&judge(&forged, comparison_alone()), "the tolerance is");
}

#[test]
fn blindfold_top_q_evades_the_published_rules_and_no_audit_of_the_verifier_s_own_choice() {
    let options = Options {
        interval: 1,
        segments: 440,
        learning_rate: 0.05,
        ..Options::default()
    };
    let forged = forge(&pol_attacks::blindfold::Blindfold, options);
    assert!(
        forged.spent.steps < forged.spent.honest_steps,
        "{:?}",
        forged.spent
    );
    evades(&judge(&forged, shipped("paper")));
    let mut sampled = shipped("calibrated");
    sampled.segments.all = false;
    sampled.segments.sample = Some(5);
    caught(&judge(&forged, sampled), "the tolerance is");
}

#[test]
fn an_injected_optimizer_state_evades_the_published_rules_and_is_compared_here() {
    let forged = forge(&pol_attacks::injection::Injection, Options::default());
    evades(&judge(&forged, shipped("paper")));
    caught(&judge(&forged, shipped("calibrated")), "optimizer are");
}

#[test]
fn attacks_have_names_of_their_own_and_say_where_they_are_from() {
    for attack in pol_attacks::ALL {
        let found = pol_attacks::named(attack.name()).unwrap();
        assert_eq!(found.source(), attack.source());
        assert!(!attack.source().is_empty() && !attack.needs().is_empty());
    }
    assert!(pol_attacks::named("none").is_none());
}
