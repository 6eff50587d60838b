//! Forgeries of proofs of learning, published ones and those found on this program, written against the
//! public interface only: a forger has a stolen model, a published proof and some data, writes a proof as anybody would, and is judged
//! by the same verifier.
//!
//! Each attack has a file of its own that names its source; [`ALL`] lists them. What an attack costs
//! is reported beside the honest training that it imitates.

mod augmentation_swap;
mod blindfold;
mod buffer_swap;
mod copy;
mod counters;
mod data_forging;
mod elided_data;
pub mod forgery;
mod forgetting;
mod grinding;
mod high_noise;
mod infinitesimal;
mod injection;
mod joint;
mod label_swap;
mod last_segment;
mod lazy;
pub mod matching;
mod mix;
mod model_swap;
mod nan_states;
mod near_zero;
mod one_step_jump;
mod order_swap;
mod pendulum;
mod push;
mod rate_override;
mod splice;
mod start;
mod steering;
pub mod tolerated;

pub use augmentation_swap::AugmentationSwap;
pub use blindfold::Blindfold;
pub use buffer_swap::BufferSwap;
pub use copy::Copied;
pub use counters::Counters;
pub use data_forging::DataForging;
pub use elided_data::{ElidedData, abbreviated};
pub use forgetting::Forgetting;
pub use grinding::Grinding;
pub use high_noise::HighNoise;
pub use infinitesimal::Infinitesimal;
pub use injection::Injection;
pub use joint::Joint;
pub use label_swap::LabelSwap;
pub use last_segment::LastSegment;
pub use lazy::Lazy;
pub use mix::Mix;
pub use model_swap::ModelSwap;
pub use nan_states::NanStates;
pub use near_zero::NearZero;
pub use one_step_jump::OneStepJump;
pub use order_swap::OrderSwap;
pub use pendulum::Pendulum;
pub use push::Push;
pub use rate_override::RateOverride;
pub use splice::Splice;
pub use start::smallest_p;

use std::fmt;
use std::str::FromStr;

use pol_core::learner::LearnerError;
use pol_core::manifest::Terms;
use pol_core::recipe::Recipe;
use pol_core::state::State;
use pol_core::store::{Store, StoreError};
use pol_models::ImageLearner;
use pol_models::dataset::{Dataset, DatasetError, Images};

/// Whom a forger steals from.
#[derive(Clone, Copy)]
pub struct Victim<'a> {
    /// The terms of the honest proof.
    pub terms: &'a Terms,
    /// The proof itself, for attacks on a proof that was published whole.
    pub proof: &'a dyn Store,
    /// Its final state. A forger uses the model in it, and no optimizer.
    pub stolen: &'a State,
    /// The data: what was trained on, and a test split, another sample of the same distribution.
    pub data: &'a Dataset,
}

/// How a forger goes about it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// k of the forged proof.
    pub interval: u64,
    /// Segments of the forged proof, where the attack leaves them free.
    pub segments: u64,
    /// The learning rate to claim, where the attack leaves it free; each has a default of its own.
    pub learning_rate: Option<f64>,
    /// The forger's nonce.
    pub nonce: u64,
    /// The data that forged records are made of.
    pub access: Access,
    /// L-BFGS iterations for each batch that is optimised.
    pub iterations: u64,
    /// Whether the forger knows this project's rules and bends what it can to them; each attack says
    /// how.
    pub adaptive: bool,
    /// Segments that the audit to be evaded draws.
    pub sample: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            interval: 10,
            segments: 20,
            learning_rate: None,
            nonce: 1,
            access: Access::Training,
            iterations: 10,
            adaptive: false,
            sample: 3,
        }
    }
}

/// The data that a forger makes records of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Access {
    /// The training data.
    #[default]
    Training,
    /// Another sample of the same distribution: the test split.
    Sibling,
    /// Uniform noise with random labels.
    Noise,
}

impl Access {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Training, Self::Sibling, Self::Noise];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Training => "training",
            Self::Sibling => "sibling",
            Self::Noise => "noise",
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Access {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|access| access.name() == name);
        found.ok_or_else(|| "the data of a forger is training, sibling or noise".to_owned())
    }
}

/// What a forgery cost.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spent {
    /// Gradients of one batch: a training step has one, forward and backward.
    pub gradients: u64,
    /// Steps of the honest training that it imitates.
    pub honest_steps: u64,
}

/// Something that the attack measured of itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure {
    /// What.
    pub name: &'static str,
    /// How much.
    pub value: f64,
}

/// What a forger has made, beside the proof in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Forged {
    /// What it cost.
    pub spent: Spent,
    /// The records that the proof commits to, where they are not the victim's.
    pub records: Option<Images>,
    /// What the attack measured of itself.
    pub figures: Vec<Figure>,
}

impl Forged {
    /// A forgery on the victim's own data, at so many gradients.
    pub(crate) fn on_their_data(victim: &Victim<'_>, gradients: u64) -> Self {
        Self {
            spent: Spent {
                gradients,
                honest_steps: victim.terms.recipe.steps,
            },
            records: None,
            figures: Vec::new(),
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: f64) -> Self {
        self.figures.push(Figure { name, value });
        self
    }
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
    /// The forged records are not of the data set.
    #[error(transparent)]
    Data(#[from] DatasetError),
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
    fn claimed(&self, victim: &Victim<'_>, options: &Options) -> Recipe;

    /// Forges a proof into `store`. The learner follows [`Attack::claimed`].
    ///
    /// # Errors
    /// [`AttackError`].
    fn forge(
        &self,
        victim: &Victim<'_>,
        options: &Options,
        learner: &mut dyn ImageLearner,
        store: &dyn Store,
    ) -> Result<Forged, AttackError>;
}

/// Every attack.
pub const ALL: [&dyn Attack; 26] = [
    &OneStepJump,
    &NearZero,
    &Joint,
    &Infinitesimal,
    &Lazy,
    &Blindfold,
    &HighNoise,
    &Injection,
    &RateOverride,
    &BufferSwap,
    &ModelSwap,
    &LabelSwap,
    &OrderSwap,
    &AugmentationSwap,
    &ElidedData,
    &NanStates,
    &Splice,
    &Mix,
    &Copied,
    &Grinding,
    &DataForging,
    &Counters,
    &Pendulum,
    &Forgetting,
    &LastSegment,
    &Push,
];

/// The attack of this name.
pub fn named(name: &str) -> Option<&'static dyn Attack> {
    ALL.into_iter().find(|attack| attack.name() == name)
}
