//! What the parts of recording and checking cost, on one thread: bytes per second of raw values, beside
//! those of SHA3-256 alone.
//!
//! `cargo bench -p pol-core --bench objects`

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use pol_core::digest::{Digest, tagged};
use pol_core::object;
use pol_core::random::{Purpose, Seed, Stream};
use pol_core::state::{Entry, RATE_ENTRY, STEP_ENTRY, State};
use pol_core::store::{Item, MemoryStore, Store};

fn main() {
    divan::main();
}

/// Elements of each of the model's tensors: about ResNet-20's.
const TENSOR: usize = 9 * 32 * 32;
const TENSORS: usize = 29;

fn stream(name: &str) -> Stream {
    Seed::from_digest(tagged("bench", &[])).stream(Purpose::Weights(name))
}

/// A state like one of SGD with momentum, and the one after its next step.
fn states() -> (State, State) {
    let (rate, mut first, mut second) = (0.01f32, Vec::new(), Vec::new());
    for index in 0..TENSORS {
        let mut random = stream(&index.to_string());
        let mut normal = |scale: f32| -> Vec<f32> {
            (0..TENSOR)
                .map(|_| random.normal() as f32 * scale)
                .collect()
        };
        let (w, v, gradient) = (normal(0.05), normal(0.01), normal(0.003));
        let next_v: Vec<f32> = v.iter().zip(&gradient).map(|(v, g)| 0.9 * v + g).collect();
        let next_w: Vec<f32> = w.iter().zip(&next_v).map(|(w, v)| w - rate * v).collect();
        let shape = || vec![TENSOR as u64];
        let names = [
            format!("model/{index:02}.weight"),
            format!("optim/{index:02}.weight/momentum.velocity"),
        ];
        first.push(Entry::f32(&names[0], shape(), &w));
        first.push(Entry::f32(&names[1], shape(), &v));
        second.push(Entry::f32(&names[0], shape(), &next_w));
        second.push(Entry::f32(&names[1], shape(), &next_v));
    }
    for (step, entries) in [(7, &mut first), (8, &mut second)] {
        entries.push(Entry::u64(STEP_ENTRY, step));
        entries.push(Entry::f64(RATE_ENTRY, f64::from(rate)));
    }
    let state = |entries| State::new(entries).unwrap();
    (state(first), state(second))
}

/// Both states stored, the second as a difference.
fn stored() -> (MemoryStore, Digest, State, Digest) {
    let (first, second) = states();
    let (base, name) = (first.digest(), second.digest());
    let store = MemoryStore::new();
    let write = |name, bytes: Vec<u8>| store.write(Item::Object(name), &bytes).unwrap();
    write(base, object::encode_state(&first).unwrap());
    write(
        name,
        object::encode_difference(&second, (&base, &first)).unwrap(),
    );
    (store, base, first, name)
}

#[divan::bench]
fn sha3_256(bencher: Bencher<'_, '_>) {
    let bytes = vec![7; states().0.byte_len() as usize];
    bencher
        .counter(BytesCount::of_slice(&bytes))
        .bench(|| tagged("bench", &[black_box(&bytes)]));
}

#[divan::bench]
fn digest(bencher: Bencher<'_, '_>) {
    let (state, _) = states();
    let counter = BytesCount::new(state.byte_len());
    bencher
        .counter(counter)
        .bench(|| black_box(&state).digest());
}

#[divan::bench]
fn encode_whole(bencher: Bencher<'_, '_>) {
    let (state, _) = states();
    let counter = BytesCount::new(state.byte_len());
    bencher
        .counter(counter)
        .bench(|| object::encode_state(black_box(&state)));
}

#[divan::bench]
fn encode_difference(bencher: Bencher<'_, '_>) {
    let (base, state) = states();
    let name = base.digest();
    let counter = BytesCount::new(state.byte_len());
    bencher
        .counter(counter)
        .bench(|| object::encode_difference(black_box(&state), (&name, &base)));
}

#[divan::bench]
fn read_whole(bencher: Bencher<'_, '_>) {
    let (store, name, state, _) = stored();
    let counter = BytesCount::new(state.byte_len());
    bencher
        .counter(counter)
        .bench(|| object::read_state(&store, black_box(&name), None));
}

#[divan::bench]
fn read_difference(bencher: Bencher<'_, '_>) {
    let (store, base, first, name) = stored();
    let counter = BytesCount::new(first.byte_len());
    bencher
        .counter(counter)
        .bench(|| object::read_state(&store, black_box(&name), Some((&base, &first))));
}

#[divan::bench]
fn are_values_finite(bencher: Bencher<'_, '_>) {
    let (state, _) = states();
    let counter = BytesCount::new(state.byte_len());
    bencher
        .counter(counter)
        .bench(|| black_box(&state).entries().iter().all(Entry::is_finite));
}
