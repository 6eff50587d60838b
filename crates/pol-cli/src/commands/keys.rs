//! `pol keygen` and `pol sign`, and what all commands with keys share.

use std::path::{Path, PathBuf};

use pol_core::store::Store;
use pol_core::verify::{Proof, Reason, Resources};
use pol_evidence::key::{PrivateKey, TrustedKey};
use pol_evidence::training::{self, SignedFiles};

use crate::args::{KeyArgs, KeygenArgs, SignArgs};
use crate::error::{CliError, Exit, at};
use crate::output;

use super::{attestations, existing_folder};

/// Where a passphrase is looked for before it is asked for.
const VARIABLE: &str = "POL_PASSPHRASE";

pub(crate) fn generate(args: &KeygenArgs) -> Result<Exit, CliError> {
    let public = with_suffix(&args.file, ".pub");
    for file in [&args.file, &public] {
        if file.exists() {
            let file = file.display();
            return Err(CliError::Usage(format!(
                "{file} exists; keys are not overwritten"
            )));
        }
    }
    let passphrase = match args.encrypt {
        false => None,
        true => Some(new_passphrase(args.passphrase_file.as_deref())?),
    };
    let key = PrivateKey::generate()?;
    key.write(&args.file, passphrase.as_deref())?;
    key.public().write(&public)?;
    output::field("private key", args.file.display().to_string());
    output::field("public key", public.display().to_string());
    output::field("key", key.public().prover_key().to_string());
    Ok(Exit::Done)
}

pub(crate) fn sign(args: &SignArgs) -> Result<Exit, CliError> {
    let store = existing_folder(&args.run)?;
    let key = private_key(&args.identity)?.ok_or_else(|| {
        CliError::Usage("--key is missing: the key that the training was begun with".to_owned())
    })?;
    sign_with(&store, &args.run, &key)?;
    output::field("signed by", key.public().prover_key().to_string());
    Ok(Exit::Done)
}

/// Signs a proof, and puts the signature to its attestations.
pub(crate) fn sign_with(store: &dyn Store, run: &Path, key: &PrivateKey) -> Result<(), CliError> {
    let broken = |reason: Reason| CliError::Environment(reason.to_string());
    let proof = Proof::read(store, Resources::default())?.map_err(broken)?;
    let model = proof.model_file()?.map_err(broken)?;
    let files = SignedFiles {
        manifest: proof.manifest_file(),
        model: &model,
    };
    let claim = proof.claim();
    let envelope = training::sign(claim.commitment(), claim.terms.key, files, key)?;
    attestations::write(run, training::FILE, envelope.to_json().as_bytes())
}

/// The private key that was given, if one was.
pub(crate) fn private_key(args: &KeyArgs) -> Result<Option<PrivateKey>, CliError> {
    let Some(path) = &args.key else {
        return Ok(None);
    };
    let mut failed = None;
    let key = PrivateKey::read(path, || {
        let prompt = format!("Passphrase of {}: ", path.display());
        passphrase(args.passphrase_file.as_deref(), &prompt).unwrap_or_else(|error| {
            failed = Some(error);
            None
        })
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(Some(key?)),
    }
}

/// The public keys in these files.
pub(crate) fn trusted(files: &[PathBuf]) -> Result<Vec<TrustedKey>, CliError> {
    Ok(files
        .iter()
        .map(|file| TrustedKey::read(file))
        .collect::<Result<_, _>>()?)
}

fn new_passphrase(file: Option<&Path>) -> Result<String, CliError> {
    let passphrase = passphrase(file, "Passphrase for the new key: ")?.unwrap_or_default();
    if passphrase.is_empty() {
        return Err(CliError::Usage(
            "an empty passphrase protects nothing".to_owned(),
        ));
    }
    let given = file.is_some() || std::env::var_os(VARIABLE).is_some();
    if !given && passphrase != ask("The same again: ")?.unwrap_or_default() {
        return Err(CliError::Usage("the two passphrases differ".to_owned()));
    }
    Ok(passphrase)
}

fn passphrase(file: Option<&Path>, prompt: &str) -> Result<Option<String>, CliError> {
    if let Some(file) = file {
        let text = std::fs::read_to_string(file).map_err(at(file))?;
        return Ok(Some(text.lines().next().unwrap_or_default().to_owned()));
    }
    match std::env::var(VARIABLE) {
        Ok(passphrase) => Ok(Some(passphrase)),
        Err(_) => ask(prompt),
    }
}

/// Asks on the terminal; without one nobody can be asked.
fn ask(prompt: &str) -> Result<Option<String>, CliError> {
    use std::io::IsTerminal;
    match std::io::stdin().is_terminal() {
        false => Ok(None),
        true => (rpassword::prompt_password(prompt).map(Some))
            .map_err(|error| CliError::Environment(format!("no passphrase can be read: {error}"))),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
