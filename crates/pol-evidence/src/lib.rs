//! Who made a proof, and when (SPEC.md §17): what may be added to a proof without changing it.
//!
//! - [`key`]: ECDSA P-256 keys in PKCS#8 files.
//! - [`dsse`]: signed envelopes around in-toto statements.
//! - [`training`]: a prover's signature of its commitment.
//! - [`verdict`]: a verifier's signature of its verdict.
//! - [`timestamp`]: RFC 3161 tokens, checked offline against given roots.
//!
//! `pol-core` knows none of this: it takes what was found as
//! [`Evidence`](pol_core::verify::Evidence).

pub mod dsse;
pub mod key;
pub mod statement;
pub mod timestamp;
pub mod training;
pub mod verdict;
