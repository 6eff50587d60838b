//! in-toto statements (<https://github.com/in-toto/attestation>, v1).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The type of every statement.
pub const TYPE: &str = "https://in-toto.io/Statement/v1";

/// Something said about files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Statement<P> {
    /// [`TYPE`].
    #[serde(rename = "_type")]
    pub kind: String,
    /// The files.
    pub subject: Vec<Subject>,
    /// What kind of thing is said.
    #[serde(rename = "predicateType")]
    pub predicate_type: String,
    /// What is said.
    pub predicate: P,
}

/// A file, or something else with a digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// For people.
    pub name: String,
    /// Hexadecimal digests by algorithm.
    pub digest: BTreeMap<String, String>,
}

impl Subject {
    /// A file with this content, by its SHA-256.
    pub fn file(name: &str, content: &[u8]) -> Self {
        Self::new(name, "sha256", sha256(content))
    }

    /// Anything, by a digest.
    pub fn new(name: &str, algorithm: &str, digest: String) -> Self {
        Self {
            name: name.to_owned(),
            digest: BTreeMap::from([(algorithm.to_owned(), digest)]),
        }
    }
}

/// SHA-256 in hexadecimal digits.
pub fn sha256(content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
