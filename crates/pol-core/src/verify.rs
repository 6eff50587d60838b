//! Verification (SPEC.md §14): integrity, then the initial state, then a choice of segments
//! replayed and compared as whole states.
//!
//! The verifier brings its own expectations. What a proof says about itself is a claim, to be
//! compared with them; nothing in it weakens a check.

mod distance;
mod expectations;
mod integrity;
mod noise;
mod odds;
mod opened;
mod outliers;
mod reason;
mod replay;
mod replayed;
mod report;
mod resources;
mod segments;
mod select;
mod start;
mod stop;

pub use distance::{Distances, Tolerance};
pub use integrity::{
    Integrity, IntegrityChecked, Segment, check_and_measure, check_integrity, read_claim,
};
pub use noise::NoiseReport;
pub(crate) use noise::Perturbation;
pub use odds::{
    Bridge, Odds, catch_probability, catch_probability_of, forged_of, sample_for, sample_for_count,
};
pub use outliers::OutlierRule;
pub use reason::Reason;
pub use report::{PartReport, Report, SegmentReport, Verdict};
pub use resources::Resources;
pub use segments::MakeLearner;
pub use select::{Outliers, Selected, Selection};
pub use start::{StartReport, VerifiedPrior, final_state};

use crate::audit::{Challenge, Opening, PublicCommitment};
use crate::digest::{Digest, tagged};
use crate::learner::Learner;
use crate::policy::{Comparison, Policy};
use crate::random::Seed;
use crate::recipe::Recipe;
use crate::records::{Records, SaltSecret};
use crate::state::Part;
use crate::store::{Store, StoreError};

use opened::{check_opening, first_foreign};
use replay::{Preparation, Replayer};
use segments::{Judge, Learners};

/// Why a proof could not be judged: the machine is at fault, not the proof.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The proof could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a verifier expects, demands and chooses. Every field is the verifier's own.
pub struct Verifier<'a> {
    records: Option<&'a dyn Records>,
    secret: Option<&'a SaltSecret>,
    data_root: Option<Digest>,
    recipe: Option<&'a Recipe>,
    commitment: Option<Digest>,
    model: Option<&'a [u8]>,
    prior: Option<&'a VerifiedPrior>,
    policy: Policy,
    evidence: Evidence,
    selection: Option<Selection>,
    randomness: Seed,
    reference_distance: Option<f64>,
    fail_fast: bool,
    resources: Resources,
    learners: Option<Learners<'a>>,
}

/// What the caller found to come with a proof, outside of this crate: signatures and timestamps.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evidence {
    /// Whether a key that the verifier trusts signed this commitment, and the seed depends on it.
    pub signed: bool,
    /// Whether an authority that the verifier trusts timestamped this commitment.
    pub timestamped: bool,
    /// What does not hold, of what was to be checked.
    pub problems: Vec<String>,
}

/// Progress of a verification, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Checkpoints read and hashed so far, of all.
    Integrity(u64, u64),
    /// Steps replayed so far, of those selected.
    Replay(u64, u64),
}

impl<'a> Verifier<'a> {
    /// A verifier that holds a copy of the training data, replays everything and allows no
    /// difference at all.
    pub fn new(records: &'a dyn Records) -> Self {
        Self {
            records: Some(records),
            ..Self::without_data()
        }
    }

    /// A verifier of openings, who sees the opened records alone.
    pub fn without_data() -> Self {
        Self {
            records: None,
            secret: None,
            data_root: None,
            recipe: None,
            commitment: None,
            model: None,
            prior: None,
            policy: Policy::bits(),
            evidence: Evidence::default(),
            selection: None,
            randomness: Seed::from_digest(tagged("pol.v1.audit.unset", &[])),
            reference_distance: None,
            fail_fast: false,
            resources: Resources::default(),
            learners: None,
        }
    }

    /// The secret that the data's leaves are salted with: a prover's own verification.
    pub fn with_secret(mut self, secret: &'a SaltSecret) -> Self {
        self.secret = Some(secret);
        self
    }

    /// Demands data with this root.
    pub fn expect_data_root(mut self, root: Digest) -> Self {
        self.data_root = Some(root);
        self
    }

    /// Demands this recipe. Without it the proof's own recipe is replayed, and the verdict is
    /// about that recipe only.
    pub fn expect_recipe(mut self, recipe: &'a Recipe) -> Self {
        self.recipe = Some(recipe);
        self
    }

    /// Demands the proof with this commitment.
    pub fn expect_commitment(mut self, commitment: Digest) -> Self {
        self.commitment = Some(commitment);
        self
    }

    /// Demands that this is the final model's file.
    pub fn expect_model(mut self, file: &'a [u8]) -> Self {
        self.model = Some(file);
        self
    }

    /// The prior proof that a fine-tuning starts from.
    pub fn with_prior(mut self, prior: &'a VerifiedPrior) -> Self {
        self.prior = Some(prior);
        self
    }

    /// Demands what this policy demands. `randomness` is this verifier's own: samples are drawn from
    /// it, and replays perturbed.
    pub fn policy(mut self, policy: Policy, randomness: Seed) -> Self {
        self.policy = policy;
        self.randomness = randomness;
        self
    }

    /// What was found to come with the proof.
    pub fn evidence(mut self, evidence: Evidence) -> Self {
        self.evidence = evidence;
        self
    }

    /// Chooses the segments to replay, instead of the policy; beside those, the ends and the segments that
    /// stand out, where the policy demands them.
    pub fn select(mut self, selection: Selection) -> Self {
        self.selection = Some(selection);
        self
    }

    /// Allows replays to differ by this much, instead of what the policy allows; with exact numerics
    /// they never may.
    pub fn tolerance(mut self, tolerance: Tolerance) -> Self {
        let comparison = Comparison::within(tolerance);
        if self.policy.comparison != comparison {
            self.policy.comparison = comparison;
            self.policy.note_change("a tolerance");
        }
        self
    }

    /// d_ref, the distance of two trainings from independent seeds, for the report.
    pub fn reference_distance(mut self, distance: f64) -> Self {
        self.reference_distance = Some(distance);
        self
    }

    /// Replays no further once a segment is rejected: the verdict is the same, the report shorter.
    pub fn fail_fast(mut self, fail_fast: bool) -> Self {
        self.fail_fast = fail_fast;
        self
    }

    /// Takes no more of the machine than this.
    pub fn resources(mut self, resources: Resources) -> Self {
        self.resources = resources;
        self
    }

    /// Replays up to `jobs` segments at once, as many as memory allows, on learners that `make` makes,
    /// each on a thread of its own. The verdict and the report are the same. A second device that noise
    /// is measured on has one learner: with it, segments are replayed in turn.
    pub fn at_once(mut self, jobs: usize, make: &'a MakeLearner<'a>) -> Self {
        self.learners = Some(Learners { jobs, make });
        self
    }

    /// Judges the proof in `store` by replaying on `learner`, which follows the recipe that the
    /// verifier expects.
    ///
    /// # Errors
    /// [`VerifyError`] if the proof could not be read for a reason that is not its own fault.
    /// A faulty proof is a [`Verdict::Rejected`], a check that could not be made a
    /// [`Verdict::Inconclusive`].
    pub fn verify<L: Learner + ?Sized>(
        &self,
        store: &dyn Store,
        learner: &mut L,
        progress: impl FnMut(Progress),
    ) -> Result<Report, VerifyError> {
        self.verify_on(store, learner, None, progress)
    }

    /// As [`Verifier::verify`]; where noise is measured, it is also measured between `learner` and
    /// `second`, one on another device.
    ///
    /// # Errors
    /// As [`Verifier::verify`].
    pub fn verify_on<L: Learner + ?Sized>(
        &self,
        store: &dyn Store,
        learner: &mut L,
        second: Option<&mut dyn Learner>,
        mut progress: impl FnMut(Progress),
    ) -> Result<Report, VerifyError> {
        let part = |name: &str| learner.part(name);
        let rule = &self.policy.segments;
        let chosen = self.selection.map(|chosen| chosen.beside(rule));
        // Movements cost time; how many segments there are makes no difference to whether they are needed.
        let measures = chosen
            .unwrap_or_else(|| rule.selection(1, self.randomness))
            .measures();
        let measured = measures.then_some(&part as &dyn Fn(&str) -> Part);
        let checked = match check_and_measure(store, self.resources, measured, &mut progress)? {
            Integrity::Holds(checked) => checked,
            Integrity::Broken { commitment, reason } => {
                return Ok(self.name(Report::rejected(commitment, vec![reason])));
            }
        };
        let Some(records) = self.records else {
            let why = "a whole proof can be replayed only with its data; ask for an opening";
            let commitment = Some(checked.commitment());
            return Ok(self.name(Report::inconclusive(commitment, why.to_owned())));
        };
        let mut reasons = self.compare_with_expectations(checked.claim());
        reasons.extend(self.compare_data(&checked, records));
        if !reasons.is_empty() {
            return Ok(self.name(Report::stopped(Some(checked.commitment()), reasons)));
        }
        let selection =
            chosen.unwrap_or_else(|| rule.selection(checked.segments(), self.randomness));
        let audit = Audit {
            selected: selection.select(&checked),
            selection,
            records,
            any_batch: None,
        };
        let by_policy = rule.selection(checked.segments(), self.randomness);
        let mut report = self.replay(&checked, audit, learner, second, progress)?;
        if !selection.chooses_like(&by_policy) {
            let mut changed = self.policy.clone();
            changed.note_change("a selection");
            report.policy_digest = Some(changed.digest());
            report.policy = changed.name;
        }
        Ok(report)
    }

    /// Judges an opening: what a prover disclosed in answer to `challenge`, which this verifier drew
    /// after it held `public`.
    ///
    /// # Errors
    /// As [`Verifier::verify`].
    pub fn verify_opening<L: Learner + ?Sized>(
        &self,
        public: &PublicCommitment,
        challenge: &Challenge,
        opening: Opening,
        learner: &mut L,
        second: Option<&mut dyn Learner>,
        progress: impl FnMut(Progress),
    ) -> Result<Report, VerifyError> {
        // First what costs nothing: terms that would cost much are refused by the policy.
        let mut reasons = self.compare_with_expectations(&public.claim);
        let drawn = challenge.segments(&public.claim);
        reasons.extend(self.too_few(challenge, &public.claim));
        let lengths = drawn.into_iter().map(|index| {
            let (first, last) = public.claim.terms.segment_steps(index);
            last - first
        });
        reasons.extend(self.too_costly(lengths.sum()));
        if !reasons.is_empty() {
            return Ok(self.name(Report::stopped(Some(public.digest()), reasons)));
        }
        let opened = match check_opening(public, challenge, opening)? {
            Ok(opened) => opened,
            Err((commitment, reason)) => {
                return Ok(self.name(Report::rejected(Some(commitment), vec![reason])));
            }
        };
        let checked = &opened.checked;
        let mut reasons = Vec::new();
        if let Some(own) = self.records {
            let (expected, found) = (own.len(), checked.claim().terms.data.records);
            if expected != found {
                reasons.push(Reason::OtherRecord(expected.min(found)));
            }
            reasons.extend(first_foreign(&opened.records, own).map(Reason::OtherRecord));
        }
        if !reasons.is_empty() {
            return Ok(self.name(Report::stopped(Some(checked.commitment()), reasons)));
        }
        let selection = challenge.selection();
        let audit = Audit {
            selected: Selected {
                segments: opened.segments,
                ..selection.select(checked)
            },
            selection,
            records: &opened.records,
            any_batch: Some(opened.any_batch),
        };
        self.replay(checked, audit, learner, second, progress)
    }

    fn replay<L: Learner + ?Sized>(
        &self,
        checked: &IntegrityChecked<'_>,
        audit: Audit<'_>,
        learner: &mut L,
        second: Option<&mut dyn Learner>,
        mut progress: impl FnMut(Progress),
    ) -> Result<Report, VerifyError> {
        let Audit {
            selected,
            selection,
            records,
            any_batch,
        } = audit;
        let segments = &selected.segments;
        let mut total = steps_to_replay(checked, segments);
        if let Some(reason) = self.too_costly(total) {
            return Ok(self.name(Report::stopped(Some(checked.commitment()), vec![reason])));
        }
        let preparation = Preparation {
            rule: self.policy.start,
            prior: self.prior,
            any_batch,
        };
        let (mut replayer, start) = match Replayer::prepare(checked, learner, records, preparation)
        {
            Ok(prepared) => prepared,
            Err(stop) => return Ok(self.name(stop.into_report(checked)?)),
        };
        // Exact numerics leave nothing to tolerate.
        let comparison = match checked.is_exact() {
            true => Comparison::Bits,
            false => self.policy.comparison,
        };
        let mut report = Report::begin(checked, &selection, &selected, &comparison, start);
        let judge = Judge {
            comparison,
            randomness: &self.randomness,
            reference_distance: self.reference_distance,
            fail_fast: self.fail_fast,
        };
        let mut after_step = |done| {
            total = total.max(done);
            progress(Progress::Replay(done, total));
        };
        let learners = (self.learners.filter(|_| second.is_none()))
            .map(|learners| learners.within(self.resources, replayer.state_bytes()))
            .filter(|learners| learners.jobs > 1);
        let judged = match learners {
            None => judge.in_turn(segments, &mut replayer, second, &mut after_step),
            Some(learners) => {
                let place = replayer.place();
                judge.at_once(segments, &place, learners, &mut after_step)
            }
        };
        report.steps_replayed = judged.steps;
        judged
            .segments
            .into_iter()
            .for_each(|segment| report.add(segment));
        if let Some(stop) = judged.stop {
            stop.add_to(&mut report)?;
        }
        report.conclude();
        Ok(self.name(report))
    }

    fn name(&self, mut report: Report) -> Report {
        report.policy.clone_from(&self.policy.name);
        report.policy_digest = Some(self.policy.digest());
        report
    }
}

/// The segments to replay, and what with.
struct Audit<'r> {
    selected: Selected,
    selection: Selection,
    records: &'r dyn Records,
    any_batch: Option<Vec<u64>>,
}

/// The steps of the selected segments, and of those before them that have to be replayed since
/// their states are not kept.
fn steps_to_replay(checked: &IntegrityChecked<'_>, selected: &[u64]) -> u64 {
    let mut at = 0;
    let steps = selected.iter().map(|&index| {
        let from = checked.kept_at_or_before(index);
        // A replay goes on from where the one before ended.
        let from = if at <= index { from.max(at) } else { from };
        at = index + 1;
        checked.segment(index).last - checked.segment(from).first
    });
    steps.sum()
}
