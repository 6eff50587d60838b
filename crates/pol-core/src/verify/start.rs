//! Where the initial state comes from.

use serde::Serialize;

use crate::digest::Digest;
use crate::ks::{holm, kolmogorov_smirnov, normal};
use crate::learner::{Initial, Learner};
use crate::manifest::{Manifest, Start, Terms};
use crate::model_file;
use crate::object::{self, Limits};
use crate::policy::StartRule;
use crate::state::State;
use crate::store::Store;

use super::Resources;
use super::integrity::IntegrityChecked;
use super::proof::{Proof, read_claim};
use super::reason::Reason;
use super::replayed::first_difference;
use super::report::{Report, Verdict};
use super::stop::Stop;

/// A prior proof that this verifier accepted, with its terms and its final state.
#[derive(Debug, Clone)]
pub struct VerifiedPrior {
    commitment: Digest,
    terms: Terms,
    state: State,
    /// The proofs of its chain, itself included.
    depth: u64,
}

/// The commitment and the final state of the finished proof in `store`; `None` if there is none, or
/// its model is not the one that is committed to. Nothing else is checked.
pub fn final_state(store: &dyn Store) -> Option<(Digest, State)> {
    let (manifest, state) = finished(store)?;
    Some((manifest.claim.commitment(), state))
}

fn finished(store: &dyn Store) -> Option<(Manifest, State)> {
    let manifest = read_claim(store).ok()?.ok()?;
    let name = manifest.checkpoints.last()?.state;
    let state = object::read_state(store, &name, None).ok()?;
    let fits = model_file::root(&state) == manifest.claim.model;
    fits.then_some((manifest, state))
}

impl VerifiedPrior {
    /// The final state of the proof in `store`, which `report` accepts. `None` if it does not, or if
    /// the store holds another proof.
    pub fn new(report: &Report, store: &dyn Store) -> Option<Self> {
        let proof = Proof::read(store, Resources::default()).ok()?.ok()?;
        Self::of(report, &proof)
    }

    /// The final state of the proof that was read, and that `report` accepts. `None` if it does not, or if
    /// the state cannot be read any more.
    pub fn of(report: &Report, proof: &Proof<'_>) -> Option<Self> {
        let commitment = proof.commitment();
        if report.verdict != Verdict::Accepted || report.commitment != Some(commitment) {
            return None;
        }
        let limits = Limits {
            memory: proof.resources().allowed(),
            ..Limits::NONE
        };
        // What was accepted binds its name, and reading hashes it again.
        let name = proof.manifest().checkpoints.last()?.state;
        let state = object::read_state_within(proof.store(), &name, None, limits).ok()?;
        let depth = match report.start {
            Some(StartReport::Prior { prior_depth, .. }) => prior_depth + 1,
            _ => 1,
        };
        Some(Self {
            commitment,
            terms: proof.claim().terms.clone(),
            state,
            depth,
        })
    }

    /// Its commitment.
    pub fn commitment(&self) -> Digest {
        self.commitment
    }

    /// Its terms. A verifier holds them to the bounds of its own policy, whatever policy accepted the
    /// prior proof.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Its final state.
    pub fn state(&self) -> &State {
        &self.state
    }
}

/// What is known of the initial state.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "lowercase", tag = "start")]
pub enum StartReport {
    /// It is the one that the seed determines.
    Derived,
    /// It is the final model of a prior proof, which was verified.
    Prior {
        /// That proof's commitment.
        commitment: Digest,
        /// How many proofs the training goes back to, one after the other.
        prior_depth: u64,
    },
    /// Its layers cannot be told from freshly drawn ones.
    Claimed {
        /// Layers tested.
        layers: u64,
        /// The smallest p-value of the Kolmogorov–Smirnov tests.
        smallest_p: f64,
    },
}

/// Checks the initial state against what its terms say, as far as `rule` admits that, and gives it. The
/// learner is in the state that the seed determines, which is `derived`.
pub(super) fn check_start<L: Learner + ?Sized>(
    proof: &IntegrityChecked<'_>,
    learner: &L,
    derived: &State,
    rule: StartRule,
    prior: Option<&VerifiedPrior>,
) -> Result<(StartReport, State), Stop> {
    let start = proof.claim().terms.start;
    match (start, rule) {
        (Start::Derived, StartRule::Derived { .. }) => {
            compare(proof, derived)?;
            Ok((StartReport::Derived, derived.clone()))
        }
        (Start::Prior { commitment }, _) => {
            let prior = (prior.filter(|prior| prior.commitment == commitment)).ok_or_else(|| {
                Stop::Reject(Reason::Prior(match prior {
                    None => format!(
                        "the training starts from the model of the proof {commitment}, which was \
                         not given"
                    ),
                    Some(other) => format!(
                        "the training starts from the model of the proof {commitment}; the one \
                         given is {}",
                        other.commitment
                    ),
                }))
            })?;
            if prior.depth > rule.max_depth() {
                return Err(Stop::Reject(Reason::Prior(format!(
                    "the chain of them is {} long; the policy admits {}",
                    prior.depth,
                    rule.max_depth()
                ))));
            }
            let expected = (derived.with_model_of(&prior.state))
                .map_err(|error| Stop::Reject(Reason::Prior(error.to_string())))?;
            compare(proof, &expected)?;
            let report = StartReport::Prior {
                commitment,
                prior_depth: prior.depth,
            };
            Ok((report, expected))
        }
        (Start::Claimed, StartRule::Derived { .. }) => Err(Stop::Reject(Reason::Start(
            "the initial state is not derived from the seed, which the policy demands".to_owned(),
        ))),
        // Where a distribution is enough, where it came from is not asked.
        (
            Start::Derived | Start::Claimed,
            StartRule::Distribution {
                level, corrected, ..
            },
        ) => {
            let logged = proof.state(0)?;
            let report = test_distribution(learner, derived, &logged, level, corrected)?;
            Ok((report, logged))
        }
    }
}

fn compare(proof: &IntegrityChecked<'_>, expected: &State) -> Result<(), Stop> {
    if proof.digest(0)? == expected.digest() {
        return Ok(());
    }
    let logged = match proof.is_kept(0) {
        true => Some(proof.state(0)?),
        false => None,
    };
    Err(Stop::Reject(Reason::InitialState {
        entry: logged.map(|logged| first_difference(expected, &logged)),
    }))
}

/// Every drawn layer by its distribution, everything else bit for bit.
fn test_distribution<L: Learner + ?Sized>(
    learner: &L,
    derived: &State,
    logged: &State,
    level: f64,
    corrected: bool,
) -> Result<StartReport, Stop> {
    let differs = |entry: String| Stop::Reject(Reason::InitialState { entry: Some(entry) });
    if !derived.layout().eq(logged.layout()) {
        return Err(differs(first_difference(derived, logged)));
    }
    let (mut names, mut p_values) = (Vec::new(), Vec::new());
    for (expected, entry) in derived.entries().iter().zip(logged.entries()) {
        let name = entry.name();
        let mut values: Vec<f64> = entry.values().collect();
        let p = match learner.initial(name) {
            Some(Initial::Normal(deviation)) => {
                kolmogorov_smirnov(&mut values, |x| normal(x, 0.0, deviation)).p
            }
            Some(Initial::Uniform(bound)) => {
                let uniform = |x: f64| ((x / bound + 1.0) / 2.0).clamp(0.0, 1.0);
                kolmogorov_smirnov(&mut values, uniform).p
            }
            Some(Initial::Constant(_) | Initial::Keep) | None => {
                if entry != expected {
                    return Err(differs(name.to_owned()));
                }
                continue;
            }
        };
        names.push(name.to_owned());
        p_values.push(p);
    }
    let rejected = match corrected {
        true => holm(&p_values, level).first().copied(),
        false => p_values.iter().position(|p| *p <= level),
    };
    if let Some(layer) = rejected {
        return Err(Stop::Reject(Reason::Start(format!(
            "`{}` was not drawn as it should have been: the Kolmogorov–Smirnov test gives p = {:.2e} \
             at level {level}{}",
            names[layer],
            p_values[layer],
            if corrected {
                " for all layers together"
            } else {
                ""
            }
        ))));
    }
    Ok(StartReport::Claimed {
        layers: names.len() as u64,
        smallest_p: p_values.iter().copied().fold(1.0, f64::min),
    })
}
