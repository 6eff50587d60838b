//! `RUN/attestations/`: signatures and timestamps, which may be added at any time and change nothing
//! that is proved.

use std::path::Path;

use pol_core::audit::Attestation;
use pol_core::journal::Head;
use pol_core::manifest::{Checkpoint, Claim};
use pol_core::store::{Beside, FolderStore, Store};
use pol_core::verify::Evidence;
use pol_evidence::key::TrustedKey;
use pol_evidence::timestamp::{self, MAX_TOKEN, Roots};
use pol_evidence::training::{self, SignedFiles};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::error::CliError;

/// The timestamp of the commitment.
pub(crate) const COMMITMENT_TOKEN: &str = "commitment.tsr";

/// Bytes of all timestamps of the journal together that are read: more than ten thousand of them.
const MOST_OF_JOURNAL: u64 = 64 << 20;

/// The name of the timestamp of the journal after so many checkpoints.
pub(crate) fn journal_token(checkpoints: u64) -> String {
    format!("journal-{checkpoints}.tsr")
}

/// Writes an attestation.
pub(crate) fn write(run: &Path, name: &str, content: &[u8]) -> Result<(), CliError> {
    let store = FolderStore::new(run);
    Ok(store.write_beside(Beside::Attestations, name, content)?)
}

/// The attestations of a proof, in order of their names. What is not a regular file of the usual
/// size, or has an unusual name, is left out; so are timestamps of the journal that do not fit into 64 MiB.
pub(crate) fn read(store: &dyn Store) -> Result<Vec<Attestation>, CliError> {
    let mut found = Vec::new();
    let mut room = MOST_OF_JOURNAL;
    for name in store.beside(Beside::Attestations)? {
        let known = name == training::FILE || name == COMMITMENT_TOKEN || head_of(&name).is_some();
        if !known {
            continue;
        }
        match store.read_beside(Beside::Attestations, &name) {
            Ok(content) if content.len() as u64 <= MAX_TOKEN => {
                if head_of(&name).is_some() {
                    match room.checked_sub(content.len() as u64) {
                        Some(left) => room = left,
                        None => continue,
                    }
                }
                found.push(Attestation {
                    name,
                    content: ByteBuf::from(content),
                });
            }
            Ok(_) => {}
            Err(error) if error.blames_proof() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

/// The number of checkpoints in the name of a journal's timestamp.
fn head_of(name: &str) -> Option<u64> {
    let number = name.strip_prefix("journal-")?.strip_suffix(".tsr")?;
    let checkpoints: u64 = number.parse().ok()?;
    (journal_token(checkpoints) == name).then_some(checkpoints)
}

/// Whom the verifier trusts.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    pub(crate) keys: Vec<TrustedKey>,
    pub(crate) roots: Roots,
}

/// What attestations show, for reports.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Shown {
    /// The key whose signature of the commitment holds and is trusted.
    pub(crate) signed_by: Option<String>,
    /// When authorities that are trusted saw it.
    pub(crate) timestamps: Vec<ShownTimestamp>,
}

/// A timestamp that holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ShownTimestamp {
    /// `commitment`, or `journal` with the number of checkpoints that it covers.
    pub(crate) of: String,
    /// In seconds since 1970.
    pub(crate) seconds: u64,
}

/// Checks all attestations that bear on what is trusted. Where a key or an authority is given, its
/// signature or timestamp has to be there and to hold.
pub(crate) fn check(
    attestations: &[Attestation],
    claim: &Claim,
    checkpoints: Option<&[Checkpoint]>,
    files: Option<SignedFiles<'_>>,
    trust: &Trust,
) -> (Evidence, Shown) {
    let (mut evidence, mut shown) = (Evidence::default(), Shown::default());
    let commitment = claim.commitment();
    let find = |name: &str| attestations.iter().find(|found| found.name == name);
    if !trust.keys.is_empty() {
        match find(training::FILE) {
            None => (evidence.problems).push("the commitment is not signed".to_owned()),
            Some(found) => {
                let (bound, keys) = (claim.terms.key, &trust.keys);
                match training::verify(&found.content, commitment, bound, files, keys) {
                    Ok(key) => {
                        evidence.signed = true;
                        shown.signed_by = Some(key.prover_key().to_string());
                    }
                    Err(error) => evidence.problems.push(error.to_string()),
                }
            }
        }
    }
    if trust.roots.is_empty() {
        return (evidence, shown);
    }
    match find(COMMITMENT_TOKEN) {
        None => (evidence.problems).push("the commitment is not timestamped".to_owned()),
        Some(found) => match timestamp::verify(&found.content, &commitment, &trust.roots) {
            Ok(token) => {
                evidence.timestamped = true;
                shown.timestamps.push(ShownTimestamp {
                    of: "commitment".to_owned(),
                    seconds: token.seconds,
                });
            }
            Err(error) => {
                (evidence.problems).push(format!("the timestamp of the commitment: {error}"));
            }
        },
    }
    for found in attestations {
        let (Some(covered), Some(checkpoints)) = (head_of(&found.name), checkpoints) else {
            continue;
        };
        let head = usize::try_from(covered)
            .ok()
            .and_then(|n| checkpoints.get(..n));
        let problem = match head {
            None => Err("there are not so many".to_owned()),
            Some(covered) => {
                let head = Head::of(&claim.terms, covered);
                timestamp::verify(&found.content, &head.digest, &trust.roots)
                    .map_err(|error| error.to_string())
            }
        };
        match problem {
            Ok(token) => shown.timestamps.push(ShownTimestamp {
                of: format!("journal after {covered} checkpoints"),
                seconds: token.seconds,
            }),
            Err(error) => (evidence.problems).push(format!(
                "the timestamp of the journal after {covered} checkpoints: {error}"
            )),
        }
    }
    (evidence, shown)
}
