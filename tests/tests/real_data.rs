//! CIFAR, MNIST and Fashion-MNIST, where their files are at hand: in the folders
//! `cifar-10-batches-bin`, `cifar-100-binary` and `mnist` of `$POL_TEST_DATA`, and where Debian's
//! package `dataset-fashion-mnist` puts them.
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use pol_core::adapter::Backend;
use pol_core::records::{DataCommitment, Records};
use pol_core::store::MemoryStore;
use pol_core::training::{Outcome, Training};
use pol_core::verify::{Verdict, Verifier};
use pol_models::dataset::{Dataset, DatasetName};
use pol_models::image_learner;
use pol_models::recipe_file::RecipeFile;

/// The data set, or `None` after saying that the test is skipped.
fn load(name: DatasetName, folder: &str) -> Option<Dataset> {
    let data = std::env::var_os("POL_TEST_DATA")
        .map(PathBuf::from)
        .unwrap_or_default();
    match name.load(&data.join(folder)) {
        Ok(dataset) => Some(dataset),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

fn classes(records: &dyn Records) -> usize {
    let labels = (0..records.len()).filter_map(|index| records.record(index));
    labels
        .map(|record| record.label)
        .collect::<std::collections::BTreeSet<_>>()
        .len()
}

#[test]
fn data_sets_have_their_sizes_and_all_classes() {
    for (name, folder, at_least, test) in [
        (DatasetName::Cifar10, "", 10_000, 10_000),
        (DatasetName::Cifar100, "", 10_000, 2_000),
        (DatasetName::Mnist, "", 60_000, 10_000),
        (DatasetName::FashionMnist, "fashion-mnist", 60_000, 10_000),
    ] {
        let Some(dataset) = load(name, folder) else {
            continue;
        };
        assert!(
            dataset.train.len() >= at_least && dataset.test.len() >= test,
            "{name}"
        );
        assert_eq!(classes(&dataset.train), name.classes(), "{name}");
        assert_eq!(classes(&dataset.test), name.classes(), "{name}");
    }
}

#[test]
fn the_normalisation_is_near_the_data_s_own() {
    for (name, folder) in [
        (DatasetName::Cifar10, ""),
        (DatasetName::Cifar100, ""),
        (DatasetName::Mnist, ""),
        (DatasetName::FashionMnist, "fashion-mnist"),
    ] {
        let Some(dataset) = load(name, folder) else {
            continue;
        };
        let mut values = Vec::new();
        for index in 0..2000 {
            let record = dataset.train.record(index).unwrap();
            let pixels = &record.bytes[name.pixel_offset()..];
            let first = values.len();
            values.resize(first + pixels.len(), 0.0);
            name.normalisation().write(pixels, &mut values[first..]);
        }
        let n = values.len() as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let variance = values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / n;
        assert!(mean.abs() < 0.1, "{name}: mean {mean}");
        assert!((variance - 1.0).abs() < 0.15, "{name}: variance {variance}");
    }
}

#[test]
fn the_papers_recipe_trains_and_verifies_on_cifar() {
    let Some(dataset) = load(DatasetName::Cifar10, "") else {
        return;
    };
    let mut file = RecipeFile::shipped("cifar10-resnet20").unwrap();
    (file.epochs, file.steps, file.batch_size) = (None, Some(4), 8);
    let recipe = file.resolve(dataset.train.len()).unwrap();
    let device = Backend::Flex.device().unwrap();
    let store = Arc::new(MemoryStore::new());
    let learner = || image_learner(&recipe, &device).unwrap();
    let outcome = Training::new(recipe.clone(), &dataset.train, 0, 2).run(
        learner().as_mut(),
        Arc::clone(&store) as _,
        |_, _| ControlFlow::Continue(()),
    );
    assert!(matches!(outcome.unwrap(), Outcome::Sealed(_)));
    let verify = |records: &dyn Records| {
        Verifier::new(records)
            .expect_recipe(&recipe)
            .verify(store.as_ref(), learner().as_mut(), |_| {})
            .unwrap()
    };
    let report = verify(&dataset.train);
    assert_eq!(report.verdict, Verdict::Accepted, "{:?}", report.reasons);
    assert!(report.segments.iter().all(|segment| segment.digests_equal));

    let label = dataset.train.record(9_999).unwrap().label;
    let relabelled = dataset.train.clone().with_label(9_999, (label + 1) % 10);
    assert_ne!(
        DataCommitment::of(&relabelled),
        DataCommitment::of(&dataset.train)
    );
    assert_eq!(verify(&relabelled).verdict, Verdict::Rejected);
}
