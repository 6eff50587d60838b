//! ECDSA P-256 keys in files: private ones in PKCS#8 (RFC 5208), encrypted or not; public ones as
//! SubjectPublicKeyInfo. OpenSSL reads and writes both.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use p256::PublicKey;
use p256::ecdsa::signature::{Signer, Verifier};
use p256::ecdsa::{DerSignature, VerifyingKey};
use pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey, LineEnding};
use pol_core::identity::ProverKey;
use pol_core::records::SaltSecret;

/// The longest key file, in bytes.
const MAX_FILE: u64 = 64 << 10;
const ENCRYPTED: &str = "BEGIN ENCRYPTED PRIVATE KEY";

/// A private key.
#[derive(Clone)]
pub struct PrivateKey(p256::ecdsa::SigningKey);

/// A public key that somebody decided to trust, or asks to be trusted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TrustedKey(VerifyingKey);

/// Why a key could not be read, made or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Larger than any key.
    #[error("{path} is too large for a key")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Others may read a private key.
    #[error("{path} is a private key that others may read: chmod 600 {path}")]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// An encrypted key without its passphrase.
    #[error("{path} is encrypted; its passphrase is needed")]
    NeedsPassphrase {
        /// The file.
        path: PathBuf,
    },
    /// A passphrase that does not fit.
    #[error("{path} cannot be decrypted: the passphrase is wrong, or the file is damaged")]
    WrongPassphrase {
        /// The file.
        path: PathBuf,
    },
    /// Not a key of this kind.
    #[error("{path} is not {expected} in PEM form")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
    },
    /// No randomness to be had.
    #[error("the operating system gives no randomness: {0}")]
    Randomness(getrandom::Error),
    /// The key could not be encoded.
    #[error("the key cannot be encoded")]
    Encode,
}

impl PrivateKey {
    /// A new key from the operating system's randomness.
    ///
    /// # Errors
    /// If there is none.
    pub fn generate() -> Result<Self, KeyError> {
        loop {
            let mut bytes = [0; 32];
            getrandom::fill(&mut bytes).map_err(KeyError::Randomness)?;
            // All but one in 2³² draws are below the group's order.
            if let Ok(key) = p256::ecdsa::SigningKey::from_slice(&bytes) {
                return Ok(Self(key));
            }
        }
    }

    /// Reads a private key. `passphrase` is asked for only if it is encrypted.
    ///
    /// # Errors
    /// If the file is not one, others may read it, or the passphrase is wrong.
    pub fn read(
        path: &Path,
        passphrase: impl FnOnce() -> Option<String>,
    ) -> Result<Self, KeyError> {
        refuse_exposed(path)?;
        let text = read_text(path)?;
        let path = || path.to_owned();
        if !text.contains(ENCRYPTED) {
            let key = p256::ecdsa::SigningKey::from_pkcs8_pem(&text);
            return key.map(Self).map_err(|_| KeyError::Malformed {
                path: path(),
                expected: "an ECDSA P-256 private key (PKCS#8)",
            });
        }
        let passphrase = passphrase().ok_or_else(|| KeyError::NeedsPassphrase { path: path() })?;
        let key = p256::ecdsa::SigningKey::from_pkcs8_encrypted_pem(&text, passphrase);
        key.map(Self)
            .map_err(|_| KeyError::WrongPassphrase { path: path() })
    }

    /// Writes the key to a new file that nobody else may read, encrypted if there is a passphrase
    /// (PBES2 with scrypt and AES-256).
    ///
    /// # Errors
    /// If the file exists, or cannot be written.
    pub fn write(&self, path: &Path, passphrase: Option<&str>) -> Result<(), KeyError> {
        let text = match passphrase {
            None => self.0.to_pkcs8_pem(LineEnding::LF),
            Some(passphrase) => self.0.to_pkcs8_encrypted_pem(passphrase, LineEnding::LF),
        };
        let text = text.map_err(|_| KeyError::Encode)?;
        write_new(path, &text, 0o600)
    }

    /// The public half.
    pub fn public(&self) -> TrustedKey {
        TrustedKey(*self.0.verifying_key())
    }

    /// What this prover's private data is salted with. It follows from the key, so that a training
    /// can be resumed and opened with the key alone.
    pub fn salt_secret(&self) -> SaltSecret {
        SaltSecret::derive(&self.0.to_bytes())
    }

    /// An ECDSA signature with SHA-256 (deterministic, RFC 6979), in DER.
    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature: DerSignature = self.0.sign(message);
        signature.as_bytes().to_vec()
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey(of {})", self.public().prover_key())
    }
}

impl TrustedKey {
    /// Reads a public key.
    ///
    /// # Errors
    /// If the file is not one.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let text = read_text(path)?;
        let key = PublicKey::from_public_key_pem(&text).map_err(|_| KeyError::Malformed {
            path: path.to_owned(),
            expected: "an ECDSA P-256 public key",
        })?;
        Ok(Self(key.into()))
    }

    /// Writes the key to a new file.
    ///
    /// # Errors
    /// If the file exists, or cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), KeyError> {
        let key = PublicKey::from(self.0);
        let text = (key.to_public_key_pem(LineEnding::LF)).map_err(|_| KeyError::Encode)?;
        write_new(path, &text, 0o644)
    }

    /// The key as proofs name it.
    pub fn prover_key(&self) -> ProverKey {
        let point = self.0.to_sec1_point(true);
        let mut bytes = [2; 33];
        bytes.copy_from_slice(point.as_bytes());
        // A compressed point begins with 2 or 3.
        ProverKey::from_bytes(bytes).unwrap_or_else(|_| unreachable!("a compressed point"))
    }

    /// Whether `signature` is this key's of `message`.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let signature = DerSignature::from_bytes(signature);
        signature.is_ok_and(|signature| self.0.verify(message, &signature).is_ok())
    }
}

impl fmt::Debug for TrustedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustedKey({})", self.prover_key())
    }
}

fn read_text(path: &Path) -> Result<String, KeyError> {
    let failed = |source| KeyError::Io {
        path: path.to_owned(),
        source,
    };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > MAX_FILE {
        return Err(KeyError::TooLarge {
            path: path.to_owned(),
        });
    }
    std::fs::read_to_string(path).map_err(failed)
}

#[cfg(unix)]
fn refuse_exposed(path: &Path) -> Result<(), KeyError> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = std::fs::metadata(path).map_err(|source| KeyError::Io {
        path: path.to_owned(),
        source,
    })?;
    match metadata.permissions().mode() & 0o077 {
        0 => Ok(()),
        _ => Err(KeyError::Exposed {
            path: path.to_owned(),
        }),
    }
}

#[cfg(not(unix))]
fn refuse_exposed(_: &Path) -> Result<(), KeyError> {
    Ok(())
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), KeyError> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let written = options.open(path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|source| KeyError::Io {
        path: path.to_owned(),
        source,
    })
}
