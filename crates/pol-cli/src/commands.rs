//! A file for each subcommand.

pub(crate) mod attack;
pub(crate) mod attestations;
pub(crate) mod audit;
pub(crate) mod bench;
pub(crate) mod calibrate;
pub(crate) mod completions;
pub(crate) mod data;
pub(crate) mod doctor;
pub(crate) mod gc;
pub(crate) mod inspect;
pub(crate) mod keys;
pub(crate) mod measure;
pub(crate) mod pack;
pub(crate) mod report;
pub(crate) mod timestamp;
pub(crate) mod train;
pub(crate) mod verdict;
pub(crate) mod verify;

use std::io::{self, Read};
use std::path::Path;

use pol_core::audit::{MAX_COMMITMENT_BYTES, PublicCommitment};
use pol_core::digest::{Digest, tagged};
use pol_core::policy::{self, Policy};
use pol_core::random::Seed;
use pol_core::store::{ArchiveStore, FolderStore, Store, open_regular};
use pol_models::recipe_file::{RecipeFile, SHIPPED};

use crate::args::CommitmentArg;
use crate::error::{CliError, at};

/// The items in their order, each once.
fn once_each<T: Copy + PartialEq>(items: &[T]) -> Vec<T> {
    let mut seen = Vec::new();
    for item in items {
        if !seen.contains(item) {
            seen.push(*item);
        }
    }
    seen
}

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

/// The proof in a folder or an archive, which has to be there: a mistyped name is no forgery.
fn existing_store(run: &Path) -> Result<Box<dyn Store>, CliError> {
    match std::fs::metadata(run).map_err(at(run))?.is_dir() {
        true => Ok(Box::new(FolderStore::new(run))),
        false => Ok(Box::new(ArchiveStore::open(run)?)),
    }
}

/// The proof in a folder, to be written to.
fn existing_folder(run: &Path) -> Result<FolderStore, CliError> {
    match std::fs::metadata(run).map_err(at(run))?.is_dir() {
        true => Ok(FolderStore::new(run)),
        false => Err(at(run)(io::Error::from(io::ErrorKind::NotADirectory))),
    }
}

/// A shipped policy by name, or the file of that path.
fn policy(name: &str) -> Result<Policy, CliError> {
    if let Some(shipped) = Policy::shipped(name) {
        return Ok(shipped);
    }
    if !Path::new(name).exists() {
        let names: Vec<_> = policy::SHIPPED.iter().map(|(name, _)| *name).collect();
        return Err(CliError::Usage(format!(
            "there is no policy `{name}`: neither a file, nor one of {}",
            names.join(", ")
        )));
    }
    let text = std::fs::read_to_string(name).map_err(at(name))?;
    Policy::parse(&text).map_err(|error| CliError::Usage(format!("{name}: {error}")))
}

/// The public commitment in a file.
fn public_commitment(file: &Path) -> Result<PublicCommitment, CliError> {
    let bytes = read_file(file, MAX_COMMITMENT_BYTES)?;
    let public = PublicCommitment::decode(&bytes);
    public.map_err(|error| CliError::Malformed(format!("{}: {error}", file.display())))
}

/// The digits of a commitment.
fn commitment(argument: &CommitmentArg) -> Result<Digest, CliError> {
    match argument {
        CommitmentArg::Digest(digest) => Ok(*digest),
        CommitmentArg::File(file) => Ok(public_commitment(file)?.digest()),
    }
}

/// Randomness from the operating system.
fn fresh_seed() -> Result<Seed, CliError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| CliError::Environment(error.to_string()))?;
    Ok(Seed::from_digest(tagged("pol.v1.audit", &[&bytes])))
}

/// Reads a file that somebody else may have made: a regular one, of at most `limit` bytes.
fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, CliError> {
    let (file, len) = open_regular(path).map_err(at(path))?;
    if len > limit {
        let path = path.display();
        return Err(CliError::Malformed(format!(
            "{path}: it has {len} bytes; the limit is {limit}"
        )));
    }
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).map_err(at(path))?;
    Ok(bytes)
}
