//! Prover and verifier apart: the exchange of files, prior proofs, policies.

mod common;

use std::fs;
use std::path::Path;

use common::{Place, Run, copy, pol, train_small};
use serde_json::Value;

/// The five steps between two folders that share nothing but the files named. Returns the verdict.
fn exchange(prover: &Place, run: &str, open_with: &[&str], verify_with: &[&str]) -> Value {
    let verifier = Place::new();
    let (at_prover, at_verifier) = (|n: &str| prover.path(n), |n: &str| verifier.path(n));
    pol(&["commit", run, "-o", &at_prover("commitment.mp")]).expect(0);
    assert!(
        fs::metadata(at_prover("commitment.mp")).unwrap().len() < 8000,
        "a few kB"
    );
    copy(&at_prover("commitment.mp"), &at_verifier("c.mp"));
    let challenge = at_verifier("challenge.mp");
    pol(&[
        "challenge",
        &at_verifier("c.mp"),
        "--sample",
        "2",
        "-o",
        &challenge,
    ])
    .expect(0);
    copy(&challenge, &at_prover("challenge.mp"));
    let (challenge, opening) = (at_prover("challenge.mp"), at_prover("opening.mp"));
    let args = [&["open", run, &challenge, "-o", &opening], open_with];
    pol(&args.concat()).expect(0);
    copy(&opening, &at_verifier("opening.mp"));
    let (c, challenge, opening) = (
        at_verifier("c.mp"),
        at_verifier("challenge.mp"),
        at_verifier("opening.mp"),
    );
    let args = [
        &[
            "verify",
            "--opening",
            &opening,
            "--commitment",
            &c,
            "--challenge",
            &challenge,
            "--json",
        ],
        verify_with,
    ];
    pol(&args.concat()).expect(0).json()
}

#[test]
fn five_steps_between_two_folders_end_in_acceptance() {
    let (prover, run) = (Place::new(), Run::new());
    let trained = train_small(&run, &[]);
    let verified = exchange(&prover, run.path(), &[], &["--recipe", &recipe_of(&prover)]);
    assert_eq!(verified["verdict"], "accepted");
    assert_eq!(verified["commitment"], trained["commitment"]);
    // Two are drawn of three; the last comes to every draw.
    let selected = verified["segments_selected"].as_u64().unwrap();
    assert!((2..=3).contains(&selected), "{selected}");
    assert_eq!(verified["segments"][selected as usize - 1]["index"], 2);
    assert_eq!(verified["steps_replayed"], 4 * selected);
    assert_eq!(verified["policy"], "calibrated");
    assert_eq!(verified["data"], "opened-records");
    assert_eq!(verified["randomness_from"], "challenge");
    let recipes = &verified["recipes"];
    assert_eq!(recipes["claimed"], recipes["expected"]);
    let one = verified["catches_one_segment"].as_f64().unwrap();
    assert!((one - 2.0 / 3.0).abs() < 1e-12, "{one}");
    assert!(verified["bridge"].is_null() && verified["outliers"].is_null());
    assert!(verified["audit_seed"].is_string());
    // The size is that of the states and records of two segments, and hardly more.
    let opening = fs::metadata(prover.path("opening.mp")).unwrap().len();
    // In the folder some are differences; in the opening all are whole.
    let files = run.proof_files();
    let sizes = files[2..].iter().map(|f| fs::metadata(f).unwrap().len());
    let largest = sizes.max().unwrap();
    let records = 12 * 32 * 65;
    // Two or three of three segments have all four states, or three of them.
    assert!(
        opening < (4 * largest + records) * 11 / 10,
        "{opening} of {largest}"
    );
}

#[test]
fn the_opening_of_a_cifar_run_is_hardly_larger_than_its_states_and_records() {
    let Some(data) = std::env::var_os("POL_TEST_DATA").filter(|path| Path::new(path).is_dir())
    else {
        #[expect(clippy::print_stderr, reason = "a skipped test says so")]
        {
            eprintln!("skipped: POL_TEST_DATA names no folder with cifar-10-batches-bin");
        }
        return;
    };
    let data = ["--data-dir", data.to_str().unwrap()];
    let (prover, run) = (Place::new(), Run::new());
    let args = [
        "train",
        "--recipe",
        "cifar10-resnet20",
        "--numerics",
        "exact",
        "--batch-size",
        "32",
        "--steps",
        "8",
        "--interval",
        "2",
        "--test-records",
        "32",
        "--out",
        run.path(),
    ];
    pol(&[&args[..], &data].concat()).expect(0);
    let verified = exchange(&prover, run.path(), &data, &[]);
    let segments = verified["segments"].as_array().unwrap();
    assert_eq!(
        (&verified["verdict"], &verified["steps_replayed"]),
        (&"accepted".into(), &(2 * segments.len()).into())
    );
    let opening = fs::metadata(prover.path("opening.mp")).unwrap().len();
    // With exact numerics an opening holds the states at the start of segments, as a whole. The folder
    // has two like that: the first, which has no momentum, and the one after it.
    let mut sizes: Vec<u64> = run.proof_files()[2..]
        .iter()
        .map(|f| fs::metadata(f).unwrap().len())
        .collect();
    sizes.sort_unstable();
    let largest = sizes[sizes.len() - 1];
    let count = segments.len() as u64;
    let records = 2 * count * 32 * 3073;
    let states = match segments[0]["index"] == 0 {
        true => (count - 1) * largest + largest / 2,
        false => count * largest,
    };
    assert!(
        opening < (states + records) * 11 / 10,
        "{opening} of {states} + {records}"
    );
}

/// The recipe of `train_small`, as a file of the verifier's.
fn recipe_of(place: &Place) -> String {
    let text = include_str!("../../../recipes/digits-lenet.toml");
    let file = place.path("recipe.toml");
    fs::write(&file, text.replace("epochs = 12", "steps = 12")).unwrap();
    file
}

#[test]
fn a_proof_that_keeps_few_states_opens_what_it_recomputes() {
    let (prover, run) = (Place::new(), Run::new());
    let args = [
        "train",
        "--numerics",
        "exact",
        "--steps",
        "12",
        "--interval",
        "1",
        "--keep",
        "12",
    ];
    pol(&[&args[..], &["--out", run.path()]].concat()).expect(0);
    let verified = exchange(&prover, run.path(), &[], &[]);
    assert_eq!(verified["verdict"], "accepted");
    let replayed = verified["steps_replayed"].as_u64().unwrap();
    assert!(
        (2..=3).contains(&replayed),
        "no more than was drawn, and the last"
    );
}

#[test]
fn private_data_is_opened_by_its_owner_alone() {
    let (prover, run) = (Place::new(), Run::new());
    let key = prover.key("key.pem");
    let trained = train_small(&run, &["--key", &key, "--private-data"]);
    let public = format!("{key}.pub");
    let verified = exchange(
        &prover,
        run.path(),
        &["--key", &key],
        &["--trust", &public, "--own-data"],
    );
    assert_eq!(verified["verdict"], "accepted");
    assert!(verified["evidence"]["signed_by"].is_string());
    // The opened records were compared; the root cannot be without the key.
    assert!(verified["expected"]["data_root"].is_null());
    // The same training without salts, and with another key's, have other roots and weights.
    let (open_run, other_run) = (Run::new(), Run::new());
    let other = prover.key("other.pem");
    assert_ne!(
        train_small(&open_run, &["--key", &key])["commitment"],
        trained["commitment"]
    );
    assert_ne!(
        train_small(&other_run, &["--key", &other, "--private-data"])["commitment"],
        trained["commitment"]
    );

    let challenge = prover.path("challenge.mp");
    let x = prover.path("x.mp");
    for with in [&[][..], &["--key", &other]] {
        let args = [&["open", run.path(), &challenge, "-o", &x], with].concat();
        let refused = pol(&args).expect(4);
        assert!(
            refused.stderr.contains("secret") && refused.stderr.contains("--key"),
            "{}",
            refused.stderr
        );
    }
    // The whole folder without the key: nothing is accepted; with it, all.
    let unknown = pol(&["verify", run.path(), "--json"]).expect(3).json();
    assert!(unknown["expected"]["data_root"].is_null());
    let known = pol(&["verify", run.path(), "--json", "--key", &key]).expect(0);
    assert!(known.json()["expected"]["data_root"].is_string());
    let unknown = pol(&["verify", run.path()]).expect(3);
    assert!(
        unknown.stdout.contains("the data is private"),
        "{}",
        unknown.stdout
    );
}

#[test]
fn fine_tuning_is_verified_with_what_it_starts_from() {
    let (base, tuned, other) = (Run::new(), Run::new(), Run::new());
    train_small(&base, &[]);
    train_small(
        &tuned,
        &["--prior", base.path(), "--learning-rate", "0.005"],
    );
    train_small(&other, &["--seed", "5"]);
    let verified = pol(&["verify", tuned.path(), "--prior", base.path(), "--json"])
        .expect(0)
        .json();
    assert_eq!(verified["start"], "prior");
    assert_eq!(verified["chain"].as_array().unwrap().len(), 1);
    let link = &verified["priors"][0];
    assert_eq!(link["commitment"], verified["chain"][0]);
    assert_eq!(link["steps"], link["recipe"]["steps"]);
    assert!(link["held_to"].is_null());
    let missing = pol(&["verify", tuned.path()]).expect(1);
    assert!(
        missing.stdout.contains("was not given"),
        "{}",
        missing.stdout
    );
    let wrong = pol(&["verify", tuned.path(), "--prior", other.path()]).expect(1);
    assert!(
        wrong.stdout.contains("the one given is"),
        "{}",
        wrong.stdout
    );
    fs::write(base.file("model.safetensors"), b"x").unwrap();
    let broken = pol(&["verify", tuned.path(), "--prior", base.path()]).expect(1);
    assert!(
        broken.stdout.contains("the prior proof"),
        "{}",
        broken.stdout
    );
    // Two links.
    let (first, second, third) = (Run::new(), Run::new(), Run::new());
    train_small(&first, &[]);
    train_small(&second, &["--prior", first.path()]);
    train_small(&third, &["--prior", second.path(), "--seed", "3"]);
    let chain = [
        "verify",
        third.path(),
        "--prior",
        second.path(),
        "--prior",
        first.path(),
        "--json",
    ];
    assert_eq!(
        pol(&chain).expect(0).json()["chain"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    pol(&["verify", third.path(), "--prior", second.path()]).expect(1);
}

/// What is given and bears on nothing is a slip, and is said before anything is replayed.
#[test]
fn a_prior_proof_that_nothing_starts_from_is_wrong_usage() {
    let (base, tuned) = (Run::new(), Run::new());
    train_small(&base, &[]);
    train_small(&tuned, &["--prior", base.path()]);
    let refused = pol(&["verify", base.path(), "--prior", tuned.path()]).expect(2);
    assert!(
        refused
            .stderr
            .contains("the proof does not start from another one"),
        "{}",
        refused.stderr
    );
    let pair = ["--prior", base.path(), "--prior", base.path()];
    let refused = pol(&[&["verify", tuned.path()], &pair[..]].concat()).expect(2);
    assert!(
        refused
            .stderr
            .contains(&format!("the proof {} does not start", base.path())),
        "{}",
        refused.stderr
    );
}

#[test]
fn a_prior_proof_is_held_to_its_recipe_and_to_what_the_policy_demands() {
    let (base, tuned) = (Run::new(), Run::new());
    train_small(&base, &[]);
    train_small(&tuned, &["--prior", base.path()]);
    let place = Place::new();
    let own = recipe_of(&place);
    let verify = |more: &[&str]| {
        let args = ["verify", tuned.path(), "--prior", base.path()];
        pol(&[&args[..], more].concat())
    };
    // As the proof claims; the text says so, and what the recipe is.
    let claimed = verify(&[]).expect(0);
    for words in ["starts from", "as that proof claims", "sgd"] {
        assert!(claimed.stdout.contains(words), "{}", claimed.stdout);
    }
    // Another recipe than the verifier expects.
    let other = verify(&["--prior-recipe", "digits-mlp"]).expect(1);
    assert!(
        other.stdout.contains("the recipe is not the expected one"),
        "{}",
        other.stdout
    );
    // The one that it is of.
    let held = verify(&["--prior-recipe", &own, "--json"]).expect(0).json();
    assert!(held["priors"][0]["held_to"].is_string());
    // A policy that takes no recipe on trust takes the prior one's neither.
    let policy = place.path("policy.toml");
    let demanding = "name = \"own\"\n[evidence]\nrecipe = true\ndata = true\n[start]\nrule = \"derived\"\nmax_depth = 1\n";
    fs::write(&policy, demanding).unwrap();
    let demanded = ["--policy", &policy, "--recipe", &own];
    let trusting = verify(&demanded).expect(1);
    assert!(
        trusting.stdout.contains("the prior proof") && trusting.stdout.contains("own recipe"),
        "{}",
        trusting.stdout
    );
    verify(&[&demanded[..], &["--prior-recipe", &own]].concat()).expect(0);
    // Bounds too.
    let bounded = demanding.to_owned() + "[bounds]\nmax_learning_rate = 0.001\n";
    fs::write(&policy, bounded).unwrap();
    let refused = verify(&["--policy", &policy]).expect(1);
    assert!(
        refused.stdout.contains("max_learning_rate"),
        "{}",
        refused.stdout
    );
}

#[test]
fn audits_are_planned_and_policies_are_obeyed() {
    let planned = pol(&[
        "audit-plan",
        "--segments",
        "1000",
        "--forged",
        "1%",
        "--confidence",
        "99%",
        "--json",
    ]);
    let planned = planned.expect(0).json();
    let plan = &planned["plans"][0];
    assert_eq!(
        (&plan["sample"], &plan["forged_segments"]),
        (&368.into(), &10.into())
    );
    assert!(plan["probability"].as_f64().unwrap() >= 0.99);
    let both = pol(&["audit-plan", "--segments", "1000"]).expect(0).stdout;
    for words in [
        "990 of 1000",
        "a forger of one segment",
        "368 of 1000",
        "a forger of 1 %",
    ] {
        assert!(both.contains(words), "{words:?} is not in\n{both}");
    }
    let three = [
        "audit-plan",
        "--segments",
        "10",
        "--forged-segments",
        "3",
        "--json",
    ];
    let three = pol(&three).expect(0).json();
    assert_eq!(three["plans"][0]["forged_segments"], 3);
    assert!(three["plans"][0]["forged"].is_null());
    let run = Run::new();
    train_small(&run, &["--numerics", "stock"]);
    let planned = pol(&["audit-plan", "--run", run.path(), "--json"])
        .expect(0)
        .json();
    assert_eq!(planned["segments"], 3);

    let strict = pol(&["verify", run.path(), "--policy", "strict"]).expect(1);
    for words in [
        "numerics",
        "a signature",
        "a trusted timestamp",
        "own recipe",
        "min_epochs",
    ] {
        assert!(strict.stdout.contains(words), "{words}: {}", strict.stdout);
    }
    let paper = pol(&["verify", run.path(), "--policy", "paper"]).expect(0);
    assert!(
        paper.stdout.contains("known to be broken"),
        "{}",
        paper.stdout
    );
    let place = Place::new();
    let file = place.path("mine.toml");
    fs::write(&file, "name = \"mine\"\n[bounds]\nmax_interval = 3\n").unwrap();
    let refused = pol(&["verify", run.path(), "--policy", &file]).expect(1);
    assert!(
        refused.stdout.contains("max_interval"),
        "{}",
        refused.stdout
    );
    fs::write(&file, "name = \"mine\"\n[bound]\nmax_interval = 3\n").unwrap();
    let usage = pol(&["verify", run.path(), "--policy", &file]).expect(2);
    assert!(
        usage.stderr.contains("bound") && usage.stderr.contains("mine.toml"),
        "{}",
        usage.stderr
    );
    assert!(
        pol(&["verify", run.path(), "--policy", "none"])
            .expect(2)
            .stderr
            .contains("strict")
    );
    let capped = pol(&["verify", run.path(), "--max-steps", "11"]).expect(3);
    assert!(capped.stdout.contains("max_steps"), "{}", capped.stdout);
    let offline = pol(&["verify", run.path(), "--sample", "1", "--offline-challenge"]).expect(0);
    assert!(
        offline.stdout.contains("follows from the commitment"),
        "{}",
        offline.stdout
    );
}

#[test]
fn a_forged_proof_is_judged_like_any_other() {
    let listed = pol(&["attack", "list", "--json"]).expect(0).json();
    let names: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|a| a["name"].as_str().unwrap())
        .collect();
    assert!(names.contains(&"injection"), "{names:?}");
    let (victim, forged) = (Run::new(), Run::new());
    // The published rules are for kernels that round.
    train_small(&victim, &["--numerics", "stock"]);
    let args = [
        "attack",
        "injection",
        "--victim",
        victim.path(),
        "--out",
        forged.path(),
        "--json",
    ];
    let made = pol(&args).expect(0).json();
    assert_eq!(
        (&made["attack"], &made["honest_gradients"]),
        (&"injection".into(), &12.into())
    );
    pol(&["verify", forged.path(), "--policy", "paper"]).expect(0);
    let caught = pol(&["verify", forged.path()]).expect(1);
    assert!(caught.stdout.contains("optim/"), "{}", caught.stdout);
    assert!(
        pol(&["attack", "magic"])
            .expect(2)
            .stderr
            .contains("blindfold")
    );
    assert!(
        pol(&["attack", "injection"])
            .expect(2)
            .stderr
            .contains("--victim")
    );
    assert!(pol(&args).expect(2).stderr.contains("exists"));
}

#[test]
fn files_of_the_exchange_that_are_not_what_they_should_be_are_named() {
    let (place, run) = (Place::new(), Run::new());
    train_small(&run, &[]);
    let [c, challenge, opening] = ["c.mp", "challenge.mp", "opening.mp"].map(|n| place.path(n));
    pol(&["commit", run.path(), "-o", &c]).expect(0);
    pol(&["challenge", &c, "--sample", "1", "-o", &challenge]).expect(0);
    pol(&["open", run.path(), &challenge, "-o", &opening]).expect(0);
    let verify = [
        "verify",
        "--opening",
        &opening,
        "--commitment",
        &c,
        "--challenge",
        &challenge,
    ];
    pol(&verify).expect(0);
    for file in [&c, &challenge, &opening] {
        let whole = fs::read(file).unwrap();
        for bad in [
            &b""[..],
            b"{}",
            &whole[..whole.len() - 1],
            &[0xdd, 0xff, 0xff, 0xff, 0xff],
        ] {
            fs::write(file, bad).unwrap();
            let refused = pol(&verify).expect(1);
            let name = Path::new(file).file_name().unwrap().to_str().unwrap();
            assert!(refused.stderr.contains(name), "{}", refused.stderr);
        }
        fs::write(file, whole).unwrap();
    }
    // A folder or a pipe in their place: refused at once, without waiting.
    for file in [&c, &challenge, &opening] {
        fs::rename(file, place.path("aside")).unwrap();
        let made = std::process::Command::new("mkfifo").arg(file).status();
        if !made.is_ok_and(|status| status.success()) {
            fs::create_dir(file).unwrap();
        }
        let refused = pol(&verify).expect(4);
        assert!(
            refused.stderr.contains("not a regular file"),
            "{}",
            refused.stderr
        );
        let _ = fs::remove_file(file).or_else(|_| fs::remove_dir(file));
        fs::rename(place.path("aside"), file).unwrap();
    }
    // A challenge to another proof.
    let other = Run::new();
    train_small(&other, &["--seed", "2"]);
    let refused = pol(&["open", other.path(), &challenge, "-o", &place.path("x.mp")]).expect(4);
    assert!(
        refused.stderr.contains("this proof's is"),
        "{}",
        refused.stderr
    );
}
