//! A verifier's verdict as evidence: what it expected, demanded, drew, replayed and found, signed.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use pol_core::digest::Digest;

use crate::dsse::{Envelope, EnvelopeError};
use crate::key::{PrivateKey, TrustedKey};
use crate::statement::{Statement, Subject, TYPE};

/// What kind of statement it is.
pub const PREDICATE: &str = "urn:proof-of-learning:verdict:v1";
/// How a commitment is named among digests.
const COMMITMENT: &str = "polCommitment";

/// Why a verdict file says nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerdictError {
    /// The envelope says nothing.
    #[error("the verdict: {0}")]
    Envelope(#[from] EnvelopeError),
    /// Another kind of statement.
    #[error("this is not a verdict: {0}")]
    Kind(String),
    /// On another proof.
    #[error("the verdict is on {found}, not on {expected}")]
    OtherCommitment {
        /// Expected.
        expected: Digest,
        /// Found.
        found: String,
    },
}

/// Signs a verdict on a commitment.
pub fn sign(commitment: Digest, verdict: &impl Serialize, key: &PrivateKey) -> Envelope {
    let statement = Statement {
        kind: TYPE.to_owned(),
        subject: vec![Subject::new(
            "commitment",
            COMMITMENT,
            commitment.to_string(),
        )],
        predicate_type: PREDICATE.to_owned(),
        predicate: verdict,
    };
    Envelope::sign(&serde_json::to_vec(&statement).unwrap_or_default(), key)
}

/// The verdict in a file, if a trusted verifier signed it; on `commitment`, if one is expected.
///
/// # Errors
/// [`VerdictError`].
pub fn verify<V: DeserializeOwned>(
    envelope: &[u8],
    commitment: Option<Digest>,
    trusted: &[TrustedKey],
) -> Result<(V, TrustedKey), VerdictError> {
    let signed = Envelope::parse(envelope)?.verify(trusted)?;
    #[derive(Deserialize)]
    struct Any<V>(Statement<V>);
    let Any(statement) = serde_json::from_slice::<Any<V>>(&signed.payload)
        .map_err(|error| VerdictError::Kind(error.to_string()))?;
    if statement.kind != TYPE || statement.predicate_type != PREDICATE {
        return Err(VerdictError::Kind("its type is another".to_owned()));
    }
    if let Some(expected) = commitment {
        let named = statement
            .subject
            .iter()
            .find_map(|s| s.digest.get(COMMITMENT));
        if named != Some(&expected.to_string()) {
            let found = named.cloned().unwrap_or_else(|| "nothing".to_owned());
            return Err(VerdictError::OtherCommitment { expected, found });
        }
    }
    Ok((statement.predicate, signed.key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pol_core::digest::tagged;
    use serde_json::{Value, json};

    #[test]
    fn an_altered_verdict_is_none() {
        let key = PrivateKey::generate().unwrap();
        let commitment = tagged("proof", &[]);
        let text = sign(commitment, &json!({"verdict": "rejected"}), &key).to_json();
        let read =
            |text: &str, commitment| verify::<Value>(text.as_bytes(), commitment, &[key.public()]);
        let (verdict, signer) = read(&text, Some(commitment)).unwrap();
        assert_eq!(
            (verdict["verdict"].as_str(), signer),
            (Some("rejected"), key.public())
        );
        assert!(read(&text, Some(tagged("another", &[]))).is_err());

        use base64::Engine;
        let engine = base64::engine::general_purpose::STANDARD;
        let mut envelope: Value = serde_json::from_str(&text).unwrap();
        let payload = engine
            .decode(envelope["payload"].as_str().unwrap())
            .unwrap();
        let altered = String::from_utf8(payload)
            .unwrap()
            .replace("rejected", "accepted");
        envelope["payload"] = json!(engine.encode(altered));
        let error = read(&envelope.to_string(), None).unwrap_err().to_string();
        assert!(error.contains("does not hold"), "{error}");
    }
}
