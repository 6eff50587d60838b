//! `pol verify`.

mod chain;
mod print;

pub(super) use print::Verified;

use std::path::Path;
use std::time::Instant;

use pol_core::adapter::Backend;
use pol_core::audit::{Challenge, Draw, Opening as Disclosure, PublicCommitment};
use pol_core::digest::Digest;
use pol_core::learner::Learner;
use pol_core::manifest::{Claim, MAX_MANIFEST_BYTES, Manifest, Start};
use pol_core::object::MAX_STATE_BYTES;
use pol_core::policy::Policy;
use pol_core::random::Seed;
use pol_core::recipe::{Numerics, Recipe};
use pol_core::records::{Records, SaltSecret};
use pol_core::state::Part;
use pol_core::store::{FolderStore, Item, Store};
use pol_core::verify::{
    Evidence, Integrity, Progress, Reason, Report, Selection, Tolerance, VerifiedPrior, Verifier,
    check_integrity, read_claim,
};
use pol_evidence::training::SignedFiles;
use pol_evidence::verdict;
use pol_models::dataset::default_folder;
use pol_models::recipe_file::RecipeFile;
use pol_models::{RecipeMismatch, dataset_of, image_learner};

use crate::args::{CommitmentArg, VerifyArgs};
use crate::backend::{self, Opened, Opening};
use crate::error::{CliError, Exit, at, printable};
use crate::output;

use super::attestations::{self, Shown, Trust};
use super::{
    commitment, existing_store, fresh_seed, keys, policy, public_commitment, recipe_file, timestamp,
};

pub(crate) fn run(args: &VerifyArgs) -> Result<Exit, CliError> {
    check_usage(args)?;
    let started = Instant::now();
    backend::use_threads(&args.machine)?;
    let policy = effective_policy(args)?;
    let verdict_key = match &args.verdict_key {
        None => None,
        Some(file) => keys::private_key(&crate::args::KeyArgs {
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
    let subject = match &args.run {
        Some(run) => Subject::of_folder(run)?,
        None => Subject::of_opening(args)?,
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
        Opening::Delegated(exit) => return Ok(exit),
    };
    let second = match args.second_backend {
        None => None,
        Some(other) => match backend::open_named(other, numerics)? {
            Opening::Ready(opened) => Some(opened),
            Opening::Delegated(exit) => return Ok(exit),
        },
    };
    let machine = Machine {
        backend: args.machine.backend,
        opened: &opened,
        second: second.as_ref(),
    };
    let mut judged = judge(args, policy, &machine, subject, file)?;
    judged.verify_seconds = started.elapsed().as_secs_f64();
    if let (Some(file), Some(key)) = (&args.verdict, &verdict_key) {
        write_verdict(file, &judged, key)?;
    }
    if args.json {
        output::json(&judged)?;
    } else {
        judged.print();
    }
    Ok(judged.exit())
}

fn check_usage(args: &VerifyArgs) -> Result<(), CliError> {
    if args.sample == Some(0) || args.top == Some(0) {
        return Err(CliError::Usage(
            "--sample and --top need at least 1".to_owned(),
        ));
    }
    Ok(())
}

/// The policy, with what the flags put in its place.
fn effective_policy(args: &VerifyArgs) -> Result<Policy, CliError> {
    let mut policy = policy(&args.policy)?;
    if args.max_steps.is_some() {
        policy.segments.max_steps = args.max_steps;
    }
    if policy.start.max_depth() < args.prior.len() as u64 {
        return Err(CliError::Usage(format!(
            "the policy `{}` admits chains of at most {} prior proofs",
            policy.name,
            policy.start.max_depth()
        )));
    }
    Ok(policy)
}

/// What is computed on.
struct Machine<'a> {
    backend: Backend,
    opened: &'a Opened,
    second: Option<&'a Opened>,
}

/// What is to be judged.
enum Subject {
    Folder {
        store: FolderStore,
        manifest: Result<Box<Manifest>, Reason>,
    },
    Opening(Box<OpenedSubject>),
}

struct OpenedSubject {
    public: PublicCommitment,
    challenge: Challenge,
    opening: Disclosure,
}

impl Subject {
    fn of_folder(run: &Path) -> Result<Self, CliError> {
        let store = existing_store(run)?;
        let manifest = read_claim(&store)?.map(Box::new);
        Ok(Self::Folder { store, manifest })
    }

    fn of_opening(args: &VerifyArgs) -> Result<Self, CliError> {
        let (Some(opening), Some(challenge), Some(CommitmentArg::File(public))) =
            (&args.opening, &args.challenge, &args.commitment)
        else {
            return Err(CliError::Usage(
                "--opening needs --challenge and --commitment with the files of the exchange"
                    .to_owned(),
            ));
        };
        let malformed = |file: &Path, error: &dyn std::fmt::Display| {
            CliError::Malformed(format!("{}: {error}", file.display()))
        };
        let public = public_commitment(public)?;
        let bytes = std::fs::read(challenge).map_err(at(challenge))?;
        let challenge = Challenge::decode(&bytes).map_err(|error| malformed(challenge, &error))?;
        let bytes = std::fs::read(opening).map_err(at(opening))?;
        let opening = Disclosure::decode(&bytes).map_err(|error| malformed(opening, &error))?;
        Ok(Self::Opening(Box::new(OpenedSubject {
            public,
            challenge,
            opening,
        })))
    }

    fn claim(&self) -> Option<&Claim> {
        match self {
            Self::Folder { manifest, .. } => manifest.as_ref().ok().map(|found| &found.claim),
            Self::Opening(opened) => Some(&opened.public.claim),
        }
    }
}

/// Judges a proof; `file` is the verifier's own recipe, if there is one.
fn judge(
    args: &VerifyArgs,
    policy: Policy,
    machine: &Machine<'_>,
    subject: Subject,
    file: Option<RecipeFile>,
) -> Result<Verified, CliError> {
    let unread = |report| Verified::new(report, machine.backend, machine.opened);
    let claim = match &subject {
        Subject::Folder {
            manifest: Err(reason),
            ..
        } => return Ok(unread(Report::rejected(None, vec![reason.clone()]))),
        other => match other.claim() {
            Some(claim) => claim.clone(),
            None => {
                return Ok(unread(Report::inconclusive(
                    None,
                    "nothing to judge".to_owned(),
                )));
            }
        },
    };
    let claimed = &claim.terms.recipe;
    let needs_data = matches!(subject, Subject::Folder { .. }) || args.own_data;
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
        Some(path) => Some(std::fs::read(path).map_err(at(path))?),
    };
    let secret = keys::private_key(&args.identity)?.map(|key| key.salt_secret());
    let trust = Trust {
        keys: keys::trusted(&args.trust)?,
        roots: timestamp::roots(&args.trust_authority)?,
    };
    let (evidence, shown) = evidence(args, &subject, &trust)?;
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
        policy,
        evidence,
        selection: selection(args, &claim, randomness),
        randomness,
        tolerance: args.tolerance,
        reference_distance: args.reference_distance,
        prior: None,
    };
    let recipe = expected.as_ref().unwrap_or(claimed);
    let prior = match claim.terms.start {
        Start::Prior { .. } if !args.prior.is_empty() => {
            match chain::verify(&args.prior, &audit, &args.machine, machine)? {
                chain::Chain::Holds(links) => links,
                chain::Chain::Broken(report) => return Ok(unread(*report)),
            }
        }
        _ => vec![],
    };
    audit.prior = prior.first().map(|link| &link.prior);
    let judged = match &subject {
        Subject::Folder { store, .. } => {
            let Some(records) = records else {
                return Ok(unread(Report::inconclusive(
                    None,
                    "there is no data".to_owned(),
                )));
            };
            audit.folder(recipe, records, machine, store)
        }
        Subject::Opening(opened) => audit.opening(recipe, records, machine, opened),
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
            verified.evidence = shown;
            verified.chain = prior.iter().map(|link| link.prior.commitment()).collect();
            verified.warning = audit.policy.warning.clone();
            verified.offline_challenge = match &subject {
                Subject::Opening(opened) => {
                    opened.challenge.randomness == pol_core::audit::Randomness::Offline
                }
                Subject::Folder { .. } => args.offline_challenge,
            };
            Ok(verified)
        }
    }
}

/// What comes with the proof, checked against what this verifier trusts.
fn evidence(
    args: &VerifyArgs,
    subject: &Subject,
    trust: &Trust,
) -> Result<(Evidence, Shown), CliError> {
    match (subject, &args.run) {
        (
            Subject::Folder {
                store,
                manifest: Ok(manifest),
            },
            Some(run),
        ) => {
            let attestations = attestations::read(run)?;
            // Files that are missing are named by the check of the proof's integrity.
            let read = |item, limit| store.read(item, limit).unwrap_or_default();
            let manifest_file = read(Item::Manifest, MAX_MANIFEST_BYTES);
            let model = read(Item::Model, MAX_STATE_BYTES);
            let files = SignedFiles {
                manifest: &manifest_file,
                model: &model,
            };
            let checkpoints = Some(&manifest.checkpoints[..]);
            let claim = &manifest.claim;
            Ok(attestations::check(
                &attestations,
                claim,
                checkpoints,
                Some(files),
                trust,
            ))
        }
        (Subject::Opening(opened), _) => {
            let PublicCommitment {
                claim,
                attestations,
                ..
            } = &opened.public;
            Ok(attestations::check(attestations, claim, None, None, trust))
        }
        _ => Ok((Evidence::default(), Shown::default())),
    }
}

/// The segments that the flags choose, if they do.
fn selection(args: &VerifyArgs, claim: &Claim, randomness: Seed) -> Option<Selection> {
    if args.all {
        return Some(Selection::all());
    }
    let seed = match args.offline_challenge {
        false => randomness,
        true => {
            let draw = Draw::Sample(args.sample.unwrap_or(0));
            Challenge::offline(claim.commitment(), draw).seed()
        }
    };
    let mut selection = match (args.sample, args.top) {
        (None, None) => return None,
        (Some(count), _) => Selection::random(count, seed),
        (None, Some(_)) => Selection::top(0),
    };
    selection.top = args.top;
    Some(selection)
}

/// A proof of a recipe that this program lacks: its integrity can still be broken.
fn not_replayable(subject: &Subject, error: &dyn std::fmt::Display) -> Result<Report, CliError> {
    let why = format!(
        "this program cannot replay the recipe: {}",
        printable(error)
    );
    let Subject::Folder { store, .. } = subject else {
        let commitment = subject.claim().map(Claim::commitment);
        return Ok(Report::inconclusive(commitment, why));
    };
    Ok(
        match check_integrity(store, &Part::by_prefix, &mut |_| {})? {
            Integrity::Broken { commitment, reason } => Report::rejected(commitment, vec![reason]),
            Integrity::Holds(checked) => Report::inconclusive(Some(checked.commitment()), why),
        },
    )
}

fn write_verdict(
    file: &Path,
    judged: &Verified,
    key: &pol_evidence::key::PrivateKey,
) -> Result<(), CliError> {
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

/// A verification with everything settled but the proof.
pub(super) struct Audit<'a> {
    pub(super) recipe: Option<&'a Recipe>,
    pub(super) commitment: Option<Digest>,
    pub(super) data_root: Option<Digest>,
    pub(super) model: Option<&'a [u8]>,
    pub(super) secret: Option<&'a SaltSecret>,
    pub(super) policy: Policy,
    pub(super) evidence: Evidence,
    pub(super) selection: Option<Selection>,
    pub(super) randomness: Seed,
    pub(super) tolerance: Option<Tolerance>,
    pub(super) reference_distance: Option<f64>,
    pub(super) prior: Option<&'a VerifiedPrior>,
}

impl<'a> Audit<'a> {
    /// Everything replayed, not a bit of difference allowed.
    pub(super) fn bits() -> Self {
        Self {
            recipe: None,
            commitment: None,
            data_root: None,
            model: None,
            secret: None,
            policy: Policy::bits(),
            evidence: Evidence::default(),
            selection: None,
            randomness: Seed::from_digest(pol_core::digest::tagged("pol.v1.audit.unset", &[])),
            tolerance: None,
            reference_distance: None,
            prior: None,
        }
    }

    /// On the device that trained, every bit.
    pub(super) fn run(
        &self,
        recipe: &Recipe,
        records: &dyn Records,
        backend: Backend,
        opened: &Opened,
        store: &dyn Store,
    ) -> Result<Verified, CliError> {
        let machine = Machine {
            backend,
            opened,
            second: None,
        };
        let started = Instant::now();
        let mut verified = self.folder(recipe, records, &machine, store)?;
        verified.verify_seconds = started.elapsed().as_secs_f64();
        Ok(verified)
    }

    fn folder(
        &self,
        recipe: &Recipe,
        records: &dyn Records,
        machine: &Machine<'_>,
        store: &dyn Store,
    ) -> Result<Verified, CliError> {
        let verifier = self.verifier(Some(records));
        self.on(recipe, machine, |learner, second, progress| {
            verifier.verify_on(store, learner, second, progress)
        })
    }

    fn opening(
        &self,
        recipe: &Recipe,
        records: Option<&dyn Records>,
        machine: &Machine<'_>,
        opened: &OpenedSubject,
    ) -> Result<Verified, CliError> {
        let verifier = self.verifier(records);
        let OpenedSubject {
            public,
            challenge,
            opening,
        } = opened;
        self.on(recipe, machine, |learner, second, progress| {
            let opening = opening.clone();
            verifier.verify_opening(public, challenge, opening, learner, second, progress)
        })
    }

    fn on(
        &self,
        recipe: &Recipe,
        machine: &Machine<'_>,
        verify: impl FnOnce(
            &mut dyn Learner,
            Option<&mut dyn Learner>,
            &mut dyn FnMut(Progress),
        ) -> Result<Report, pol_core::verify::VerifyError>,
    ) -> Result<Verified, CliError> {
        let mut learner = image_learner(recipe, &machine.opened.device)?;
        let mut second = (machine.second)
            .map(|second| image_learner(recipe, &second.device))
            .transpose()?;
        let bar = output::progress(0, "{msg} {bar:30} {pos}/{len}, {eta} left");
        let report = verify(
            learner.as_mut(),
            second
                .as_mut()
                .map(|second| second.as_mut() as &mut dyn Learner),
            &mut |progress| {
                let (what, done, total) = match progress {
                    Progress::Integrity(done, total) => ("hashing", done, total),
                    Progress::Replay(done, total) => ("replaying", done, total),
                };
                bar.set_length(total);
                bar.set_message(what);
                bar.set_position(done);
            },
        );
        bar.finish_and_clear();
        Ok(Verified::new(report?, machine.backend, machine.opened))
    }

    fn verifier<'v>(&'v self, records: Option<&'v dyn Records>) -> Verifier<'v> {
        let mut verifier = match records {
            Some(records) => Verifier::new(records),
            None => Verifier::without_data(),
        };
        verifier = verifier
            .policy(self.policy.clone(), self.randomness)
            .evidence(self.evidence.clone());
        if let Some(tolerance) = self.tolerance {
            verifier = verifier.tolerance(tolerance);
        }
        if let Some(selection) = self.selection {
            verifier = verifier.select(selection);
        }
        if let Some(secret) = self.secret {
            verifier = verifier.with_secret(secret);
        }
        if let Some(root) = self.data_root {
            verifier = verifier.expect_data_root(root);
        }
        if let Some(model) = self.model {
            verifier = verifier.expect_model(model);
        }
        if let Some(recipe) = self.recipe {
            verifier = verifier.expect_recipe(recipe);
        }
        if let Some(commitment) = self.commitment {
            verifier = verifier.expect_commitment(commitment);
        }
        if let Some(prior) = self.prior {
            verifier = verifier.with_prior(prior);
        }
        if let Some(distance) = self.reference_distance {
            verifier = verifier.reference_distance(distance);
        }
        verifier
    }
}
