//! An audit between parties that share nothing but files: `pol commit`, `pol challenge`, `pol open`;
//! and `pol audit-plan`.

use pol_core::audit::{self, Challenge, Draw, PublicCommitment};
use pol_core::learner::{Learner, LearnerError};
use pol_core::verify::{Odds, catch_probability_of, forged_of, read_claim, sample_for_count};
use pol_models::dataset::default_folder;
use pol_models::{dataset_of, image_learner};
use serde::Serialize;

use crate::args::{AuditPlanArgs, ChallengeArgs, CommitArgs, OpenArgs};
use crate::backend::{self, Opening};
use crate::error::{CliError, Exit, at};
use crate::output;

use super::{attestations, existing_store, fresh_seed, keys, public_commitment, read_file};

pub(crate) fn commit(args: &CommitArgs) -> Result<Exit, CliError> {
    let store = existing_store(&args.run)?;
    let manifest = match read_claim(store.as_ref())? {
        Ok(manifest) => manifest,
        Err(reason) => return Err(CliError::Malformed(reason.to_string())),
    };
    let public = PublicCommitment::new(manifest.claim, attestations::read(store.as_ref())?);
    let bytes = public.encode();
    std::fs::write(&args.out, &bytes).map_err(at(&args.out))?;
    output::field("commitment", public.digest().to_string());
    output::field("file", written(&args.out, bytes.len()));
    Ok(Exit::Done)
}

pub(crate) fn challenge(args: &ChallengeArgs) -> Result<Exit, CliError> {
    let public = public_commitment(&args.commitment)?;
    let segments = public.claim.terms.segments();
    let draw = match args.sample {
        None if segments <= audit::MAX_DRAWN => Draw::All,
        Some(q) if (1..=audit::MAX_DRAWN).contains(&q) => Draw::Sample(q),
        _ => {
            return Err(CliError::Usage(format!(
                "a challenge is of 1 to {} segments; the training has {segments}",
                audit::MAX_DRAWN
            )));
        }
    };
    let commitment = public.digest();
    let challenge = match args.offline_challenge {
        true => Challenge::offline(commitment, draw),
        false => Challenge::fresh(commitment, draw, fresh_seed()?),
    };
    let bytes = challenge.encode();
    std::fs::write(&args.out, &bytes).map_err(at(&args.out))?;
    let drawn = challenge.segments(&public.claim);
    output::field("commitment", commitment.to_string());
    output::field("segments", format!("{} of {segments}", drawn.len()));
    let odds = Odds::new(segments, 1, challenge.drawn(segments));
    output::field(
        "",
        format!(
            "the last always; one forged segment other than that is met with probability {:.4}",
            odds.of_count(1)
        ),
    );
    for percent in [1.0, 10.0] {
        let met = odds.of_share(percent / 100.0);
        output::field("", format!("{percent} % of the segments with {met:.4}"));
    }
    if args.offline_challenge {
        output::field("grinding", describe_grinding(odds.of_count(1)));
    }
    output::field("file", written(&args.out, bytes.len()));
    Ok(Exit::Done)
}

/// What a draw from the commitment itself is worth against a prover who makes many commitments, where it
/// meets one forged segment with probability `met`.
pub(crate) fn describe_grinding(met: f64) -> String {
    let missed = 1.0 - met;
    match missed > 0.0 {
        true => format!(
            "the draw follows from the commitment: a prover who forges one segment needs about {:.1} \
             commitments until it is not drawn",
            1.0 / missed
        ),
        false => "the draw follows from the commitment, and leaves no segment out".to_owned(),
    }
}

pub(crate) fn open(args: &OpenArgs) -> Result<Exit, CliError> {
    let store = existing_store(&args.run)?;
    let manifest = match read_claim(store.as_ref())? {
        Ok(manifest) => manifest,
        Err(reason) => return Err(CliError::Malformed(reason.to_string())),
    };
    let bytes = read_file(&args.challenge, audit::MAX_CHALLENGE_BYTES)?;
    let challenge = Challenge::decode(&bytes)
        .map_err(|error| CliError::Malformed(format!("{}: {error}", args.challenge.display())))?;
    let terms = &manifest.claim.terms;
    let folder = args.machine.data_dir.clone().unwrap_or_else(default_folder);
    let dataset = dataset_of(&terms.recipe)?.load(&folder)?;
    let key = keys::private_key(&args.identity)?;
    let secret = key
        .filter(|_| terms.data.salted)
        .map(|key| key.salt_secret());
    // Only a proof that keeps few states needs a device.
    let mut learner = || -> Result<Box<dyn Learner>, LearnerError> {
        let failed = |error: &dyn std::fmt::Display| LearnerError::Device(error.to_string());
        match backend::open(&args.machine, terms.recipe.numerics).map_err(|e| failed(&e))? {
            Opening::Ready(opened) => {
                let learner = image_learner(&terms.recipe, &opened.device);
                Ok(learner.map_err(|error| failed(&error))?)
            }
            Opening::Delegated(_) => Err(LearnerError::Device(
                "this program lacks the backend that a missing state is computed on".to_owned(),
            )),
        }
    };
    let records = &dataset.train;
    let opening = audit::open(
        store.as_ref(),
        records,
        secret.as_ref(),
        &challenge,
        &mut learner,
    )?;
    let bytes = opening.encode();
    std::fs::write(&args.out, &bytes).map_err(at(&args.out))?;
    let drawn = challenge.segments(&manifest.claim).len();
    output::field("segments", format!("{drawn} of {}", terms.segments()));
    output::field(
        "opened",
        format!(
            "{} states, {} of {} records; the whole proof is {}",
            opening.states.len(),
            opening.records.len(),
            terms.data.records,
            output::bytes(store.size()?)
        ),
    );
    output::field("file", written(&args.out, bytes.len()));
    Ok(Exit::Done)
}

fn written(path: &std::path::Path, bytes: usize) -> String {
    format!("{} ({})", path.display(), output::bytes(bytes as u64))
}

#[derive(Serialize)]
struct PlannedAudit {
    schema: &'static str,
    segments: u64,
    confidence: f64,
    /// One for each forger that the audit is planned against.
    plans: Vec<Plan>,
}

/// How many segments to draw against one forger.
#[derive(Serialize)]
struct Plan {
    /// The share of the segments that is forged, where the forger is given by that.
    forged: Option<f64>,
    /// The segments forged.
    forged_segments: u64,
    /// Segments to draw; absent where nothing would be forged.
    sample: Option<u64>,
    /// The probability that they meet a forged one.
    probability: f64,
}

impl Plan {
    fn against(forged: Option<f64>, forged_segments: u64, confidence: f64, segments: u64) -> Self {
        let sample = sample_for_count(forged_segments, confidence, segments);
        let drawn = sample.unwrap_or(segments);
        Self {
            forged,
            forged_segments,
            sample,
            probability: catch_probability_of(forged_segments, segments, drawn),
        }
    }

    fn print(&self, segments: u64) {
        match self.sample {
            Some(sample) => output::field("sample", format!("{sample} of {segments} segments")),
            None => output::field("sample", "no audit meets a forger of nothing"),
        }
        let forger = match (self.forged, self.forged_segments) {
            (Some(share), _) => format!("a forger of {} % of the segments", 100.0 * share),
            (None, 1) => "a forger of one segment".to_owned(),
            (None, count) => format!("a forger of {count} segments"),
        };
        let met = self.probability;
        output::field("", format!("{forger} is met with probability {met:.4}"));
    }
}

pub(crate) fn plan(args: &AuditPlanArgs) -> Result<Exit, CliError> {
    let segments = match (args.segments, &args.run, &args.commitment) {
        (Some(segments), ..) => segments,
        (None, Some(run), _) => match read_claim(existing_store(run)?.as_ref())? {
            Ok(manifest) => manifest.claim.terms.segments(),
            Err(reason) => return Err(CliError::Malformed(reason.to_string())),
        },
        (None, None, Some(file)) => public_commitment(file)?.claim.terms.segments(),
        (None, None, None) => return Err(CliError::Usage("--segments is missing".to_owned())),
    };
    let confidence = args.confidence;
    let against = |count| Plan::against(None, count, confidence, segments);
    let against_share = |share| {
        Plan::against(
            Some(share),
            forged_of(share, segments),
            confidence,
            segments,
        )
    };
    let plans = match (args.forged_segments, args.forged) {
        (Some(count), _) => vec![against(count.min(segments))],
        (None, Some(share)) => vec![against_share(share)],
        (None, None) => vec![against(segments.min(1)), against_share(0.01)],
    };
    if args.json {
        output::json(&PlannedAudit {
            schema: "pol.audit-plan/2",
            segments,
            confidence,
            plans,
        })?;
        return Ok(Exit::Done);
    }
    plans.iter().for_each(|plan| plan.print(segments));
    Ok(Exit::Done)
}
