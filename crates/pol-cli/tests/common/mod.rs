//! Running the program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// The program with these arguments, not started by cargo as far as it can see.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pol"));
    command.args(args);
    for variable in ["CARGO", "CARGO_MANIFEST_PATH", "POL_DATA"] {
        command.env_remove(variable);
    }
    command
}

/// Runs the program to its end.
pub(crate) fn pol(args: &[&str]) -> Ran {
    Ran::from(command(args).output().unwrap())
}

/// What a run of the program gave.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let ran = Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
        ran
    }
}

impl Ran {
    /// Asserts the exit code.
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        self
    }

    /// Stdout as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.stdout))
    }
}

/// A place for a run that goes away with the test.
pub(crate) struct Run {
    folder: TempDir,
    path: String,
}

impl Run {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run").to_str().unwrap().to_owned();
        Self { folder, path }
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("run").join(name)
    }

    /// Every file that belongs to the proof; `metrics/` is for people.
    #[allow(dead_code, reason = "each test file uses what it needs")]
    pub(crate) fn proof_files(&self) -> Vec<PathBuf> {
        let mut files = vec![self.file("manifest.mp"), self.file("model.safetensors")];
        for prefix in fs::read_dir(self.file("objects")).unwrap() {
            for object in fs::read_dir(prefix.unwrap().path()).unwrap() {
                files.push(object.unwrap().path());
            }
        }
        files
    }
}

/// A folder of somebody's own.
#[allow(dead_code, reason = "each test file uses what it needs")]
pub(crate) struct Place(TempDir);

#[allow(dead_code, reason = "each test file uses what it needs")]
impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn folder(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn key(&self, name: &str) -> String {
        let key = self.path(name);
        pol(&["keygen", &key]).expect(0);
        key
    }
}

/// Hands a file on.
#[allow(dead_code, reason = "each test file uses what it needs")]
pub(crate) fn copy(from: &str, to: &str) {
    fs::copy(from, to).unwrap();
}

/// Twelve steps of LeNet-5 on the digits with a checkpoint every four; the JSON result.
#[allow(dead_code, reason = "each test file uses what it needs")]
pub(crate) fn train_small(run: &Run, more: &[&str]) -> serde_json::Value {
    let args = [
        &[
            "train",
            "--steps",
            "12",
            "--interval",
            "4",
            "--json",
            "--out",
            run.path(),
        ],
        more,
    ];
    pol(&args.concat()).expect(0).json()
}
