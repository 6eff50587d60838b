//! A proof that was read once. Whoever can write to where it lies may exchange its files between two
//! readings; so whatever is judged of one proof is judged by the bytes of one reading.

use std::sync::OnceLock;

use crate::digest::{Digest, tagged};
use crate::manifest::{Claim, MAX_MANIFEST_BYTES, Manifest};
use crate::model_file;
use crate::object::{self, Limits};
use crate::state::State;
use crate::store::{Item, Store, StoreError};

use super::integrity::{Fault, Integrity, check_chain, check_proof, object_fault};
use super::reason::Reason;
use super::{Progress, Resources, VerifyError};

/// Bytes of memory that a byte of a manifest takes at most: itself, the checkpoint that it is decoded to, and
/// what is noted of that.
const PER_MANIFEST_BYTE: u64 = 8;

/// A proof whose manifest was read and does not contradict itself. Claim, evidence, integrity and replays are
/// judged by this one reading; objects are hashed whenever they are read.
pub struct Proof<'a> {
    store: &'a dyn Store,
    resources: Resources,
    manifest_file: Vec<u8>,
    manifest: Manifest,
    commitment: Digest,
    /// The digest of the model's file as it was read first.
    model: OnceLock<Digest>,
}

impl<'a> Proof<'a> {
    /// Reads the proof in `store`, to be judged with no more than `resources`. The inner error says why it is
    /// none.
    ///
    /// # Errors
    /// If it could not be read for a reason that is not its own fault.
    pub fn read(
        store: &'a dyn Store,
        resources: Resources,
    ) -> Result<Result<Self, Reason>, VerifyError> {
        let read = || {
            let file = read_manifest_file(store, &|len| {
                resources.admit("manifest.mp", PER_MANIFEST_BYTE.saturating_mul(len))
            })?;
            let manifest = decode(&file)?;
            Ok(Self {
                store,
                resources,
                commitment: manifest.claim.commitment(),
                manifest_file: file,
                manifest,
                model: OnceLock::new(),
            })
        };
        judged(read())
    }

    /// What the proof claims, and its checkpoints.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What the proof claims.
    pub fn claim(&self) -> &Claim {
        &self.manifest.claim
    }

    /// Its commitment.
    pub fn commitment(&self) -> Digest {
        self.commitment
    }

    /// Where it lies.
    pub fn store(&self) -> &'a dyn Store {
        self.store
    }

    /// The bytes of `manifest.mp`.
    pub fn manifest_file(&self) -> &[u8] {
        &self.manifest_file
    }

    /// The bytes of `model.safetensors`, which are those of every other call. They are read only if there are
    /// as many as the final state's model has. The inner error says why they are not that model's.
    ///
    /// # Errors
    /// If the file could not be read for a reason that is not the proof's fault.
    pub fn model_file(&self) -> Result<Result<Vec<u8>, Reason>, VerifyError> {
        let read = self.model_length();
        judged(read.and_then(|(least, most)| self.read_model(least, most)))
    }

    /// Checks its integrity; see [`check_integrity`](super::check_integrity).
    ///
    /// # Errors
    /// If an object could not be read for a reason that is not the proof's fault.
    pub fn check(&self, progress: &mut dyn FnMut(Progress)) -> Result<Integrity<'a>, VerifyError> {
        check_proof(self, None, None, progress)
    }

    /// How much of the machine may be used.
    pub(super) fn resources(&self) -> Resources {
        self.resources
    }

    /// Checks that the file is that of the final state's model.
    pub(super) fn check_model(&self, last: &State) -> Result<(), Fault> {
        let other =
            || Reason::FinalModel("the file is not that of the final state's model".to_owned());
        let (expected, len) = {
            let file = model_file::encode(last).map_err(|_| other())?;
            (digest_of(&file), file.len() as u64)
        };
        if self.model.get().is_none() {
            self.read_model(len, len)?;
        }
        match self.model.get() == Some(&expected) {
            true => Ok(()),
            false => Err(other().into()),
        }
    }

    /// The least and the greatest length of the model's file, by the tensors of the final state.
    fn model_length(&self) -> Result<(u64, u64), Fault> {
        let limits = Limits {
            memory: self.resources.allowed(),
            ..Limits::NONE
        };
        // The chain was checked: there is a final state.
        let last = self.manifest.checkpoints.last().map(|last| last.state);
        let last = last.ok_or_else(|| Reason::Chain("there is no checkpoint".to_owned()))?;
        let layout = object::layout_of(self.store, &last, limits).map_err(object_fault)?;
        Ok(model_file::length_of(&layout))
    }

    /// Reads the model's file, of `least` to `most` bytes.
    fn read_model(&self, least: u64, most: u64) -> Result<Vec<u8>, Fault> {
        self.check_model_length(least, most)?;
        // The final state, the file, and what is made of it.
        (self.resources).admit("model.safetensors", most.saturating_mul(3))?;
        let file = self.store.read(Item::Model, most)?;
        let digest = digest_of(&file);
        match *self.model.get_or_init(|| digest) == digest {
            true => Ok(file),
            false => {
                let problem = "it was exchanged while it was judged";
                Err(Reason::FinalModel(problem.to_owned()).into())
            }
        }
    }

    fn check_model_length(&self, least: u64, most: u64) -> Result<(), Fault> {
        let found = self.store.length(Item::Model)?;
        match (least..=most).contains(&found) {
            true => Ok(()),
            false => Err(Reason::FinalModel(format!(
                "the file is not that of the final state's model: it has {found} bytes, where that model \
                 takes {}",
                if least == most {
                    least.to_string()
                } else {
                    format!("{least} to {most}")
                }
            ))
            .into()),
        }
    }
}

/// Reads what a proof claims, checking only that the manifest does not contradict itself. Whoever goes on to
/// judge the proof reads it as a [`Proof`].
///
/// # Errors
/// If the proof could not be read for a reason that is not its own fault.
pub fn read_claim(store: &dyn Store) -> Result<Result<Manifest, Reason>, VerifyError> {
    judged(read_manifest_file(store, &|_| Ok(())).and_then(|file| decode(&file)))
}

fn read_manifest_file(
    store: &dyn Store,
    admit: &dyn Fn(u64) -> Result<(), Reason>,
) -> Result<Vec<u8>, Fault> {
    if !store.contains(Item::Manifest) && store.contains(Item::Journal) {
        return Err(Reason::Unfinished.into());
    }
    let len = store.length(Item::Manifest)?;
    if len > MAX_MANIFEST_BYTES {
        return Err(StoreError::TooLarge {
            item: Item::Manifest.path(),
            len,
            limit: MAX_MANIFEST_BYTES,
        }
        .into());
    }
    admit(len)?;
    Ok(store.read(Item::Manifest, len)?)
}

fn decode(file: &[u8]) -> Result<Manifest, Fault> {
    let manifest = Manifest::decode(file).map_err(|error| Reason::Manifest(error.to_string()))?;
    check_chain(&manifest)?;
    Ok(manifest)
}

/// Tells a proof's own fault from the machine's.
fn judged<T>(outcome: Result<T, Fault>) -> Result<Result<T, Reason>, VerifyError> {
    match outcome {
        Ok(found) => Ok(Ok(found)),
        Err(Fault::Proof(reason)) => Ok(Err(reason)),
        Err(Fault::Machine(error)) => Err(error),
    }
}

/// What two readings of one file are compared by. It is written nowhere.
fn digest_of(file: &[u8]) -> Digest {
    tagged("pol.v1.verify.file", &[file])
}
