//! Whether devices agree: the same few steps on each.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use pol_attacks::forgery::model_distance;
use pol_core::digest::Digest;
use pol_core::manifest::Checkpoint;
use pol_core::object::read_state;
use pol_core::recipe::Recipe;
use pol_core::state::State;
use pol_core::store::FolderStore;
use pol_core::training::{Outcome, Training};
use pol_core::verify::read_claim;
use pol_models::dataset::Images;
use pol_models::{dataset_of, image_learner};

use crate::{ExperimentError, NOISE_RECORDS};

/// Trains `recipe` on noise in the layout of its data set, and writes the proof into `folder`, with a state
/// after each step. The commitment.
///
/// # Errors
/// If the recipe cannot be followed, or the device or the folder fails.
pub fn train_few(
    recipe: &Recipe,
    device: &Device,
    folder: &Path,
) -> Result<Digest, ExperimentError> {
    let records = Images::noise(dataset_of(recipe)?, NOISE_RECORDS.max(recipe.batch_size));
    let mut learner = image_learner(recipe, device)?;
    let training = Training::new(recipe.clone(), &records, 0, 1);
    let store = Arc::new(FolderStore::new(folder));
    match training.run(learner.as_mut(), store, |_, _| ControlFlow::Continue(()))? {
        Outcome::Sealed(manifest) => Ok(manifest.claim.commitment()),
        Outcome::Interrupted { step } => Err(ExperimentError::Plan(format!(
            "the training was broken off at step {step}"
        ))),
    }
}

/// How far two trainings of the same recipe ended from each other, over how far the first moved its model:
/// ε over movement, l2 over all numbers of the model.
///
/// # Errors
/// If a folder holds no finished proof.
pub fn reproduction_error(first: &Path, second: &Path) -> Result<f64, ExperimentError> {
    let read = |folder: &Path| -> Result<(State, State), ExperimentError> {
        let unfinished =
            || ExperimentError::Plan(format!("{} holds no finished proof", folder.display()));
        let store = FolderStore::new(folder);
        let manifest = read_claim(&store)?.map_err(|_| unfinished())?;
        let state = |checkpoint: Option<&Checkpoint>| {
            let name = checkpoint.ok_or_else(unfinished)?.state;
            read_state(&store, &name, None).map_err(|_| unfinished())
        };
        let checkpoints = &manifest.checkpoints;
        Ok((state(checkpoints.first())?, state(checkpoints.last())?))
    };
    let ((start, first), (_, second)) = (read(first)?, read(second)?);
    Ok(model_distance(&second, &first) / model_distance(&first, &start))
}
