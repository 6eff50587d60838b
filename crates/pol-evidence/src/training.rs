//! A prover's signature of its commitment.

use pol_core::digest::Digest;
use pol_core::identity::ProverKey;
use pol_core::manifest::FORMAT;
use serde::{Deserialize, Serialize};

use crate::dsse::{Envelope, EnvelopeError};
use crate::key::{PrivateKey, TrustedKey};
use crate::statement::{Statement, Subject, TYPE};

/// The file in `attestations/`.
pub const FILE: &str = "signature.dsse.json";
/// What kind of statement it is.
pub const PREDICATE: &str = "urn:proof-of-learning:training:v1";

/// What is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Training {
    format: String,
    commitment: Digest,
}

/// The files of a proof that a signature names.
#[derive(Debug, Clone, Copy)]
pub struct SignedFiles<'a> {
    /// `manifest.mp`.
    pub manifest: &'a [u8],
    /// `model.safetensors`.
    pub model: &'a [u8],
}

/// Why a signature does not show that a trusted prover stands behind a training.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// The envelope says nothing.
    #[error("the signature: {0}")]
    Envelope(#[from] EnvelopeError),
    /// Another kind of statement.
    #[error("the signature is not of a training")]
    Kind,
    /// Of another training.
    #[error("the signature is of the commitment {found}, not of {expected}")]
    OtherCommitment {
        /// Expected.
        expected: Digest,
        /// Found.
        found: Digest,
    },
    /// Of other files.
    #[error("the signature is of another {0}")]
    OtherFile(&'static str),
    /// By a key that the seed does not depend on: anyone can sign what somebody else trained.
    #[error(
        "the signature is by the key {signer}, but the training was begun {}",
        begun_with(bound)
    )]
    NotBound {
        /// Who signed.
        signer: ProverKey,
        /// Whose training it is.
        bound: Option<ProverKey>,
    },
}

fn begun_with(key: &Option<ProverKey>) -> String {
    match key {
        None => "without a key".to_owned(),
        Some(key) => format!("with the key {key}"),
    }
}

/// Signs a training.
///
/// # Errors
/// If it was begun with another key, or without one.
pub fn sign(
    commitment: Digest,
    bound: Option<ProverKey>,
    files: SignedFiles<'_>,
    key: &PrivateKey,
) -> Result<Envelope, SignatureError> {
    check_bound(bound, &key.public())?;
    let statement = Statement {
        kind: TYPE.to_owned(),
        subject: vec![
            Subject::file("model.safetensors", files.model),
            Subject::file("manifest.mp", files.manifest),
        ],
        predicate_type: PREDICATE.to_owned(),
        predicate: Training {
            format: FORMAT.to_owned(),
            commitment,
        },
    };
    let payload = serde_json::to_vec(&statement).unwrap_or_default();
    Ok(Envelope::sign(&payload, key))
}

/// Checks that a trusted key signed this commitment, and that the training was begun with that key.
/// `files` are compared with what was signed, where they are at hand.
///
/// # Errors
/// [`SignatureError`].
pub fn verify(
    envelope: &[u8],
    commitment: Digest,
    bound: Option<ProverKey>,
    files: Option<SignedFiles<'_>>,
    trusted: &[TrustedKey],
) -> Result<TrustedKey, SignatureError> {
    let signed = Envelope::parse(envelope)?.verify(trusted)?;
    let statement: Statement<Training> =
        serde_json::from_slice(&signed.payload).map_err(|_| SignatureError::Kind)?;
    let expected = (TYPE, PREDICATE, FORMAT);
    let found = (
        statement.kind.as_str(),
        statement.predicate_type.as_str(),
        statement.predicate.format.as_str(),
    );
    if found != expected {
        return Err(SignatureError::Kind);
    }
    if statement.predicate.commitment != commitment {
        return Err(SignatureError::OtherCommitment {
            expected: commitment,
            found: statement.predicate.commitment,
        });
    }
    if let Some(files) = files {
        for (name, content) in [
            ("model.safetensors", files.model),
            ("manifest.mp", files.manifest),
        ] {
            if !statement.subject.contains(&Subject::file(name, content)) {
                return Err(SignatureError::OtherFile(name));
            }
        }
    }
    check_bound(bound, &signed.key)?;
    Ok(signed.key)
}

fn check_bound(bound: Option<ProverKey>, signer: &TrustedKey) -> Result<(), SignatureError> {
    let signer = signer.prover_key();
    match bound == Some(signer) {
        true => Ok(()),
        false => Err(SignatureError::NotBound { signer, bound }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pol_core::digest::tagged;

    const FILES: SignedFiles<'static> = SignedFiles {
        manifest: b"manifest",
        model: b"model",
    };

    #[test]
    fn a_signature_holds_for_its_commitment_files_and_key_alone() {
        let (key, thief) = (
            PrivateKey::generate().unwrap(),
            PrivateKey::generate().unwrap(),
        );
        let (mine, other) = (tagged("mine", &[]), tagged("other", &[]));
        let bound = Some(key.public().prover_key());
        let envelope = sign(mine, bound, FILES, &key).unwrap().to_json();
        let trusted = [key.public(), thief.public()];
        let check = |commitment, bound, files, trusted: &[TrustedKey]| {
            verify(envelope.as_bytes(), commitment, bound, files, trusted)
        };
        assert_eq!(
            check(mine, bound, Some(FILES), &trusted).unwrap(),
            key.public()
        );
        assert!(check(mine, bound, None, &trusted).is_ok());
        assert!(check(mine, bound, None, &[thief.public()]).is_err());
        let error = |result: Result<TrustedKey, SignatureError>| result.unwrap_err().to_string();
        assert!(error(check(other, bound, None, &trusted)).contains("not of"));
        let swapped = SignedFiles {
            model: b"stolen",
            ..FILES
        };
        assert!(error(check(mine, bound, Some(swapped), &trusted)).contains("model.safetensors"));
        assert!(error(check(mine, None, None, &trusted)).contains("without a key"));
        let stolen = Some(thief.public().prover_key());
        assert!(error(check(mine, stolen, None, &trusted)).contains("begun with the key"));
        assert!(sign(mine, bound, FILES, &thief).is_err());
        assert!(sign(mine, None, FILES, &key).is_err());
    }
}
