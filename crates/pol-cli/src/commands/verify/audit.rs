//! A verification with everything settled but the proof.

use std::time::Instant;

use pol_core::adapter::Backend;
use pol_core::digest::{Digest, tagged};
use pol_core::learner::{Learner, LearnerError};
use pol_core::policy::Policy;
use pol_core::random::Seed;
use pol_core::recipe::Recipe;
use pol_core::records::{Records, SaltSecret};
use pol_core::store::Store;
use pol_core::verify::{
    Evidence, Progress, Proof, Report, Resources, Selection, VerifiedPrior, Verifier, VerifyError,
};
use pol_models::image_learner;

use crate::backend::Opened;
use crate::error::CliError;
use crate::output;

use super::print::Verified;
use super::subject::OpenedSubject;

/// What is computed on.
pub(super) struct Machine<'a> {
    pub(super) backend: Backend,
    pub(super) opened: &'a Opened,
    pub(super) second: Option<&'a Opened>,
}

/// A verification with everything settled but the proof.
pub(crate) struct Audit<'a> {
    pub(crate) recipe: Option<&'a Recipe>,
    pub(crate) commitment: Option<Digest>,
    pub(crate) data_root: Option<Digest>,
    pub(crate) model: Option<&'a [u8]>,
    pub(crate) secret: Option<&'a SaltSecret>,
    pub(crate) policy: Policy,
    pub(crate) policy_of_priors: Policy,
    pub(crate) evidence: Evidence,
    pub(crate) selection: Option<Selection>,
    pub(crate) randomness: Seed,
    pub(crate) reference_distance: Option<f64>,
    pub(crate) prior: Option<&'a VerifiedPrior>,
    pub(crate) fail_fast: bool,
    /// Segments to replay at once; `None` for as many as is safe.
    pub(crate) jobs: Option<usize>,
    pub(crate) resources: Resources,
}

impl<'a> Audit<'a> {
    /// Everything replayed, not a bit of difference allowed.
    pub(crate) fn bits() -> Self {
        Self {
            recipe: None,
            commitment: None,
            data_root: None,
            model: None,
            secret: None,
            policy: Policy::bits(),
            policy_of_priors: Policy::bits(),
            evidence: Evidence::default(),
            selection: None,
            randomness: Seed::from_digest(tagged("pol.v1.audit.unset", &[])),
            reference_distance: None,
            prior: None,
            fail_fast: false,
            jobs: None,
            resources: Resources::default(),
        }
    }

    /// On the device that trained, every bit.
    pub(crate) fn run(
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
        let mut verified = match Proof::read(store, self.resources)? {
            Ok(proof) => self.folder(recipe, records, &machine, &proof)?,
            Err(reason) => Verified::new(Report::stopped(None, vec![reason]), backend, opened),
        };
        verified.verify_seconds = started.elapsed().as_secs_f64();
        Ok(verified)
    }

    pub(super) fn folder(
        &self,
        recipe: &Recipe,
        records: &dyn Records,
        machine: &Machine<'_>,
        proof: &Proof<'_>,
    ) -> Result<Verified, CliError> {
        let jobs = self.jobs(recipe, machine);
        let make = || another_learner(recipe, machine, jobs);
        let verifier = self.verifier(Some(records)).at_once(jobs, &make);
        self.on(recipe, machine, |learner, second, progress| {
            verifier.verify_proof(proof, learner, second, progress)
        })
    }

    pub(super) fn opening(
        &self,
        recipe: &Recipe,
        records: Option<&dyn Records>,
        machine: &Machine<'_>,
        opened: &OpenedSubject,
    ) -> Result<Verified, CliError> {
        let jobs = self.jobs(recipe, machine);
        let make = || another_learner(recipe, machine, jobs);
        let verifier = self.verifier(records).at_once(jobs, &make);
        let OpenedSubject {
            public,
            challenge,
            opening,
        } = opened;
        self.on(recipe, machine, |learner, second, progress| {
            let Some(opening) = opening.take() else {
                let why = "the opening was judged before".to_owned();
                return Ok(Report::inconclusive(Some(public.digest()), why));
            };
            verifier.verify_opening(public, challenge, opening, learner, second, progress)
        })
    }

    /// How many segments to replay at once. On the CPU a thread for each uses it better than all threads
    /// for one; but with stock numerics the number of threads may show in the bits.
    fn jobs(&self, recipe: &Recipe, machine: &Machine<'_>) -> usize {
        let threads = rayon::current_num_threads();
        match self.jobs {
            Some(jobs) => jobs,
            None if machine.backend == Backend::Flex && recipe.numerics.is_exact() => threads,
            None => 1,
        }
    }

    fn on(
        &self,
        recipe: &Recipe,
        machine: &Machine<'_>,
        verify: impl FnOnce(
            &mut dyn Learner,
            Option<&mut dyn Learner>,
            &mut dyn FnMut(Progress),
        ) -> Result<Report, VerifyError>,
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
            .evidence(self.evidence.clone())
            .fail_fast(self.fail_fast)
            .resources(self.resources);
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

/// A learner for one of `jobs` threads that replay at once: it computes on this thread and on its share of
/// the others.
fn another_learner(
    recipe: &Recipe,
    machine: &Machine<'_>,
    jobs: usize,
) -> Result<Box<dyn Learner>, LearnerError> {
    let failed = |error: &dyn std::fmt::Display| LearnerError::Device(error.to_string());
    let threads = (rayon::current_num_threads() / jobs).max(1);
    // Whatever this thread computes from now on is computed by this pool.
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .use_current_thread()
        .build()
        .map_err(|error| failed(&error))?;
    let learner: Box<dyn Learner> =
        image_learner(recipe, &machine.opened.device).map_err(|error| failed(&error))?;
    Ok(learner)
}
