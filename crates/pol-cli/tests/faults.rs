//! A machine at fault: killed at random instants, a full disk, a read-only folder, an `fsync` that fails,
//! a clock that jumps, two programs on one run. And what the program itself must not do to a machine.

#![cfg(unix)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, SystemTime};

use common::{Place, Ran, Run, command, pol, train_small};
use serde_json::Value;

const TRAIN: [&str; 7] = [
    "train",
    "--steps",
    "240",
    "--interval",
    "3",
    "--test-records",
    "16",
];

/// The commitment of the training that was left alone.
fn undisturbed() -> &'static Value {
    static COMMITMENT: OnceLock<Value> = OnceLock::new();
    COMMITMENT.get_or_init(|| {
        let run = Run::new();
        train(run.path(), &[]).expect(0).json()["commitment"].clone()
    })
}

fn train(run: &str, more: &[&str]) -> Ran {
    pol(&[&TRAIN[..], &["--json", "--out", run], more].concat())
}

/// Goes on, to the end, and compares.
fn arrives(run: &str) {
    let resumed = train(run, &["--resume"]).expect(0).json();
    assert_eq!(resumed["commitment"], *undisturbed());
    pol(&["verify", run, "--sample", "3"]).expect(0);
    // And nothing is left lying about.
    let collected = pol(&["gc", run]).expect(0);
    let again = pol(&["gc", run]).expect(0);
    assert!(again.stdout.contains("0 bytes in 0 files"), "{again:?}");
    assert!(collected.stdout.contains("freed"), "{collected:?}");
}

/// A step of a linear congruential generator; from the clock, and printed, so that instants differ from
/// run to run and can be repeated.
struct Chance(u64);

impl Chance {
    #[expect(clippy::print_stderr, reason = "a failure has to be repeatable")]
    fn new() -> Self {
        let given = std::env::var("POL_CRASH_SEED").ok();
        let seed = given.map_or_else(
            || {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                now.unwrap().as_nanos() as u64
            },
            |seed| seed.parse().unwrap(),
        );
        eprintln!("POL_CRASH_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 = (self.0.wrapping_mul(6_364_136_223_846_793_005))
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// `POL_CRASH_KILLS` for more (docs/robustness.md).
#[test]
fn killed_at_random_instants_it_arrives_at_the_same_commitment() {
    let given = std::env::var("POL_CRASH_KILLS").ok();
    let mut kills: u64 = given.map_or(16, |kills| kills.parse().unwrap());
    let mut chance = Chance::new();
    while kills > 0 {
        let run = Run::new();
        // One run is killed again and again, at most until it is finished.
        for _ in 0..kills.min(8) {
            let mut child = command(&[&TRAIN[..], &["--resume", "--out", run.path()]].concat())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            thread::sleep(Duration::from_micros(chance.below(700_000)));
            let ended = child.try_wait().unwrap();
            child.kill().unwrap();
            child.wait().unwrap();
            if ended.is_some() {
                break;
            }
            kills -= 1;
        }
        if run.file("manifest.mp").exists() {
            let found = pol(&["inspect", run.path(), "--json"]).expect(0).json();
            assert_eq!(found["commitment"], *undisturbed());
        } else {
            arrives(run.path());
        }
    }
}

/// A small file system of its own, or why there can be none.
struct Disk(PathBuf);

impl Disk {
    fn mounted(folder: &Path, options: &str) -> Option<Self> {
        let mounted = mount(&["-t", "tmpfs", "-o", options, "tmpfs"], folder);
        skipped("mounting a file system", mounted).then(|| Self(folder.to_owned()))
    }

    fn remount(&self, options: &str) {
        assert!(mount(&["-o", &format!("remount,{options}")], &self.0));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

fn mount(args: &[&str], folder: &Path) -> bool {
    let mut mount = Command::new("mount");
    mount.args(args).arg(folder).stderr(Stdio::null());
    mount.status().is_ok_and(|status| status.success())
}

#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn skipped(what: &str, possible: bool) -> bool {
    if !possible {
        eprintln!("skipped: {what} is not possible here");
    }
    possible
}

#[test]
fn a_full_disk_stops_the_training_and_more_room_lets_it_go_on() {
    let place = Place::new();
    // What fails first differs with the room: the journal, an object, the model, the manifest.
    for kib in [8, 300, 1200, 3000] {
        let Some(disk) = Disk::mounted(place.folder(), &format!("size={kib}k")) else {
            return;
        };
        let run = place.path("run");
        let full = train(&run, &[]).expect(4);
        assert!(full.stderr.contains("No space left"), "{}", full.stderr);
        disk.remount("size=100m");
        arrives(&run);
    }
}

#[test]
fn a_read_only_folder_is_an_error_that_names_it() {
    let place = Place::new();
    let Some(disk) = Disk::mounted(place.folder(), "size=50m") else {
        return;
    };
    let run = place.path("run");
    train_small_into(&run);
    disk.remount("ro");
    let other = place.path("other");
    let refused = train(&other, &[]).expect(4);
    assert!(refused.stderr.contains("Read-only"), "{}", refused.stderr);
    assert!(refused.stderr.contains(&other), "{}", refused.stderr);
    // What is there can be read all the same.
    pol(&["verify", &run]).expect(0);
    pol(&["gc", &run]).expect(0);
}

fn train_small_into(run: &str) {
    pol(&["train", "--steps", "8", "--interval", "4", "--out", run]).expect(0);
}

/// The library that makes a machine faulty, built by the C compiler that Rust links with.
fn faulty_machine() -> Option<&'static str> {
    static BUILT: OnceLock<Option<(Place, String)>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let place = Place::new();
        let library = place.path("libfaults.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/faults.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o", &library, source, "-ldl"]);
        let works =
            cfg!(target_os = "linux") && compiler.status().is_ok_and(|status| status.success());
        skipped("preloading a library", works).then_some((place, library))
    });
    built.as_ref().map(|(_, library)| library.as_str())
}

fn on_a_faulty_machine(args: &[&str], fault: (&str, &str)) -> Option<Ran> {
    let library = faulty_machine()?;
    let mut program = command(args);
    program.env("LD_PRELOAD", library).env(fault.0, fault.1);
    Some(Ran::from(program.output().unwrap()))
}

#[test]
fn an_fsync_that_fails_stops_the_training_and_loses_nothing() {
    for after in [0, 1, 3, 10, 50, 243, 249] {
        let run = Run::new();
        let args = [&TRAIN[..], &["--out", run.path()]].concat();
        let fault = ("POL_TEST_FSYNC_AFTER", &*after.to_string());
        let Some(failed) = on_a_faulty_machine(&args, fault) else {
            return;
        };
        let failed = failed.expect(4);
        assert!(
            failed.stderr.contains("Input/output error"),
            "{}",
            failed.stderr
        );
        arrives(run.path());
    }
}

#[test]
fn a_clock_that_jumps_changes_nothing() {
    let run = Run::new();
    let args = [&TRAIN[..], &["--json", "--verify", "--out", run.path()]].concat();
    let Some(trained) = on_a_faulty_machine(&args, ("POL_TEST_CLOCK", "jump")) else {
        return;
    };
    let trained = trained.expect(0).json();
    assert_eq!(trained["commitment"], *undisturbed());
    assert_eq!(trained["verification"]["verdict"], "accepted");
}

#[test]
fn of_two_programs_on_one_run_one_is_refused() {
    for more in [&[][..], &["--resume"]] {
        for _ in 0..3 {
            let run = Run::new();
            let start = || {
                command(&[&TRAIN[..], &["--json", "--out", run.path()], more].concat())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap()
            };
            let both = [start(), start()].map(|child| Ran::from(child.wait_with_output().unwrap()));
            let trained = both.iter().filter(|ran| ran.code == Some(0)).count();
            assert_eq!(trained, 1, "{both:?}");
            for ran in &both {
                let refused = ran.stderr.contains("another training is writing")
                    || ran.stderr.contains("already holds");
                assert!(
                    ran.code == Some(0) || (ran.code == Some(4) && refused),
                    "{ran:?}"
                );
            }
            let found = pol(&["verify", run.path(), "--json"]).expect(0).json();
            assert_eq!(found["commitment"], *undisturbed());
        }
    }
}

/// What the program asked the system for, a line for each call.
fn calls(args: &[&str]) -> Option<String> {
    let place = Place::new();
    let log = place.path("calls");
    let program = env!("CARGO_BIN_EXE_pol");
    let traced = Command::new("strace")
        .args([
            "-f",
            "-qq",
            "-e",
            "trace=%network,%file",
            "-o",
            &log,
            program,
        ])
        .args(args)
        .env_remove("CARGO")
        .output();
    let ran = traced.ok().map(Ran::from)?;
    ran.expect(0);
    fs::read_to_string(&log).ok()
}

#[test]
fn verifying_touches_no_network_and_writes_nothing() {
    let can_trace = Command::new("strace").args(["-qq", "true"]).output();
    if !skipped("tracing", can_trace.is_ok_and(|ran| ran.status.success())) {
        return;
    }
    let run = Run::new();
    train_small(&run, &[]);
    let place = Place::new();
    let packed = place.path("run.tar");
    pol(&["pack", run.path(), "--out", &packed]).expect(0);
    let page = place.path("page.html");
    let everything: [&[&str]; 4] = [
        &["verify", run.path()],
        &["verify", &packed],
        &["inspect", run.path()],
        &["report", run.path(), "-o", &page],
    ];
    for args in everything {
        let calls = calls(args).unwrap();
        assert!(calls.contains("manifest.mp") || calls.contains("run.tar"));
        for call in calls.lines() {
            // glibc may ask its own name service daemon for names; that is a local socket.
            let network = ["AF_INET", "connect(", "sendto(", "bind("];
            assert!(!network.iter().any(|word| call.contains(word)), "{call}");
            let changes = [
                "O_WRONLY",
                "O_RDWR",
                "O_CREAT",
                "unlink",
                "rename",
                "mkdir",
                "truncate(",
            ];
            let own =
                call.contains("/dev/null") || call.contains("/dev/tty") || call.contains(&page);
            let failed = call.contains("= -1 ");
            let writes = changes.iter().any(|word| call.contains(word));
            assert!(own || failed || !writes, "{args:?}: {call}");
        }
    }
}
