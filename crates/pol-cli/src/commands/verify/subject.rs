//! What is to be judged: the prover's folder, or an opening with the files around it.

use std::fmt::Display;
use std::path::Path;

use pol_core::audit::{
    Challenge, MAX_CHALLENGE_BYTES, MAX_OPENING_BYTES, Opening as Disclosure, PublicCommitment,
};
use pol_core::manifest::{Claim, Manifest};
use pol_core::store::Store;
use pol_core::verify::{Integrity, Reason, Report, Resources, check_integrity, read_claim};

use crate::args::{CommitmentArg, VerifyArgs};
use crate::commands::{existing_store, public_commitment, read_file};
use crate::error::{CliError, printable};

/// What is to be judged.
pub(super) enum Subject {
    Folder {
        store: Box<dyn Store>,
        manifest: Result<Box<Manifest>, Reason>,
    },
    Opening(Box<OpenedSubject>),
}

pub(super) struct OpenedSubject {
    pub(super) public: PublicCommitment,
    pub(super) challenge: Challenge,
    pub(super) opening: Disclosure,
}

impl Subject {
    pub(super) fn of_folder(run: &Path) -> Result<Self, CliError> {
        let store = existing_store(run)?;
        let manifest = read_claim(store.as_ref())?.map(Box::new);
        Ok(Self::Folder { store, manifest })
    }

    pub(super) fn of_opening(args: &VerifyArgs) -> Result<Self, CliError> {
        let (Some(opening), Some(challenge), Some(CommitmentArg::File(public))) =
            (&args.opening, &args.challenge, &args.commitment)
        else {
            return Err(CliError::Usage(
                "--opening needs --challenge and --commitment with the files of the exchange"
                    .to_owned(),
            ));
        };
        let malformed = |file: &Path, error: &dyn Display| {
            CliError::Malformed(format!("{}: {error}", file.display()))
        };
        let public = public_commitment(public)?;
        let bytes = read_file(challenge, MAX_CHALLENGE_BYTES)?;
        let challenge = Challenge::decode(&bytes).map_err(|error| malformed(challenge, &error))?;
        let bytes = read_file(opening, MAX_OPENING_BYTES)?;
        let opening = Disclosure::decode(&bytes).map_err(|error| malformed(opening, &error))?;
        Ok(Self::Opening(Box::new(OpenedSubject {
            public,
            challenge,
            opening,
        })))
    }

    pub(super) fn claim(&self) -> Option<&Claim> {
        match self {
            Self::Folder { manifest, .. } => manifest.as_ref().ok().map(|found| &found.claim),
            Self::Opening(opened) => Some(&opened.public.claim),
        }
    }
}

/// A proof of a recipe that this program lacks: its integrity can still be broken.
pub(super) fn not_replayable(subject: &Subject, error: &dyn Display) -> Result<Report, CliError> {
    let why = format!(
        "this program cannot replay the recipe: {}",
        printable(error)
    );
    let Subject::Folder { store, .. } = subject else {
        let commitment = subject.claim().map(Claim::commitment);
        return Ok(Report::inconclusive(commitment, why));
    };
    Ok(
        match check_integrity(store.as_ref(), Resources::default(), &mut |_| {})? {
            Integrity::Broken { commitment, reason } => Report::rejected(commitment, vec![reason]),
            Integrity::Holds(checked) => Report::inconclusive(Some(checked.commitment()), why),
        },
    )
}
