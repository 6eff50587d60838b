//! Experiments and reports, by the program.

mod common;

use common::{Run, pol};
use std::fs;

const TINY: &str = r#"
experiment = "reproduction"
title = "Tiny"
about = "A test."
[quick]
settings = ["same", "threads-1", "order", "draws"]
intervals = [1, 2]
starts = [0, 3]
references = 1
[[quick.trainings]]
recipe = "digits-mlp"
steps = 6
[full]
settings = ["same"]
intervals = ["epoch"]
starts = [0]
references = 1
[[full.trainings]]
recipe = "digits-mlp"
steps = 600
"#;

fn file(folder: &Run, name: &str, text: &str) -> String {
    fs::create_dir_all(folder.path()).unwrap();
    let path = format!("{}/{name}", folder.path());
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn an_experiment_goes_on_where_it_was_and_is_reported() {
    let folder = Run::new();
    let recipe = file(&folder, "tiny.toml", TINY);
    let out = format!("{}/out", folder.path());
    let measure = ["measure", &recipe, "--out", &out, "--json"];
    let summary = pol(&measure).expect(0).json();
    assert_eq!(summary["schema"], "pol.measure/1");
    let rows = fs::read_to_string(format!("{out}/rows.csv")).unwrap();
    // Four settings, two starts, two intervals, four metrics; d_ref; the header.
    assert_eq!(rows.lines().count(), 4 * 2 * 2 * 4 + 4 + 1);
    for row in rows.lines().filter(|row| row.contains(",same,")) {
        let epsilon = row.split(',').rev().nth(1);
        assert_eq!(epsilon, Some("0.0"), "{row}");
    }

    // Half of it lost: only that is measured again, and gives the same.
    let half: Vec<&str> = rows.lines().take(33).collect();
    fs::write(format!("{out}/rows.csv"), half.join("\n") + "\n").unwrap();
    pol(&measure).expect(0);
    let again = fs::read_to_string(format!("{out}/rows.csv")).unwrap();
    assert_eq!(again, rows);

    let page = format!("{}/page.html", folder.path());
    pol(&["report", &out, "-o", &page]).expect(0);
    assert!(fs::read_to_string(&page).unwrap().contains("Tiny"));
    let misplaced = pol(&["report", &out, "-o", &page, "--", "--all"]).expect(2);
    assert!(misplaced.stderr.contains("nothing to verify"));

    let full = pol(&["measure", &recipe, "--size", "full", "--out", &out]).expect(2);
    assert!(
        full.stderr.contains("another experiment"),
        "{}",
        full.stderr
    );
    fs::write(format!("{out}/rows.csv"), "a,b\n1,2\n").unwrap();
    let foreign = pol(&measure).expect(4);
    assert!(foreign.stderr.contains("rows.csv"), "{}", foreign.stderr);
}

#[test]
fn faulty_experiments_are_named() {
    let folder = Run::new();
    let refused = |text: &str| {
        let recipe = file(&folder, "faulty.toml", text);
        let out = format!("{}/none", folder.path());
        pol(&["measure", &recipe, "--out", &out]).expect(2).stderr
    };
    assert!(refused("x = 1").contains("experiment"));
    assert!(refused("experiment = \"magic\"").contains("reference-distance"));
    assert!(refused(&TINY.replace("\"order\"", "\"sideways\"")).contains("sideways"));
    assert!(refused(&TINY.replace("references", "reverences")).contains("reverences"));
    assert!(refused(&TINY.replace("digits-mlp", "magic")).contains("magic"));
    let listed = pol(&["measure", "list"]).expect(0).stdout;
    assert!(listed.contains("attacks") && listed.contains("reproduction"));
    assert!(
        pol(&["measure", "nothing"])
            .expect(2)
            .stderr
            .contains("cost")
    );
}

#[test]
fn a_proof_is_reported_with_its_verdict() {
    let run = Run::new();
    let train = [
        "train",
        "--recipe",
        "digits-mlp",
        "--steps",
        "12",
        "--interval",
        "4",
    ];
    pol(&[&train[..], &["--out", run.path()]].concat()).expect(0);
    let page = format!("{}.html", run.path());
    pol(&["report", run.path(), "-o", &page, "--", "--sample", "2"]).expect(0);
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.contains("accepted") && html.contains("Training loss"));
    // Two that are drawn, the first and the last: the middle one is there or not.
    assert!(html.contains("2 of 3 segments") || html.contains("3 of 3 segments"));
    assert!(!html.contains("src=\"http") && !html.contains("href=\"http"));

    let verified = format!("{}.json", run.path());
    fs::write(
        &verified,
        pol(&["verify", run.path(), "--json"]).expect(0).stdout,
    )
    .unwrap();
    pol(&["report", run.path(), "-o", &page, "--verified", &verified]).expect(0);
    assert!(
        fs::read_to_string(&page)
            .unwrap()
            .contains("3 of 3 segments")
    );
    fs::write(&verified, "{}").unwrap();
    let other = pol(&["report", run.path(), "-o", &page, "--verified", &verified]).expect(2);
    assert!(
        other.stderr.contains("pol verify --json"),
        "{}",
        other.stderr
    );

    // A forged proof is reported too, with the exit code of its verdict.
    fs::write(format!("{}/manifest.mp", run.path()), b"no manifest").unwrap();
    pol(&["report", run.path(), "-o", &page]).expect(1);
    assert!(fs::read_to_string(&page).unwrap().contains("rejected"));
}

#[test]
fn a_verifier_may_stop_at_the_first_segment_that_fails() {
    let (victim, forged) = (Run::new(), Run::new());
    let train = [
        "train",
        "--recipe",
        "digits-lenet",
        "--steps",
        "20",
        "--interval",
        "5",
    ];
    pol(&[&train[..], &["--out", victim.path()]].concat()).expect(0);
    let forge = ["attack", "lazy", "--interval", "5", "--segments", "4"];
    let where_to = ["--victim", victim.path(), "--out", forged.path()];
    pol(&[&forge[..], &where_to].concat()).expect(0);
    let count = |args: &[&str]| {
        let report = pol(&[&["verify", forged.path(), "--json"], args].concat())
            .expect(1)
            .json();
        report["segments"].as_array().unwrap().len()
    };
    assert_eq!(count(&[]), 4);
    assert_eq!(count(&["--fail-fast"]), 1);
}

/// Records that a forger made lie beside the proof, as a data set.
#[test]
fn forged_records_are_written_for_the_verifier() {
    let (victim, forged) = (Run::new(), Run::new());
    let train = [
        "train",
        "--recipe",
        "digits-lenet",
        "--steps",
        "20",
        "--interval",
        "5",
    ];
    pol(&[&train[..], &["--out", victim.path()]].concat()).expect(0);
    let forge = [
        "attack",
        "joint",
        "--interval",
        "5",
        "--segments",
        "2",
        "--iterations",
        "1",
    ];
    let where_to = [
        "--access",
        "noise",
        "--victim",
        victim.path(),
        "--out",
        forged.path(),
        "--json",
    ];
    let made = pol(&[&forge[..], &where_to].concat()).expect(0).json();
    let data = made["data"].as_str().unwrap();
    assert!(made["figures"]["residual left"].as_f64().unwrap() > 0.0);
    let public = pol(&["verify", forged.path(), "--policy", "paper"]).expect(1);
    assert!(
        public.stdout.contains("not the verifier's"),
        "{}",
        public.stdout
    );
    let opened = pol(&["verify", forged.path(), "--data-dir", data]).expect(1);
    assert!(opened.stdout.contains("derived"), "{}", opened.stdout);
}
