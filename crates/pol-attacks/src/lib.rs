//! Published forgeries of proofs of learning, written against the public interface only: a forger
//! reads a stolen model and public data, writes a proof as anybody would, and is judged by the same
//! verifier.
//!
//! Each attack has a file of its own that names its source; [`ALL`] lists them. What an attack costs
//! is reported beside the honest training that it imitates.

pub mod blindfold;
pub mod forgery;
pub mod infinitesimal;
pub mod injection;

use pol_core::learner::{Learner, LearnerError};
use pol_core::manifest::Terms;
use pol_core::records::Records;
use pol_core::state::State;
use pol_core::store::{Store, StoreError};

/// What a forger has: somebody's final model, the terms it was trained under, and the data.
#[derive(Clone, Copy)]
pub struct Victim<'a> {
    /// The terms of the honest proof.
    pub terms: &'a Terms,
    /// Its final state. A forger uses the model in it, and no optimizer.
    pub stolen: &'a State,
    /// The training data.
    pub records: &'a dyn Records,
}

/// How a forger goes about it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// k of the forged proof.
    pub interval: u64,
    /// Segments of the forged proof, where the attack leaves them free.
    pub segments: u64,
    /// The learning rate to claim, where the attack leaves it free.
    pub learning_rate: f64,
    /// The forger's nonce.
    pub nonce: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            interval: 10,
            segments: 20,
            learning_rate: 1e-9,
            nonce: 1,
        }
    }
}

/// What a forgery cost.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spent {
    /// Training steps taken, each one gradient of a batch.
    pub steps: u64,
    /// Steps of the honest training that it imitates.
    pub honest_steps: u64,
}

/// Why no forgery was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttackError {
    /// The learner failed.
    #[error(transparent)]
    Learner(#[from] LearnerError),
    /// The forged proof could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The attack does not apply.
    #[error("{0}")]
    NotApplicable(String),
}

/// A forgery.
pub trait Attack: Sync {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// Where it was published.
    fn source(&self) -> &'static str;

    /// What the forger has to have beside the stolen model.
    fn needs(&self) -> &'static str;

    /// The recipe that the forged proof claims.
    fn claimed(&self, victim: &Victim<'_>, options: &Options) -> pol_core::recipe::Recipe;

    /// Forges a proof into `store`. The learner follows [`Attack::claimed`].
    ///
    /// # Errors
    /// [`AttackError`].
    fn forge(
        &self,
        victim: &Victim<'_>,
        options: &Options,
        learner: &mut dyn Learner,
        store: &dyn Store,
    ) -> Result<Spent, AttackError>;
}

/// Every attack.
pub const ALL: [&dyn Attack; 3] = [
    &infinitesimal::Infinitesimal,
    &blindfold::Blindfold,
    &injection::Injection,
];

/// The attack of this name.
pub fn named(name: &str) -> Option<&'static dyn Attack> {
    ALL.into_iter().find(|attack| attack.name() == name)
}
