//! Forged proofs and what is said of them: an honest training on the digits, what a program of
//! `pol-attacks` makes of it, and the verdict of a policy.

use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use burn::tensor::Device;
use pol_attacks::{Attack, AttackError, Forged, Options, Victim};
use pol_core::digest::tagged;
use pol_core::manifest::Manifest;
use pol_core::policy::{Bounds, Policy};
use pol_core::random::Seed;
use pol_core::recipe::Recipe;
use pol_core::state::State;
use pol_core::store::MemoryStore;
use pol_core::training::{Outcome, Training};
use pol_core::verify::{Report, Verifier, final_state};
use pol_models::dataset::{Dataset, DatasetName};
use pol_models::image_learner;

/// The embedded digits.
pub static DIGITS: LazyLock<Dataset> =
    LazyLock::new(|| DatasetName::Digits.load("".as_ref()).unwrap());

/// An honest training, published.
pub struct Published {
    /// What it commits to.
    pub manifest: Box<Manifest>,
    /// The proof.
    pub proof: Arc<MemoryStore>,
    /// Its final state.
    pub stolen: State,
}

/// Trains on the digits and publishes the proof.
///
/// # Panics
/// If the training fails.
pub fn publish(recipe: Recipe) -> Published {
    let proof = Arc::new(MemoryStore::new());
    let mut learner = image_learner(&recipe, &Device::flex()).unwrap();
    let training = Training::new(recipe, &DIGITS.train, 0, 11);
    let outcome = training.run(learner.as_mut(), Arc::clone(&proof) as _, |_, _| {
        ControlFlow::Continue(())
    });
    let manifest = match outcome.unwrap() {
        Outcome::Sealed(manifest) => manifest,
        Outcome::Interrupted { .. } => unreachable!(),
    };
    let (_, stolen) = final_state(proof.as_ref()).unwrap();
    Published {
        manifest,
        proof,
        stolen,
    }
}

/// A forged proof, and what it is about.
pub struct Case {
    /// The proof.
    pub store: MemoryStore,
    /// The recipe that it claims.
    pub claimed: Recipe,
    /// What the forger made.
    pub made: Forged,
}

impl Case {
    /// What the attack measured of itself under this name.
    ///
    /// # Panics
    /// If it measured no such thing.
    pub fn figure(&self, name: &str) -> f64 {
        let figure = self.made.figures.iter().find(|figure| figure.name == name);
        figure.unwrap().value
    }
}

/// Forges a proof.
///
/// # Errors
/// If the attack does not apply.
///
/// # Panics
/// If no learner follows the claimed recipe.
pub fn try_forge(
    from: &Published,
    attack: &dyn Attack,
    options: Options,
) -> Result<Case, AttackError> {
    let victim = Victim {
        terms: &from.manifest.claim.terms,
        proof: from.proof.as_ref(),
        stolen: &from.stolen,
        data: &DIGITS,
    };
    let claimed = attack.claimed(&victim, &options);
    let mut learner = image_learner(&claimed, &Device::flex()).unwrap();
    let store = MemoryStore::new();
    let made = attack.forge(&victim, &options, learner.as_mut(), &store)?;
    Ok(Case {
        store,
        claimed,
        made,
    })
}

/// Forges a proof that ends in the stolen model.
///
/// # Panics
/// If it ends in another.
pub fn forge(from: &Published, attack: &dyn Attack, options: Options) -> Case {
    let case = try_forge(from, attack, options).unwrap();
    let (_, forged_state) = final_state(&case.store).unwrap();
    let root = pol_core::model_file::root;
    assert_eq!(
        root(&forged_state),
        root(&from.stolen),
        "the forgery is of that model"
    );
    case
}

/// A verifier with the data; records that a forger made are judged as an audit would that sees no others.
pub fn verifier(case: &Case) -> Verifier<'_> {
    Verifier::new(match &case.made.records {
        Some(records) => records,
        None => &DIGITS.train,
    })
}

/// What a policy says of a forgery.
///
/// # Panics
/// If the proof cannot be judged.
pub fn judge(case: &Case, policy: Policy) -> Report {
    let mut learner = image_learner(&case.claimed, &Device::flex()).unwrap();
    verifier(case)
        .policy(policy, Seed::from_digest(tagged("verifier", &[])))
        .verify(&case.store, learner.as_mut(), |_| {})
        .unwrap()
}

/// The shipped policy of this name.
///
/// # Panics
/// If there is none.
pub fn shipped(name: &str) -> Policy {
    Policy::shipped(name).unwrap()
}

/// The default without its bounds.
pub fn unbounded() -> Policy {
    Policy {
        bounds: Bounds::default(),
        ..shipped("calibrated")
    }
}
