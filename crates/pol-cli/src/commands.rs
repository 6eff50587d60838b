//! A file for each subcommand.

pub(crate) mod completions;
pub(crate) mod data;
pub(crate) mod doctor;
pub(crate) mod inspect;
pub(crate) mod train;
pub(crate) mod verify;

use std::io;
use std::path::Path;

use pol_core::store::FolderStore;
use pol_models::recipe_file::{RecipeFile, SHIPPED};

use crate::error::{CliError, at};

/// A shipped recipe by name, or the file of that path.
fn recipe_file(name: &str) -> Result<RecipeFile, CliError> {
    if let Some(shipped) = RecipeFile::shipped(name) {
        return Ok(shipped);
    }
    if !Path::new(name).exists() {
        let names: Vec<_> = SHIPPED.iter().map(|(name, _)| *name).collect();
        return Err(CliError::Usage(format!(
            "there is no recipe `{name}`: neither a file, nor one of {}",
            names.join(", ")
        )));
    }
    let text = std::fs::read_to_string(name).map_err(at(name))?;
    Ok(RecipeFile::parse(name, &text)?)
}

/// The store in the folder of a proof, which has to be there: a mistyped name is no forgery.
fn existing_store(run: &Path) -> Result<FolderStore, CliError> {
    let metadata = std::fs::metadata(run).map_err(at(run))?;
    if metadata.is_dir() {
        Ok(FolderStore::new(run))
    } else {
        Err(at(run)(io::Error::from(io::ErrorKind::NotADirectory)))
    }
}
