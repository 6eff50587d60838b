//! The format, held to vectors that were made from SPEC.md by another program
//! (`tests/vectors/make.py`).

use pol_core::audit::{Challenge, PublicCommitment};
use pol_core::codec;
use pol_core::digest::{Digest, tagged};
use pol_core::identity::ProverKey;
use pol_core::journal::Head;
use pol_core::manifest::{Manifest, Start, Terms};
use pol_core::merkle::{self, Tree};
use pol_core::model_file;
use pol_core::object;
use pol_core::random::{Purpose, Seed};
use pol_core::recipe::Recipe;
use pol_core::records::{DataCommitment, MemoryRecords, SaltSecret};
use pol_core::state::{DType, Entry, State};
use pol_core::store::{Item, MemoryStore, Store};
use pol_core::verify::read_claim;
use serde_json::Value;

fn load(name: &str) -> Value {
    let path = format!("{}/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    let hex = value.as_str().unwrap();
    (0..hex.len() / 2)
        .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
        .collect()
}

fn digest(value: &Value) -> Digest {
    value.as_str().unwrap().parse().unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

#[test]
fn tagged_hashes() {
    for vector in list(&load("digest.json")) {
        let parts: Vec<Vec<u8>> = list(&vector["parts"]).iter().map(bytes).collect();
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let found = tagged(vector["tag"].as_str().unwrap(), &parts);
        assert_eq!(found, digest(&vector["digest"]));
    }
}

#[test]
fn merkle_roots() {
    for vector in list(&load("merkle.json")) {
        let tree = match vector["tree"].as_str().unwrap() {
            "state" => Tree::State,
            "records" => Tree::Records,
            "model" => Tree::Model,
            _ => Tree::Checkpoints,
        };
        let leaves: Vec<Digest> = list(&vector["leaves"]).iter().map(digest).collect();
        assert_eq!(
            tree.root(&leaves),
            digest(&vector["root"]),
            "{} leaves",
            leaves.len()
        );
        let indices: Vec<u64> = (list(&vector["opened"]).iter())
            .map(|index| index.as_u64().unwrap())
            .collect();
        let nodes: Vec<Digest> = list(&vector["nodes"]).iter().map(digest).collect();
        assert_eq!(merkle::open(&leaves, &indices), nodes);
        let opened: Vec<_> = indices.iter().map(|&i| (i, leaves[i as usize])).collect();
        let rebuilt = tree.root_of_opened(leaves.len() as u64, &opened, &nodes);
        assert_eq!(rebuilt, Some(digest(&vector["root"])));
    }
}

#[test]
fn stored_states() {
    let vector = load("object.json");
    let store_of = |objects: &Value| {
        let store = MemoryStore::new();
        for object in list(objects) {
            let item = Item::Object(digest(&object["state"]));
            store.write(item, &bytes(&object["bytes"])).unwrap();
        }
        store
    };
    let store = store_of(&vector["objects"]);
    for object in list(&vector["objects"]) {
        let name = digest(&object["state"]);
        let state = object::read_state(&store, &name, None).unwrap();
        assert_eq!(state.digest(), name);
        // Our own encodings are read as well.
        let again = MemoryStore::new();
        let encoded = object::encode_state(&state).unwrap();
        again.write(Item::Object(name), &encoded).unwrap();
        assert_eq!(object::read_state(&again, &name, None).unwrap(), state);
    }
    let last = object::read_state(&store, &digest(&vector["state"]), None).unwrap();
    for (entry, expected) in last.entries().iter().zip(list(&vector["values"])) {
        assert_eq!(entry.name(), expected[0].as_str().unwrap());
        assert_eq!(entry.bytes, bytes(&expected[1]));
    }
    for rejected in list(&vector["rejected"]) {
        let store = store_of(&rejected["objects"]);
        let found = object::read_state(&store, &digest(&rejected["state"]), None);
        assert!(found.is_err(), "{}: {}", rejected["name"], rejected["why"]);
    }
}

#[test]
fn random_numbers() {
    for vector in list(&load("stream.json")) {
        let seed = Seed::from_digest(digest(&vector["seed"]));
        let number = |field: &str| vector[field].as_u64().unwrap();
        let purpose = match vector["purpose"].as_str().unwrap() {
            "weights" => Purpose::Weights(vector["path"].as_str().unwrap()),
            "permutation" => Purpose::Permutation {
                epoch: number("epoch"),
            },
            "augmentation" => Purpose::Augmentation {
                epoch: number("epoch"),
                record: number("record"),
            },
            "dropout" => Purpose::Dropout {
                step: number("step"),
                layer: number("layer"),
            },
            "noise" => Purpose::Noise {
                segment: number("segment"),
                replay: number("replay"),
            },
            _ => Purpose::Audit,
        };
        let fresh = || seed.stream(purpose);
        let mut draws = fresh();
        for expected in list(&vector["u64"]) {
            assert_eq!(draws.next_u64().to_string(), expected.as_str().unwrap());
        }
        let mut draws = fresh();
        for expected in list(&vector["below_10"]) {
            assert_eq!(draws.below(10), expected.as_u64().unwrap());
        }
        assert_eq!(
            fresh().below(3 << 62).to_string(),
            vector["below_large"].as_str().unwrap()
        );
        assert_eq!(fresh().unit(), vector["unit"].as_f64().unwrap());
        // Python's logarithm and cosine may differ from libm's in the last place.
        let normal = vector["normal"].as_f64().unwrap();
        assert!((fresh().normal() - normal).abs() <= 1e-14 * normal.abs());
        let order: Vec<u64> = list(&vector["permutation_12"])
            .iter()
            .map(|v| v.as_u64().unwrap())
            .collect();
        assert_eq!(fresh().permutation(12), order);
        let sample = list(&vector["sample_5_of_12"]).iter();
        let sample: Vec<u64> = sample.map(|v| v.as_u64().unwrap()).collect();
        assert_eq!(fresh().sample(12, 5), sample);
    }
}

#[test]
fn normal_draws_keep_their_bits() {
    // From this implementation, with libm 0.2: they must not change with the platform.
    let mut stream = Seed::from_digest(tagged("vector", &[])).stream(Purpose::Weights("w"));
    let bits: Vec<u64> = (0..4).map(|_| stream.normal().to_bits()).collect();
    assert_eq!(bits, NORMAL_BITS);
}

const NORMAL_BITS: [u64; 4] = [
    13_808_086_688_738_865_283,
    13_802_888_467_694_309_402,
    13_836_144_885_585_825_571,
    13_826_303_662_337_212_847,
];

#[test]
fn states() {
    let vector = load("state.json");
    let entries: Vec<Entry> = list(&vector["entries"])
        .iter()
        .map(|entry| {
            let dtype = match entry["dtype"].as_str().unwrap() {
                "f32" => DType::F32,
                "f64" => DType::F64,
                _ => DType::U64,
            };
            let shape = list(&entry["shape"])
                .iter()
                .map(|d| d.as_u64().unwrap())
                .collect();
            let name = entry["name"].as_str().unwrap();
            let made = Entry::tensor(name, dtype, shape, bytes(&entry["bytes"]));
            assert_eq!(made.digest(), digest(&entry["leaf"]), "{name}");
            made
        })
        .rev()
        .collect();
    let state = State::new(entries).unwrap();
    assert_eq!(state.digest(), digest(&vector["digest"]));
    assert_eq!(model_file::root(&state), digest(&vector["model"]));
}

#[test]
fn records_recipe_seed_and_commitment() {
    let vector = load("manifest.json");
    let records = list(&vector["records"])
        .iter()
        .map(|r| (r["label"].as_u64().unwrap() as u32, bytes(&r["bytes"])))
        .collect();
    let records = MemoryRecords(records);
    let data = DataCommitment::of(&records);
    assert_eq!(data.root, digest(&vector["data_root"]));
    let secret = SaltSecret::derive(&bytes(&vector["secret"]));
    let salted = DataCommitment::with_salts(&records, Some(&secret));
    assert_eq!(salted.root, digest(&vector["salted_root"]));
    let prior = Start::Prior {
        commitment: data.root,
    };
    assert_eq!(codec::encode(&prior), bytes(&vector["prior"]));

    let recipe: Recipe = codec::decode("recipe", &bytes(&vector["recipe"]), 4096).unwrap();
    assert_eq!(recipe.digest(), digest(&vector["recipe_digest"]));

    let manifest = Manifest::decode(&bytes(&vector["manifest"])).unwrap();
    let claimed = &manifest.claim.terms;
    let terms = Terms::new(
        recipe,
        data,
        claimed.nonce,
        claimed.batches,
        claimed.interval,
    );
    let nobody = terms.seed;
    let key = std::array::from_fn(|i| if i == 0 { 2 } else { i as u8 - 1 });
    let terms = terms.of_prover(Some(ProverKey::from_bytes(key).unwrap()));
    assert_ne!(terms.seed, nobody);
    assert_eq!(*terms.seed.digest(), digest(&vector["seed"]));
    assert_eq!(terms, *claimed);
    let head = Head::of(&terms, &manifest.checkpoints[..2]);
    assert_eq!(head.digest, digest(&vector["journal_head"]));
    let sealed = Manifest::seal(terms, manifest.checkpoints.clone(), manifest.claim.model);
    assert_eq!(sealed, manifest);
    assert_eq!(sealed.encode(), bytes(&vector["manifest"]));
    assert_eq!(manifest.claim.commitment(), digest(&vector["commitment"]));
}

#[test]
fn faulty_manifests_are_rejected() {
    let vector = load("manifest.json");
    let claim = |data: &[u8]| {
        let store = MemoryStore::new();
        store.write(Item::Manifest, data).unwrap();
        read_claim(&store).unwrap()
    };
    assert!(claim(&bytes(&vector["manifest"])).is_ok());
    for faulty in list(&vector["rejected"]) {
        let name = faulty["name"].as_str().unwrap();
        let data = bytes(&faulty["manifest"]);
        assert_ne!(data, bytes(&vector["manifest"]), "{name} is not faulty");
        let reason = claim(&data).unwrap_err().to_string();
        assert!(reason.contains("manifest.mp"), "{name}: {reason}");
    }
}

#[test]
fn commitments_and_challenges() {
    let vector = load("audit.json");
    let public = PublicCommitment::decode(&bytes(&vector["commitment_file"])).unwrap();
    assert_eq!(public.digest(), digest(&vector["commitment"]));
    assert_eq!(public.encode(), bytes(&vector["commitment_file"]));
    let key = public.claim.terms.key.unwrap();
    assert_eq!(key.id(), digest(&vector["key_id"]));
    for vector in list(&vector["challenges"]) {
        let challenge = Challenge::decode(&bytes(&vector["challenge"])).unwrap();
        assert_eq!(challenge.commitment, public.digest());
        assert_eq!(challenge.encode(), bytes(&vector["challenge"]));
        assert_eq!(challenge.digest(), digest(&vector["digest"]));
        assert_eq!(*challenge.seed().digest(), digest(&vector["seed"]));
        let segments: Vec<u64> = (list(&vector["segments"]).iter())
            .map(|segment| segment.as_u64().unwrap())
            .collect();
        // How finely the training is cut decides what a draw means, and nothing else about it.
        let mut claim = public.claim.clone();
        claim.terms.interval = vector["interval"].as_u64().unwrap();
        assert_eq!(challenge.segments(&claim), segments);
    }
    let former = Challenge::decode(&bytes(&vector["former_challenge"])).unwrap_err();
    assert!(former.to_string().contains("pol-challenge/v1"), "{former}");
}
