//! Killed, interrupted and resumed.

mod common;

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::{Ran, Run, command, pol, train_small};

const STEPS: &str = "300";

fn train_args<'a>(run: &'a Run, more: &[&'a str]) -> Vec<&'a str> {
    let base = [
        "train",
        "--steps",
        STEPS,
        "--interval",
        "7",
        "--json",
        "--out",
        run.path(),
    ];
    [&base, more].concat()
}

/// Starts the training in the background.
fn start_quietly(run: &Run) -> Child {
    command(&train_args(run, &[]))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits until the run has so many checkpoints.
fn wait_for_objects(run: &Run, count: usize) {
    let started = Instant::now();
    loop {
        let found = std::fs::read_dir(run.file("objects")).map_or(0, Iterator::count);
        if found >= count {
            return;
        }
        assert!(
            started.elapsed() < Duration::from_secs(120),
            "{found} objects"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_killed_run_resumes_to_the_same_commitment() {
    let whole = Run::new();
    let expected = pol(&train_args(&whole, &[])).expect(0).json();
    for objects in [1, 4, 19] {
        let run = Run::new();
        let mut child = start_quietly(&run);
        wait_for_objects(&run, objects);
        child.kill().unwrap(); // SIGKILL: nothing can be tidied up
        child.wait().unwrap();
        pol(&["verify", run.path()]).expect(1);

        let args = ["train", "--resume", "--json", "--out", run.path()];
        let resumed = pol(&args).expect(0).json();
        assert_eq!(
            resumed["commitment"], expected["commitment"],
            "killed after {objects}"
        );
        let verified = pol(&["verify", run.path(), "--sample", "3", "--json"])
            .expect(0)
            .json();
        assert_eq!(verified["verdict"], "accepted");
        let curve = std::fs::read_to_string(run.file("metrics/curve.csv")).unwrap();
        let steps = curve
            .lines()
            .skip(1)
            .map(|row| row.split(',').next().unwrap());
        let last: Vec<u64> = steps.map(|s| s.parse().unwrap()).collect();
        assert!(last.is_sorted() && last.last() == Some(&300), "{last:?}");
    }
}

#[cfg(unix)]
#[test]
fn an_interrupt_stops_cleanly_with_a_resumable_run() {
    let run = Run::new();
    let child = command(&train_args(&run, &[]))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for_objects(&run, 3);
    let sent = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
    let stopped = Ran::from(child.wait_with_output().unwrap()).expect(4);
    assert!(stopped.stderr.contains("--resume"), "{}", stopped.stderr);
    let whole = Run::new();
    let expected = pol(&train_args(&whole, &[])).expect(0).json();
    let resumed = pol(&train_args(&run, &["--resume"])).expect(0).json();
    assert_eq!(resumed["commitment"], expected["commitment"]);
}

#[test]
fn another_training_is_not_mixed_into_an_unfinished_one() {
    let run = Run::new();
    let mut child = start_quietly(&run);
    wait_for_objects(&run, 2);
    let busy = pol(&train_args(&run, &["--resume"])).expect(4);
    assert!(
        busy.stderr.contains("another training is writing"),
        "{}",
        busy.stderr
    );
    child.kill().unwrap();
    child.wait().unwrap();
    let begun = pol(&train_args(&run, &[])).expect(4);
    assert!(begun.stderr.contains("--resume"), "{}", begun.stderr);
    let other = pol(&train_args(&run, &["--resume", "--seed", "5"])).expect(4);
    assert!(
        other.stderr.contains("seed: asked for 5, there 0"),
        "{}",
        other.stderr
    );
}

#[test]
fn resuming_nothing_begins_and_resuming_a_finished_run_is_refused() {
    let run = Run::new();
    train_small(&run, &["--resume"]);
    let finished = pol(&["train", "--resume", "--out", run.path()]).expect(4);
    assert!(
        finished.stderr.contains("finished proof"),
        "{}",
        finished.stderr
    );
}
