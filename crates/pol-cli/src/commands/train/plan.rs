//! What to train: from flags, a recipe, or a journal.

use pol_core::digest::Digest;
use pol_core::journal::{Journal, JournalError};
use pol_core::manifest::Start;
use pol_core::recipe::{Numerics, Recipe, Value};
use pol_core::records::Records;
use pol_core::state::State;
use pol_core::store::{FolderStore, StoreError};
use pol_core::verify::final_state;
use pol_evidence::key::PrivateKey;
use pol_models::dataset::{Dataset, DatasetName, default_folder};
use pol_models::dataset_of;
use pol_models::recipe_file::{Named, RecipeFile, SHIPPED};

use crate::args::TrainArgs;
use crate::commands::{existing_store, keys, recipe_file};
use crate::error::CliError;

/// A training that is settled down to its data.
pub(super) struct Plan {
    pub(super) recipe: Recipe,
    pub(super) dataset: Dataset,
    pub(super) nonce: u64,
    pub(super) interval: u64,
    pub(super) keep: u64,
    /// Whose training it is.
    pub(super) key: Option<PrivateKey>,
    /// Whether the data is committed to with salts.
    pub(super) private_data: bool,
    /// The proof whose final model it starts from, and that model.
    pub(super) prior: Option<(Digest, State)>,
    /// `digits-lenet5`, for the run's folder.
    pub(super) label: String,
}

impl Plan {
    pub(super) fn of(args: &TrainArgs) -> Result<Self, CliError> {
        if let Some(plan) = Self::of_unfinished_run(args)? {
            return Ok(plan);
        }
        let file = file_of(args)?;
        let name: DatasetName = file.data.name.parse()?;
        let dataset = load(args, name)?;
        let recipe = file.resolve(dataset.train.len())?;
        let interval = match args.interval {
            Some(interval) if interval == 0 || interval > recipe.steps => {
                return Err(CliError::Usage(format!(
                    "--interval must be from 1 to the {} steps of the training",
                    recipe.steps
                )));
            }
            Some(interval) => interval,
            None => file.interval.min(recipe.steps),
        };
        Ok(Self {
            label: format!("{}-{}", recipe.data.name, recipe.model.name),
            keep: keep(args, file.keep, recipe.numerics)?,
            dataset,
            nonce: args.seed.unwrap_or(0),
            interval,
            recipe,
            key: keys::private_key(&args.identity)?,
            private_data: args.private_data,
            prior: prior(args)?,
        })
    }

    /// With `--resume` and no other recipe, the training that the journal holds.
    fn of_unfinished_run(args: &TrainArgs) -> Result<Option<Self>, CliError> {
        let (true, Some(run)) = (args.resume && !names_a_recipe(args), &args.out) else {
            return Ok(None);
        };
        let terms = match Journal::open(&FolderStore::new(run)) {
            Ok(journal) => journal.terms,
            Err(JournalError::Empty | JournalError::Store(StoreError::Missing { .. })) => {
                return Ok(None);
            }
            Err(error) => return Err(CliError::Environment(error.to_string())),
        };
        let dataset = load(args, dataset_of(&terms.recipe)?)?;
        let key = keys::private_key(&args.identity)?;
        if terms.key != key.as_ref().map(|key| key.public().prover_key()) {
            return Err(CliError::Usage(match terms.key {
                Some(key) => {
                    format!("this training was begun with the key {key}: give it with --key")
                }
                None => "this training was begun without a key: leave --key away".to_owned(),
            }));
        }
        let prior = prior(args)?;
        if let (Start::Prior { commitment }, None) = (terms.start, &prior) {
            return Err(CliError::Usage(format!(
                "this training starts from the proof {commitment}: give its folder with --prior"
            )));
        }
        Ok(Some(Self {
            label: String::new(),
            dataset,
            nonce: args.seed.unwrap_or(terms.nonce),
            interval: args.interval.unwrap_or(terms.interval),
            keep: keep(args, 1, terms.recipe.numerics)?,
            key,
            private_data: terms.data.salted,
            prior,
            recipe: terms.recipe,
        }))
    }
}

/// The proof to start from.
fn prior(args: &TrainArgs) -> Result<Option<(Digest, State)>, CliError> {
    let Some(run) = &args.prior else {
        return Ok(None);
    };
    let store = existing_store(run)?;
    let found = final_state(store.as_ref())
        .ok_or_else(|| CliError::Malformed(format!("{} is not a finished proof", run.display())))?;
    Ok(Some(found))
}

/// How many checkpoints go to a kept state.
fn keep(args: &TrainArgs, default: u64, numerics: Numerics) -> Result<u64, CliError> {
    let keep = args.keep.unwrap_or(default);
    if keep == 0 || (keep > 1 && !numerics.is_exact()) {
        return Err(CliError::Usage(
            "--keep is at least 1, and more only with exact numerics (--numerics exact): replays of \
             stock kernels need the states"
                .to_owned(),
        ));
    }
    Ok(keep)
}

fn load(args: &TrainArgs, name: DatasetName) -> Result<Dataset, CliError> {
    let folder = args.machine.data_dir.clone().unwrap_or_else(default_folder);
    Ok(name.load(&folder)?)
}

fn names_a_recipe(args: &TrainArgs) -> bool {
    args.recipe.is_some()
        || args.model.is_some()
        || args.dataset.is_some()
        || args.augmentation.is_some()
        || args.epochs.is_some()
        || args.steps.is_some()
        || args.batch_size.is_some()
        || args.learning_rate.is_some()
        || args.numerics.is_some()
}

/// The recipe file that is named, or the shipped one nearest to the flags, with the flags put in.
fn file_of(args: &TrainArgs) -> Result<RecipeFile, CliError> {
    let mut file = match &args.recipe {
        Some(name) => recipe_file(name)?,
        None => nearest(args.model.as_deref(), args.dataset),
    };
    if let Some(model) = args.model.as_deref().filter(|m| *m != file.model.name) {
        file.model = Named::new(model);
    }
    if let Some(dataset) = args.dataset.filter(|d| d.name() != file.data.name) {
        file.data = Named::new(dataset.name());
    }
    if let Some(augmentation) = &args.augmentation {
        let value = Value::Text(augmentation.clone());
        file.data.options.insert("augmentation".to_owned(), value);
    }
    if args.epochs.is_some() || args.steps.is_some() {
        (file.epochs, file.steps) = (args.epochs, args.steps);
    }
    if let Some(batch_size) = args.batch_size {
        file.batch_size = batch_size;
    }
    if let Some(rate) = args.learning_rate {
        file.learning_rate.base = rate;
    }
    if let Some(numerics) = args.numerics {
        file.numerics = numerics;
    }
    Ok(file)
}

/// The shipped recipe for this model and data set; else for this data set; else for images of
/// the same size; else the default.
fn nearest(model: Option<&str>, dataset: Option<DatasetName>) -> RecipeFile {
    let dataset = dataset.unwrap_or(DatasetName::Digits);
    let rank = |file: &RecipeFile| {
        let of_data = file.data.name == dataset.name();
        let of_model = model.is_some_and(|model| file.model.name == model);
        let of_size = (file.data.name.parse::<DatasetName>())
            .is_ok_and(|other| other.image() == dataset.image());
        (of_data, of_size, of_model)
    };
    let mut best: Option<RecipeFile> = None;
    for (name, _) in SHIPPED {
        let Some(file) = RecipeFile::shipped(name) else {
            continue;
        };
        if best.as_ref().is_none_or(|best| rank(&file) > rank(best)) {
            best = Some(file);
        }
    }
    best.unwrap_or_else(|| unreachable!("recipes are shipped"))
}
