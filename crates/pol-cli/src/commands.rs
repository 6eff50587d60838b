//! A file for each subcommand.

pub(crate) mod completions;
pub(crate) mod data;
pub(crate) mod doctor;
pub(crate) mod inspect;
pub(crate) mod train;
pub(crate) mod verify;

use std::path::Path;

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
