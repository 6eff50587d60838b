//! Exact numerics: the same bits on every device, and sound gradients.
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

use std::ops::ControlFlow;
use std::sync::Arc;

use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor, TensorData};
use pol_core::digest::Digest;
use pol_core::learner::Batch;
use pol_core::manifest::Terms;
use pol_core::recipe::{Component, Decay, LearningRate, Numerics, Optimizer, Profile, Recipe};
use pol_core::records::{DataCommitment, Records};
use pol_core::schedule::{BatchSource, Schedule};
use pol_core::state::{Part, State};
use pol_core::store::{Item, MemoryStore, Store};
use pol_core::training::{Outcome, Training};
use pol_core::verify::{Distances, Report, Selection, Tolerance, Verdict, Verifier};
use pol_exact::probe;
use pol_exact::tensor::{Exact, Normalisation, Running};
use pol_models::dataset::{Dataset, DatasetName};
use pol_models::image_learner;
use pol_tests::backends;
use pol_tests::forge::Forgery;

const SGD: Optimizer = Optimizer::Sgd {
    momentum: 0.9,
    dampening: 0.0,
    weight_decay: 1e-4,
    nesterov: false,
};

fn recipe(model: &str, optimizer: Optimizer, steps: u64, profile: Profile) -> Recipe {
    let model = match model {
        "mlp" => Component::new("mlp")
            .with("dropout", 0.3)
            .with("hidden", 32),
        name => Component::new(name),
    };
    Recipe {
        model,
        data: Component::new("digits"),
        optimizer,
        learning_rate: LearningRate {
            base: 0.05,
            warmup: 0,
            decay: Decay::Constant,
        },
        batch_size: 8,
        steps,
        numerics: Numerics::Exact(profile),
    }
}

fn digits() -> Dataset {
    DatasetName::Digits.load("".as_ref()).unwrap()
}

fn train(recipe: &Recipe, device: &Device, interval: u64, keep: u64) -> (Arc<MemoryStore>, Digest) {
    let digits = digits();
    let store = Arc::new(MemoryStore::new());
    let mut learner = image_learner(recipe, device).unwrap();
    let training = Training::new(recipe.clone(), &digits.train, 0, interval).keep(keep);
    let outcome = training.run(learner.as_mut(), Arc::clone(&store) as _, |_, _| {
        ControlFlow::Continue(())
    });
    match outcome.unwrap() {
        Outcome::Sealed(manifest) => (store, manifest.claim.commitment()),
        Outcome::Interrupted { .. } => unreachable!(),
    }
}

fn verify(store: &MemoryStore, recipe: &Recipe, device: &Device, selection: Selection) -> Report {
    Verifier::new(&digits().train)
        .expect_recipe(recipe)
        .select(selection)
        // Of no effect with exact numerics.
        .tolerance(Tolerance::relative(1e9))
        .verify(
            store,
            image_learner(recipe, device).unwrap().as_mut(),
            |_| {},
        )
        .unwrap()
}

/// The devices that conform to `unfused-v2`; one that doesn't is named.
fn conforming() -> Vec<(String, Device)> {
    backends()
        .into_iter()
        .filter_map(|(backend, device)| {
            match probe::passed(&device, pol_exact::Profile::UnfusedV2) {
                Ok(()) => Some((backend.to_string(), device)),
                Err(error) => {
                    eprintln!("skipped: {backend}: {error}");
                    None
                }
            }
        })
        .collect()
}

#[test]
fn the_cpu_conforms_to_every_profile() {
    for profile in pol_exact::Profile::ALL {
        for probed in probe::run(&Device::flex(), profile) {
            assert!(probed.conforms, "{profile}: {}", probed.operator);
        }
    }
}

/// Mesa's software Vulkan rounds a fused multiply-add twice: the operators that have one must fail
/// there, those without must not, and the device is refused with the name of the first.
#[test]
fn a_device_that_rounds_otherwise_is_refused_by_operator() {
    for (backend, device) in backends() {
        if !(backend.device_name()).is_ok_and(|name| name.contains("llvmpipe")) {
            continue;
        }
        let failed: Vec<_> = probe::run(&device, pol_exact::Profile::FmaV2)
            .filter(|probed| !probed.conforms)
            .map(|probed| probed.operator)
            .collect();
        let products = ["sgd", "linear", "conv2d", "batch_norm", "cross_entropy"];
        assert!(products.iter().all(|operator| failed.contains(operator)));
        let sums = ["transfer", "add", "multiply", "relu", "max_pool"];
        assert!(!sums.iter().any(|operator| failed.contains(operator)));
        let error = probe::passed(&device, pol_exact::Profile::FmaV2).unwrap_err();
        assert!(error.to_string().contains(failed[0]), "{error}");
    }
}

#[test]
fn every_device_gives_the_same_commitment_and_accepts_the_others_proofs() {
    let adam = Optimizer::Adam {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-5,
        weight_decay: 1e-3,
    };
    let adamw = Optimizer::AdamW {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 1e-2,
    };
    let devices = conforming();
    for (model, optimizer) in [("resnet20", SGD), ("lenet5", adam), ("mlp", adamw)] {
        let recipe = recipe(model, optimizer, 3, Profile::UnfusedV2);
        let mut commitments = Vec::new();
        for (name, device) in &devices {
            let (store, commitment) = train(&recipe, device, 2, 1);
            commitments.push(commitment);
            for (other, device) in &devices {
                let report = verify(&store, &recipe, device, Selection::all());
                let reasons = &report.reasons;
                assert_eq!(
                    report.verdict,
                    Verdict::Accepted,
                    "{name}, {other}: {reasons:?}"
                );
                assert!(report.segments.iter().all(|segment| segment.digests_equal));
            }
        }
        commitments.dedup();
        assert_eq!(commitments.len(), 1, "{model}");
    }
}

#[test]
fn profiles_differ_and_so_do_their_commitments() {
    let device = Device::flex();
    let commitment = |profile| train(&recipe("lenet5", SGD, 2, profile), &device, 1, 1).1;
    assert_ne!(commitment(Profile::UnfusedV2), commitment(Profile::FmaV2));
}

#[test]
fn a_proof_that_keeps_few_states_has_the_same_commitment_and_verifies() {
    let device = Device::flex();
    let recipe = recipe("lenet5", SGD, 7, Profile::UnfusedV2);
    let (whole, commitment) = train(&recipe, &device, 1, 1);
    let (sparse, same) = train(&recipe, &device, 1, 3);
    assert_eq!(commitment, same, "what is kept is not what is proved");
    // States 0, 3, 6 and the last.
    let report = verify(&sparse, &recipe, &device, Selection::all());
    assert_eq!(report.verdict, Verdict::Accepted, "{:?}", report.reasons);
    assert_eq!((report.states_kept, report.segments.len()), (4, 7));
    assert_eq!(report.steps_replayed, 7, "nothing is replayed twice");
    assert!(sparse.size().unwrap() < whole.size().unwrap());
}

#[test]
fn a_sample_of_a_sparse_proof_replays_from_the_state_before() {
    let device = Device::flex();
    let recipe = recipe("lenet5", SGD, 6, Profile::UnfusedV2);
    let (store, _) = train(&recipe, &device, 1, 6);
    let top = verify(&store, &recipe, &device, Selection::top(1));
    assert_eq!(top.verdict, Verdict::Accepted, "{:?}", top.reasons);
    let segment = top.segments[0].index;
    assert_eq!(top.steps_replayed, segment + 1, "from the first state on");
}

#[test]
fn a_wrong_digest_of_a_state_that_is_not_kept_is_found() {
    let device = Device::flex();
    let recipe = recipe("lenet5", SGD, 6, Profile::UnfusedV2);
    for wrong in [1, 4] {
        let (store, _) = train(&recipe, &device, 1, 1);
        let mut forgery = Forgery::of(&store);
        forgery.alter(wrong, "model/fc3.bias", |entry| entry.bytes[0] ^= 1);
        let digest = forgery.states[wrong].1.digest();
        let forged = forgery.seal();
        forged.remove(Item::Object(digest));
        for selection in [Selection::all(), Selection::top(6)] {
            let report = verify(&forged, &recipe, &device, selection);
            assert_eq!(report.verdict, Verdict::Rejected);
            let reason = report.reasons[0].to_string();
            assert!(reason.contains("digest that is committed to"), "{reason}");
            assert!(
                reason.contains(&format!("segment {}", wrong - 1)),
                "{reason}"
            );
        }
    }
}

#[test]
fn the_first_and_the_last_state_have_to_be_there() {
    let device = Device::flex();
    let recipe = recipe("lenet5", SGD, 3, Profile::UnfusedV2);
    for missing in [0, 3] {
        let (store, _) = train(&recipe, &device, 1, 1);
        let digest = Forgery::of(&store).states[missing].1.digest();
        store.remove(Item::Object(digest));
        let report = verify(&store, &recipe, &device, Selection::all());
        assert_eq!(report.verdict, Verdict::Rejected);
    }
}

#[test]
fn a_broken_off_sparse_training_resumes_to_the_same_commitment() {
    let device = Device::flex();
    let recipe = recipe("lenet5", SGD, 7, Profile::UnfusedV2);
    let (_, commitment) = train(&recipe, &device, 1, 3);
    let digits = digits();
    let training = Training::new(recipe.clone(), &digits.train, 0, 1).keep(3);
    for stop in 1..7 {
        let store = Arc::new(MemoryStore::new());
        let mut learner = image_learner(&recipe, &device).unwrap();
        let observe = |_: &mut _, step| match step == stop {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        training
            .run(learner.as_mut(), Arc::clone(&store) as _, observe)
            .unwrap();
        let mut learner = image_learner(&recipe, &device).unwrap();
        let resumed = training.resume(learner.as_mut(), Arc::clone(&store) as _, |_, _| {
            ControlFlow::Continue(())
        });
        match resumed.unwrap() {
            Outcome::Sealed(manifest) => assert_eq!(manifest.claim.commitment(), commitment),
            Outcome::Interrupted { .. } => unreachable!(),
        }
    }
}

#[test]
fn states_are_left_out_only_with_exact_numerics() {
    let mut recipe = recipe("lenet5", SGD, 2, Profile::UnfusedV2);
    recipe.numerics = Numerics::Stock;
    let digits = digits();
    let mut learner = image_learner(&recipe, &Device::flex()).unwrap();
    let training = Training::new(recipe, &digits.train, 0, 1).keep(2);
    let store = Arc::new(MemoryStore::new());
    let error = training
        .run(learner.as_mut(), store, |_, _| ControlFlow::Continue(()))
        .unwrap_err();
    assert!(error.to_string().contains("exact numerics"), "{error}");
}

/// Values of a few places between −1 and 1.
fn values<const D: usize>(seed: u32, shape: [usize; D], device: &Device) -> Tensor<D> {
    let count: usize = shape.iter().product();
    let mut state = u64::from(seed) * 2 + 1;
    let values: Vec<f32> = (0..count)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
        })
        .collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Asserts that two tensors are near each other, relative to the largest value.
#[track_caller]
fn near<const D: usize>(a: Tensor<D>, b: Tensor<D>, what: &str) {
    let scale = b.clone().abs().max().into_scalar::<f32>().max(1e-3);
    let apart = (a - b).abs().max().into_scalar::<f32>();
    assert!(apart <= 2e-5 * scale, "{what}: {apart} of {scale}");
}

fn nchw(x: Tensor<4>) -> Tensor<4> {
    x.permute([0, 3, 1, 2])
}

#[test]
fn gradients_of_convolutions_agree_with_those_of_burn() {
    let device = Device::flex().autodiff();
    let exact = Exact::new(pol_exact::Profile::UnfusedV2);
    for (from, to, size, kernel, stride, padding) in [
        (16, 32, 8, 3, 1, 1),
        (17, 20, 9, 3, 1, 0),
        (16, 32, 8, 3, 2, 1),
        (3, 6, 12, 5, 1, 2),
        (8, 24, 7, 1, 2, 0),
    ] {
        let x = values(1, [4, size, size, from], &device).require_grad();
        let w = values(2, [to, from, kernel, kernel], &device).require_grad();
        let b = values(3, [to], &device).require_grad();
        let (stride, padding) = ([stride; 2], [padding; 2]);
        let y = exact.conv2d(x.clone(), w.clone(), Some(b.clone()), stride, padding);
        let weights = values(4, y.dims(), &device);
        let gradients = (y.clone() * weights.clone()).sum().backward();

        let x2 = Tensor::from_inner(x.clone().inner()).require_grad();
        let w2 = Tensor::from_inner(w.clone().inner()).require_grad();
        let b2 = Tensor::from_inner(b.clone().inner()).require_grad();
        let options = ConvOptions::new(stride, padding, [1, 1], 1);
        let stock = conv2d(nchw(x2.clone()), w2.clone(), Some(b2.clone()), options);
        let stock_gradients = (stock.clone() * nchw(weights)).sum().backward();
        let what = format!("{from} to {to} of {size}, kernel {kernel}");
        near(nchw(y), stock, &what);
        let grad = |t: &Tensor<4>, g| t.grad(g).unwrap();
        near(grad(&x, &gradients), grad(&x2, &stock_gradients), &what);
        near(grad(&w, &gradients), grad(&w2, &stock_gradients), &what);
        near(
            b.grad(&gradients).unwrap(),
            b2.grad(&stock_gradients).unwrap(),
            &what,
        );
    }
}

/// One step from the same weights on the same batch.
#[test]
fn a_step_agrees_with_one_of_burns_kernels() {
    let device = Device::flex();
    let digits = digits();
    for model in ["resnet20", "lenet5"] {
        let exact = recipe(model, SGD, 1, Profile::UnfusedV2);
        let stock = Recipe {
            numerics: Numerics::Stock,
            ..exact.clone()
        };
        let seed = Terms::new(
            exact.clone(),
            DataCommitment::of(&digits.train),
            0,
            BatchSource::Derived,
            1,
        )
        .seed;
        let mut schedule = Schedule::new(seed, digits.train.len(), 8).unwrap();
        let plan = schedule.batch(0);
        let run = |recipe: &Recipe| {
            let mut learner = image_learner(recipe, &device).unwrap();
            learner.initialise(&seed).unwrap();
            let start = learner.capture().unwrap();
            let batch = Batch::new(&plan, &digits.train, &seed).unwrap();
            learner.step(&batch).unwrap();
            (start, learner.capture().unwrap())
        };
        let ((start, a), (_, b)) = (run(&exact), run(&stock));
        for part in [Part::Parameters, Part::Buffers] {
            let l2 = |a: &State, b: &State| {
                let sorts = |name: &str| match name.contains("running") {
                    true => Part::Buffers,
                    false => Part::by_prefix(name),
                };
                Distances::between(a, b, part, &sorts).unwrap().l2
            };
            let (apart, moved) = (l2(&a, &b), l2(&start, &a));
            assert!(apart <= 1e-4 * moved, "{model}: {apart} of {moved}");
        }
    }
}

/// A directional derivative by central differences, and by the gradients.
#[test]
fn gradients_agree_with_finite_differences() {
    let device = Device::flex().autodiff();
    let exact = Exact::new(pol_exact::Profile::UnfusedV2);
    let options = Normalisation {
        epsilon: 1e-3,
        rectified: false,
        rate: 0.1,
    };
    type Case<'a> = (&'a str, Box<dyn Fn(Tensor<4>) -> Tensor<4> + 'a>);
    let w = values(2, [16, 16, 3, 3], &device);
    let (gamma, beta) = (values(3, [16], &device), values(4, [16], &device));
    let [mean, variance] = [5, 7].map(|seed| values(seed, [16], &device).abs());
    let given = Running { mean, variance };
    let mask = values(6, [4, 6, 6, 16], &device);
    let cases: Vec<Case<'_>> = vec![
        (
            "conv2d by minimal filtering",
            Box::new(|x| exact.conv2d(x, w.clone(), None, [1, 1], [1, 1])),
        ),
        (
            "conv2d with stride",
            Box::new(|x| exact.conv2d(x, w.clone(), None, [2, 2], [1, 1])),
        ),
        (
            "batch_norm",
            Box::new(|x| {
                let parameters = [gamma.clone(), beta.clone()];
                exact
                    .batch_norm(x, parameters, given.clone(), None, options)
                    .0
            }),
        ),
        (
            "batch_norm with given statistics and a shortcut",
            Box::new(|x| {
                let shortcut = Some(x.clone());
                let parameters = [gamma.clone(), beta.clone()];
                exact.batch_norm_fixed(x, parameters, given.clone(), shortcut, options)
            }),
        ),
        (
            "average_pool",
            Box::new(|x| exact.average_pool(x, [3, 2], [2, 1])),
        ),
        ("max_pool", Box::new(|x| exact.max_pool(x, [2, 2], [2, 2]))),
        ("shortcut", Box::new(|x| exact.shortcut(x, 24, 2))),
        ("relu", Box::new(|x| exact.relu(x))),
        ("dropout", Box::new(|x| exact.dropout(x, mask.clone()))),
        (
            "linear and cross_entropy",
            Box::new(|x| {
                let scores = exact.linear(x.reshape([36, 64]), values(7, [64, 10], &device), None);
                let mut targets = vec![0f32; 360];
                (0..36).for_each(|row| targets[row * 10 + row % 10] = 1.0);
                let targets = Tensor::from_data(TensorData::new(targets, [36, 10]), &device);
                exact.cross_entropy(scores, targets).reshape([1, 1, 1, 1])
            }),
        ),
    ];
    let x = values(1, [4, 6, 6, 16], &device);
    let direction = values(8, [4, 6, 6, 16], &device);
    for (name, f) in cases {
        let weighted = |x: Tensor<4>| {
            let y = f(x);
            let weights = values(9, y.dims(), &device);
            (y * weights).sum()
        };
        let tracked = x.clone().require_grad();
        let gradients = weighted(tracked.clone()).backward();
        let slope = (tracked.grad(&gradients).unwrap() * direction.clone().inner())
            .sum()
            .into_scalar::<f32>();
        let step = 1e-3;
        let at =
            |t: f64| f64::from(weighted(x.clone() + direction.clone() * t).into_scalar::<f32>());
        let difference = (at(step) - at(-step)) / (2.0 * step);
        let scale = difference.abs().max(1.0);
        let apart = (f64::from(slope) - difference).abs();
        assert!(apart < 0.03 * scale, "{name}: {slope} and {difference}");
    }
}
