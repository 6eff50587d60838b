//! A prover's identity, as the protocol sees it: a public key that the seed depends on. Signatures
//! are made and checked elsewhere (`pol-evidence`).

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::digest::{Digest, tagged};

/// The bytes of a compressed point.
const BYTES: usize = 33;

/// An ECDSA P-256 public key: a compressed point as in SEC 1 §2.3.3.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ByteArray<BYTES>", into = "ByteArray<BYTES>")]
pub struct ProverKey([u8; BYTES]);

/// Bytes that are no compressed point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a prover's key is a compressed point of P-256: 33 bytes, the first 2 or 3")]
pub struct NotAKey;

impl ProverKey {
    /// The key with these bytes. Whether they are a point of the curve shows when a signature is
    /// checked.
    ///
    /// # Errors
    /// If the first byte is neither 2 nor 3.
    pub const fn from_bytes(bytes: [u8; BYTES]) -> Result<Self, NotAKey> {
        match bytes[0] {
            2 | 3 => Ok(Self(bytes)),
            _ => Err(NotAKey),
        }
    }

    /// The 33 bytes.
    pub const fn as_bytes(&self) -> &[u8; BYTES] {
        &self.0
    }

    /// The name of this key in signatures and reports: `H("pol.v1.key", bytes)`.
    pub fn id(&self) -> Digest {
        tagged("pol.v1.key", &[&self.0])
    }
}

impl TryFrom<ByteArray<BYTES>> for ProverKey {
    type Error = NotAKey;

    fn try_from(bytes: ByteArray<BYTES>) -> Result<Self, NotAKey> {
        Self::from_bytes(bytes.into_array())
    }
}

impl From<ProverKey> for ByteArray<BYTES> {
    fn from(key: ProverKey) -> Self {
        Self::new(key.0)
    }
}

impl fmt::Display for ProverKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id().fmt(f)
    }
}

impl fmt::Debug for ProverKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProverKey({})", self.id())
    }
}
