//! The decoders.

pub(crate) mod seeds;

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use pol_core::audit::{Challenge, Opening, PublicCommitment};
use pol_core::digest::{Digest, tagged};
use pol_core::journal::Journal;
use pol_core::manifest::Manifest;
use pol_core::model_file as model;
use pol_core::object;
use pol_core::policy::Policy;
use pol_core::store::{ArchiveStore, Beside, FolderStore, Item, MemoryStore, Store};
use pol_core::verify::{Resources, check_integrity, read_claim};
use pol_evidence::dsse::Envelope;
use pol_evidence::key::{PrivateKey, TrustedKey};
use pol_evidence::timestamp::{self as stamps, Roots};
use pol_evidence::{training, verdict};
use pol_models::dataset::DatasetName;
use pol_models::recipe_file::RecipeFile;
use serde_json::Value;

pub(crate) fn manifest(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::decode(bytes) {
        assert_eq!(manifest.encode(), bytes);
    }
    let store = store_with(Item::Manifest, bytes);
    let _ = read_claim(&store);
    let _ = check_integrity(&store, ONE_THREAD, &mut |_| {});
}

pub(crate) fn journal(bytes: &[u8]) {
    let store = store_with(Item::Journal, bytes);
    if let Ok(mut journal) = Journal::open(&store) {
        assert!(journal.valid_bytes <= bytes.len() as u64);
        let keep = journal.checkpoints.len();
        journal
            .rewind(&store, keep)
            .unwrap_or_else(|e| panic!("{e}"));
        let read = |store: &MemoryStore| store.read(Item::Journal, u64::MAX);
        let again = read(&store).unwrap_or_else(|e| panic!("{e}"));
        assert!(bytes.starts_with(&again));
    }
}

/// A state that may be a difference from the first of the vectors', as it is and with a right checksum.
pub(crate) fn state(bytes: &[u8]) {
    let with_sum = [&crc32fast::hash(bytes).to_le_bytes()[..], bytes].concat();
    let name = tagged("any", &[]);
    for bytes in [bytes, &with_sum] {
        let store = MemoryStore::new();
        let (base, whole) = base();
        write(&store, Item::Object(*base), whole);
        write(&store, Item::Object(name), bytes);
        // The name is none that anything hashes to.
        assert!(object::read_state(&store, &name, None).is_err());
        assert!(object::decode_state(&name, bytes).is_err());
        let _ = object::base_of(&store, &name);
    }
}

/// The vectors' whole state.
fn base() -> &'static (Digest, Vec<u8>) {
    static BASE: OnceLock<(Digest, Vec<u8>)> = OnceLock::new();
    BASE.get_or_init(|| seeds::stored_states().swap_remove(0))
}

pub(crate) fn batches(bytes: &[u8]) {
    let with_sum = [&crc32fast::hash(bytes).to_le_bytes()[..], bytes].concat();
    for bytes in [bytes, &with_sum] {
        assert!(object::decode_batches(&tagged("any", &[]), bytes).is_err());
        let payload = bytes.get(4..).unwrap_or_default();
        let name = tagged("pol.v1.batches", &[payload]);
        if let Ok(batches) = object::decode_batches(&name, bytes) {
            assert_eq!(object::encode_batches(&batches), bytes);
        }
    }
}

pub(crate) fn model_file(bytes: &[u8]) {
    let _ = model::root_of_file(bytes);
}

pub(crate) fn recipe(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(file) = RecipeFile::parse("recipe.toml", text) {
        let _ = file.resolve(1437).map(|recipe| recipe.digest());
    }
}

pub(crate) fn policy(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(policy) = Policy::parse(text)
    {
        let _ = policy.digest();
    }
}

pub(crate) fn commitment(bytes: &[u8]) {
    if let Ok(public) = PublicCommitment::decode(bytes) {
        assert_eq!(public.encode(), bytes);
        let _ = public.digest();
    }
}

pub(crate) fn challenge(bytes: &[u8]) {
    if let Ok(challenge) = Challenge::decode(bytes) {
        assert_eq!(challenge.encode(), bytes);
        let _ = challenge.digest();
    }
}

pub(crate) fn opening(bytes: &[u8]) {
    if let Ok(opening) = Opening::decode(bytes) {
        assert_eq!(opening.encode(), bytes);
    }
}

/// A signature, or a signed verdict.
pub(crate) fn envelope(bytes: &[u8]) {
    if let Ok(envelope) = Envelope::parse(bytes) {
        let trusted = [seeds::trusted_key()];
        let _ = envelope.verify(&trusted);
        let _ = verdict::verify::<Value>(bytes, None, &trusted);
        let _ = training::verify(bytes, tagged("any", &[]), None, None, &trusted);
    }
}

/// A certificate, a timestamp.
pub(crate) fn timestamp(bytes: &[u8]) {
    let digest: Digest = tagged("any", &[]);
    let _ = stamps::verify(bytes, &digest, &Roots::default());
    let _ = stamps::check_digest(bytes, &digest);
    let _ = stamps::check_answer(&stamps::request(&digest, 1), bytes);
    if let Ok(pem) = std::str::from_utf8(bytes) {
        let _ = Roots::parse(pem);
    }
}

pub(crate) fn key(bytes: &[u8]) {
    in_folder(|folder| {
        let path = folder.join("key.pem");
        write_private(&path, bytes);
        let _ = TrustedKey::read(&path);
        let _ = PrivateKey::read(&path, || None);
    });
}

/// A file of CIFAR-10 and CIFAR-100, training and test alike.
pub(crate) fn cifar(bytes: &[u8]) {
    in_folder(|folder| {
        for (dataset, names) in [
            (DatasetName::Cifar10, ["data_batch_1.bin", "test_batch.bin"]),
            (DatasetName::Cifar100, ["train.bin", "test.bin"]),
        ] {
            for name in names {
                fs::write(folder.join(name), bytes).unwrap_or_else(|e| panic!("{e}"));
            }
            let _ = dataset.load(folder);
        }
    });
}

/// The images of MNIST, and labels for one image.
pub(crate) fn idx(bytes: &[u8]) {
    in_folder(|folder| {
        let labels = [&[0, 0, 8, 1, 0, 0, 0, 1][..], &[3]].concat();
        for (name, content) in [
            ("train-images-idx3-ubyte", bytes),
            ("train-labels-idx1-ubyte", &labels),
            ("t10k-images-idx3-ubyte", bytes),
            ("t10k-labels-idx1-ubyte", &labels),
        ] {
            fs::write(folder.join(name), content).unwrap_or_else(|e| panic!("{e}"));
        }
        let _ = DatasetName::Mnist.load(folder);
    });
}

/// A packed proof: what opens is unpacked, and packed again it is the same.
pub(crate) fn archive(bytes: &[u8]) {
    in_folder(|folder| {
        let (file, run) = (folder.join("proof"), folder.join("inside/run"));
        fs::write(&file, bytes).unwrap_or_else(|e| panic!("{e}"));
        let Ok(archive) = ArchiveStore::open(&file) else {
            return;
        };
        let _ = check_integrity(&archive, ONE_THREAD, &mut |_| {});
        let _ = archive.beside(Beside::Attestations);
        let unpacked = FolderStore::new(&run);
        archive.unpack(&unpacked).unwrap_or_else(|e| panic!("{e}"));
        // Nothing is anywhere but in the folder.
        let entries = |path: &Path| fs::read_dir(path).map_or(0, Iterator::count);
        assert!(entries(folder) <= 2 && entries(&folder.join("inside")) <= 1);
        let mut again = Vec::new();
        if pol_core::store::pack(&unpacked, &file, &mut again).is_ok() {
            // An archive may hold objects that the proof is not made of; they are not packed.
            assert!(again.len() <= bytes.len());
        }
    });
}

const ONE_THREAD: Resources = Resources {
    threads: 1,
    memory: 1 << 20,
};

fn store_with(item: Item, bytes: &[u8]) -> MemoryStore {
    let store = MemoryStore::new();
    write(&store, item, bytes);
    store
}

fn write(store: &MemoryStore, item: Item, bytes: &[u8]) {
    store.write(item, bytes).unwrap_or_else(|e| panic!("{e}"));
}

fn in_folder(action: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
    action(folder.path());
}

/// As private keys have to be.
fn write_private(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap_or_else(|e| panic!("{e}"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(path, private).unwrap_or_else(|e| panic!("{e}"));
    }
}
