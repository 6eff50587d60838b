//! The proofs that a fine-tuning goes back to, each verified like the first.

use std::path::Path;

use pol_core::digest::Digest;
use pol_core::manifest::{Claim, Start};
use pol_core::policy::EvidenceRule;
use pol_core::recipe::Recipe;
use pol_core::records::Records;
use pol_core::store::Store;
use pol_core::verify::{Evidence, Proof, Reason, Report, Verdict, VerifiedPrior, read_claim};
use pol_models::dataset::default_folder;
use pol_models::dataset_of;
use pol_models::recipe_file::RecipeFile;
use serde::Serialize;

use crate::args::VerifyArgs;
use crate::commands::{existing_store, recipe_file};
use crate::error::CliError;

use super::audit::{Audit, Machine};

/// A prior proof that was verified.
pub(super) struct Link {
    pub(super) prior: VerifiedPrior,
    held_to: Option<Digest>,
}

/// A prior proof that was verified, for people and programs.
#[derive(Debug, Clone, Serialize)]
pub(super) struct PriorReport {
    pub(super) commitment: Digest,
    pub(super) steps: u64,
    pub(super) recipe: Recipe,
    /// The digest of the recipe that the verifier held it to; `None` if to no other than its own.
    pub(super) held_to: Option<Digest>,
}

impl PriorReport {
    /// Its recipe in a line.
    pub(super) fn describe(&self) -> String {
        let recipe = &self.recipe;
        format!(
            "{} on {}, {} steps of {}, {}, rate {}; {}",
            recipe.model.name,
            recipe.data.name,
            self.steps,
            recipe.batch_size,
            recipe.optimizer,
            recipe.learning_rate,
            match self.held_to {
                Some(_) => "the recipe of --prior-recipe",
                None => "as that proof claims; hold it to yours with --prior-recipe",
            }
        )
    }
}

impl Link {
    pub(super) fn report(&self) -> PriorReport {
        let recipe = self.prior.terms().recipe.clone();
        PriorReport {
            commitment: self.prior.commitment(),
            steps: recipe.steps,
            recipe,
            held_to: self.held_to,
        }
    }
}

/// What became of a chain.
pub(super) enum Chain {
    /// Every proof was accepted, the latest first.
    Holds(Vec<Link>),
    /// One was not.
    Broken(Box<Report>),
}

/// A prior proof that is still to be verified.
struct Given<'a> {
    folder: &'a Path,
    store: Box<dyn Store>,
    /// The verifier's own recipe for it.
    file: Option<RecipeFile>,
}

/// Refuses prior proofs that nothing starts from: they would be verified, and bear on nothing.
pub(super) fn check_usage(args: &VerifyArgs, claim: &Claim) -> Result<(), CliError> {
    if args.prior_recipe.len() > args.prior.len() {
        return Err(CliError::Usage(
            "there are more --prior-recipe than --prior".to_owned(),
        ));
    }
    match args.prior.first() {
        Some(prior) => starts_from(claim, "the proof", prior),
        None => Ok(()),
    }
}

fn starts_from(claim: &Claim, what: &str, prior: &Path) -> Result<(), CliError> {
    match claim.terms.start {
        Start::Prior { .. } => Ok(()),
        Start::Derived | Start::Claimed => Err(CliError::Usage(format!(
            "{what} does not start from another one: leave --prior {} away",
            prior.display()
        ))),
    }
}

/// Verifies the proofs of `--prior`, the latest first, by the policy of `audit`: its bounds, and what it
/// demands of data and recipe. Signatures and timestamps of theirs are not asked for, since the last
/// proof binds their commitments.
pub(super) fn verify(
    args: &VerifyArgs,
    audit: &Audit<'_>,
    machine: &Machine<'_>,
) -> Result<Chain, CliError> {
    let mut links: Vec<Link> = Vec::new();
    // The earliest first: each starts from the one before.
    for given in given(args)?.into_iter().rev() {
        let broken = |problem: String| {
            let place = format!("{}: {problem}", given.folder.display());
            Chain::Broken(Box::new(Report::rejected(None, vec![Reason::Prior(place)])))
        };
        let proof = match Proof::read(given.store.as_ref(), audit.resources)? {
            Ok(proof) => proof,
            Err(reason) if reason.is_rejection() => return Ok(broken(reason.to_string())),
            Err(reason) => return Ok(Chain::Broken(Box::new(Report::stopped(None, vec![reason])))),
        };
        let terms = &proof.claim().terms;
        let dataset = match &given.file {
            Some(file) => file.data.name.parse()?,
            None => dataset_of(&terms.recipe)?,
        };
        let folder = args.machine.data_dir.clone().unwrap_or_else(default_folder);
        let loaded = dataset.load(&folder)?;
        let records: &dyn Records = &loaded.train;
        let expected = (given.file.as_ref())
            .map(|file| file.resolve(records.len()))
            .transpose()?;
        let mut policy = audit.policy_of_priors.clone();
        policy.evidence = EvidenceRule {
            signature: false,
            timestamp: false,
            ..policy.evidence
        };
        let of_prior = Audit {
            recipe: expected.as_ref(),
            policy,
            evidence: Evidence::default(),
            secret: audit.secret,
            randomness: audit.randomness,
            prior: links.first().map(|link| &link.prior),
            jobs: audit.jobs,
            resources: audit.resources,
            ..Audit::bits()
        };
        let recipe = expected.as_ref().unwrap_or(&terms.recipe);
        let verified = of_prior.folder(recipe, records, machine, &proof)?;
        let report = verified.report();
        if report.verdict != Verdict::Accepted {
            let reasons: Vec<_> = report.reasons.iter().map(ToString::to_string).collect();
            return Ok(broken(format!(
                "it is {}: {}",
                report.verdict,
                reasons.join("; ")
            )));
        }
        let Some(prior) = VerifiedPrior::of(report, &proof) else {
            return Ok(broken("its final state cannot be read".to_owned()));
        };
        let held_to = expected.as_ref().map(Recipe::digest);
        links.insert(0, Link { prior, held_to });
    }
    Ok(Chain::Holds(links))
}

/// The proofs of `--prior` as they are given, the latest first; each but the last has to start from
/// another one.
fn given(args: &VerifyArgs) -> Result<Vec<Given<'_>>, CliError> {
    let mut given = Vec::new();
    for (index, folder) in args.prior.iter().enumerate() {
        let store = existing_store(folder)?;
        let manifest = read_claim(store.as_ref())?;
        if let (Ok(manifest), Some(earlier)) = (&manifest, args.prior.get(index + 1)) {
            let what = format!("the proof {}", folder.display());
            starts_from(&manifest.claim, &what, earlier)?;
        }
        let file = args.prior_recipe.get(index).map(|name| recipe_file(name));
        given.push(Given {
            folder,
            store,
            file: file.transpose()?,
        });
    }
    Ok(given)
}
