//! Proof-of-Learning: train a model, keep a proof of the training, let anyone verify it by
//! replaying parts of it.
//!
//! ```text
//! recipe + seed → schedule → learner → recorder → store → verifier → verdict
//! ```
//!
//! - A [`Recipe`](recipe::Recipe) says what is trained and how; a [`Seed`](random::Seed) derived
//!   from it and from the data determines everything random.
//! - A [`Learner`](learner::Learner) takes steps and gives its whole [`State`](state::State).
//!   With the feature `burn`, `adapter::PolLearner` is one for any Burn module.
//! - A [`Recorder`](recorder::Recorder) commits states to a [`Store`](store::Store) while the
//!   training runs; [`Training`](training::Training) is the loop around both.
//! - A [`Verifier`](verify::Verifier) checks a store's integrity, replays segments on a learner
//!   of its own and gives a [`Report`](verify::Report) with a verdict.
//!   What it demands is a [`Policy`](policy::Policy).
//! - Where prover and verifier share no folder, the files of [`audit`] pass between them: a
//!   commitment, a challenge, an opening.
//!
//! `SPEC.md` in the repository defines every byte.

pub mod audit;
pub mod calibrate;
pub mod codec;
pub mod digest;
pub mod estimate;
pub mod identity;
pub mod journal;
pub mod ks;
pub mod learner;
pub mod manifest;
pub mod merkle;
pub mod model_file;
pub mod object;
pub mod policy;
pub mod random;
pub mod recipe;
pub mod recorder;
pub mod records;
pub mod schedule;
pub mod state;
pub mod store;
pub mod thin;
pub mod training;
pub mod verify;

#[cfg(feature = "burn")]
pub mod adapter;
