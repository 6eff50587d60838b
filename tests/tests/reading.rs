//! What is judged is what was read: a proof whose files are exchanged while it is judged.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use pol_core::store::{Item, MemoryStore, Store, StoreError};
use pol_core::training::{Outcome, Training};
use pol_core::verify::{Integrity, Proof, Resources, Verdict, VerifiedPrior, Verifier};
use pol_tests::toy::{self, INTERVAL, Toy};

/// Two proofs in one place: `item` is the first one's for so many readings, then the second one's. Objects of
/// both are there.
struct Exchanged {
    before: MemoryStore,
    after: MemoryStore,
    item: Item,
    readings: usize,
    made: AtomicUsize,
    read: Mutex<Vec<Item>>,
}

impl Exchanged {
    fn new(item: Item, readings: usize) -> Self {
        Self {
            before: proof_of(7),
            after: proof_of(8),
            item,
            readings,
            made: AtomicUsize::new(0),
            read: Mutex::default(),
        }
    }

    fn holder(&self, item: Item) -> &MemoryStore {
        let exchanged = item == self.item && self.made.load(Ordering::SeqCst) >= self.readings;
        match exchanged || !self.before.contains(item) {
            true => &self.after,
            false => &self.before,
        }
    }

    fn times_read(&self, item: Item) -> usize {
        let read = self.read.lock().unwrap();
        read.iter().filter(|found| **found == item).count()
    }
}

impl Store for Exchanged {
    fn location(&self) -> String {
        "the store".to_owned()
    }
    fn read(&self, item: Item, limit: u64) -> Result<Vec<u8>, StoreError> {
        let bytes = self.holder(item).read(item, limit);
        if item == self.item {
            self.made.fetch_add(1, Ordering::SeqCst);
        }
        self.read.lock().unwrap().push(item);
        bytes
    }
    fn length(&self, item: Item) -> Result<u64, StoreError> {
        self.holder(item).length(item)
    }
    fn write(&self, _: Item, _: &[u8]) -> Result<(), StoreError> {
        unreachable!("verifying writes nothing")
    }
    fn append_journal(&self, _: &[u8]) -> Result<(), StoreError> {
        unreachable!("verifying writes nothing")
    }
    fn truncate_journal(&self, _: u64) -> Result<(), StoreError> {
        unreachable!("verifying writes nothing")
    }
    fn remove_journal(&self) -> Result<(), StoreError> {
        unreachable!("verifying writes nothing")
    }
    fn contains(&self, item: Item) -> bool {
        self.holder(item).contains(item)
    }
    fn size(&self) -> Result<u64, StoreError> {
        self.before.size()
    }
}

fn proof_of(nonce: u64) -> MemoryStore {
    let store = std::sync::Arc::new(MemoryStore::new());
    let records = toy::records();
    let training = Training::new(toy::recipe(), &records, nonce, INTERVAL);
    let outcome = training.run(&mut Toy::new(&toy::recipe()), store.clone() as _, |_, _| {
        std::ops::ControlFlow::Continue(())
    });
    assert!(matches!(outcome, Ok(Outcome::Sealed(_))));
    (*store).clone()
}

fn commitment(store: &MemoryStore) -> pol_core::digest::Digest {
    let proof = Proof::read(store, Resources::default()).unwrap();
    proof.unwrap().commitment()
}

#[test]
fn claim_files_and_replay_are_of_one_reading_of_the_manifest() {
    let store = Exchanged::new(Item::Manifest, 1);
    let (first, other) = (commitment(&store.before), commitment(&store.after));
    assert_ne!(first, other);
    let proof = Proof::read(&store, Resources::default()).unwrap().unwrap();
    let (records, recipe) = (toy::records(), toy::recipe());
    let report = Verifier::new(&records)
        .expect_recipe(&recipe)
        .verify_proof(&proof, &mut Toy::new(&recipe), None, |_| {})
        .unwrap();
    assert_eq!(report.verdict, Verdict::Accepted, "{:?}", report.reasons);
    assert_eq!(report.commitment, Some(first));
    assert_eq!(proof.commitment(), first);
    let file = store.before.read(Item::Manifest, u64::MAX).unwrap();
    assert_eq!(proof.manifest_file(), file);
    let prior = VerifiedPrior::of(&report, &proof).unwrap();
    assert_eq!(prior.commitment(), first);
    assert_eq!(store.times_read(Item::Manifest), 1);
    // A report of what lay there before is none of what lies there now.
    assert!(VerifiedPrior::new(&report, &store).is_none());
}

#[test]
fn a_model_file_that_was_looked_at_is_the_one_that_is_checked() {
    let checked = |store: &Exchanged, signed: bool| {
        let proof = Proof::read(store, Resources::default()).unwrap().unwrap();
        let file = signed.then(|| proof.model_file().unwrap().unwrap());
        let holds = match proof.check(&mut |_| {}).unwrap() {
            Integrity::Holds(_) => true,
            Integrity::Broken { reason, .. } => {
                assert_eq!(reason.check(), "final model", "{reason}");
                false
            }
        };
        (file, holds)
    };
    let own = |store: &MemoryStore| Some(store.read(Item::Model, u64::MAX).unwrap());
    // Its signature is checked on the right file, which is exchanged then: it is not read again.
    let store = Exchanged::new(Item::Model, 1);
    assert_eq!(checked(&store, true), (own(&store.before), true));
    assert_eq!(store.times_read(Item::Model), 1);
    // Its signature is checked on another file.
    let store = Exchanged::new(Item::Model, 0);
    assert_eq!(checked(&store, true), (own(&store.after), false));
    // Without a signature it is read once too.
    let store = Exchanged::new(Item::Model, 1);
    assert_eq!(checked(&store, false), (None, true));
    assert_eq!(store.times_read(Item::Model), 1);
    // Whoever asks twice gets the same or nothing.
    let store = Exchanged::new(Item::Model, 1);
    let proof = Proof::read(&store, Resources::default()).unwrap().unwrap();
    assert!(proof.model_file().unwrap().is_ok());
    let reason = proof.model_file().unwrap().unwrap_err();
    assert!(reason.to_string().contains("exchanged"), "{reason}");
}
