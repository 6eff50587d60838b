//! `pol gc`: removes from a run what its proof is not made of.

use std::collections::BTreeSet;

use pol_core::digest::Digest;
use pol_core::journal::Journal;
use pol_core::store::{FolderStore, Item, Store, live_objects};
use pol_core::thin::{self, ThinError};
use pol_core::verify::read_claim;

use crate::args::GcArgs;
use crate::error::{CliError, Exit};
use crate::output;

use super::existing_folder;

pub(crate) fn run(args: &GcArgs) -> Result<Exit, CliError> {
    let store = existing_folder(&args.run)?;
    let live = match store.contains(Item::Manifest) {
        true => of_finished(args, &store)?,
        false => of_unfinished(args, &store)?,
    };
    let collected = store.collect(&live, args.dry_run)?;
    let what = match args.dry_run {
        true => "would free",
        false => "freed",
    };
    let bytes = output::bytes(collected.bytes);
    output::field(what, format!("{bytes} in {} files", collected.files));
    output::field("proof", output::bytes(store.size()?));
    Ok(Exit::Done)
}

/// What stays of a finished proof.
fn of_finished(args: &GcArgs, store: &FolderStore) -> Result<BTreeSet<Digest>, CliError> {
    let manifest = read_claim(store)?.map_err(|reason| CliError::Malformed(reason.to_string()))?;
    let Some(keep) = args.keep else {
        return Ok(live_objects(store, &manifest.checkpoints).map_err(ThinError::from)?);
    };
    if !args.dry_run {
        thin::rebase(store, &manifest, keep)?;
    }
    // All lists of batches stay. Rebased, the states that remain need no others.
    let mut live: BTreeSet<Digest> = (manifest.checkpoints.iter())
        .filter_map(|checkpoint| checkpoint.batches)
        .collect();
    let remaining = thin::remaining(&manifest, keep);
    live.extend(remaining.map(|index| manifest.checkpoints[index as usize].state));
    Ok(live)
}

/// What stays of a training that can be resumed, and that nobody is at.
fn of_unfinished(args: &GcArgs, store: &FolderStore) -> Result<BTreeSet<Digest>, CliError> {
    if args.keep.is_some() {
        return Err(CliError::Usage(
            "--keep is for finished proofs; this training is not finished".to_owned(),
        ));
    }
    if !store.contains(Item::Journal) {
        return Err(CliError::Malformed(format!(
            "{} holds neither a proof nor a training",
            store.location()
        )));
    }
    store.lock()?;
    let journal = Journal::open(store).map_err(|error| CliError::Malformed(error.to_string()))?;
    Ok(live_objects(store, &journal.checkpoints).map_err(ThinError::from)?)
}
