//! What the CUDA program says when its driver fails it: on a stub of the driver, which fails at will
//! (tools/cuda-stub.c). Skipped unless POL_CUDA_PROGRAM names a program that tools/cuda-build made.

mod common;

use std::path::Path;
use std::process::Command;

use common::{Place, Ran, Run};

/// The CUDA program on the stub.
struct Stubbed {
    program: String,
    driver: Place,
}

impl Stubbed {
    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    fn new() -> Option<Self> {
        let Ok(program) = std::env::var("POL_CUDA_PROGRAM") else {
            eprintln!("skipped: POL_CUDA_PROGRAM names no program of tools/cuda-build");
            return None;
        };
        let driver = Place::new();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/cuda-stub.c");
        let built = Command::new("cc")
            .args(["-O1", "-w", "-shared", "-fPIC", "-o"])
            .arg(driver.path("libcuda.so"))
            .arg(source)
            .arg("-lpthread")
            .output();
        let Ok(built) = built else {
            eprintln!("skipped: there is no C compiler for the stub of the driver");
            return None;
        };
        assert!(
            built.status.success(),
            "{}",
            String::from_utf8_lossy(&built.stderr)
        );
        Some(Self { program, driver })
    }

    fn pol(&self, settings: &[(&str, &str)], args: &[&str]) -> Ran {
        let mut command = Command::new(&self.program);
        command.args(args).envs(settings.iter().copied());
        command.env("LD_LIBRARY_PATH", self.driver.folder());
        for variable in ["CARGO", "CARGO_MANIFEST_PATH", "POL_DATA"] {
            command.env_remove(variable);
        }
        Ran::from(command.output().unwrap())
    }

    /// Training by CUDA fails before its first step, and says all of this.
    fn refuses(&self, settings: &[(&str, &str)], numerics: &str, said: &[&str]) {
        let run = Run::new();
        let args = ["train", "--recipe", "digits-lenet", "--steps", "4"];
        let backend = [
            "--backend",
            "cuda",
            "--numerics",
            numerics,
            "--out",
            run.path(),
        ];
        let ran = self
            .pol(settings, &[&args[..], &backend[..]].concat())
            .expect(4);
        for text in said {
            assert!(ran.stderr.contains(text), "{text}: {}", ran.stderr);
        }
        assert_eq!(ran.stderr.matches("error: ").count(), 1, "{}", ran.stderr);
        assert!(!ran.stderr.contains("Backtrace"), "{}", ran.stderr);
        assert!(!Path::new(run.path()).exists());
    }
}

#[test]
fn a_driver_that_refuses_is_quoted() {
    let Some(cuda) = Stubbed::new() else { return };
    let remedy = "nvidia-smi";
    cuda.refuses(
        &[("CUDA_STUB_INIT", "100")],
        "stock",
        &["CUDA_ERROR_NO_DEVICE", "no CUDA-capable device", remedy],
    );
    cuda.refuses(
        &[("CUDA_STUB_INIT", "803")],
        "exact",
        &["CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", remedy],
    );
}

#[test]
fn a_driver_that_is_too_old_is_said_to_be() {
    let Some(cuda) = Stubbed::new() else { return };
    let newer = "install a newer one";
    // For the GPU's instructions; and for the version of the kernels' text.
    cuda.refuses(
        &[("CUDA_STUB_DRIVER", "11040")],
        "exact",
        &[newer, "PTX version"],
    );
    cuda.refuses(
        &[("CUDA_STUB_LOAD", "222")],
        "stock",
        &[newer, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"],
    );
    cuda.refuses(
        &[("CUDA_STUB_LOAD", "222")],
        "exact",
        &[newer, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"],
    );
}

#[test]
fn a_toolkit_that_stock_kernels_want_is_named_before_the_first_step() {
    let Some(cuda) = Stubbed::new() else { return };
    let nowhere = Place::new();
    let nowhere = nowhere.path("no-toolkit");
    cuda.refuses(
        &[("CUDA_PATH", &nowhere)],
        "stock",
        &["libdevice.10.bc", "set CUDA_PATH", "exact"],
    );
}

#[test]
fn a_device_that_computes_other_bits_may_not_run_exact_recipes() {
    let Some(cuda) = Stubbed::new() else { return };
    cuda.refuses(&[], "exact", &["may not run", "pol doctor"]);
}

#[test]
fn memory_that_does_not_suffice_and_a_device_that_is_lost_are_said() {
    let Some(cuda) = Stubbed::new() else { return };
    let bench = [
        "bench",
        "--unprobed",
        "--backend",
        "cuda",
        "--numerics",
        "exact",
    ];
    let steps = [
        "--recipe",
        "digits-lenet",
        "--steps",
        "3",
        "--warmup",
        "0",
        "--json",
    ];
    let args = [&bench[..], &steps[..]].concat();
    for (setting, value, said) in [
        ("CUDA_STUB_MEMORY", "1000000", "memory does not suffice"),
        ("CUDA_STUB_LOST", "150", "the device was lost"),
    ] {
        let found = cuda.pol(&[(setting, value)], &args).expect(4).json();
        let problem = found["runs"][0]["problem"].as_str().unwrap();
        assert!(problem.contains(said), "{problem}");
    }
    let found = cuda.pol(&[], &args).expect(0).json();
    assert!(found["runs"][0]["launches_per_step"].as_f64().unwrap() > 10.0);
}

#[test]
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn a_training_whose_device_was_lost_goes_on_elsewhere() {
    let Some(cuda) = Stubbed::new() else { return };
    let toolkit = std::env::var("CUDA_PATH").unwrap_or_default();
    if !Path::new(&toolkit)
        .join("nvvm/libdevice/libdevice.10.bc")
        .exists()
    {
        eprintln!("skipped: CUDA_PATH names no toolkit with libdevice (tools/cuda-path has it)");
        return;
    }
    let run = Run::new();
    let begin = [
        "train",
        "--recipe",
        "digits-lenet",
        "--steps",
        "40",
        "--interval",
        "4",
    ];
    let there = [
        "--numerics",
        "stock",
        "--backend",
        "cuda",
        "--out",
        run.path(),
    ];
    let lost = cuda.pol(
        &[("CUDA_STUB_LOST", "4000")],
        &[&begin[..], &there[..]].concat(),
    );
    let lost = lost.expect(4);
    assert!(
        lost.stderr.contains("the device was lost"),
        "{}",
        lost.stderr
    );
    assert!(lost.stderr.contains("--resume"), "{}", lost.stderr);
    assert!(run.file("journal.mp").exists());

    let resumed = cuda.pol(
        &[],
        &[
            "train",
            "--resume",
            "--out",
            run.path(),
            "--backend",
            "flex",
        ],
    );
    resumed.expect(0);
    // The stub's steps are none: whoever replays them finds so.
    cuda.pol(&[], &["verify", run.path()]).expect(1);
}
