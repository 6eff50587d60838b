//! What a prover claims and commits to (SPEC.md §10).

use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::digest::{Digest, tagged};
use crate::identity::ProverKey;
use crate::merkle::Tree;
use crate::random::Seed;
use crate::recipe::{Recipe, RecipeError};
use crate::records::DataCommitment;
use crate::schedule::{BatchSource, MAX_RECORDS};

/// The name of this format, in every manifest and journal.
pub const FORMAT: &str = "pol/v3";
/// The longest manifest, in bytes (SPEC.md §13).
pub const MAX_MANIFEST_BYTES: u64 = 256 << 20;

/// What is settled before the first step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// [`FORMAT`].
    pub format: String,
    /// The training.
    pub recipe: Recipe,
    /// The data.
    pub data: DataCommitment,
    /// Whose training it is; the seed depends on it.
    pub key: Option<ProverKey>,
    /// Chosen by the prover; it makes trainings of one recipe on one data set differ.
    pub nonce: u64,
    /// The seed derived from the four above.
    pub seed: Seed,
    /// Where the initial state comes from.
    pub start: Start,
    /// How the batches are determined.
    pub batches: BatchSource,
    /// k: steps between checkpoints. The last segment may be shorter.
    pub interval: u64,
}

/// Where the initial state comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Start {
    /// From the seed.
    Derived,
    /// From the prover, who only claims that it was drawn as the model's initial weights are. A
    /// test of the distribution is all that a verifier has.
    Claimed,
    /// From the final state of another proof: its model, with a fresh optimizer.
    Prior {
        /// That proof's commitment.
        commitment: Digest,
    },
}

impl Terms {
    /// The terms of a training by nobody in particular, from a derived initial state; the seed is
    /// derived here.
    pub fn new(
        recipe: Recipe,
        data: DataCommitment,
        nonce: u64,
        batches: BatchSource,
        interval: u64,
    ) -> Self {
        let mut terms = Self {
            format: FORMAT.to_owned(),
            recipe,
            data,
            key: None,
            nonce,
            seed: Seed::from_digest(data.root),
            start: Start::Derived,
            batches,
            interval,
        };
        terms.seed = terms.derived_seed();
        terms
    }

    /// The same training as that of the prover with this key: with another seed, therefore.
    pub fn of_prover(mut self, key: Option<ProverKey>) -> Self {
        self.key = key;
        self.seed = self.derived_seed();
        self
    }

    /// The same training from another initial state.
    pub fn from_start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    fn derived_seed(&self) -> Seed {
        let key = self.key.as_ref().map_or(&[][..], |key| key.as_bytes());
        Seed::derive(&self.data.root, &self.recipe.digest(), key, self.nonce)
    }

    /// Checks what can be checked without anything else.
    ///
    /// # Errors
    /// [`TermsError`] names the field.
    pub fn check(&self) -> Result<(), TermsError> {
        if self.format != FORMAT {
            return Err(TermsError::Format(self.format.chars().take(40).collect()));
        }
        self.recipe.check()?;
        if self.interval == 0 || self.interval > self.recipe.steps {
            return Err(TermsError::Interval {
                interval: self.interval,
                steps: self.recipe.steps,
            });
        }
        if self.data.records > MAX_RECORDS {
            return Err(TermsError::Records(self.data.records));
        }
        if self.derived_seed() != self.seed {
            return Err(TermsError::Seed);
        }
        Ok(())
    }

    /// The steps at which checkpoints stand: 0, k, 2k, … and the last step.
    pub fn checkpoint_steps(&self) -> impl Iterator<Item = u64> + use<> {
        let (k, last) = (self.interval.max(1), self.recipe.steps);
        (0..self.segments())
            .map(move |i| i * k)
            .chain(std::iter::once(last))
    }

    /// The first step after `step` at which a checkpoint stands; `None` after the last.
    pub fn next_checkpoint(&self, step: u64) -> Option<u64> {
        let (k, last) = (self.interval.max(1), self.recipe.steps);
        (step < last).then(|| last.min((step / k + 1) * k))
    }

    /// The number of segments.
    pub fn segments(&self) -> u64 {
        self.recipe.steps.div_ceil(self.interval.max(1))
    }

    /// The steps before and after the segment at `index`.
    pub fn segment_steps(&self, index: u64) -> (u64, u64) {
        let first = index.saturating_mul(self.interval);
        let last = first.saturating_add(self.interval);
        (first, last.min(self.recipe.steps))
    }

    /// Whether a checkpoint stands at `step`.
    pub fn is_checkpoint(&self, step: u64) -> bool {
        step.is_multiple_of(self.interval.max(1)) || step == self.recipe.steps
    }
}

/// Why terms do not describe a training.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TermsError {
    /// Another format or version.
    #[error("the proof's format is `{0}`; this program reads `{FORMAT}`")]
    Format(String),
    /// A recipe that no training can follow.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// An interval of zero, or longer than the training.
    #[error("the interval of {interval} steps does not fit a training of {steps}")]
    Interval {
        /// k.
        interval: u64,
        /// The training's steps.
        steps: u64,
    },
    /// More records than the format allows.
    #[error("the data has {0} records; the limit is {MAX_RECORDS}")]
    Records(u64),
    /// A seed chosen rather than derived.
    #[error("the seed is not the one derived from data, recipe, key and nonce")]
    Seed,
}

/// A committed state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// Steps made before this state.
    pub step: u64,
    /// The state's digest, and the name of its object.
    pub state: Digest,
    /// The name of the object that lists the batches of the segment ending here; only with
    /// [`BatchSource::Explicit`].
    pub batches: Option<Digest>,
}

impl Checkpoint {
    /// The leaf in the tree of checkpoints.
    pub fn digest(&self) -> Digest {
        tagged("pol.v1.checkpoint", &[&codec::encode(self)])
    }
}

/// Everything a prover commits to: small, whatever the length of the training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// What was settled before the first step.
    pub terms: Terms,
    /// The number of checkpoints, the initial and the final state included.
    pub checkpoints: u64,
    /// The root of the tree over them.
    pub checkpoints_root: Digest,
    /// The root over the final model's tensors; see [`crate::model_file`].
    pub model: Digest,
}

impl Claim {
    /// The commitment: `H("pol.v1.commitment", canonical encoding of the claim)`.
    pub fn commitment(&self) -> Digest {
        tagged("pol.v1.commitment", &[&codec::encode(self)])
    }
}

/// The content of `manifest.mp`: the claim and the checkpoints it binds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What is committed to.
    pub claim: Claim,
    /// All checkpoints in order.
    pub checkpoints: Vec<Checkpoint>,
}

impl Manifest {
    /// Binds `checkpoints` and the final model to `terms`.
    pub fn seal(terms: Terms, checkpoints: Vec<Checkpoint>, model: Digest) -> Self {
        Self {
            claim: Claim {
                terms,
                checkpoints: checkpoints.len() as u64,
                checkpoints_root: checkpoints_root(&checkpoints),
                model,
            },
            checkpoints,
        }
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// If `bytes` is not the canonical encoding of one.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode("manifest.mp", bytes, MAX_MANIFEST_BYTES)
    }

    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }
}

/// The root over checkpoints in order.
pub fn checkpoints_root(checkpoints: &[Checkpoint]) -> Digest {
    let leaves: Vec<Digest> = checkpoints.iter().map(Checkpoint::digest).collect();
    Tree::Checkpoints.root(&leaves)
}
