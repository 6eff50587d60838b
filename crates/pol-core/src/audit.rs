//! Commit, challenge, open (SPEC.md §15): an audit between parties that share nothing but files.
//!
//! 1. The prover publishes a [`PublicCommitment`], a few kilobytes.
//! 2. The verifier, who holds it, draws a [`Challenge`] from randomness of its own.
//! 3. The prover answers with an [`Opening`] ([`open`]): the states and records of the drawn segments
//!    and of no others, each with its proof of inclusion.
//! 4. The verifier checks and replays it:
//!    [`Verifier::verify_opening`](crate::verify::Verifier::verify_opening).

mod challenge;
mod commitment;
mod opening;
mod prover;

pub use challenge::{Challenge, Draw, MAX_CHALLENGE_BYTES, MAX_DRAWN, Randomness};
pub use commitment::{Attestation, MAX_COMMITMENT_BYTES, PublicCommitment};
pub use opening::{MAX_OPENING_BYTES, OpenedRecord, Opening};
pub use prover::{OpenError, open};

pub(crate) use opening::{Disclosed, OpenedRecords};
