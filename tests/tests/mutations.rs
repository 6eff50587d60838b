//! A small proof, altered at random: flipped, dropped, inserted, cut, copied, swapped. No alteration is
//! accepted, none panics, and the reason names what was altered.
//!
//! 50,000 by default; `POL_MUTATIONS` sets another number (docs/robustness.md).

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use pol_core::digest::tagged;
use pol_core::random::{Purpose, Seed, Stream};
use pol_core::records::MemoryRecords;
use pol_core::store::{ArchiveStore, Item, MemoryStore, Store, pack};
use pol_core::training::{Outcome, Training};
use pol_core::verify::{Reason, Report, Resources, Verdict, Verifier};
use pol_hostile::Edit;
use pol_tests::toy::{self, INTERVAL, Toy};

fn count() -> u64 {
    let given = std::env::var("POL_MUTATIONS").ok();
    given.map_or(50_000, |count| count.parse().unwrap())
}

fn stream(of: u64) -> Stream {
    let seed = Seed::from_digest(tagged("mutations", &[]));
    seed.stream(Purpose::Augmentation {
        epoch: 0,
        record: of,
    })
}

fn below(stream: &mut Stream, n: usize) -> usize {
    stream.below(n as u64) as usize
}

fn edit(stream: &mut Stream) -> Edit {
    let mut any = || stream.below(u64::MAX) as usize;
    let (at, other, len) = (any(), any(), any());
    match any() % 10 {
        0..=2 => Edit::Flip {
            at,
            bit: other as u8,
        },
        3..=4 => Edit::Set {
            at,
            to: other as u8,
        },
        5 => Edit::Drop { at, len },
        6 => Edit::Insert {
            at,
            bytes: other.to_le_bytes()[..len % 8 + 1].to_vec(),
        },
        7 => Edit::Cut { at },
        8 => Edit::Copy {
            from: at,
            to: other,
            len,
        },
        _ => Edit::Swap {
            a: at,
            b: other,
            len,
        },
    }
}

/// Verifies with the verifier's own recipe, on one thread.
fn verify(store: &dyn Store, records: &MemoryRecords) -> Report {
    let recipe = toy::recipe();
    let one = Resources {
        threads: 1,
        ..Resources::default()
    };
    Verifier::new(records)
        .expect_recipe(&recipe)
        .resources(one)
        .verify(store, &mut Toy::new(&recipe), |_| {})
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Whether a rejection says what was altered.
fn names(item: Item, reason: &Reason) -> bool {
    let text = reason.to_string();
    match item {
        Item::Object(_) => text.contains(&item.path()),
        Item::Model => matches!(reason, Reason::FinalModel(_)) || text.contains("model"),
        // What it says of everything else is wrong then.
        Item::Manifest => matches!(
            reason,
            Reason::Manifest(_)
                | Reason::Chain(_)
                | Reason::Item(_)
                | Reason::FinalModel(_)
                // The number of records is the one thing in it that no digest covers but the commitment.
                | Reason::OtherData { .. }
        ),
        Item::Journal => false,
    }
}

#[test]
fn no_mutation_of_a_file_is_accepted_and_the_reason_names_it() {
    let (store, manifest) = toy::proof();
    let records = toy::records();
    let accepted = verify(store.as_ref(), &records);
    assert_eq!(accepted.verdict, Verdict::Accepted);
    let items = store.items();
    let mut made = 0;
    for mutation in 0..count() {
        let stream = &mut stream(mutation);
        // In turn, so that each file has its share.
        let item = items[mutation as usize % items.len()];
        let original = store.read(item, u64::MAX).unwrap();
        let mut bytes = original.clone();
        let edits: Vec<Edit> = (0..=below(stream, 3)).map(|_| edit(stream)).collect();
        edits.iter().for_each(|edit| edit.apply(&mut bytes));
        if bytes == original {
            continue;
        }
        made += 1;
        let altered = MemoryStore::clone(&store);
        altered.write(item, &bytes).unwrap();
        let report = verify(&altered, &records);
        let place = || format!("mutation {mutation} of {}: {edits:?}", item.path());
        assert_ne!(report.verdict, Verdict::Accepted, "{}", place());
        // A manifest that says that its data is salted cannot be checked without the secret: that is said,
        // and is no acceptance.
        let says = |word: &str| report.reasons.iter().any(|r| r.to_string().contains(word));
        let salted = item == Item::Manifest && says("the data is private");
        assert!(salted || report.verdict == Verdict::Rejected, "{}", place());
        let named = salted || report.reasons.iter().any(|reason| names(item, reason));
        assert!(named, "{}: {:?}", place(), report.reasons);
    }
    // A few edits undo each other, or fall on equal bytes.
    assert!(made * 10 >= count() * 9, "{made}");
    assert_eq!(
        report_of(&store, &records),
        Some(manifest.claim.commitment())
    );
}

fn report_of(store: &MemoryStore, records: &MemoryRecords) -> Option<pol_core::digest::Digest> {
    verify(store, records).commitment
}

#[test]
fn no_two_files_can_stand_for_each_other() {
    let (store, _) = toy::proof();
    let records = toy::records();
    let items = store.items();
    for &a in &items {
        for &b in items.iter().filter(|b| **b != a) {
            let altered = MemoryStore::clone(&store);
            altered.write(a, &store.read(b, u64::MAX).unwrap()).unwrap();
            let report = verify(&altered, &records);
            assert_eq!(report.verdict, Verdict::Rejected, "{b:?} as {a:?}");
            assert!(
                names(a, &report.reasons[0]),
                "{b:?} as {a:?}: {:?}",
                report.reasons
            );
            altered.write(b, &store.read(a, u64::MAX).unwrap()).unwrap();
            assert_eq!(verify(&altered, &records).verdict, Verdict::Rejected);
        }
    }
}

#[test]
fn no_mutation_of_an_archive_is_accepted() {
    let (store, _) = toy::proof();
    let records = toy::records();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("proof");
    let mut original = Vec::new();
    pack(store.as_ref(), Path::new("proof"), &mut original).unwrap();
    for mutation in 0..count() / 10 {
        let stream = &mut stream(mutation);
        let mut bytes = original.clone();
        let edits: Vec<Edit> = (0..=below(stream, 2)).map(|_| edit(stream)).collect();
        edits.iter().for_each(|edit| edit.apply(&mut bytes));
        std::fs::write(&file, &bytes).unwrap();
        if let Ok(archive) = ArchiveStore::open(&file) {
            let verdict = verify(&archive, &records).verdict;
            assert!(
                bytes == original || verdict == Verdict::Rejected,
                "{edits:?}"
            );
        }
    }
}

/// A run that is not finished is the prover's own. Damaged, it is resumed to the same commitment, or not
/// at all.
#[test]
fn no_mutation_of_an_unfinished_run_leads_to_another_commitment() {
    let (_, manifest) = toy::proof();
    let records = toy::records();
    let training = Training::new(toy::recipe(), &records, 7, INTERVAL);
    let unfinished = Arc::new(MemoryStore::new());
    let stopped = training.run(
        &mut Toy::new(&toy::recipe()),
        Arc::clone(&unfinished) as _,
        |_, step| match step > 2 * INTERVAL {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        },
    );
    assert!(matches!(stopped, Ok(Outcome::Interrupted { .. })));
    let items = unfinished.items();
    let mut resumed = 0;
    for mutation in 0..count() / 10 {
        let stream = &mut stream(mutation);
        let altered = MemoryStore::clone(&unfinished);
        for _ in 0..=below(stream, 2) {
            let item = items[below(stream, items.len())];
            let mut bytes = altered.read(item, u64::MAX).unwrap();
            edit(stream).apply(&mut bytes);
            altered.write(item, &bytes).unwrap();
        }
        let mut toy = Toy::new(&toy::recipe());
        let go_on = |_: &mut Toy, _| ControlFlow::Continue(());
        if let Ok(Outcome::Sealed(sealed)) = training.resume(&mut toy, Arc::new(altered), go_on) {
            assert_eq!(sealed.claim.commitment(), manifest.claim.commitment());
            resumed += 1;
        }
    }
    assert!(resumed * 2 > count() / 10, "{resumed}");
}
