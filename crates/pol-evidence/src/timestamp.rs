//! Time-stamp tokens (RFC 3161): an authority's word that a digest existed at some time. Tokens are
//! checked offline, against roots that the verifier gives.

use cms::cert::CertificateChoices;
use cms::content_info::ContentInfo;
use cms::signed_data::{SignedData, SignerIdentifier, SignerInfo};
use der::asn1::{Int, OctetString};
use der::oid::ObjectIdentifier;
use der::{Any, Decode, Encode};
use pol_core::digest::Digest;
use ring::digest as hash;
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use sha2::{Digest as _, Sha256};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_tsp::{MessageImprint, TimeStampReq, TimeStampResp, TspVersion, TstInfo};

/// The longest token, in bytes.
pub const MAX_TOKEN: u64 = 256 << 10;

const SHA_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
const SHA_256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SHA_384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const SHA_512: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const RSA_SHA_256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const RSA_SHA_384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12");
const RSA_SHA_512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13");
const ECDSA_SHA_256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_SHA_384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const TST_INFO: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.1.4");
const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
const SIGNING_CERTIFICATE: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.12");
const SIGNING_CERTIFICATE_V2: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.47");
/// id-kp-timeStamping, 1.3.6.1.5.5.7.3.8, without tag and length.
const TIME_STAMPING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 8];

/// An authority's certificates that the verifier trusts, in DER.
#[derive(Debug, Clone, Default)]
pub struct Roots(Vec<CertificateDer<'static>>);

/// A token that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timestamp {
    /// When the authority saw the digest, in seconds since 1970.
    pub seconds: u64,
    /// The serial number, in hexadecimal digits.
    pub serial: String,
}

/// Why a token shows nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TimestampError {
    /// Not a response or a token.
    #[error("it is not a time-stamp response (RFC 3161): {0}")]
    Malformed(String),
    /// The authority refused.
    #[error("the authority refused to give a token (status {0})")]
    Refused(u32),
    /// Of another digest.
    #[error("it is a timestamp of another digest")]
    OtherDigest,
    /// Of another request.
    #[error("it answers another request")]
    OtherNonce,
    /// An algorithm that is not supported, or not good enough.
    #[error("it uses the algorithm {0}, which is not accepted")]
    Algorithm(String),
    /// The signature does not hold.
    #[error("its signature does not hold")]
    Signature,
    /// It lacks the certificate of its signer.
    #[error("it lacks its signer's certificate; ask the authority for it")]
    NoCertificate,
    /// No trusted authority, or one whose certificate was not valid then.
    #[error("its authority is not trusted: {0}")]
    Authority(String),
}

impl Roots {
    /// Reads certificates in PEM form; several may follow each other.
    ///
    /// # Errors
    /// If there is none, or one is damaged.
    pub fn parse(pem: &str) -> Result<Self, TimestampError> {
        use rustls_pki_types::pem::PemObject;
        let certificates = CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| TimestampError::Authority(format!("{error:?}")))?;
        match certificates.is_empty() {
            true => Err(TimestampError::Authority(
                "no certificate is given".to_owned(),
            )),
            false => Ok(Self(certificates)),
        }
    }

    /// Adds others.
    pub fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn anchors(&self) -> Result<Vec<TrustAnchor<'_>>, TimestampError> {
        let anchors = self.0.iter().map(anchor_from_trusted_cert);
        (anchors.collect::<Result<_, _>>())
            .map_err(|error| TimestampError::Authority(error.to_string()))
    }
}

/// The request for a timestamp of a commitment or a journal's head: of the SHA-256 of its 32 bytes.
pub fn request(digest: &Digest, nonce: u64) -> Vec<u8> {
    // Positive, and of at most eight bytes.
    let nonce = (nonce >> 1).to_be_bytes();
    let start = nonce.iter().position(|byte| *byte != 0).unwrap_or(7);
    let nonce = match nonce[start] {
        0..=0x7f => nonce[start..].to_vec(),
        _ => [&[0], &nonce[start..]].concat(),
    };
    let request = TimeStampReq {
        version: TspVersion::V1,
        message_imprint: MessageImprint {
            hash_algorithm: cms::cert::x509::spki::AlgorithmIdentifier {
                oid: SHA_256,
                parameters: Some(Any::null()),
            },
            hashed_message: OctetString::new(imprint(digest))
                .unwrap_or_else(|_| unreachable!("32 bytes")),
        },
        req_policy: None,
        nonce: Int::new(&nonce).ok(),
        cert_req: true,
        extensions: None,
    };
    request.to_der().unwrap_or_default()
}

fn imprint(digest: &Digest) -> [u8; 32] {
    Sha256::digest(digest.as_bytes()).into()
}

/// Checks that `response` answers `request`: what an authority's client does before keeping it.
///
/// # Errors
/// If the authority refused, or answered something else.
pub fn check_answer(request: &[u8], response: &[u8]) -> Result<(), TimestampError> {
    let request = TimeStampReq::from_der(request).map_err(malformed)?;
    let (token, ..) = open(response)?;
    if token.message_imprint.hashed_message != request.message_imprint.hashed_message {
        return Err(TimestampError::OtherDigest);
    }
    match token.nonce == request.nonce {
        true => Ok(()),
        false => Err(TimestampError::OtherNonce),
    }
}

/// Checks that `response` has a token of `digest`: what can be checked of an answer whose request is
/// not at hand.
///
/// # Errors
/// If the authority refused, or stamped something else.
pub fn check_digest(response: &[u8], digest: &Digest) -> Result<(), TimestampError> {
    let (token, ..) = open(response)?;
    match token.message_imprint.hashed_message.as_bytes() == imprint(digest) {
        true => Ok(()),
        false => Err(TimestampError::OtherDigest),
    }
}

/// Checks that an authority under `roots` timestamped `digest`, and that its certificate was valid
/// at that time and is for timestamping.
///
/// # Errors
/// [`TimestampError`].
pub fn verify(
    response: &[u8],
    digest: &Digest,
    roots: &Roots,
) -> Result<Timestamp, TimestampError> {
    let (info, content, data) = open(response)?;
    let MessageImprint {
        hash_algorithm,
        hashed_message,
    } = &info.message_imprint;
    if hash_algorithm.oid != SHA_256 {
        return Err(TimestampError::Algorithm(hash_algorithm.oid.to_string()));
    }
    if hashed_message.as_bytes() != imprint(digest) {
        return Err(TimestampError::OtherDigest);
    }
    let [signer] = data.signer_infos.0.as_slice() else {
        return Err(TimestampError::Malformed(
            "it has not one signer".to_owned(),
        ));
    };
    let certificates = certificates(&data)?;
    let certificate = signer_certificate(&data, signer)?;
    check_attributes(signer, &content, &certificate)?;

    let seconds = info.gen_time.to_unix_duration().as_secs();
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    let der = CertificateDer::from(certificate);
    let authority = |error: webpki::Error| TimestampError::Authority(error.to_string());
    let end_entity = EndEntityCert::try_from(&der).map_err(authority)?;
    let usage = KeyUsage::required(TIME_STAMPING);
    let anchors = roots.anchors()?;
    end_entity
        .verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            &certificates,
            time,
            usage,
            None,
            None,
        )
        .map_err(authority)?;

    // What is signed is the attributes as a set, not as the tagged field.
    let attributes = signer
        .signed_attrs
        .as_ref()
        .ok_or(TimestampError::Signature)?;
    let message = attributes.to_der().map_err(malformed)?;
    let signature = signer.signature.as_bytes();
    let held = algorithms(signer)?.iter().any(|algorithm| {
        end_entity
            .verify_signature(*algorithm, &message, signature)
            .is_ok()
    });
    if !held {
        return Err(TimestampError::Signature);
    }
    let serial = info.serial_number.as_bytes();
    Ok(Timestamp {
        seconds,
        serial: serial.iter().map(|byte| format!("{byte:02x}")).collect(),
    })
}

/// The token in a response: what it says, the bytes of that, and the signed data around it.
fn open(response: &[u8]) -> Result<(TstInfo, Vec<u8>, SignedData), TimestampError> {
    if response.len() as u64 > MAX_TOKEN {
        return Err(TimestampError::Malformed("it is too large".to_owned()));
    }
    let response = TimeStampResp::from_der(response).map_err(malformed)?;
    let status = response.status.status as u32;
    if status > 1 {
        return Err(TimestampError::Refused(status));
    }
    let token: ContentInfo = (response.time_stamp_token)
        .ok_or_else(|| TimestampError::Malformed("it has no token".to_owned()))?;
    if token.content_type != SIGNED_DATA {
        return Err(TimestampError::Malformed(
            "its token is not signed data".to_owned(),
        ));
    }
    let data: SignedData = token.content.decode_as().map_err(malformed)?;
    if data.encap_content_info.econtent_type != TST_INFO {
        return Err(TimestampError::Malformed(
            "its token is of another type".to_owned(),
        ));
    }
    let content = (data.encap_content_info.econtent.as_ref())
        .ok_or_else(|| TimestampError::Malformed("its token is empty".to_owned()))?;
    let content: OctetString = content.decode_as().map_err(malformed)?;
    let info = TstInfo::from_der(content.as_bytes()).map_err(malformed)?;
    Ok((info, content.into_bytes(), data))
}

fn malformed(error: der::Error) -> TimestampError {
    TimestampError::Malformed(error.to_string())
}

fn certificates(data: &SignedData) -> Result<Vec<CertificateDer<'static>>, TimestampError> {
    let all = data.certificates.iter().flat_map(|set| set.0.iter());
    all.filter_map(|choice| match choice {
        CertificateChoices::Certificate(certificate) => Some(certificate),
        CertificateChoices::Other(_) => None,
    })
    .map(|certificate| {
        Ok(CertificateDer::from(
            certificate.to_der().map_err(malformed)?,
        ))
    })
    .collect()
}

/// The certificate that the signer names, in DER.
fn signer_certificate(data: &SignedData, signer: &SignerInfo) -> Result<Vec<u8>, TimestampError> {
    let SignerIdentifier::IssuerAndSerialNumber(named) = &signer.sid else {
        return Err(TimestampError::NoCertificate);
    };
    let all = data.certificates.iter().flat_map(|set| set.0.iter());
    for choice in all {
        if let CertificateChoices::Certificate(certificate) = choice {
            let body = &certificate.tbs_certificate;
            if body.issuer == named.issuer && body.serial_number == named.serial_number {
                return certificate.to_der().map_err(malformed);
            }
        }
    }
    Err(TimestampError::NoCertificate)
}

/// The signed attributes are of this content, and of this certificate (RFC 3161 §2.4.2, RFC 5816).
fn check_attributes(
    signer: &SignerInfo,
    content: &[u8],
    certificate: &[u8],
) -> Result<(), TimestampError> {
    let value = |oid: ObjectIdentifier| {
        let attributes = signer.signed_attrs.as_ref()?;
        let attribute = attributes.iter().find(|attribute| attribute.oid == oid)?;
        match attribute.values.as_slice() {
            [value] => Some(value),
            _ => None,
        }
    };
    let kind = value(CONTENT_TYPE).and_then(|kind| kind.decode_as::<ObjectIdentifier>().ok());
    if kind != Some(TST_INFO) {
        return Err(TimestampError::Signature);
    }
    let digest = value(MESSAGE_DIGEST).and_then(|digest| digest.decode_as::<OctetString>().ok());
    let expected = hash::digest(hash_of(signer.digest_alg.oid)?, content);
    if digest.is_none_or(|digest| digest.as_bytes() != expected.as_ref()) {
        return Err(TimestampError::Signature);
    }
    // ESSCertIDv2 begins with the hash's name, unless that is SHA-256; ESSCertID is SHA-1.
    let named = match (value(SIGNING_CERTIFICATE_V2), value(SIGNING_CERTIFICATE)) {
        (Some(v2), _) => {
            let (oid, digest) = first_certificate(v2).ok_or(TimestampError::Signature)?;
            let algorithm = hash_of(oid.unwrap_or(SHA_256))?;
            hash::digest(algorithm, certificate).as_ref() == digest
        }
        (None, Some(v1)) => {
            let (_, digest) = first_certificate(v1).ok_or(TimestampError::Signature)?;
            let algorithm = &hash::SHA1_FOR_LEGACY_USE_ONLY;
            hash::digest(algorithm, certificate).as_ref() == digest
        }
        (None, None) => false,
    };
    match named {
        true => Ok(()),
        false => Err(TimestampError::Signature),
    }
}

/// `SigningCertificate(V2)`: the first of its certificates, as the hash's name and the hash.
fn first_certificate(value: &Any) -> Option<(Option<ObjectIdentifier>, Vec<u8>)> {
    let outer: Vec<Any> = value.decode_as().ok()?;
    let certificates: Vec<Any> = outer.first()?.decode_as().ok()?;
    let first: Vec<Any> = certificates.first()?.decode_as().ok()?;
    if let Ok(digest) = first.first()?.decode_as::<OctetString>() {
        return Some((None, digest.into_bytes()));
    }
    let algorithm: Vec<Any> = first.first()?.decode_as().ok()?;
    let oid = algorithm.first()?.decode_as::<ObjectIdentifier>().ok()?;
    let digest = first.get(1)?.decode_as::<OctetString>().ok()?;
    Some((Some(oid), digest.into_bytes()))
}

fn hash_of(oid: ObjectIdentifier) -> Result<&'static hash::Algorithm, TimestampError> {
    match oid {
        SHA_256 => Ok(&hash::SHA256),
        SHA_384 => Ok(&hash::SHA384),
        SHA_512 => Ok(&hash::SHA512),
        SHA_1 => Err(TimestampError::Algorithm("SHA-1".to_owned())),
        other => Err(TimestampError::Algorithm(other.to_string())),
    }
}

/// The algorithms that the signer may have used; which curve shows with its key.
fn algorithms(
    signer: &SignerInfo,
) -> Result<&'static [&'static dyn SignatureVerificationAlgorithm], TimestampError> {
    use webpki::ring::*;
    static RSA_256: [&dyn SignatureVerificationAlgorithm; 1] = [RSA_PKCS1_2048_8192_SHA256];
    static RSA_384: [&dyn SignatureVerificationAlgorithm; 1] = [RSA_PKCS1_2048_8192_SHA384];
    static RSA_512: [&dyn SignatureVerificationAlgorithm; 1] = [RSA_PKCS1_2048_8192_SHA512];
    static ECDSA_256: [&dyn SignatureVerificationAlgorithm; 2] =
        [ECDSA_P256_SHA256, ECDSA_P384_SHA256];
    static ECDSA_384: [&dyn SignatureVerificationAlgorithm; 2] =
        [ECDSA_P256_SHA384, ECDSA_P384_SHA384];
    match (signer.signature_algorithm.oid, signer.digest_alg.oid) {
        (RSA | RSA_SHA_256, SHA_256) => Ok(&RSA_256),
        (RSA | RSA_SHA_384, SHA_384) => Ok(&RSA_384),
        (RSA | RSA_SHA_512, SHA_512) => Ok(&RSA_512),
        (ECDSA_SHA_256, SHA_256) => Ok(&ECDSA_256),
        (ECDSA_SHA_384, SHA_384) => Ok(&ECDSA_384),
        (other, _) => Err(TimestampError::Algorithm(other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pol_core::digest::tagged;

    #[test]
    fn requests_have_nonces_that_are_positive_and_short() {
        let digest = tagged("x", &[]);
        for nonce in [0, 1, 2, 0xff, 0x100, 0x1ff, u64::MAX >> 1, u64::MAX] {
            let read = TimeStampReq::from_der(&request(&digest, nonce)).unwrap();
            let value = read.nonce.unwrap();
            assert!(value.as_bytes()[0] < 0x80, "{nonce}");
            assert_eq!(
                read.message_imprint.hashed_message.as_bytes(),
                imprint(&digest)
            );
            assert!(read.cert_req);
        }
    }

    /// Whatever comes from a proof's folder: an error, never a panic.
    #[test]
    fn nonsense_is_no_token() {
        let digest = tagged("x", &[]);
        let roots = Roots::default();
        let mut state = 1u64;
        let mut random = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        };
        for length in 0..600 {
            let noise: Vec<u8> = (0..length).map(|_| random()).collect();
            assert!(verify(&noise, &digest, &roots).is_err());
            // The beginning of a response, then noise.
            let begun = [
                &[0x30, 0x82, 0x02, 0x00, 0x30, 0x03, 0x02, 0x01, 0x00, 0x30],
                &noise[..],
            ];
            assert!(verify(&begun.concat(), &digest, &roots).is_err());
        }
        assert!(check_digest(&request(&digest, 7), &digest).is_err());
        assert!(Roots::parse("no certificate").is_err());
    }
}
