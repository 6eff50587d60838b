//! What a prover publishes.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::codec::{self, CodecError};
use crate::digest::Digest;
use crate::manifest::{Claim, TermsError};

const FORMAT: &str = "pol-commitment/v1";
/// The longest file, in bytes.
pub const MAX_COMMITMENT_BYTES: u64 = 8 << 20;

/// A claim with signatures and timestamps of it: all that a verifier needs to draw a challenge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicCommitment {
    format: String,
    /// What is committed to.
    pub claim: Claim,
    /// Signatures and timestamps, which are checked elsewhere (`pol-evidence`).
    pub attestations: Vec<Attestation>,
}

/// A signature or a timestamp, as a file of the folder `attestations/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attestation {
    /// The file's name. It says what kind of file this is, and is never used as a path.
    pub name: String,
    /// Its content.
    pub content: ByteBuf,
}

/// Why a file is not a commitment.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitmentError {
    /// Not canonical MessagePack of one.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Another kind of file, or another version.
    #[error("its format is not `{FORMAT}`")]
    Format,
    /// Terms that describe no training.
    #[error(transparent)]
    Terms(#[from] TermsError),
    /// A number of checkpoints that the terms do not have.
    #[error("it counts {found} checkpoints where its terms have {expected}")]
    Checkpoints {
        /// By the terms.
        expected: u64,
        /// As claimed.
        found: u64,
    },
}

impl PublicCommitment {
    /// Publishes a claim.
    pub fn new(claim: Claim, attestations: Vec<Attestation>) -> Self {
        Self {
            format: FORMAT.to_owned(),
            claim,
            attestations,
        }
    }

    /// The commitment itself.
    pub fn digest(&self) -> Digest {
        self.claim.commitment()
    }

    /// The file.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads the file.
    ///
    /// # Errors
    /// If it is not the canonical form of a claim that is consistent in itself.
    pub fn decode(bytes: &[u8]) -> Result<Self, CommitmentError> {
        let public: Self = codec::decode("the commitment", bytes, MAX_COMMITMENT_BYTES)?;
        if public.format != FORMAT {
            return Err(CommitmentError::Format);
        }
        public.claim.terms.check()?;
        let expected = public.claim.terms.segments() + 1;
        let found = public.claim.checkpoints;
        if expected != found {
            return Err(CommitmentError::Checkpoints { expected, found });
        }
        Ok(public)
    }
}
