//! Altered proofs. First clumsily, where a digest tells; then sealed again with every digest
//! right, where only replaying or the verifier's own expectations can.

use std::sync::Arc;

use pol_core::manifest::{Manifest, checkpoints_root};
use pol_core::records::MemoryRecords;
use pol_core::store::{FolderStore, Item, MemoryStore, Store};
use pol_core::verify::{Report, Tolerance, Verdict, Verifier};
use pol_tests::forge::Forgery;
use pol_tests::toy::{self, Toy};

/// Asserts a rejection whose first reason has all these words.
fn rejected(report: &Report, words: &[&str]) {
    assert_eq!(report.verdict, Verdict::Rejected, "{:?}", report.reasons);
    let reasons: Vec<String> = report.reasons.iter().map(ToString::to_string).collect();
    for word in words {
        assert!(
            reasons.iter().any(|r| r.contains(word)),
            "{word:?} is not in {reasons:?}"
        );
    }
}

fn resealed(change: impl FnOnce(&mut Forgery)) -> MemoryStore {
    let (store, _) = toy::proof();
    let mut forgery = Forgery::of(&store);
    change(&mut forgery);
    forgery.seal()
}

/// Seals a manifest that was altered, with its own root right.
fn with_manifest(change: impl FnOnce(&mut Manifest)) -> Arc<MemoryStore> {
    let (store, mut manifest) = toy::proof();
    change(&mut manifest);
    manifest.claim.checkpoints = manifest.checkpoints.len() as u64;
    manifest.claim.checkpoints_root = checkpoints_root(&manifest.checkpoints);
    store.write(Item::Manifest, &manifest.encode()).unwrap();
    store
}

#[test]
fn the_forger_s_tools_alone_change_nothing() {
    assert_eq!(toy::verify(&resealed(|_| {})).verdict, Verdict::Accepted);
    assert_eq!(
        toy::verify(&with_manifest(|_| {})).verdict,
        Verdict::Accepted
    );
}

#[test]
fn every_byte_of_every_file_matters() {
    let (store, _) = toy::proof();
    for item in store.items() {
        let bytes = store.read(item, u64::MAX).unwrap();
        for position in 0..bytes.len() {
            let altered = MemoryStore::clone(&store);
            let mut copy = bytes.clone();
            copy[position] ^= 1 << (position % 8);
            altered.write(item, &copy).unwrap();
            let report = toy::verify(&altered);
            assert_eq!(
                report.verdict,
                Verdict::Rejected,
                "{} byte {position}",
                item.path()
            );
        }
    }
}

#[test]
fn missing_cut_extended_and_random_files_are_rejected() {
    let (store, _) = toy::proof();
    for item in store.items() {
        let bytes = store.read(item, u64::MAX).unwrap();
        let without = MemoryStore::clone(&store);
        without.remove(item);
        rejected(&toy::verify(&without), &[&item.path(), "missing"]);

        let noise: Vec<u8> = (0..997u32).map(|i| ((i * i) >> 3) as u8).collect();
        let extended = [&bytes[..], b"x"].concat();
        let replacements = [&[][..], &bytes[..bytes.len() / 2], &extended, &noise];
        for replacement in replacements {
            let altered = MemoryStore::clone(&store);
            altered.write(item, replacement).unwrap();
            assert_eq!(
                toy::verify(&altered).verdict,
                Verdict::Rejected,
                "{}",
                item.path()
            );
        }
    }
}

#[test]
fn a_folder_with_pipes_links_and_folders_in_it_is_rejected_without_hanging() {
    let (store, _) = toy::proof();
    let folder = tempfile::tempdir().unwrap();
    let write = || {
        let target = FolderStore::new(folder.path());
        for item in store.items() {
            let path = folder.path().join(item.path());
            let _ = std::fs::remove_file(&path);
            let _ = std::fs::remove_dir(&path);
            target
                .write(item, &store.read(item, u64::MAX).unwrap())
                .unwrap();
        }
        target
    };
    let (records, recipe) = (toy::records(), toy::recipe());
    let verify = |target: &FolderStore| {
        Verifier::new(&records)
            .verify(target, &mut Toy::new(&recipe), |_| {})
            .unwrap()
    };
    assert_eq!(verify(&write()).verdict, Verdict::Accepted);
    for item in store.items() {
        let target = write();
        let path = folder.path().join(item.path());
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        rejected(&verify(&target), &["not a regular file"]);
        #[cfg(unix)]
        {
            let target = write();
            std::fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
            rejected(&verify(&target), &["not a regular file"]);
            let target = write();
            std::fs::remove_file(&path).unwrap();
            let made = std::process::Command::new("mkfifo")
                .arg(&path)
                .status()
                .unwrap();
            assert!(made.success());
            rejected(&verify(&target), &["not a regular file"]);
        }
    }
}

#[test]
fn checkpoints_swapped_dropped_repeated_or_moved_are_rejected() {
    // Without mending the root: the list is not the committed one.
    let (store, mut manifest) = toy::proof();
    manifest.checkpoints.swap(1, 2);
    let (a, b) = (manifest.checkpoints[1].step, manifest.checkpoints[2].step);
    (manifest.checkpoints[1].step, manifest.checkpoints[2].step) = (b, a);
    store.write(Item::Manifest, &manifest.encode()).unwrap();
    rejected(&toy::verify(&store), &["chain of checkpoints", "committed"]);

    let swap = with_manifest(|m| m.checkpoints.swap(1, 2));
    rejected(
        &toy::verify(&swap),
        &["checkpoint 1 is at step 10, where step 5 is due"],
    );
    let swap_states = with_manifest(|m| {
        let (left, right) = m.checkpoints.split_at_mut(2);
        std::mem::swap(&mut left[1].state, &mut right[0].state);
    });
    rejected(&toy::verify(&swap_states), &["schedule/step"]);
    let dropped = with_manifest(|m| m.checkpoints.retain(|c| c.step != 10));
    rejected(&toy::verify(&dropped), &["lists 5 checkpoints"]);
    let last_dropped = with_manifest(|m| m.checkpoints.truncate(5));
    rejected(&toy::verify(&last_dropped), &["lists 5 checkpoints"]);
    let repeated = with_manifest(|m| m.checkpoints.insert(2, m.checkpoints[1].clone()));
    rejected(&toy::verify(&repeated), &["lists 7 checkpoints"]);
    let emptied = with_manifest(|m| m.checkpoints.clear());
    rejected(&toy::verify(&emptied), &["lists 0 checkpoints"]);
    let moved = with_manifest(|m| m.checkpoints[3].step += 1);
    rejected(&toy::verify(&moved), &["step 16"]);
    let batches = with_manifest(|m| m.checkpoints[2].batches = Some(m.checkpoints[2].state));
    rejected(&toy::verify(&batches), &["list of batches"]);
}

#[test]
fn another_recipe_is_rejected_by_name() {
    let slower = with_manifest(|m| m.claim.terms.recipe.learning_rate.base = 0.02);
    rejected(&toy::verify(&slower), &["seed"]);

    // With the seed derived anew, the claim is consistent, and not the expected one.
    let other_rate = |m: &mut Manifest| {
        let terms = &m.claim.terms;
        let mut recipe = terms.recipe.clone();
        recipe.learning_rate.base = 0.02;
        m.claim.terms = pol_core::manifest::Terms::new(
            recipe,
            terms.data,
            terms.nonce,
            terms.batches,
            terms.interval,
        );
    };
    let report = toy::verify(&with_manifest(other_rate));
    rejected(&report, &["learning_rate", "0.01", "0.02"]);

    // A verifier without expectations replays the claimed recipe, and finds other states.
    let records = toy::records();
    let mut recipe = toy::recipe();
    recipe.learning_rate.base = 0.02;
    let report = Verifier::new(&records)
        .verify(
            with_manifest(other_rate).as_ref(),
            &mut Toy::new(&recipe),
            |_| {},
        )
        .unwrap();
    rejected(&report, &["initial state"]);
}

#[test]
fn another_label_record_or_order_is_rejected() {
    let (store, _) = toy::proof();
    let changes: [fn(&mut MemoryRecords); 4] = [
        |r| r.0[3].0 += 1,
        |r| r.0[29].1[1] ^= 1,
        |r| r.0.swap(4, 5),
        |r| drop(r.0.pop()),
    ];
    for change in changes {
        let mut records = toy::records();
        change(&mut records);
        let report = Verifier::new(&records)
            .verify(store.as_ref(), &mut Toy::new(&toy::recipe()), |_| {})
            .unwrap();
        rejected(&report, &["training data", "label"]);
    }
}

#[test]
fn an_altered_parameter_buffer_or_momentum_is_found_by_replay() {
    for (entry, index) in [
        ("model/w", 2),
        ("model/mean", 2),
        ("optim/w/momentum.velocity", 1),
        ("optim/w/momentum.velocity", 4),
    ] {
        let store = resealed(|f| f.alter(index, entry, |e| e.bytes[1] ^= 1));
        rejected(
            &toy::verify(&store),
            &[entry, &format!("segment {}", index - 1)],
        );
    }
}

#[test]
fn an_altered_state_is_beyond_a_tolerance_in_each_part() {
    let (records, recipe) = (toy::records(), toy::recipe());
    for (entry, part) in [
        ("model/w", "parameters"),
        ("model/mean", "buffers"),
        ("optim/w/momentum.velocity", "optimizer"),
    ] {
        let store = resealed(|f| {
            f.alter(2, entry, |e| {
                e.bytes[..4].copy_from_slice(&9f32.to_le_bytes())
            });
        });
        let report = Verifier::new(&records)
            .tolerance(Tolerance::relative(0.01))
            .verify(&store, &mut Toy::new(&recipe), |_| {})
            .unwrap();
        rejected(&report, &[part, "tolerance"]);
    }
}

#[test]
fn a_chosen_start_is_rejected() {
    let store = resealed(|f| f.alter(0, "model/w", |e| e.bytes[0] ^= 1));
    rejected(&toy::verify(&store), &["initial state", "model/w"]);
}

#[test]
fn nan_and_infinity_are_rejected_wherever_they_are() {
    for (value, entry) in [
        (f32::NAN, "model/w"),
        (f32::INFINITY, "model/mean"),
        (f32::NEG_INFINITY, "optim/w/momentum.velocity"),
    ] {
        let store = resealed(|f| {
            // In every state from here on, so that even a replay would give NaN again.
            for index in 2..f.states.len() {
                f.alter(index, entry, |e| {
                    e.bytes[..4].copy_from_slice(&value.to_le_bytes())
                });
            }
            f.export();
        });
        rejected(&toy::verify(&store), &["not finite", entry]);
    }
}

#[test]
fn a_wrong_counter_or_learning_rate_in_a_state_is_rejected() {
    let counter = resealed(|f| f.alter(1, "schedule/step", |e| e.bytes[0] = 9));
    rejected(&toy::verify(&counter), &["schedule/step"]);
    let rate = resealed(|f| {
        f.alter(1, "schedule/learning_rate", |e| {
            e.bytes.copy_from_slice(&1f64.to_le_bytes())
        });
    });
    rejected(&toy::verify(&rate), &["schedule/learning_rate"]);
    // No tolerance excuses it.
    let (records, recipe) = (toy::records(), toy::recipe());
    let report = Verifier::new(&records)
        .tolerance(Tolerance::relative(1e9))
        .verify(&rate, &mut Toy::new(&recipe), |_| {})
        .unwrap();
    rejected(&report, &["schedule/learning_rate"]);
}

#[test]
fn tensors_that_the_training_has_not_are_rejected() {
    let renamed = resealed(|f| {
        for index in 1..f.states.len() {
            f.alter(index, "optim/w/momentum.velocity", |e| {
                e.header.name = "optim/w/momentum".into()
            });
        }
    });
    rejected(&toy::verify(&renamed), &["optim/w/momentum.velocity"]);
    let reshaped = resealed(|f| {
        f.alter(2, "optim/w/momentum.velocity", |e| {
            e.header.shape = vec![2, 1]
        });
    });
    rejected(&toy::verify(&reshaped), &["step 10"]);
}

#[test]
fn another_final_model_is_rejected() {
    let (store, _) = toy::proof();
    let mut forgery = Forgery::of(&store);
    forgery.alter(5, "model/w", |e| e.bytes[0] ^= 1);
    forgery.export();
    let (stolen, file) = (forgery.model, forgery.file);

    store.write(Item::Model, &file).unwrap();
    rejected(
        &toy::verify(&store),
        &["model.safetensors", "not that of the final state"],
    );
    // Committed to as well: it is not the final state.
    let sealed = resealed(|f| (f.model, f.file) = (stolen, file.clone()));
    rejected(
        &toy::verify(&sealed),
        &["model.safetensors", "committed to"],
    );
    for garbled in [&b""[..], b"not safetensors", &file[..file.len() - 1]] {
        let garbled = resealed(|f| f.file = garbled.to_vec());
        rejected(&toy::verify(&garbled), &["model.safetensors"]);
    }
}

#[test]
fn another_model_than_the_expected_one_is_rejected() {
    let (store, _) = toy::proof();
    let (records, recipe) = (toy::records(), toy::recipe());
    let expecting = |file: &[u8]| {
        (Verifier::new(&records).expect_model(file))
            .verify(store.as_ref(), &mut Toy::new(&recipe), |_| {})
            .unwrap()
    };
    let file = store.read(Item::Model, u64::MAX).unwrap();
    assert_eq!(expecting(&file).verdict, Verdict::Accepted);
    let mut other = file.clone();
    *other.last_mut().unwrap() ^= 1;
    rejected(
        &expecting(&other),
        &["model.safetensors", "not the one that was trained"],
    );
    rejected(&expecting(b"x"), &["model.safetensors", "cannot be read"]);
}

#[test]
fn another_proof_than_the_expected_one_is_rejected() {
    let (store, manifest) = toy::proof();
    let (records, recipe) = (toy::records(), toy::recipe());
    let expecting = |digest| {
        Verifier::new(&records)
            .expect_commitment(digest)
            .verify(store.as_ref(), &mut Toy::new(&recipe), |_| {})
            .unwrap()
    };
    assert_eq!(
        expecting(manifest.claim.commitment()).verdict,
        Verdict::Accepted
    );
    rejected(
        &expecting(manifest.claim.model),
        &["not the expected proof"],
    );
}
