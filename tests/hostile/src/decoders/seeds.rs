//! Valid inputs: from the vectors, or made here.

use std::io::{self, Write as _};
use std::path::Path;

use pol_core::codec;
use pol_core::digest::{Digest, tagged};
use pol_core::journal::Journal;
use pol_core::manifest::{Checkpoint, Manifest};
use pol_core::model_file as model;
use pol_core::object;
use pol_core::policy;
use pol_core::schedule::BatchPlan;
use pol_core::state::{Entry, State};
use pol_core::store::{Item, MemoryStore, Store, pack};
use pol_evidence::dsse::Envelope;
use pol_evidence::key::{PrivateKey, TrustedKey};
use pol_evidence::timestamp as stamps;
use pol_evidence::verdict;
use pol_models::recipe_file::SHIPPED;
use serde_json::{Value, json};

pub(crate) fn manifest() -> Vec<Vec<u8>> {
    vec![hex(&vectors(MANIFEST)["manifest"])]
}

pub(crate) fn journal() -> Vec<Vec<u8>> {
    let Ok(manifest) = Manifest::decode(&manifest()[0]) else {
        return vec![];
    };
    let store = MemoryStore::new();
    let mut journal =
        Journal::begin(&store, manifest.claim.terms).unwrap_or_else(|e| panic!("{e}"));
    for checkpoint in manifest.checkpoints {
        (journal.append(&store, checkpoint)).unwrap_or_else(|e| panic!("{e}"));
    }
    vec![
        store
            .read(Item::Journal, u64::MAX)
            .unwrap_or_else(|e| panic!("{e}")),
    ]
}

/// The stored states of the vectors, with their names; the others are differences from the first.
pub(crate) fn stored_states() -> Vec<(Digest, Vec<u8>)> {
    let vectors = vectors(OBJECT);
    let objects = vectors["objects"].as_array().cloned().unwrap_or_default();
    let object = |object: &Value| {
        let name = object["state"].as_str().unwrap_or_default().parse();
        (
            name.unwrap_or_else(|e| panic!("{e}")),
            hex(&object["bytes"]),
        )
    };
    objects.iter().map(object).collect()
}

pub(crate) fn states() -> Vec<Vec<u8>> {
    let stored = stored_states().into_iter().map(|(_, bytes)| bytes);
    stored.flat_map(with_and_without_sum).collect()
}

pub(crate) fn batches() -> Vec<Vec<u8>> {
    let plan = |step| BatchPlan {
        step,
        epoch: 0,
        records: vec![3, 70_000, step],
    };
    with_and_without_sum(object::encode_batches(&[plan(4), plan(5)]))
}

/// An object, and its payload.
fn with_and_without_sum(bytes: Vec<u8>) -> Vec<Vec<u8>> {
    vec![bytes[4..].to_vec(), bytes]
}

fn state() -> State {
    let entries = vec![
        Entry::f32(
            "model/fc.weight",
            vec![2, 3],
            &[0.5, -1.0, 2.0, 0.0, 1e-9, 3.0],
        ),
        Entry::bool("model/flag", true),
    ];
    State::new(entries).unwrap_or_else(|e| panic!("{e}"))
}

pub(crate) fn model_file() -> Vec<Vec<u8>> {
    vec![model::encode(&state()).unwrap_or_else(|e| panic!("{e}"))]
}

pub(crate) fn recipes() -> Vec<Vec<u8>> {
    SHIPPED
        .iter()
        .map(|(_, text)| text.as_bytes().to_vec())
        .collect()
}

pub(crate) fn policies() -> Vec<Vec<u8>> {
    let shipped = policy::SHIPPED.iter();
    shipped.map(|(_, text)| text.as_bytes().to_vec()).collect()
}

pub(crate) fn commitment() -> Vec<Vec<u8>> {
    vec![hex(&vectors(AUDIT)["commitment_file"])]
}

pub(crate) fn challenges() -> Vec<Vec<u8>> {
    let vectors = vectors(AUDIT);
    let challenges = vectors["challenges"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    challenges
        .iter()
        .map(|found| hex(&found["challenge"]))
        .collect()
}

pub(crate) fn opening() -> Vec<Vec<u8>> {
    let node = || tagged("node", &[]);
    // The fields in their order; `Opening`'s own format is private.
    let opening = fields([
        ("format", codec::encode(&"pol-opening/v1")),
        ("challenge", codec::encode(&node())),
        (
            "checkpoints",
            codec::encode(&vec![Checkpoint {
                step: 5,
                state: node(),
                batches: Some(node()),
            }]),
        ),
        ("checkpoint_nodes", codec::encode(&vec![node(), node()])),
        ("states", codec::encode(&[0u8; 0])),
        ("final_leaves", codec::encode(&Some(vec![node()]))),
        ("batches", codec::encode(&[0u8; 0])),
        ("records", codec::encode(&[0u8; 0])),
        ("record_nodes", codec::encode(&vec![node()])),
    ]);
    vec![opening]
}

/// A map in MessagePack, of values that are encoded already.
fn fields<const N: usize>(all: [(&str, Vec<u8>); N]) -> Vec<u8> {
    let mut map = vec![0x80 | N as u8];
    for (name, value) in all {
        map.extend(codec::encode(&name));
        map.extend(value);
    }
    map
}

/// A key that is made once for each process.
fn private_key() -> &'static PrivateKey {
    static KEY: std::sync::OnceLock<PrivateKey> = std::sync::OnceLock::new();
    KEY.get_or_init(|| PrivateKey::generate().unwrap_or_else(|e| panic!("{e}")))
}

pub(crate) fn trusted_key() -> TrustedKey {
    private_key().public()
}

pub(crate) fn envelopes() -> Vec<Vec<u8>> {
    let key = private_key();
    let judged = json!({"verdict": "accepted", "segments": []});
    let signed = [
        Envelope::sign(b"{}", key),
        verdict::sign(tagged("any", &[]), &judged, key),
    ];
    signed.map(|signed| signed.to_json().into_bytes()).to_vec()
}

pub(crate) fn timestamps() -> Vec<Vec<u8>> {
    vec![stamps::request(&tagged("any", &[]), 7), ANSWER.to_vec()]
}

pub(crate) fn keys() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap_or_default();
    let (private, public) = (folder.path().join("private"), folder.path().join("public"));
    let written = private_key().write(&private, None).is_ok();
    assert!(written && trusted_key().write(&public).is_ok());
    vec![read("private"), read("public")]
}

pub(crate) fn cifar() -> Vec<Vec<u8>> {
    let record = |label: &[u8]| [label, &[7; 3072]].concat();
    vec![
        record(&[3]),
        [record(&[3]), record(&[9])].concat(),
        record(&[4, 99]),
    ]
}

pub(crate) fn idx() -> Vec<Vec<u8>> {
    let header = [0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 28, 0, 0, 0, 28];
    let plain = [&header[..], &[5; 784]].concat();
    let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let written: io::Result<Vec<u8>> = zipped.write_all(&plain).and_then(|()| zipped.finish());
    vec![plain, written.unwrap_or_else(|e| panic!("{e}"))]
}

/// A packed proof that is not whole, but for its manifest.
pub(crate) fn archive() -> Vec<Vec<u8>> {
    let store = MemoryStore::new();
    let write = |item, bytes: &[u8]| store.write(item, bytes).unwrap_or_else(|e| panic!("{e}"));
    write(Item::Manifest, &manifest()[0]);
    write(Item::Model, &model_file()[0]);
    let Ok(decoded) = Manifest::decode(&manifest()[0]) else {
        return vec![];
    };
    let whole = object::encode_state(&state()).unwrap_or_else(|e| panic!("{e}"));
    for checkpoint in decoded.checkpoints {
        write(Item::Object(checkpoint.state), &whole);
    }
    let mut bytes = Vec::new();
    pack(&store, Path::new("proof"), &mut bytes).unwrap_or_else(|e| panic!("{e}"));
    vec![bytes]
}

const MANIFEST: &str = include_str!("../../../vectors/manifest.json");
const AUDIT: &str = include_str!("../../../vectors/audit.json");
const OBJECT: &str = include_str!("../../../vectors/object.json");
/// A refusal (RFC 3161 §2.4.2): status 2 and nothing else.
const ANSWER: &[u8] = &[0x30, 0x05, 0x30, 0x03, 0x02, 0x01, 0x02];

fn vectors(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}"))
}

fn hex(value: &Value) -> Vec<u8> {
    let digits = value.as_str().unwrap_or_default();
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16);
    let bytes = (0..digits.len()).step_by(2).map(byte);
    bytes
        .collect::<Result<_, _>>()
        .unwrap_or_else(|e| panic!("{e}"))
}
