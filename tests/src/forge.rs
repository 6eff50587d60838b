//! The forger's side: a proof whose states were altered and which was then sealed again, with
//! every digest right. Only replaying, or the verifier's own expectations, can tell.

use pol_core::digest::Digest;
use pol_core::manifest::{Checkpoint, Manifest, Terms};
use pol_core::state::{Entry, State};
use pol_core::store::{Item, MemoryStore, Store};
use pol_core::{model_file, object};

/// The states of a proof, taken apart.
pub struct Forgery {
    /// The terms.
    pub terms: Terms,
    /// Every state with its step.
    pub states: Vec<(u64, State)>,
    /// The model committed to.
    pub model: Digest,
    /// The final model's file.
    pub file: Vec<u8>,
}

impl Forgery {
    /// Takes a proof apart.
    ///
    /// # Panics
    /// If the proof is not whole.
    pub fn of(store: &MemoryStore) -> Self {
        let read = |item| store.read(item, u64::MAX).unwrap_or_else(|e| panic!("{e}"));
        let manifest = Manifest::decode(&read(Item::Manifest)).unwrap_or_else(|e| panic!("{e}"));
        let states = (manifest.checkpoints.iter())
            .map(|checkpoint| {
                let state = object::read_state(store, &checkpoint.state, None);
                (checkpoint.step, state.unwrap_or_else(|e| panic!("{e}")))
            })
            .collect();
        Self {
            terms: manifest.claim.terms,
            states,
            model: manifest.claim.model,
            file: read(Item::Model),
        }
    }

    /// Changes an entry of the state at this index.
    ///
    /// # Panics
    /// If there is no such entry.
    pub fn alter(&mut self, index: usize, name: &str, change: impl FnOnce(&mut Entry)) {
        let mut entries = self.states[index].1.entries().to_vec();
        let entry = entries.iter_mut().find(|entry| entry.name() == name);
        change(entry.unwrap_or_else(|| panic!("there is no `{name}`")));
        self.states[index].1 = State::new(entries).unwrap_or_else(|e| panic!("{e}"));
    }

    /// Exports the final state's model.
    ///
    /// # Panics
    /// If there is no state.
    pub fn export(&mut self) {
        let (_, last) = self.states.last().unwrap_or_else(|| panic!("no state"));
        self.model = model_file::root(last);
        self.file = model_file::encode(last).unwrap_or_else(|e| panic!("{e}"));
    }

    /// Puts it together again, with every digest right.
    ///
    /// # Panics
    /// Never.
    pub fn seal(self) -> MemoryStore {
        let store = MemoryStore::new();
        let write = |item, bytes: &[u8]| store.write(item, bytes).unwrap_or_else(|e| panic!("{e}"));
        let checkpoints = (self.states.iter())
            .map(|(step, state)| {
                let digest = state.digest();
                let bytes = object::encode_state(state).unwrap_or_else(|e| panic!("{e}"));
                write(Item::Object(digest), &bytes);
                Checkpoint {
                    step: *step,
                    state: digest,
                    batches: None,
                }
            })
            .collect();
        let manifest = Manifest::seal(self.terms, checkpoints, self.model);
        write(Item::Model, &self.file);
        write(Item::Manifest, &manifest.encode());
        store
    }
}
