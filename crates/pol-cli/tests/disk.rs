//! What a proof takes on disk: estimated, packed, unpacked, thinned.

mod common;

use std::fs;

use common::{Place, Run, pol, train_small};

const EXACT: [&str; 6] = ["train", "--steps", "40", "--interval", "1", "--out"];

fn size(run: &Run) -> u64 {
    let shown = pol(&["inspect", run.path(), "--json"]).expect(0).json();
    shown["proof_bytes"].as_u64().unwrap()
}

#[test]
fn a_proof_is_packed_verified_where_it_is_and_unpacked_to_the_same_files() {
    let (run, place) = (Run::new(), Place::new());
    let key = place.key("key.pem");
    let trained = train_small(&run, &["--key", &key]);
    let (packed, again) = (place.path("run.tar"), place.path("again.tar"));
    pol(&["pack", run.path(), "--out", &packed]).expect(0);
    pol(&["pack", run.path(), "-o", &again]).expect(0);
    assert_eq!(fs::read(&packed).unwrap(), fs::read(&again).unwrap());

    let trust = ["--trust", &format!("{key}.pub"), "--key", &key];
    for proof in [run.path(), &packed] {
        let verified = pol(&[&["verify", proof, "--json"], &trust[..]].concat()).expect(0);
        let verified = verified.json();
        assert_eq!(verified["commitment"], trained["commitment"]);
        assert!(verified["evidence"]["signed_by"].is_string());
        let inspected = pol(&["inspect", proof, "--json"]).expect(0).json();
        assert_eq!(inspected["commitment"], trained["commitment"]);
    }
    // Others read it too.
    pol(&["commit", &packed, "-o", &place.path("commitment.mp")]).expect(0);
    let page = place.path("page.html");
    pol(&[&["report", &packed, "-o", &page, "--"], &trust[..]].concat()).expect(0);
    assert!(fs::read_to_string(&page).unwrap().contains("accepted"));

    let unpacked = place.path("unpacked");
    pol(&["unpack", &packed, "--out", &unpacked]).expect(0);
    for file in run.proof_files() {
        let inside = file.strip_prefix(run.path()).unwrap();
        let there = fs::read(std::path::Path::new(&unpacked).join(inside)).unwrap();
        assert_eq!(there, fs::read(&file).unwrap(), "{}", inside.display());
    }
    let curve = |run: &str| fs::read(format!("{run}/metrics/curve.csv")).unwrap();
    assert_eq!(curve(&unpacked), curve(run.path()));
    // Nothing is written over.
    assert!(
        pol(&["unpack", &packed, "--out", &unpacked])
            .expect(2)
            .stderr
            .contains("already")
    );
    assert!(
        pol(&["pack", run.path(), "--out", &packed])
            .expect(2)
            .stderr
            .contains("already")
    );
}

/// Nobody writes to it: whoever waited for it would wait for ever.
#[test]
fn a_pipe_is_refused_at_once() {
    let place = Place::new();
    let pipe = place.path("run.tar");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    if !made.is_ok_and(|status| status.success()) {
        return;
    }
    let out = place.path("out");
    for args in [
        &["verify", &pipe][..],
        &["inspect", &pipe],
        &["unpack", &pipe, "--out", &out],
        &["commit", &pipe, "-o", &out],
        &["report", &pipe, "-o", &out],
    ] {
        let refused = pol(args).expect(4);
        let said = refused.stderr.contains("not a regular file");
        assert!(said, "{args:?}: {}", refused.stderr);
    }
    assert!(!std::path::Path::new(&out).exists());
}

/// Everything is small in a proof of these digits: what does not fit is said to need more.
#[test]
fn a_model_file_that_is_too_long_for_the_memory_allowed_is_not_read() {
    let (run, place) = (Run::new(), Place::new());
    train_small(&run, &[]);
    let long = place.path("model.safetensors");
    fs::File::create(&long).unwrap().set_len(8 << 30).unwrap();
    let args = ["verify", run.path(), "--memory", "64MiB"];
    pol(&args).expect(0);
    let refused = pol(&[&args[..], &["--model", &long]].concat()).expect(3);
    assert!(refused.stdout.contains("--memory"), "{}", refused.stdout);
    let model = run.file("model.safetensors");
    let model = fs::File::options().write(true).open(model).unwrap();
    model.set_len(8 << 30).unwrap();
    let refused = pol(&["verify", run.path()]).expect(1);
    assert!(
        refused.stdout.contains("bytes, where that model takes"),
        "{}",
        refused.stdout
    );
}

#[test]
fn an_archive_that_is_none_is_rejected_by_what_is_wrong_with_it() {
    let (run, place) = (Run::new(), Place::new());
    train_small(&run, &[]);
    let packed = place.path("run.tar");
    pol(&["pack", run.path(), "--out", &packed]).expect(0);
    let whole = fs::read(&packed).unwrap();
    let judged = |bytes: &[u8], word: &str| {
        let altered = place.path("altered.tar");
        fs::write(&altered, bytes).unwrap();
        for command in ["verify", "inspect"] {
            let refused = pol(&[command, &altered]).expect(1);
            assert!(refused.stderr.contains(word), "{}", refused.stderr);
        }
        let out = place.path("out");
        pol(&["unpack", &altered, "--out", &out]).expect(1);
        assert!(!std::path::Path::new(&out).exists());
    };
    judged(&whole[..whole.len() - 512], "after its end, or it has none");
    judged(&whole[..700], "cut short");
    judged(&[&whole[..], &[0; 512]].concat(), "after its end");
    // Names that lead elsewhere, other kinds of files: with every checksum right.
    let entry = |name: &str, kind: tar::EntryType, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        if kind.is_symlink() {
            header.set_link_name("/etc/passwd").unwrap();
        }
        for number in [
            tar::Header::set_uid,
            tar::Header::set_gid,
            tar::Header::set_mtime,
        ] {
            number(&mut header, 0);
        }
        header.set_cksum();
        [
            &header.as_bytes()[..],
            content,
            &vec![0; (512 - content.len() % 512) % 512],
        ]
        .concat()
    };
    let regular = tar::EntryType::Regular;
    for name in [
        "../manifest.mp",
        "/manifest.mp",
        "./manifest.mp",
        "objects/../../x",
        "metrics/.hidden",
        "metrics/a/b",
        "journal.mp",
    ] {
        judged(
            &[&entry(name, regular, b"x")[..], &whole].concat(),
            "is not a file of a proof",
        );
    }
    let link = entry("manifest.mp", tar::EntryType::Symlink, b"");
    judged(
        &[&link[..], &whole].concat(),
        "is not that of a regular file",
    );
    let twice = entry("manifest.mp", regular, b"x");
    judged(&[&twice[..], &whole].concat(), "out of order");
}

#[test]
fn a_proof_of_exact_numerics_is_thinned_and_stays_the_same_proof() {
    let (run, kept) = (Run::new(), Run::new());
    let trained = pol(&[&EXACT[..], &[run.path(), "--json"]].concat())
        .expect(0)
        .json();
    pol(&[&EXACT[..], &[kept.path(), "--keep", "10"]].concat()).expect(0);
    let whole = size(&run);
    let dry = pol(&["gc", run.path(), "--keep", "10", "--dry-run"]).expect(0);
    assert!(dry.stdout.contains("would free"), "{dry:?}");
    assert_eq!(size(&run), whole);
    pol(&["gc", run.path(), "--keep", "10"]).expect(0);
    // Exactly what a training leaves that keeps so many.
    let names = |run: &Run| {
        let mut names: Vec<_> = (run.proof_files().into_iter())
            .map(|file| {
                (
                    file.strip_prefix(run.path()).unwrap().to_owned(),
                    fs::read(&file).unwrap(),
                )
            })
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(&run), names(&kept));
    let verified = pol(&["verify", run.path(), "--all", "--json"])
        .expect(0)
        .json();
    assert_eq!(verified["commitment"], trained["commitment"]);
    assert_eq!(
        (&verified["states_kept"], &verified["steps_replayed"]),
        (&5.into(), &40.into())
    );
    pol(&["gc", run.path(), "--keep", "40"]).expect(0);
    assert_eq!(
        pol(&["verify", run.path(), "--json"]).expect(0).json()["states_kept"],
        2
    );
}

#[test]
fn what_is_not_the_proof_s_is_collected_and_states_of_stock_numerics_stay() {
    let run = Run::new();
    train_small(&run, &["--numerics", "stock"]);
    let before = size(&run);
    fs::create_dir_all(run.file("objects/ab")).unwrap();
    let stray = [
        "objects/ab/cdef0000000000000000000000000000000000000000000000000000000000",
        "objects/.writing-x1",
        ".writing-x2",
    ];
    for file in stray {
        fs::write(run.file(file), "left by a writer that was killed").unwrap();
    }
    fs::write(run.file("metrics/notes.txt"), "somebody's own").unwrap();
    let collected = pol(&["gc", run.path()]).expect(0);
    assert!(collected.stdout.contains("in 3 files"), "{collected:?}");
    assert!(stray.iter().all(|file| !run.file(file).exists()));
    assert!(run.file("metrics/notes.txt").exists());
    assert_eq!(size(&run), before);
    pol(&["verify", run.path()]).expect(0);
    let refused = pol(&["gc", run.path(), "--keep", "2"]).expect(2);
    assert!(refused.stderr.contains("exact"), "{}", refused.stderr);
    let empty = Place::new();
    pol(&["gc", &empty.path("nothing")]).expect(4);
}

#[test]
fn a_proof_takes_no_more_than_was_estimated_and_too_large_a_one_is_not_begun() {
    for more in [
        &[][..],
        &["--numerics", "stock", "--interval", "1"],
        &["--recipe", "digits-mlp", "--interval", "3"],
        &["--interval", "1", "--keep", "5"],
    ] {
        let run = Run::new();
        let args = [
            &["train", "--steps", "24", "--json", "--out", run.path()],
            more,
        ]
        .concat();
        let trained = pol(&args).expect(0).json();
        let (bytes, most) = (&trained["proof_bytes"], &trained["proof_bytes_at_most"]);
        assert!(
            bytes.as_u64() <= most.as_u64(),
            "{bytes} of {most}: {more:?}"
        );
        // And not far less, where states do not compress.
        assert!(
            most.as_u64() < bytes.as_u64().map(|bytes| 4 * bytes),
            "{bytes} of {most}"
        );
    }
    // What the refusal suggests is not refused.
    let stock = ["train", "--numerics", "stock", "--steps", "40", "--out"];
    for (begin, option) in [
        (&stock[..], "--interval"),
        (&["train", "--steps", "40", "--out"], "--keep"),
    ] {
        let run = Run::new();
        let limited = [run.path(), "--max-disk", "1.2MB"];
        let args = [begin, &limited, &["--interval", "1"]].concat();
        let refused = pol(&args).expect(2);
        assert!(!run.file("").exists(), "nothing was begun");
        let suggested = refused.stderr.split(option).nth(1).unwrap();
        let number = suggested.split_whitespace().next().unwrap();
        let interval = match option {
            "--interval" => &[option, number][..],
            _ => &["--interval", "1", option, number],
        };
        pol(&[begin, &limited, interval].concat()).expect(0);
        assert!(size(&run) <= 1_200_000);
    }
}

#[test]
fn as_many_jobs_and_as_little_memory_as_one_likes_judge_alike() {
    let run = Run::new();
    pol(&[&EXACT[..], &[run.path(), "--keep", "4"]].concat()).expect(0);
    let verify = |more: &[&str]| {
        let args = [&["verify", run.path(), "--all", "--json"], more].concat();
        let judged = pol(&args).expect(0).json();
        ["verdict", "segments", "steps_replayed", "states_kept"].map(|of| judged[of].clone())
    };
    let alone = verify(&["--jobs", "1", "--memory", "0"]);
    assert_eq!(alone[1].as_array().unwrap().len(), 40);
    assert!(verify(&["--jobs", "2"]) == alone);
    assert!(verify(&["--jobs", "7", "--threads", "3"]) == alone);
    // A forgery is found by any number, at the same place.
    let forged = Run::new();
    pol(&[&EXACT[..], &[forged.path(), "--seed", "1"]].concat()).expect(0);
    let object = &forged.proof_files()[20];
    fs::write(object, "nothing").unwrap();
    let reasons = |jobs: &str| {
        let judged = pol(&["verify", forged.path(), "--json", "--jobs", jobs]).expect(1);
        judged.json()["reasons"].clone()
    };
    assert_eq!(reasons("1"), reasons("3"));
    assert!(
        pol(&["verify", run.path(), "--jobs", "0"])
            .expect(2)
            .stderr
            .contains("--jobs")
    );
}
