//! The proofs that a fine-tuning goes back to, each verified like the first.

use std::path::PathBuf;

use pol_core::manifest::Start;
use pol_core::records::Records;
use pol_core::verify::{Evidence, Reason, Report, Verdict, VerifiedPrior, read_claim};
use pol_models::dataset::default_folder;
use pol_models::dataset_of;

use crate::args::MachineArgs;
use crate::commands::existing_store;
use crate::error::CliError;

use super::audit::{Audit, Machine};

/// A prior proof that was verified.
pub(super) struct Link {
    pub(super) prior: VerifiedPrior,
}

/// What became of a chain.
pub(super) enum Chain {
    /// Every proof was accepted, the latest first.
    Holds(Vec<Link>),
    /// One was not.
    Broken(Box<Report>),
}

/// Verifies the proofs in these folders, the latest first, by the policy of `audit`. What comes with
/// them is not asked for: the last proof binds their commitments.
pub(super) fn verify(
    folders: &[PathBuf],
    audit: &Audit<'_>,
    args: &MachineArgs,
    machine: &Machine<'_>,
) -> Result<Chain, CliError> {
    let mut links: Vec<Link> = Vec::new();
    // The earliest first: each starts from the one before.
    for folder in folders.iter().rev() {
        let store = existing_store(folder)?;
        let broken = |problem: String| {
            let place = format!("{}: {problem}", folder.display());
            Chain::Broken(Box::new(Report::rejected(None, vec![Reason::Prior(place)])))
        };
        let manifest = match read_claim(store.as_ref())? {
            Ok(manifest) => manifest,
            Err(reason) => return Ok(broken(reason.to_string())),
        };
        let terms = &manifest.claim.terms;
        let data = args.data_dir.clone().unwrap_or_else(default_folder);
        let loaded = dataset_of(&terms.recipe)?.load(&data)?;
        let mut policy = audit.policy_of_priors.clone();
        policy.evidence = Default::default();
        let of_prior = Audit {
            policy,
            evidence: Evidence::default(),
            secret: audit.secret,
            randomness: audit.randomness,
            prior: match terms.start {
                Start::Prior { .. } => links.first().map(|link| &link.prior),
                _ => None,
            },
            jobs: audit.jobs,
            resources: audit.resources,
            ..Audit::bits()
        };
        let records: &dyn Records = &loaded.train;
        let verified = of_prior.folder(&terms.recipe, records, machine, store.as_ref())?;
        let report = verified.report();
        if report.verdict != Verdict::Accepted {
            let reasons: Vec<_> = report.reasons.iter().map(ToString::to_string).collect();
            return Ok(broken(format!(
                "it is {}: {}",
                report.verdict,
                reasons.join("; ")
            )));
        }
        match VerifiedPrior::new(report, store.as_ref()) {
            Some(prior) => links.insert(0, Link { prior }),
            None => return Ok(broken("its final state cannot be read".to_owned())),
        }
    }
    Ok(Chain::Holds(links))
}
