//! Dead Simple Signing Envelopes (DSSE v1, <https://github.com/secure-systems-lab/dsse>).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::key::{PrivateKey, TrustedKey};

/// The payload type of in-toto statements.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";
/// The longest envelope, in bytes.
pub const MAX_ENVELOPE: usize = 64 << 20;

/// A payload with its signatures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Envelope {
    payload_type: String,
    payload: String,
    signatures: Vec<Signature>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    keyid: String,
    sig: String,
}

/// A payload that a trusted key signed. It can be made in no other way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The payload.
    pub payload: Vec<u8>,
    /// Who signed it.
    pub key: TrustedKey,
}

/// Why an envelope says nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// Not an envelope.
    #[error("it is not a DSSE envelope: {0}")]
    Malformed(String),
    /// Another payload.
    #[error("its payload is not an in-toto statement")]
    PayloadType,
    /// No trusted key signed it.
    #[error("it is not signed by a trusted key (it names {named})")]
    NotTrusted {
        /// The keys that it names.
        named: String,
    },
    /// A trusted key is named, and did not sign this.
    #[error("the signature by the key {key} does not hold")]
    Forged {
        /// The key.
        key: String,
    },
}

impl Envelope {
    /// Signs an in-toto statement.
    pub fn sign(payload: &[u8], key: &PrivateKey) -> Self {
        Self {
            payload_type: IN_TOTO.to_owned(),
            payload: STANDARD.encode(payload),
            signatures: vec![Signature {
                keyid: key.public().prover_key().to_string(),
                sig: STANDARD.encode(key.sign(&encoded(IN_TOTO, payload))),
            }],
        }
    }

    /// Reads an envelope.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(text: &[u8]) -> Result<Self, EnvelopeError> {
        if text.len() > MAX_ENVELOPE {
            return Err(EnvelopeError::Malformed("it is too large".to_owned()));
        }
        serde_json::from_slice(text).map_err(|error| EnvelopeError::Malformed(error.to_string()))
    }

    /// The file.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// The payload, if one of the trusted keys signed it.
    ///
    /// # Errors
    /// If none did.
    pub fn verify(&self, trusted: &[TrustedKey]) -> Result<Signed, EnvelopeError> {
        if self.payload_type != IN_TOTO {
            return Err(EnvelopeError::PayloadType);
        }
        let payload = (STANDARD.decode(&self.payload))
            .map_err(|error| EnvelopeError::Malformed(error.to_string()))?;
        let message = encoded(&self.payload_type, &payload);
        for signature in &self.signatures {
            let named = |key: &&TrustedKey| key.prover_key().to_string() == signature.keyid;
            let Some(key) = trusted.iter().find(named) else {
                continue;
            };
            let bytes = STANDARD.decode(&signature.sig).unwrap_or_default();
            return match key.verifies(&message, &bytes) {
                true => Ok(Signed { payload, key: *key }),
                false => Err(EnvelopeError::Forged {
                    key: signature.keyid.clone(),
                }),
            };
        }
        let named: Vec<String> = (self.signatures.iter())
            .map(|signature| signature.keyid.chars().take(64).collect())
            .collect();
        Err(EnvelopeError::NotTrusted {
            named: match named.is_empty() {
                true => "none".to_owned(),
                false => named.join(", "),
            },
        })
    }
}

/// PAE of DSSE: what is signed.
fn encoded(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    );
    [head.as_bytes(), payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of DSSE's protocol.md.
    #[test]
    fn the_encoding_is_that_of_the_specification() {
        let found = encoded("http://example.com/HelloWorld", b"hello world");
        assert_eq!(
            found,
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }

    #[test]
    fn only_what_a_trusted_key_signed_is_read() {
        let (key, other) = (
            PrivateKey::generate().unwrap(),
            PrivateKey::generate().unwrap(),
        );
        let envelope = Envelope::sign(b"{}", &key);
        let read = Envelope::parse(envelope.to_json().as_bytes()).unwrap();
        assert_eq!(
            read.verify(&[other.public(), key.public()])
                .unwrap()
                .payload,
            b"{}"
        );
        assert!(matches!(
            read.verify(&[other.public()]),
            Err(EnvelopeError::NotTrusted { .. })
        ));
        assert!(matches!(
            read.verify(&[]),
            Err(EnvelopeError::NotTrusted { .. })
        ));

        let mut altered = read.clone();
        altered.payload = STANDARD.encode(b"{ }");
        assert!(matches!(
            altered.verify(&[key.public()]),
            Err(EnvelopeError::Forged { .. })
        ));
        let mut renamed = read.clone();
        renamed.signatures[0].keyid = other.public().prover_key().to_string();
        assert!(matches!(
            renamed.verify(&[other.public()]),
            Err(EnvelopeError::Forged { .. })
        ));
        let mut retyped = read;
        retyped.payload_type = "text/plain".to_owned();
        assert!(matches!(
            retyped.verify(&[key.public()]),
            Err(EnvelopeError::PayloadType)
        ));
        assert!(Envelope::parse(b"{}").is_err());
    }
}
