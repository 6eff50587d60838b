//! How many kernels a training step launches on a GPU. A count, so it holds on Mesa's software device too.
#![expect(
    clippy::print_stderr,
    reason = "a skipped test says so, and counts are shown"
)]

use pol_core::learner::Batch;
use pol_core::manifest::Terms;
use pol_core::records::{DataCommitment, Records};
use pol_core::schedule::{BatchSource, Schedule};
use pol_exact::launches::Launches;
use pol_exact::probe;
use pol_models::dataset::{DatasetName, Images};
use pol_models::image_learner;
use pol_models::recipe_file::RecipeFile;
use pol_tests::backends;

/// Of a step of ResNet-20: convolutions have one forward, one for their input and two for their weights, batch
/// normalisations three forward and two backward.
const MOST: u64 = 250;

#[test]
fn a_step_of_resnet20_takes_few_launches() {
    for (backend, device) in backends() {
        let profile = pol_exact::Profile::UnfusedV2;
        // Units of CubeCL's CPU runtime are threads: its kernels are others.
        if ["flex", "cpu"].contains(&backend.to_string().as_str()) {
            continue;
        }
        if let Err(error) = probe::passed(&device, profile) {
            eprintln!("skipped: {backend}: {error}");
            continue;
        }
        let mut recipe = (RecipeFile::shipped("cifar10-resnet20").unwrap())
            .resolve(50_000)
            .unwrap();
        recipe.numerics = "exact/unfused-v2".to_owned().try_into().unwrap();
        // As many launches as of 128, and a step of two takes less of a software device's time.
        recipe.batch_size = 2;
        let data = Images::noise(DatasetName::Cifar10, 16);
        let commitment = DataCommitment::of(&data);
        let seed = Terms::new(recipe.clone(), commitment, 0, BatchSource::Derived, 1).seed;
        let mut learner = image_learner(&recipe, &device).unwrap();
        learner.initialise(&seed).unwrap();
        let mut schedule = Schedule::new(seed, data.len(), recipe.batch_size).unwrap();
        let mut step = |number| {
            let plan = schedule.batch(number);
            let batch = Batch::new(&plan, &data, &seed).unwrap();
            learner.step(&batch).unwrap();
            learner.last_loss()
        };
        step(0);
        let launches = Launches::watch();
        step(1);
        let by_kernel = launches.by_kernel();
        let count: u64 = by_kernel.iter().map(|(_, count)| count).sum();
        eprintln!("{backend}: {count} launches");
        for (kernel, count) in by_kernel {
            eprintln!("  {count:4} {kernel}");
        }
        assert!((1..=MOST).contains(&count), "{backend}: {count} launches");
    }
}
