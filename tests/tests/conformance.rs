//! The same demands on every backend that this build has and this machine can run: capture and
//! restore are exact, a proof verifies where it was made with distance zero on deterministic
//! backends, and close to zero elsewhere.

use std::ops::ControlFlow;
use std::sync::Arc;

use burn::tensor::Device;
use pol_core::adapter::Backend;
use pol_core::learner::Batch;
use pol_core::recipe::{Component, Decay, LearningRate, Numerics, Optimizer, Recipe, Value};
use pol_core::records::Records;
use pol_core::schedule::Schedule;
use pol_core::state::{Part, State};
use pol_core::store::MemoryStore;
use pol_core::training::{Outcome, Training};
use pol_core::verify::{Distances, Report, Tolerance, Verdict, Verifier};
use pol_models::dataset::{Dataset, DatasetName};
use pol_models::{ImageLearner, image_learner};
use pol_tests::backends;
use pol_tests::forge::Forgery;

const SGD: Optimizer = Optimizer::Sgd {
    momentum: 0.9,
    dampening: 0.0,
    weight_decay: 1e-4,
    nesterov: false,
};

fn recipe(model: Component, optimizer: Optimizer, steps: u64) -> Recipe {
    Recipe {
        model,
        data: Component::new("digits").with("augmentation", "crop-flip-rotate"),
        optimizer,
        learning_rate: LearningRate {
            base: 0.01,
            warmup: 2,
            decay: Decay::Cosine { min: 0.0 },
        },
        batch_size: 16,
        steps,
        numerics: Numerics::Stock,
    }
}

/// Every kind of layer and optimizer: convolutions, BatchNorm, both shortcuts, dropout.
fn recipes() -> Vec<Recipe> {
    let adam = Optimizer::Adam {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 1e-4,
    };
    let adamw = Optimizer::AdamW {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 1e-2,
    };
    let mlp = Component::new("mlp")
        .with("dropout", 0.3)
        .with("hidden", 32);
    vec![
        recipe(Component::new("resnet20"), SGD, 4),
        recipe(Component::new("lenet5"), adam, 4),
        recipe(mlp, adamw, 4),
    ]
}

fn digits() -> Dataset {
    DatasetName::Digits.load("".as_ref()).unwrap()
}

fn learner(recipe: &Recipe, device: &Device) -> Box<dyn ImageLearner> {
    image_learner(recipe, device).unwrap()
}

fn train(recipe: &Recipe, device: &Device) -> (Arc<MemoryStore>, Box<dyn ImageLearner>) {
    let digits = digits();
    let store = Arc::new(MemoryStore::new());
    let mut learner = learner(recipe, device);
    let training = Training::new(recipe.clone(), &digits.train, 0, 2);
    let outcome = training.run(learner.as_mut(), Arc::clone(&store) as _, |_, _| {
        ControlFlow::Continue(())
    });
    assert!(matches!(outcome.unwrap(), Outcome::Sealed(_)));
    (store, learner)
}

fn verify(store: &MemoryStore, recipe: &Recipe, device: &Device, tolerance: Tolerance) -> Report {
    Verifier::new(&digits().train)
        .expect_recipe(recipe)
        .tolerance(tolerance)
        .verify(store, learner(recipe, device).as_mut(), |_| {})
        .unwrap()
}

fn steps(learner: &mut dyn ImageLearner, recipe: &Recipe, range: std::ops::Range<u64>) -> State {
    let digits = digits();
    let training = Training::new(recipe.clone(), &digits.train, 0, 2);
    let seed = training.terms().seed;
    let mut schedule = Schedule::new(seed, digits.train.len(), recipe.batch_size).unwrap();
    if range.start == 0 {
        learner.initialise(&seed).unwrap();
    }
    for step in range {
        let plan = schedule.batch(step);
        learner
            .step(&Batch::new(&plan, &digits.train, &seed).unwrap())
            .unwrap();
    }
    learner.capture().unwrap()
}

#[test]
fn restoring_and_going_on_equals_never_having_stopped() {
    for (backend, device) in backends() {
        for recipe in recipes() {
            let mut whole = learner(&recipe, &device);
            let middle = steps(whole.as_mut(), &recipe, 0..2);
            let uninterrupted = steps(whole.as_mut(), &recipe, 2..4);

            // Capturing twice changes nothing, and what is restored is what was captured.
            let mut restored = learner(&recipe, &device);
            restored.restore(&middle).unwrap();
            assert_eq!(restored.capture().unwrap(), middle);
            let resumed = steps(restored.as_mut(), &recipe, 2..4);
            let name = &recipe.model.name;
            if backend.is_deterministic() {
                assert_eq!(
                    resumed.digest(),
                    uninterrupted.digest(),
                    "{name} on {backend}"
                );
            }
            // A learner that has gone astray is set right by a restore.
            whole.restore(&middle).unwrap();
            assert_eq!(whole.capture().unwrap(), middle, "{name} on {backend}");
        }
    }
}

#[test]
fn the_initial_state_is_the_same_on_every_backend() {
    let backends = backends();
    for recipe in recipes() {
        let mut digests = backends
            .iter()
            .map(|(_, device)| steps(learner(&recipe, device).as_mut(), &recipe, 0..0).digest());
        let first = digests.next().unwrap();
        assert!(
            digests.all(|digest| digest == first),
            "{}",
            recipe.model.name
        );
    }
}

#[test]
fn a_proof_verifies_where_it_was_made() {
    for (backend, device) in backends() {
        for recipe in recipes() {
            let (store, _) = train(&recipe, &device);
            let tolerance = if backend.is_deterministic() {
                Tolerance::EXACT
            } else {
                Tolerance::relative(1e-2)
            };
            let report = verify(&store, &recipe, &device, tolerance);
            let name = &recipe.model.name;
            assert_eq!(
                report.verdict,
                Verdict::Accepted,
                "{name} on {backend}: {:?}",
                report.reasons
            );
            if backend.is_deterministic() {
                assert!(report.segments.iter().all(|s| s.digests_equal));
            }
        }
    }
}

#[test]
fn a_proof_of_one_backend_replays_on_another_with_a_small_measured_error() {
    let backends = backends();
    let recipe = recipe(Component::new("lenet5"), SGD, 4);
    for (from, from_device) in &backends {
        let (store, _) = train(&recipe, from_device);
        for (to, to_device) in backends.iter().filter(|(to, _)| to != from) {
            let report = verify(&store, &recipe, to_device, Tolerance::relative(1e-2));
            assert_eq!(
                report.verdict,
                Verdict::Accepted,
                "{from} on {to}: {:?}",
                report.reasons
            );
            let errors = report.segments.iter().filter_map(|s| s.parameters);
            let largest = errors.map(|part| part.distances.l2).fold(0.0, f64::max);
            assert!(largest < 1e-3, "{from} on {to}: {largest}");
        }
    }
}

#[test]
fn buffers_and_optimizer_are_told_from_parameters() {
    let device = Backend::Flex.device().unwrap();
    let recipe = recipe(Component::new("resnet20"), SGD, 2);
    let mut learner = learner(&recipe, &device);
    let state = steps(learner.as_mut(), &recipe, 0..2);
    let count = |part: Part| -> u64 {
        let of_part = state
            .entries()
            .iter()
            .filter(|e| learner.part(e.name()) == part);
        of_part
            .map(|e| e.header.shape.iter().product::<u64>())
            .sum()
    };
    // ResNet-20 for grey images: 288 weights fewer in the stem than for RGB.
    assert_eq!(count(Part::Parameters), 269_722 - 288);
    // Mean and variance of nineteen BatchNorms: 7 · 16 + 6 · 32 + 6 · 64 channels.
    assert_eq!(count(Part::Buffers), 2 * 688);
    assert_eq!(count(Part::Optimizer), count(Part::Parameters));
}

#[test]
fn an_altered_batchnorm_statistic_or_momentum_buffer_is_found_by_replay() {
    let device = Backend::Flex.device().unwrap();
    let recipe = recipe(Component::new("resnet20"), SGD, 4);
    let (store, _) = train(&recipe, &device);
    for entry in [
        "model/blocks.3.norm1.running_var",
        "optim/blocks.3.conv1.weight/momentum.velocity",
    ] {
        // Sealed again with every digest right: only the replay can tell.
        let mut forgery = Forgery::of(&store);
        forgery.alter(1, entry, |e| e.bytes[0] ^= 1);
        let report = verify(&forgery.seal(), &recipe, &device, Tolerance::EXACT);
        assert_eq!(report.verdict, Verdict::Rejected);
        let reason = report.reasons[0].to_string();
        assert!(reason.contains(entry), "{reason}");
    }
}

#[test]
fn running_statistics_are_up_to_date_in_every_capture() {
    let device = Backend::Flex.device().unwrap();
    let recipe = recipe(Component::new("resnet20"), SGD, 3);
    let mut learner = learner(&recipe, &device);
    let mut previous = steps(learner.as_mut(), &recipe, 0..1);
    for step in 1..3 {
        let state = steps(learner.as_mut(), &recipe, step..step + 1);
        let part = |name: &str| learner.part(name);
        let moved = Distances::between(&previous, &state, Part::Buffers, &part).unwrap();
        assert!(
            moved.l2 > 0.0,
            "step {step} left the running statistics behind"
        );
        previous = state;
    }
}

#[test]
fn accuracy_does_not_depend_on_a_capture_before_it() {
    let device = Backend::Flex.device().unwrap();
    let recipe = recipe(Component::new("resnet20"), SGD, 2);
    let digits = digits();
    let mut a = learner(&recipe, &device);
    let mut b = learner(&recipe, &device);
    steps(a.as_mut(), &recipe, 0..2);
    steps(b.as_mut(), &recipe, 0..2);
    b.capture().unwrap();
    b.evaluate(&digits.test, 50).unwrap();
    assert_eq!(
        a.evaluate(&digits.test, 360).unwrap(),
        b.evaluate(&digits.test, 360).unwrap()
    );
    assert_eq!(
        a.capture().unwrap(),
        b.capture().unwrap(),
        "evaluation changes nothing"
    );
}

#[test]
fn another_thread_count_gives_the_same_commitment_on_flex() {
    // The pool is made for each run, since the global one is shared with other tests.
    let device = Backend::Flex.device().unwrap();
    for recipe in recipes() {
        let digest = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| steps(learner(&recipe, &device).as_mut(), &recipe, 0..4).digest())
        };
        let one = digest(1);
        assert_eq!(one, digest(2), "{}", recipe.model.name);
        assert_eq!(one, digest(3), "{}", recipe.model.name);
    }
}

#[test]
fn recipes_that_name_what_is_not_there_are_refused() {
    let device = Backend::Flex.device().unwrap();
    let refused = |change: fn(&mut Recipe)| {
        let mut recipe = recipe(Component::new("mlp"), SGD, 4);
        change(&mut recipe);
        match image_learner(&recipe, &device) {
            Ok(_) => panic!("accepted"),
            Err(error) => error.to_string(),
        }
    };
    assert!(refused(|r| r.model.name = "vgg".into()).contains("lenet5"));
    assert!(refused(|r| r.model = Component::new("lenet5").with("depth", 3)).contains("depth"));
    assert!(
        refused(|r| drop(r.model.options.insert("hidden".into(), Value::Int(0))))
            .contains("hidden")
    );
    assert!(
        refused(|r| drop(r.model.options.insert("dropout".into(), Value::Float(1.0))))
            .contains("dropout")
    );
    assert!(refused(|r| r.data.name = "imagenet".into()).contains("cifar10"));
    assert!(
        refused(|r| drop(r.data.options.insert("augmentation".into(), Value::Int(1))))
            .contains("crop-flip")
    );
    assert!(
        refused(|r| r.optimizer = Optimizer::Custom(Component::new("lion"))).contains("custom")
    );
}
