//! What a verifier expects of a claim and demands by its policy: comparisons that cost nothing.

use crate::audit::Challenge;
use crate::manifest::{Claim, Start, Terms};
use crate::model_file;
use crate::policy::NumericsRule;
use crate::records::{DataCommitment, Records};
use crate::schedule::{BatchSource, Schedule};

use super::Verifier;
use super::reason::Reason;

impl Verifier<'_> {
    /// Everything about the claim that does not fit; empty if all does.
    pub(super) fn compare_with_expectations(&self, claim: &Claim) -> Vec<Reason> {
        let terms = &claim.terms;
        let mut reasons = Vec::new();
        let found = claim.commitment();
        if let Some(expected) = self.commitment.filter(|expected| *expected != found) {
            reasons.push(Reason::OtherCommitment { expected, found });
        }
        let differences = self
            .recipe
            .map(|expected| expected.differences(&terms.recipe));
        if let Some(differences) = differences.filter(|d| !d.is_empty()) {
            reasons.push(Reason::OtherRecipe { differences });
        }
        if let Some(file) = self.model {
            match model_file::root_of_file(file) {
                Ok(root) if root == claim.model => {}
                Ok(_) => reasons.push(Reason::FinalModel(
                    "the model expected is not the one that was trained".to_owned(),
                )),
                Err(error) => reasons.push(Reason::FinalModel(error.to_string())),
            }
        }
        let found = terms.data.root;
        if let Some(expected) = self.data_root.filter(|expected| *expected != found) {
            reasons.push(Reason::OtherDataRoot { expected, found });
        }
        reasons.extend(self.compare_with_policy(terms));
        reasons.extend(self.compare_with_prior(terms));
        reasons
    }

    /// Whether the proof starts from the prior one that was given at all, and that one's terms against
    /// the policy: what accepted it may have been another verifier's policy.
    fn compare_with_prior(&self, terms: &Terms) -> Vec<Reason> {
        let Some(prior) = self.prior else {
            return vec![];
        };
        if !matches!(terms.start, Start::Prior { .. }) {
            return vec![Reason::Prior(format!(
                "the training does not start from another proof; the one given is {}",
                prior.commitment()
            ))];
        }
        (self.bounds_exceeded(prior.terms()).into_iter())
            .map(|reason| Reason::Prior(reason.to_string()))
            .collect()
    }

    /// What the policy does not admit of these terms.
    fn bounds_exceeded(&self, terms: &Terms) -> Vec<Reason> {
        let mut reasons: Vec<Reason> = (self.policy.bounds.exceeded(terms).into_iter())
            .map(|exceeded| Reason::Bound {
                bound: exceeded.bound,
                allowed: exceeded.allowed,
                found: exceeded.found,
            })
            .collect();
        let numerics_fit = match self.policy.numerics {
            NumericsRule::Any => true,
            NumericsRule::Exact => terms.recipe.numerics.is_exact(),
            NumericsRule::Stock => !terms.recipe.numerics.is_exact(),
        };
        if !numerics_fit {
            reasons.push(Reason::Bound {
                bound: "numerics",
                allowed: match self.policy.numerics {
                    NumericsRule::Exact => "exact".to_owned(),
                    _ => "stock".to_owned(),
                },
                found: terms.recipe.numerics.to_string(),
            });
        }
        reasons
    }

    fn compare_with_policy(&self, terms: &Terms) -> Vec<Reason> {
        let mut reasons = self.bounds_exceeded(terms);
        let problems = self.evidence.problems.iter().cloned();
        reasons.extend(problems.map(Reason::Attestation));
        let demanded = self.policy.evidence;
        let has_data = self.records.is_some() || self.data_root.is_some();
        for (missing, what) in [
            (
                demanded.signature && !self.evidence.signed,
                "a signature by a trusted key",
            ),
            (
                demanded.timestamp && !self.evidence.timestamped,
                "a trusted timestamp",
            ),
            (
                demanded.data && !has_data,
                "the verifier's own data, or its root",
            ),
            (
                demanded.recipe && self.recipe.is_none(),
                "the verifier's own recipe",
            ),
        ] {
            if missing {
                reasons.push(Reason::Evidence(what.to_owned()));
            }
        }
        reasons
    }

    /// The verifier's own copy of the data against the committed root.
    pub(super) fn compare_data(&self, found: DataCommitment, records: &dyn Records) -> Vec<Reason> {
        if !self.compares_root(found) {
            return vec![Reason::NotChecked(
                "the data is private: its root can be compared only with the prover's secret; \
                 ask for an opening"
                    .to_owned(),
            )];
        }
        let secret = self.secret.filter(|_| found.salted);
        let expected = DataCommitment::with_salts(records, secret);
        match expected == found {
            true => vec![],
            false => vec![Reason::OtherData { expected, found }],
        }
    }

    /// Whether the verifier can compute the committed root from its own copy of the data: it needs the salts,
    /// where there are any.
    pub(super) fn compares_root(&self, found: DataCommitment) -> bool {
        !found.salted || self.secret.is_some()
    }

    /// The verifier's own copy of the data against what an opening's claim commits to. Where the root cannot
    /// be computed, the opened records are compared one by one.
    pub(super) fn compare_opened_data(&self, found: DataCommitment) -> Vec<Reason> {
        match self.records {
            Some(own) if self.compares_root(found) => self.compare_data(found, own),
            Some(own) if own.len() != found.records => {
                vec![Reason::OtherRecord(own.len().min(found.records))]
            }
            _ => vec![],
        }
    }

    /// Why a challenge is not enough, if the policy demands more.
    pub(super) fn too_few(&self, challenge: &Challenge, claim: &Claim) -> Option<Reason> {
        let segments = claim.terms.segments();
        let needed = self.policy.segments.opened(segments);
        let drawn = challenge.drawn(segments);
        (drawn < needed).then(|| {
            Reason::NotChecked(format!(
                "the challenge draws {drawn} of {segments} segments where the policy demands {needed}; \
                 draw a larger one, or state another rule under `opened` in a policy"
            ))
        })
    }

    /// Why the order of an epoch's records is not computed, if it takes too much memory.
    pub(super) fn order_too_large(&self, terms: &Terms) -> Option<Reason> {
        if terms.batches == BatchSource::Explicit {
            return None;
        }
        let needed = Schedule::bytes(terms.data.records);
        self.resources
            .admit("the order of the records", needed)
            .err()
    }

    /// Why so many steps are not replayed, if they are too many.
    pub(super) fn too_costly(&self, steps: u64) -> Option<Reason> {
        let allowed = self.policy.segments.max_steps?;
        (steps > allowed).then_some(Reason::Cost { steps, allowed })
    }
}
