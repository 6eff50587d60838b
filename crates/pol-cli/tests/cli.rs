//! The program as its users run it: exit codes, JSON, files, signals.

mod common;

use std::fs;

use common::{Run, pol, train_small};

#[test]
fn train_writes_a_proof_that_verify_accepts() {
    let run = Run::new();
    let trained = train_small(&run, &["--verify"]);
    assert_eq!(trained["schema"], "pol.train/1");
    for key in [
        "run",
        "commitment",
        "steps",
        "interval",
        "backend",
        "numerics",
        "test_accuracy",
        "train_seconds",
        "proof_bytes",
    ] {
        assert!(!trained[key].is_null(), "{key} is missing");
    }
    assert_eq!(
        (&trained["steps"], &trained["interval"]),
        (&12.into(), &4.into())
    );
    assert_eq!(trained["verification"]["verdict"], "accepted");

    let verified = pol(&["verify", run.path(), "--json"]).expect(0).json();
    assert_eq!(verified["schema"], "pol.verify/3");
    assert_eq!(verified["commitment"], trained["commitment"]);
    assert_eq!(verified["verdict"], "accepted");
    assert_eq!(verified["reasons"], serde_json::json!([]));
    assert_eq!(verified["backend"], "flex");
    let segments = verified["segments"].as_array().unwrap();
    assert_eq!(segments.len(), 3);
    for (index, segment) in segments.iter().enumerate() {
        assert_eq!(segment["index"], index);
        assert_eq!(segment["first_step"], 4 * index);
        assert_eq!(segment["last_step"], 4 * index + 4);
        assert_eq!(segment["digests_equal"], true);
        for metric in ["l1", "l2", "linf", "cosine"] {
            assert_eq!(segment[metric], 0.0, "{metric}");
        }
        assert!(segment["movement_l2"].as_f64().unwrap() > 0.0);
    }
    let curve = fs::read_to_string(run.file("metrics/curve.csv")).unwrap();
    assert_eq!(curve.lines().count(), 13);
    assert!(fs::metadata(run.file("model.safetensors")).unwrap().len() > 1000);
}

#[test]
fn the_readable_output_says_what_the_json_says() {
    let run = Run::new();
    let out = pol(&[
        "train",
        "--steps",
        "8",
        "--interval",
        "4",
        "--out",
        run.path(),
        "--verify",
    ]);
    let text = out.expect(0).stdout;
    for words in [
        "lenet5 on digits",
        "commitment",
        "bit for bit",
        "verdict      accepted",
    ] {
        assert!(text.contains(words), "{words:?} is not in\n{text}");
    }
    assert!(
        !text.contains('\u{1b}'),
        "no colours or bars where no terminal is"
    );
}

#[test]
fn the_same_recipe_and_seed_give_the_same_commitment() {
    let runs = [Run::new(), Run::new(), Run::new()];
    let one = train_small(&runs[0], &["--threads", "1"]);
    let two = train_small(&runs[1], &["--threads", "2"]);
    assert_eq!(one["commitment"], two["commitment"]);
    let other = train_small(&runs[2], &["--seed", "1"]);
    assert_ne!(one["commitment"], other["commitment"]);
}

#[test]
fn verify_holds_a_proof_to_a_recipe_and_a_commitment() {
    let run = Run::new();
    let trained = train_small(&run, &[]);
    let commitment = trained["commitment"].as_str().unwrap();
    pol(&["verify", run.path(), "--commitment", commitment]).expect(0);
    let other = "0".repeat(64);
    let refused = pol(&["verify", run.path(), "--commitment", &other]).expect(1);
    assert!(refused.stdout.contains("not the expected proof"));

    // The shipped recipe has more steps.
    let refused = pol(&["verify", run.path(), "--recipe", "digits-lenet"]).expect(1);
    assert!(
        refused
            .stdout
            .contains("steps: expected 528, the proof says 12")
    );
    let refused = pol(&["verify", run.path(), "--recipe", "digits-mlp", "--json"]).expect(1);
    let reason = refused.json()["reasons"][0].to_string();
    assert!(
        reason.contains("model") && reason.contains("optimizer"),
        "{reason}"
    );
}

#[test]
fn a_sample_can_be_repeated_by_its_seed() {
    let run = Run::new();
    train_small(&run, &[]);
    let first = pol(&["verify", run.path(), "--sample", "1", "--json"])
        .expect(0)
        .json();
    let seed = first["audit_seed"].as_str().unwrap();
    let args = [
        "verify",
        run.path(),
        "--sample",
        "1",
        "--audit-seed",
        seed,
        "--json",
    ];
    let again = pol(&args).expect(0).json();
    assert_eq!(first["segments"], again["segments"]);
    // The ends are replayed beside it.
    let indices = |verified: &serde_json::Value| -> Vec<u64> {
        let segments = verified["segments"].as_array().unwrap();
        segments
            .iter()
            .map(|s| s["index"].as_u64().unwrap())
            .collect()
    };
    let replayed = indices(&first);
    assert!(
        replayed.contains(&0) && replayed.contains(&2),
        "{replayed:?}"
    );
    // Where the one in the middle stands out nothing is left out.
    let expected = match first["outliers"]["found"] == 0 {
        true => 1.0 / 3.0,
        false => 1.0,
    };
    for odds in ["catches_one_segment", "catches_10_percent"] {
        assert!((first[odds].as_f64().unwrap() - expected).abs() < 1e-12);
    }
    // By a policy that replays nothing beside it, the largest guarantee nothing, unless they are all.
    let file = run.file("top.toml");
    fs::write(&file, "name = \"top\"\n[segments]\ntop = 1\n").unwrap();
    let by = |q: &str| {
        let args = [
            "verify",
            run.path(),
            "--policy",
            &file.display().to_string(),
        ];
        let with = [&args[..], &["--top", q, "--json"]].concat();
        pol(&with).expect(0).json()
    };
    let top = by("1");
    assert_eq!(indices(&top).len(), 1);
    assert_eq!(top["catches_10_percent"], 0.0);
    assert_eq!(top["policy_changes"], serde_json::json!([]));
    let all = by("3");
    assert_eq!(indices(&all).len(), 3);
    assert_eq!(all["catches_one_segment"], 1.0);
    assert_eq!(all["policy"], "top, changed by --top");
}

#[test]
fn a_policy_changed_by_flags_says_so() {
    let run = Run::new();
    train_small(&run, &["--numerics", "stock"]);
    let verify = |flags: &[&str]| {
        let args = [&["verify", run.path(), "--json"], flags].concat();
        pol(&args).expect(0).json()
    };
    let plain = verify(&[]);
    assert_eq!(plain["policy"], "calibrated");
    assert_eq!(plain["policy_changes"], serde_json::json!([]));
    assert_eq!(plain["recipes"]["expected"], serde_json::Value::Null);
    assert_eq!(plain["data"], "own-copy");
    assert_eq!(plain["randomness_from"], "operating-system");
    // What the policy says anyway is no change.
    assert_eq!(verify(&["--all"])["policy_digest"], plain["policy_digest"]);
    for (flags, name) in [
        (&["--tolerance", "l2=1e9"][..], "--tolerance"),
        (&["--sample", "1"], "--sample"),
        (&["--top", "1"], "--top"),
        (&["--sample", "1", "--top", "1"], "--sample and --top"),
        (&["--max-steps", "99"], "--max-steps"),
    ] {
        let changed = verify(flags);
        assert_eq!(changed["policy"], format!("calibrated, changed by {name}"));
        let by: Vec<_> = (changed["policy_changes"].as_array().unwrap().iter())
            .map(|flag| format!("--{}", flag.as_str().unwrap()))
            .collect();
        assert_eq!(by.join(" and "), name);
        assert_ne!(changed["policy_digest"], plain["policy_digest"]);
    }
    let text = pol(&["verify", run.path(), "--tolerance", "l2=1e9"])
        .expect(0)
        .stdout;
    assert!(
        text.contains("policy       calibrated, changed by --tolerance"),
        "{text}"
    );
    // Nor does a file get a shipped name.
    let file = run.file("mine.toml");
    fs::write(&file, "name = \"strict\"\n").unwrap();
    let refused = pol(&["verify", run.path(), "--policy", file.to_str().unwrap()]).expect(2);
    assert!(
        refused.stderr.contains("a name of its own"),
        "{}",
        refused.stderr
    );
}

#[test]
fn an_altered_byte_anywhere_is_exit_code_1() {
    let run = Run::new();
    train_small(&run, &[]);
    for file in run.proof_files() {
        let bytes = fs::read(&file).unwrap();
        for position in [0, bytes.len() / 3, bytes.len() / 2, bytes.len() - 1] {
            let mut altered = bytes.clone();
            altered[position] ^= 0x10;
            fs::write(&file, &altered).unwrap();
            let out = pol(&["verify", run.path(), "--json"]).expect(1);
            assert_eq!(
                out.json()["verdict"],
                "rejected",
                "{file:?} byte {position}"
            );
        }
        for replacement in [&b""[..], b"\x00", &bytes[..bytes.len() - 1], &[0xff; 4096]] {
            fs::write(&file, replacement).unwrap();
            let out = pol(&["verify", run.path()]).expect(1);
            assert!(out.stdout.contains("reason"), "{file:?}");
            pol(&["inspect", run.path()]); // whatever it says, it does not panic
        }
        fs::write(&file, &bytes).unwrap();
    }
    pol(&["verify", run.path()]).expect(0);
}

#[test]
fn inspect_shows_the_claims() {
    let run = Run::new();
    let trained = train_small(&run, &[]);
    let inspected = pol(&["inspect", run.path(), "--json"]).expect(0).json();
    assert_eq!(inspected["schema"], "pol.inspect/2");
    assert_eq!(inspected["commitment"], trained["commitment"]);
    let terms = &inspected["claim"]["terms"];
    assert_eq!(terms["format"], "pol/v3");
    assert_eq!(terms["recipe"]["model"]["name"], "lenet5");
    assert_eq!(terms["interval"], 4);
    assert_eq!(inspected["checkpoints"].as_array().unwrap().len(), 4);
    let text = pol(&["inspect", run.path()]).expect(0).stdout;
    assert!(text.contains("lenet5") && text.contains("1437 records"));
}

#[test]
fn wrong_usage_is_exit_code_2_and_says_what_is_right() {
    let run = Run::new();
    let usage = |args: &[&str], words: &str| {
        let out = pol(args).expect(2);
        assert!(out.stderr.contains(words), "{args:?}: {}", out.stderr);
    };
    usage(
        &["train", "--model", "vgg", "--out", run.path()],
        "resnet20",
    );
    usage(&["train", "--dataset", "imagenet"], "cifar100");
    usage(&["train", "--recipe", "nosuch"], "digits-lenet");
    usage(&["train", "--backend", "tpu"], "flex, wgpu");
    usage(
        &[
            "train",
            "--steps",
            "5",
            "--interval",
            "6",
            "--out",
            run.path(),
        ],
        "--interval",
    );
    usage(
        &["train", "--batch-size", "5000", "--out", run.path()],
        "1437 training records",
    );
    for rate in ["0", "-0.1", "nan", "inf", "1e-60"] {
        usage(
            &[
                "train",
                &format!("--learning-rate={rate}"),
                "--out",
                run.path(),
            ],
            "`learning_rate.base`",
        );
    }
    usage(
        &["train", "--steps", "0", "--out", run.path()],
        "it must be from 1 to 4294967296",
    );
    usage(&["train", "--resume"], "--out");
    usage(&["verify", "nowhere", "--tolerance", "nan"], "--tolerance");
    usage(&["verify", "nowhere", "--offline-challenge"], "--sample");
    usage(&["data", "fetch", "digits"], "cifar10");
    usage(&["train", "--threads", "0"], "--threads");
}

#[test]
fn a_faulty_recipe_file_is_named_with_its_line() {
    let run = Run::new();
    fs::create_dir_all(run.path()).unwrap();
    let file = run.file("mine.toml");
    let shipped = include_str!("../../../recipes/digits-lenet.toml");
    fs::write(&file, shipped.replace("momentum", "momemtum")).unwrap();
    let out = pol(&["train", "--recipe", file.to_str().unwrap()]).expect(2);
    for words in ["mine.toml", "momemtum", "momentum"] {
        assert!(out.stderr.contains(words), "{}", out.stderr);
    }
}

#[test]
fn a_number_out_of_range_in_a_recipe_file_is_named_before_the_first_step() {
    let run = Run::new();
    fs::create_dir_all(run.path()).unwrap();
    let file = run.file("mine.toml");
    let shipped = include_str!("../../../recipes/digits-lenet.toml");
    let out = run.file("out");
    for (old, new, field, range) in [
        ("interval = 44", "interval = 0", "interval", "from 1"),
        (
            "momentum = 0.9",
            "momentum = 1.0",
            "optimizer.momentum",
            "below 1",
        ),
        (
            "momentum = 0.9",
            "nesterov = true",
            "optimizer.nesterov",
            "momentum above 0",
        ),
        (
            "base = 0.02",
            "base = 0.02\nwarmup_epochs = -3",
            "learning_rate.warmup_epochs",
            "at least 0",
        ),
        (
            "base = 0.02",
            "base = 0.02\nmin = nan",
            "learning_rate.min",
            "at least 0",
        ),
    ] {
        fs::write(&file, shipped.replace(old, new)).unwrap();
        let file = file.to_str().unwrap();
        let refused = pol(&["train", "--recipe", file, "--out", out.to_str().unwrap()]).expect(2);
        for words in ["mine.toml", &format!("`{field}`"), range] {
            assert!(refused.stderr.contains(words), "{}", refused.stderr);
        }
        assert!(!out.exists(), "nothing was begun");
    }
}

/// Images of 8×8 are single values after ResNet-18's three halvings.
#[test]
fn a_training_whose_batch_norm_sees_single_values_is_refused() {
    let run = Run::new();
    let args = [
        "train",
        "--model",
        "resnet18",
        "--batch-size",
        "1",
        "--steps",
        "2",
    ];
    let refused = pol(&[&args[..], &["--interval", "1", "--out", run.path()]].concat()).expect(2);
    assert!(refused.stderr.contains("batch_size"), "{}", refused.stderr);
}

#[test]
fn missing_things_are_named_with_their_remedy() {
    let run = Run::new();
    let args = ["train", "--dataset", "cifar10", "--data-dir", run.path()];
    let out = pol(&args).expect(4);
    assert!(
        out.stderr.contains("pol data fetch cifar10"),
        "{}",
        out.stderr
    );
    for command in ["verify", "inspect"] {
        let out = pol(&[command, run.path()]).expect(4);
        assert!(out.stderr.contains(run.path()), "{}", out.stderr);
    }
    fs::create_dir_all(run.path()).unwrap();
    let out = pol(&["verify", run.path()]).expect(1);
    assert!(
        out.stdout.contains("manifest.mp is missing"),
        "{}",
        out.stdout
    );
}

#[test]
fn a_finished_run_or_a_folder_of_other_files_is_not_written_to() {
    let run = Run::new();
    fs::create_dir_all(run.path()).unwrap();
    fs::write(run.file("thesis.tex"), "years of work").unwrap();
    let out = pol(&["train", "--steps", "12", "--out", run.path()]).expect(2);
    assert!(out.stderr.contains("other files"), "{}", out.stderr);
    fs::remove_file(run.file("thesis.tex")).unwrap();

    train_small(&run, &[]);
    let args = ["train", "--steps", "12", "--out", run.path()];
    let out = pol(&args).expect(4);
    assert!(out.stderr.contains("finished proof") && out.stderr.contains("--out"));
    pol(&["verify", run.path()]).expect(0);
}

#[test]
fn an_exact_training_has_one_commitment_for_all_instruction_sets_and_thread_counts() {
    let commitment = |isa: &str, threads: &str| {
        let run = Run::new();
        let mut command = common::command(&["train", "--numerics", "exact", "--steps", "6"]);
        command.args([
            "--interval",
            "2",
            "--threads",
            threads,
            "--json",
            "--out",
            run.path(),
        ]);
        command.env("POL_EXACT_ISA", isa);
        let ran = common::Ran::from(command.output().unwrap());
        let trained = ran.expect(0).json();
        assert_eq!(trained["numerics"], "exact/unfused-v2");
        trained["commitment"].as_str().unwrap().to_owned()
    };
    let first = commitment("", "1");
    for isa in pol_exact::simd::Isa::present() {
        for threads in ["1", "2"] {
            assert_eq!(commitment(&isa.to_string(), threads), first, "{isa}");
        }
    }
    let mut wrong = common::command(&["doctor"]);
    wrong.env("POL_EXACT_ISA", "mmx");
    let wrong = common::Ran::from(wrong.output().unwrap()).expect(2);
    assert!(wrong.stderr.contains("portable"), "{}", wrong.stderr);
}

#[test]
fn a_sparse_exact_proof_is_verified_by_digest_and_takes_no_tolerance() {
    let run = Run::new();
    // Exact is what a recipe is that says nothing else.
    let options = ["--steps", "8", "--interval", "1", "--keep", "4"];
    let args = [
        &["train", "--out", run.path(), "--json", "--verify"],
        &options[..],
    ]
    .concat();
    let trained = pol(&args).expect(0).json();
    assert_eq!(trained["keep"], 4);
    assert_eq!(trained["verification"]["states_kept"], 3);
    assert_eq!(trained["verification"]["verdict"], "accepted");
    let refused = pol(&["verify", run.path(), "--tolerance", "0.1"]).expect(2);
    assert!(refused.stderr.contains("stock"), "{}", refused.stderr);
    let refused = pol(&["train", "--numerics", "stock", "--keep", "4"]).expect(2);
    assert!(
        refused.stderr.contains("--numerics exact"),
        "{}",
        refused.stderr
    );
}

#[test]
fn completions_are_printed_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = pol(&["completions", shell]).expect(0).stdout;
        assert!(script.contains("verify"), "{shell}");
    }
}

#[test]
fn data_check_shows_size_and_root() {
    let check = pol(&["data", "check", "digits", "--json"]).expect(0).json();
    assert_eq!(check["train_records"], 1437);
    assert_eq!(check["test_records"], 360);
    assert_eq!(check["data_root"].as_str().unwrap().len(), 64);
}
