//! Verification (SPEC.md §14): integrity, then the initial state, then a choice of segments
//! replayed and compared as whole states.
//!
//! The verifier brings its own expectations. What a proof says about itself is a claim, to be
//! compared with them; nothing in it weakens a check.

mod calibrated;
mod coast;
mod differences;
mod distance;
mod expectations;
mod heading;
mod integrity;
mod layout;
mod noise;
mod odds;
mod opened;
mod orders;
mod outliers;
mod own;
mod proof;
mod reason;
mod replay;
mod replayed;
mod report;
mod resources;
mod segments;
mod select;
mod slack;
mod start;
mod stop;

pub use calibrated::NoiseReport;
pub use distance::{Distances, Tolerance};
pub(crate) use heading::Headings;
pub use integrity::{Integrity, IntegrityChecked, Segment, check_and_measure, check_integrity};
pub(crate) use noise::{Amplitude, Perturbation};
pub use odds::{
    Bridge, Odds, catch_probability, catch_probability_of, forged_of, sample_for, sample_for_count,
};
pub use outliers::OutlierRule;
pub use proof::{Proof, read_claim};
pub use reason::Reason;
pub use report::{PartReport, Report, SegmentReport, Verdict};
pub use resources::Resources;
pub use segments::MakeLearner;
pub use select::{Outliers, Selected, Selection};
pub use slack::Slack;
pub(crate) use slack::total;
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

use integrity::{Fault, check_proof};
use opened::{Disclosure, first_foreign};
use own::OwnStates;
use replay::{Preparation, Replayer};
use segments::{Judge, Learners};
use stop::Stop;

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
        progress: impl FnMut(Progress),
    ) -> Result<Report, VerifyError> {
        match Proof::read(store, self.resources)? {
            Ok(proof) => self.verify_proof(&proof, learner, second, progress),
            Err(reason) => Ok(self.name(Report::stopped(None, vec![reason]))),
        }
    }

    /// As [`Verifier::verify_on`], of a proof that was read before, with the resources that were given then.
    ///
    /// # Errors
    /// As [`Verifier::verify`].
    pub fn verify_proof<L: Learner + ?Sized>(
        &self,
        proof: &Proof<'_>,
        learner: &mut L,
        second: Option<&mut dyn Learner>,
        mut progress: impl FnMut(Progress),
    ) -> Result<Report, VerifyError> {
        let commitment = Some(proof.commitment());
        let terms = &proof.claim().terms;
        // First what costs nothing of the proof: claims, the verifier's own data, a step of its own learner.
        // What is read then is known to be no more than was agreed to.
        let mut reasons = self.compare_with_expectations(proof.claim());
        if let Some(records) = self.records {
            reasons.extend(self.compare_data(terms.data, records));
        }
        reasons.extend(self.order_too_large(terms));
        if reasons.iter().any(Reason::is_rejection) {
            return Ok(self.name(Report::stopped(commitment, reasons)));
        }
        let agreed = self.records.filter(|_| reasons.is_empty());
        let own = agreed.map(|records| {
            let batch = (0..terms.recipe.batch_size.min(records.len())).collect();
            OwnStates::of(learner, terms, records, batch)
        });
        let known = own.as_ref().and_then(|own| own.as_ref().ok());
        let part = |name: &str| learner.part(name);
        let rule = &self.policy.segments;
        let chosen = self.selection.map(|chosen| chosen.beside(rule));
        // Movements cost time; how many segments there are makes no difference to whether they are needed.
        let measures = chosen
            .unwrap_or_else(|| rule.selection(1, self.randomness))
            .measures();
        let measured = measures.then_some(&part as &dyn Fn(&str) -> Part);
        let layouts = known.map(OwnStates::layouts);
        let checked = match check_proof(proof, layouts, measured, &mut progress)? {
            Integrity::Holds(checked) => checked,
            Integrity::Broken { commitment, reason } => {
                return Ok(self.name(Report::stopped(commitment, vec![reason])));
            }
        };
        let Some(records) = self.records else {
            let why = "a whole proof can be replayed only with its data; ask for an opening";
            return Ok(self.name(Report::inconclusive(commitment, why.to_owned())));
        };
        let Some(own) = own else {
            return Ok(self.name(Report::stopped(commitment, reasons)));
        };
        let selection =
            chosen.unwrap_or_else(|| rule.selection(checked.segments(), self.randomness));
        let audit = Audit {
            selected: selection.select(&checked),
            selection,
            records,
            own,
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
        reasons.extend(self.compare_opened_data(public.claim.terms.data));
        reasons.extend(self.order_too_large(&public.claim.terms));
        let lengths = drawn.into_iter().map(|index| {
            let (first, last) = public.claim.terms.segment_steps(index);
            last - first
        });
        reasons.extend(self.too_costly(lengths.sum()));
        if !reasons.is_empty() {
            return Ok(self.name(Report::stopped(Some(public.digest()), reasons)));
        }
        let has_data = self.records.is_some();
        let disclosure = Disclosure::check(public, challenge, opening, self.resources, has_data);
        let disclosure = match disclosure {
            Ok(disclosure) => disclosure,
            Err(fault) => return self.at_fault(public, fault),
        };
        let foreign = (self.records).and_then(|own| first_foreign(&disclosure.records, own));
        if let Some(index) = foreign {
            let reasons = vec![Reason::OtherRecord(index)];
            return Ok(self.name(Report::stopped(Some(public.digest()), reasons)));
        }
        let terms = &public.claim.terms;
        let batch = disclosure.any_batch.clone();
        let own = OwnStates::of(learner, terms, &disclosure.records, batch);
        let layouts = own.as_ref().ok().map(OwnStates::layouts);
        let opened = match disclosure.check_states(layouts) {
            Ok(opened) => opened,
            Err(fault) => return self.at_fault(public, fault),
        };
        let checked = &opened.checked;
        let selection = challenge.selection();
        let audit = Audit {
            selected: Selected {
                segments: opened.segments,
                ..selection.select(checked)
            },
            selection,
            records: &opened.records,
            own,
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
            own,
        } = audit;
        let segments = &selected.segments;
        let mut total = steps_to_replay(checked, segments);
        if let Some(reason) = self.too_costly(total) {
            return Ok(self.name(Report::stopped(Some(checked.commitment()), vec![reason])));
        }
        let preparation = Preparation {
            rule: self.policy.start,
            prior: self.prior,
            own,
        };
        let (mut replayer, start) = match Replayer::prepare(checked, learner, records, preparation)
        {
            Ok(prepared) => prepared,
            Err(stop) => return Ok(self.name(stop.into_report(checked)?)),
        };
        let state_bytes = replayer.state_bytes();
        if let Err(reason) = segments::admit(checked.resources(), state_bytes) {
            return Ok(self.name(Report::stopped(Some(checked.commitment()), vec![reason])));
        }
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
            .map(|learners| {
                let records = checked.claim().terms.data.records;
                learners.within(checked.resources(), state_bytes, records)
            })
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
        if let Comparison::Calibrated(rule) = comparison {
            match replayer.ends() {
                Ok(ends) => {
                    let ends = ends.as_ref().map(|(first, last)| (first.as_ref(), last));
                    report.weigh(&rule, &replayer.parameters(), ends);
                }
                Err(stop) => stop.add_to(&mut report)?,
            }
        }
        report.conclude();
        Ok(self.name(report))
    }

    /// The verdict on an opening with this fault.
    fn at_fault(&self, public: &PublicCommitment, fault: Fault) -> Result<Report, VerifyError> {
        match fault {
            Fault::Proof(reason) => {
                Ok(self.name(Report::stopped(Some(public.digest()), vec![reason])))
            }
            Fault::Machine(error) => Err(error),
        }
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
    own: Result<OwnStates, Stop>,
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
