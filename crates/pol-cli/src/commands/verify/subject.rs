//! What is to be judged: the prover's folder, or an opening with the files around it.

use std::cell::Cell;
use std::fmt::Display;
use std::path::Path;

use pol_core::audit::{
    Challenge, MAX_CHALLENGE_BYTES, MAX_OPENING_BYTES, Opening as Disclosure, PublicCommitment,
};
use pol_core::manifest::Claim;
use pol_core::store::{Store, open_regular};
use pol_core::verify::{Integrity, Proof, Reason, Report, Resources};

use crate::args::{CommitmentArg, VerifyArgs};
use crate::commands::{public_commitment, read_file};
use crate::error::{CliError, at, printable};

/// What is to be judged.
pub(super) enum Subject<'s> {
    /// The proof itself, read once.
    Folder(Box<Proof<'s>>),
    Opening(Box<OpenedSubject>),
    /// What cannot be read, or costs too much, and why.
    Unread(Reason),
}

pub(super) struct OpenedSubject {
    pub(super) public: PublicCommitment,
    pub(super) challenge: Challenge,
    /// Taken out when it is judged: it is not held twice.
    pub(super) opening: Cell<Option<Disclosure>>,
}

impl<'s> Subject<'s> {
    pub(super) fn of_folder(store: &'s dyn Store, resources: Resources) -> Result<Self, CliError> {
        Ok(match Proof::read(store, resources)? {
            Ok(proof) => Self::Folder(Box::new(proof)),
            Err(reason) => Self::Unread(reason),
        })
    }

    pub(super) fn of_opening(args: &VerifyArgs, resources: Resources) -> Result<Self, CliError> {
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
        let (_, len) = open_regular(opening).map_err(at(opening))?;
        // The file, and what it is decoded to.
        let admitted = resources.admit("the opening", len.saturating_mul(2));
        if let Err(reason) = admitted
            && len <= MAX_OPENING_BYTES
        {
            return Ok(Self::Unread(reason));
        }
        let bytes = read_file(opening, MAX_OPENING_BYTES)?;
        let opening = Disclosure::decode(&bytes).map_err(|error| malformed(opening, &error))?;
        Ok(Self::Opening(Box::new(OpenedSubject {
            public,
            challenge,
            opening: Cell::new(Some(opening)),
        })))
    }

    pub(super) fn claim(&self) -> Option<&Claim> {
        match self {
            Self::Folder(proof) => Some(proof.claim()),
            Self::Opening(opened) => Some(&opened.public.claim),
            Self::Unread(_) => None,
        }
    }
}

/// A proof of a recipe that this program lacks: its integrity can still be broken.
pub(super) fn not_replayable(
    subject: &Subject<'_>,
    error: &dyn Display,
) -> Result<Report, CliError> {
    let why = format!(
        "this program cannot replay the recipe: {}",
        printable(error)
    );
    let Subject::Folder(proof) = subject else {
        let commitment = subject.claim().map(Claim::commitment);
        return Ok(Report::inconclusive(commitment, why));
    };
    Ok(match proof.check(&mut |_| {})? {
        Integrity::Broken { commitment, reason } => Report::stopped(commitment, vec![reason]),
        Integrity::Holds(checked) => Report::inconclusive(Some(checked.commitment()), why),
    })
}
