//! What the program says of devices: which there are, whether they agree, how fast they are.

mod common;

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Run, command, pol};

#[test]
fn a_backend_that_is_not_compiled_in_is_named_with_the_command_that_has_it() {
    for backend in ["vulkan", "cuda", "cpu"] {
        let doctor = pol(&["doctor", "--json"]).expect(0).json();
        let rows = doctor["backends"].as_array().unwrap();
        let row = rows.iter().find(|row| row["name"] == backend).unwrap();
        if row["compiled"] == true {
            continue;
        }
        let out = pol(&["train", "--backend", backend]).expect(4);
        let command = format!("cargo run -p pol-cli --features {backend}");
        assert!(out.stderr.contains(&command), "{}", out.stderr);
    }
}

#[test]
fn doctor_lists_every_backend() {
    let doctor = pol(&["doctor", "--json"]).expect(0).json();
    assert_eq!(doctor["schema"], "pol.doctor/1");
    let rows = doctor["backends"].as_array().unwrap();
    let names: Vec<_> = rows
        .iter()
        .map(|row| row["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["flex", "wgpu", "vulkan", "cuda", "cpu"]);
    assert_eq!(
        (&rows[0]["compiled"], &rows[0]["present"]),
        (&true.into(), &true.into())
    );
    for row in rows {
        assert!(row["compiled"] == true || row["present"] == false);
        assert!(row["device"].is_string() || row["problem"].is_string());
    }
}

#[test]
fn bench_times_every_combination_and_names_those_it_cannot() {
    let small = ["bench", "--recipe", "digits-lenet", "--batch-size", "8"];
    let few = ["--steps", "2", "--warmup", "1", "--json"];
    let bench = |more: &[&str]| pol(&[&small[..], &few[..], more].concat());
    let found = bench(&[]).expect(0).json();
    assert_eq!(found["schema"], "pol.bench/1");
    let runs = found["runs"].as_array().unwrap();
    let numerics: Vec<_> = runs.iter().map(|run| &run["numerics"]).collect();
    assert_eq!(numerics, ["exact/unfused-v2", "exact/fma-v2", "stock"]);
    for run in runs {
        assert!(run["problem"].is_null(), "{run}");
        assert_eq!(
            (&run["steps"], &run["batch_size"], &run["launches_per_step"]),
            (&2.into(), &8.into(), &0.0.into())
        );
        let seconds = |key: &str| run[key].as_f64().unwrap();
        assert!(seconds("least_step_s") > 0.0);
        assert!(seconds("least_step_s") <= seconds("median_step_s"));
        assert!(seconds("median_step_s") <= seconds("most_step_s"));
        let rate = seconds("records_per_s") * seconds("median_step_s");
        assert!((rate - 8.0).abs() < 1e-6);
        // 64 pixels, ten classes and the label.
        assert_eq!(run["uploaded_bytes_per_step"], 8 * 4 * 75);
    }

    // Each once, whatever is asked for twice.
    let twice = ["--backend", "vulkan,flex,vulkan", "--numerics"];
    let found = bench(&[&twice[..], &["stock,stock"]].concat());
    let found = found.expect(4).json();
    let runs = found["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2);
    assert!(runs[0]["problem"].as_str().unwrap().contains("vulkan"));
    assert!(runs[0]["median_step_s"].is_null() && runs[1]["problem"].is_null());

    // A recipe that warms up for longer than is timed.
    let long = [
        "bench",
        "--recipe",
        "cifar100-resnet50",
        "--batch-size",
        "2",
    ];
    let one = ["--steps", "1", "--warmup", "0", "--numerics", "exact"];
    pol(&[&long[..], &one].concat()).expect(0);

    for slip in [
        &["--steps", "0"][..],
        &["--recipe", "none"],
        &["--model", "none"],
        &["--batch-size", "0"],
        &["--threads", "100000"],
        &["--backend", ""],
    ] {
        pol(&[&["bench"], slip].concat()).expect(2);
    }
}

#[test]
fn a_thorough_doctor_trains_on_every_backend_and_compares() {
    let arguments = ["doctor", "--thorough", "--models", "lenet5"];
    let found = pol(&[&arguments[..], &["--steps", "2", "--json"]].concat()).expect(0);
    let thorough = &found.json()["thorough"];
    assert_eq!(thorough["steps"], 2);
    let trainings = thorough["trainings"].as_array().unwrap();
    let compared = |of: &serde_json::Value| of["runs"].as_array().unwrap().len() > 1;
    match trainings.iter().any(compared) {
        true => assert_eq!(thorough["agree"], true),
        false => assert!(thorough["agree"].is_null()),
    }
    let numerics: Vec<_> = trainings.iter().map(|of| &of["numerics"]).collect();
    assert_eq!(numerics, ["exact/unfused-v2", "exact/fma-v2", "stock"]);
    for training in trainings {
        let runs = training["runs"].as_array().unwrap();
        assert_eq!(runs[0]["backend"], "flex");
        for run in runs {
            assert!(run["problem"].is_null(), "{run}");
            assert_eq!(run["commitment"].as_str().unwrap().len(), 64);
        }
        let exact = training["numerics"] != "stock";
        match exact && compared(training) {
            true => assert_eq!(training["equal"], true),
            false => assert!(training["equal"].is_null()),
        }
        for pair in training["errors"].as_array().unwrap() {
            // Another device rounds otherwise, and by no more than rounding does.
            let error = pair["error"].as_f64().unwrap();
            assert!((0.0..1e-3).contains(&error), "{pair}");
        }
    }
    // Other numerics are other trainings.
    let of = |i: usize| &trainings[i]["runs"][0]["commitment"];
    assert!(of(0) != of(1) && of(1) != of(2));
    for slip in [
        &["--models", "vgg"][..],
        &["--models", "lenet5"],
        &["--steps", "0"],
    ] {
        let thorough: &[&str] = match slip {
            ["--models", "lenet5"] => &[],
            _ => &["--thorough"],
        };
        pol(&[&["doctor"], thorough, slip].concat()).expect(2);
    }
}

fn is_present(backend: &str) -> bool {
    let doctor = pol(&["doctor", "--json"]).expect(0).json();
    let rows = doctor["backends"].as_array().unwrap();
    let row = rows.iter().find(|row| row["name"] == backend).unwrap();
    row["present"] == true
}

#[test]
fn bench_counts_the_kernels_that_a_device_is_sent() {
    if !is_present("wgpu") {
        #[expect(clippy::print_stderr, reason = "a skipped test says so")]
        {
            eprintln!("skipped: there is no Vulkan device here");
        }
        return;
    }
    let arguments = ["bench", "--recipe", "digits-lenet", "--batch-size", "4"];
    let few = ["--steps", "1", "--warmup", "1", "--json"];
    let device = ["--backend", "wgpu", "--numerics", "exact"];
    let found = pol(&[&arguments[..], &few, &device].concat()).expect(0);
    let run = &found.json()["runs"][0];
    // Each kernel of a step is known in advance: as many in every step.
    let launches = run["launches_per_step"].as_f64().unwrap();
    assert!((50.0..200.0).contains(&launches), "{launches}");
    assert!(run["device_bytes"].as_u64().unwrap() > 1 << 20);

    // Where no numerics are asked for, a profile that the device may not run is left out.
    let usual = pol(&[&arguments[..], &few, &["--backend", "wgpu"]].concat()).expect(0);
    let doctor = pol(&["doctor", "--json"]).expect(0).json();
    let rows = doctor["backends"].as_array().unwrap();
    let row = rows.iter().find(|row| row["name"] == "wgpu").unwrap();
    let exact = row["exact"].as_array().unwrap().iter();
    let passed = (exact.clone().filter(|profile| profile["passed"] == true)).count();
    assert_eq!(usual.json()["runs"].as_array().unwrap().len(), passed + 1);

    // Where it is asked for it is refused, and timed only by who says that its results do not matter.
    for refused in exact.filter(|profile| profile["passed"] == false) {
        let numerics = format!("exact/{}", refused["profile"].as_str().unwrap());
        let device = ["--backend", "wgpu", "--numerics", &numerics];
        let bench = |more: &[&str]| pol(&[&arguments[..], &few, &device, more].concat());
        let problem = &bench(&[]).expect(4).json()["runs"][0]["problem"];
        assert!(problem.as_str().unwrap().contains("may not run"));
        let timed = &bench(&["--unprobed"]).expect(0).json()["runs"][0];
        assert!(timed["median_step_s"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn doctor_shows_where_exact_recipes_may_run() {
    let doctor = pol(&["doctor", "--json"]).expect(0).json();
    let rows = doctor["backends"].as_array().unwrap();
    let passed = |row: &serde_json::Value| -> Vec<(String, bool)> {
        let exact = row["exact"].as_array().unwrap();
        let pair = |e: &serde_json::Value| {
            assert!(e["passed"] == true || e["problem"].is_string(), "{e}");
            (
                e["profile"].as_str().unwrap().to_owned(),
                e["passed"] == true,
            )
        };
        exact.iter().map(pair).collect()
    };
    let all = [("unfused-v2".to_owned(), true), ("fma-v2".to_owned(), true)];
    assert_eq!(passed(&rows[0]), all);
    assert!(doctor["exact_instructions"].is_string());
}

/// Processes that have this text in their command lines.
#[cfg(target_os = "linux")]
fn processes(text: &str) -> usize {
    let folders = fs::read_dir("/proc").unwrap().flatten();
    let lines = folders.filter_map(|folder| fs::read(folder.path().join("cmdline")).ok());
    lines
        .filter(|line| String::from_utf8_lossy(line).contains(text))
        .count()
}

/// Measuring is done by child processes; they end with the one that began them, however that ends.
#[test]
#[cfg(target_os = "linux")]
fn a_killed_bench_leaves_no_process_behind() {
    let run = Run::new();
    fs::create_dir_all(run.path()).unwrap();
    let recipe = run.file("killed.toml");
    fs::write(&recipe, include_str!("../../../recipes/digits-lenet.toml")).unwrap();
    let recipe = recipe.to_str().unwrap();
    let wait = |count: usize| {
        let started = Instant::now();
        while processes(recipe) != count {
            let now = processes(recipe);
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "{now} processes"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let arguments = ["bench", "--recipe", recipe, "--steps", "1000000"];
    let mut bench = command(&arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait(2);
    bench.kill().unwrap();
    bench.wait().unwrap();
    wait(0);
}
