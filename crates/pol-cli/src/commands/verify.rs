//! `pol verify`.

mod audit;
mod basis;
mod chain;
mod odds;
mod policies;
mod print;
mod subject;

pub(super) use audit::Audit;
pub(super) use print::Verified;

use std::path::Path;
use std::time::Instant;

use pol_core::audit::{Challenge, Draw, PublicCommitment, Randomness};
use pol_core::manifest::{Claim, Start};
use pol_core::model_file::root_of_file;
use pol_core::object::MAX_STATE_BYTES;
use pol_core::policy::SegmentRule;
use pol_core::random::Seed;
use pol_core::recipe::{Numerics, Recipe};
use pol_core::records::{DataCommitment, Records};
use pol_core::store::open_regular;
use pol_core::verify::{Evidence, Reason, Report, Selection};
use pol_evidence::key::PrivateKey;
use pol_evidence::training::SignedFiles;
use pol_evidence::verdict;
use pol_models::dataset::default_folder;
use pol_models::recipe_file::RecipeFile;
use pol_models::{RecipeMismatch, dataset_of};

use crate::args::{KeyArgs, VerifyArgs};
use crate::backend::{self, Opening};
use crate::error::{CliError, Exit, at};
use crate::output;

use super::attestations::{self, Shown, Trust};
use super::{commitment, existing_store, fresh_seed, keys, read_file, recipe_file, timestamp};
use audit::Machine;
use basis::Basis;
use policies::Policies;
use print::Expected;
use subject::{Subject, not_replayable};

/// How often a model's file is held while its root is computed: itself, its tensors, and what they are written
/// to again.
const MODEL_FILES_HELD: u64 = 4;

pub(crate) fn run(args: &VerifyArgs) -> Result<Exit, CliError> {
    let judged = match verified(args)? {
        Outcome::Judged(judged) => judged,
        Outcome::Delegated(exit) => return Ok(exit),
    };
    if args.json {
        output::json(&judged)?;
    } else {
        judged.print();
    }
    Ok(judged.exit())
}

/// A verdict, or the end of this process: cargo ran a build that has the backend.
pub(super) enum Outcome {
    Judged(Box<Verified>),
    Delegated(Exit),
}

/// Verifies, and writes the signed verdict where one is asked for.
pub(super) fn verified(args: &VerifyArgs) -> Result<Outcome, CliError> {
    check_usage(args)?;
    let started = Instant::now();
    let policies = Policies::of(args)?;
    let verdict_key = match &args.verdict_key {
        None => None,
        Some(file) => keys::private_key(&KeyArgs {
            key: Some(file.clone()),
            passphrase_file: None,
        })?,
    };
    if let Some(file) = args.verdict.as_ref().filter(|file| file.exists()) {
        let file = file.display();
        return Err(CliError::Usage(format!(
            "{file} exists; a verdict is written to a new file"
        )));
    }
    let resources = args.effort.resources();
    let store = args.run.as_deref().map(existing_store).transpose()?;
    let subject = match &store {
        Some(store) => Subject::of_folder(store.as_ref(), resources)?,
        None => Subject::of_opening(args, resources)?,
    };
    let file = args.recipe.as_deref().map(recipe_file).transpose()?;
    let numerics = match (&file, &subject) {
        (Some(file), _) => file.numerics,
        (None, subject) => (subject.claim()).map_or(Numerics::Stock, |c| c.terms.recipe.numerics),
    };
    if numerics.is_exact() && args.tolerance.is_some() {
        return Err(CliError::Usage(
            "--tolerance is for stock numerics: replays of an exact recipe agree in every bit or \
             are wrong"
                .to_owned(),
        ));
    }
    let opened = match backend::open(&args.machine, numerics)? {
        Opening::Ready(opened) => opened,
        Opening::Delegated(exit) => return Ok(Outcome::Delegated(exit)),
    };
    let second = match args.second_backend {
        None => None,
        Some(other) => match backend::open_named(other, numerics)? {
            Opening::Ready(opened) => Some(opened),
            Opening::Delegated(exit) => return Ok(Outcome::Delegated(exit)),
        },
    };
    let machine = Machine {
        backend: args.machine.backend,
        opened: &opened,
        second: second.as_ref(),
    };
    let mut judged = judge(args, &policies, &machine, subject, file)?;
    judged.name_policy(&policies.effective);
    judged.verify_seconds = started.elapsed().as_secs_f64();
    if let (Some(file), Some(key)) = (&args.verdict, &verdict_key) {
        write_verdict(file, &judged, key)?;
    }
    Ok(Outcome::Judged(Box::new(judged)))
}

fn check_usage(args: &VerifyArgs) -> Result<(), CliError> {
    if args.sample == Some(0) || args.top == Some(0) {
        return Err(CliError::Usage(
            "--sample and --top need at least 1".to_owned(),
        ));
    }
    Ok(())
}

/// Judges a proof; `file` is the verifier's own recipe, if there is one.
fn judge(
    args: &VerifyArgs,
    policies: &Policies,
    machine: &Machine<'_>,
    subject: Subject<'_>,
    file: Option<RecipeFile>,
) -> Result<Verified, CliError> {
    let unread = |report| Verified::new(report, machine.backend, machine.opened);
    let claim = match &subject {
        Subject::Unread(reason) => return Ok(unread(Report::stopped(None, vec![reason.clone()]))),
        Subject::Folder(proof) => proof.claim().clone(),
        Subject::Opening(opened) => opened.public.claim.clone(),
    };
    chain::check_usage(args, &claim)?;
    let stopped = |reason| unread(Report::stopped(Some(claim.commitment()), vec![reason]));
    let claimed = &claim.terms.recipe;
    let resources = args.effort.resources();
    let needs_data = matches!(subject, Subject::Folder(_)) || args.own_data;
    // The recipe whose data is loaded and whose model is built: the verifier's own if given.
    let dataset = match &file {
        Some(file) => file.data.name.parse()?,
        None => match dataset_of(claimed) {
            Ok(dataset) => dataset,
            Err(error) => return not_replayable(&subject, &error).map(unread),
        },
    };
    let loaded = match needs_data {
        false => None,
        true => {
            let folder = args.machine.data_dir.clone().unwrap_or_else(default_folder);
            let loaded = dataset.load(&folder)?;
            if let Some(notice) = &loaded.notice {
                output::note(notice);
            }
            Some(loaded)
        }
    };
    let records = loaded.as_ref().map(|loaded| &loaded.train as &dyn Records);
    let expected = match &file {
        None => None,
        Some(file) => {
            let count = records.map_or(claim.terms.data.records, Records::len);
            Some(file.resolve(count)?)
        }
    };
    let model = match &args.model {
        None => None,
        Some(path) => {
            let (_, len) = open_regular(path).map_err(at(path))?;
            // The file, its tensors, and the file that those have.
            let needed = len.saturating_mul(MODEL_FILES_HELD);
            if let Err(reason) = resources.admit(&path.display().to_string(), needed) {
                return Ok(stopped(reason));
            }
            Some(read_file(path, MAX_STATE_BYTES)?)
        }
    };
    let secret = keys::private_key(&args.identity)?.map(|key| key.salt_secret());
    let trust = Trust {
        keys: keys::trusted(&args.trust)?,
        roots: timestamp::roots(&args.trust_authority)?,
    };
    let (evidence, shown) = match evidence(&subject, &trust)? {
        Ok(found) => found,
        Err(reason) => return Ok(stopped(reason)),
    };
    let randomness = match args.audit_seed {
        Some(digest) => Seed::from_digest(digest),
        None => fresh_seed()?,
    };
    let mut audit = Audit {
        recipe: expected.as_ref(),
        commitment: args.commitment.as_ref().map(commitment).transpose()?,
        data_root: args.expect_data_root,
        model: model.as_deref(),
        secret: secret.as_ref(),
        policy: policies.effective.clone(),
        policy_of_priors: policies.of_priors.clone(),
        evidence,
        selection: offline_selection(args, &policies.effective.segments, &claim),
        randomness,
        reference_distance: args.reference_distance,
        prior: None,
        fail_fast: args.fail_fast,
        jobs: args.effort.jobs()?,
        resources,
    };
    let held_to = Expected {
        recipe: expected.as_ref().map(Recipe::digest),
        commitment: audit.commitment,
        data_root: (args.expect_data_root).or_else(|| {
            let salted = claim.terms.data.salted;
            // Without the salts the root cannot be compared.
            let own = records.filter(|_| !salted || secret.is_some())?;
            let secret = secret.as_ref().filter(|_| salted);
            Some(DataCommitment::with_salts(own, secret).root)
        }),
        model: model.as_deref().and_then(|file| root_of_file(file).ok()),
        trusted_keys: trust
            .keys
            .iter()
            .map(|key| key.prover_key().to_string())
            .collect(),
        trusted_authorities: trust.roots.len() as u64,
    };
    let recipe = expected.as_ref().unwrap_or(claimed);
    let prior = match claim.terms.start {
        Start::Prior { .. } if !args.prior.is_empty() => {
            match chain::verify(args, &audit, machine)? {
                chain::Chain::Holds(links) => links,
                chain::Chain::Broken(report) => return Ok(unread(*report)),
            }
        }
        _ => vec![],
    };
    audit.prior = prior.first().map(|link| &link.prior);
    let judged = match &subject {
        Subject::Folder(proof) => {
            let Some(records) = records else {
                return Ok(unread(Report::inconclusive(
                    None,
                    "there is no data".to_owned(),
                )));
            };
            audit.folder(recipe, records, machine, proof)
        }
        Subject::Opening(opened) => audit.opening(recipe, records, machine, opened),
        Subject::Unread(reason) => Ok(unread(Report::stopped(None, vec![reason.clone()]))),
    };
    match judged {
        // A device that is unfit says nothing about the proof.
        Err(CliError::Recipe(error))
            if expected.is_none() || matches!(error, RecipeMismatch::Probe(_)) =>
        {
            not_replayable(&subject, &error).map(unread)
        }
        Err(error) => Err(error),
        Ok(mut verified) => {
            verified.claimed_recipe = expected.is_none().then(|| claimed.clone());
            verified.expected = held_to;
            verified.randomness = Some(*randomness.digest());
            verified.evidence = shown;
            verified.chain = prior.iter().map(|link| link.prior.commitment()).collect();
            verified.priors = prior.iter().map(chain::Link::report).collect();
            let basis = Basis::new(args, &subject, &claim, expected.as_ref(), &policies.changes);
            verified.basis = basis.up_to(verified.report());
            verified.warning = audit.policy.warning.clone();
            verified.offline_challenge = match &subject {
                Subject::Opening(opened) => opened.challenge.randomness == Randomness::Offline,
                Subject::Folder(_) | Subject::Unread(_) => args.offline_challenge,
            };
            Ok(verified)
        }
    }
}

/// What comes with the proof, checked against what this verifier trusts. The inner error says why a file
/// that would be signed is not read.
fn evidence(
    subject: &Subject<'_>,
    trust: &Trust,
) -> Result<Result<(Evidence, Shown), Reason>, CliError> {
    Ok(Ok(match subject {
        Subject::Folder(proof) => {
            let attestations = attestations::read(proof.store())?;
            // Signatures are over the files. Where no key is trusted, none is looked at.
            let model = match trust.keys.is_empty() {
                true => None,
                false => match proof.model_file()? {
                    Ok(model) => Some(model),
                    Err(reason) => return Ok(Err(reason)),
                },
            };
            let files = model.as_ref().map(|model| SignedFiles {
                manifest: proof.manifest_file(),
                model,
            });
            let checkpoints = Some(&proof.manifest().checkpoints[..]);
            attestations::check(&attestations, proof.claim(), checkpoints, files, trust)
        }
        Subject::Opening(opened) => {
            let PublicCommitment {
                claim,
                attestations,
                ..
            } = &opened.public;
            attestations::check(attestations, claim, None, None, trust)
        }
        Subject::Unread(_) => (Evidence::default(), Shown::default()),
    }))
}

/// The segments that the rule draws from the commitment itself, where the flags say so.
fn offline_selection(args: &VerifyArgs, rule: &SegmentRule, claim: &Claim) -> Option<Selection> {
    let sample = args.sample.filter(|_| args.offline_challenge)?;
    let challenge = Challenge::offline(claim.commitment(), Draw::Sample(sample));
    Some(rule.selection(claim.terms.segments(), challenge.seed()))
}

fn write_verdict(file: &Path, judged: &Verified, key: &PrivateKey) -> Result<(), CliError> {
    let commitment = judged.commitment().ok_or_else(|| {
        CliError::Environment("there is no commitment that a verdict could be about".to_owned())
    })?;
    let envelope = verdict::sign(commitment, judged, key);
    std::fs::write(file, envelope.to_json()).map_err(at(file))?;
    output::note(format!(
        "the verdict is signed and written to {}",
        file.display()
    ));
    Ok(())
}
