//! The command line.

mod audit;
mod experiment;

pub(crate) use audit::*;
pub(crate) use experiment::*;

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use pol_core::adapter::Backend;
use pol_core::digest::Digest;
use pol_core::recipe::{Numerics, UnknownNumerics};
use pol_core::verify::Tolerance;
use pol_models::dataset::DatasetName;

/// Proof-of-Learning: train a model, keep a proof of the training, let anyone verify it.
///
/// Exit codes: 0 done or accepted, 1 rejected, 2 wrong usage, 3 inconclusive, 4 input, output or
/// environment.
#[derive(Debug, Parser)]
#[command(name = "pol", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train a model and write a proof of it.
    Train(Box<TrainArgs>),
    /// Verify a proof by replaying its training.
    Verify(Box<VerifyArgs>),
    /// Make a key pair to prove under.
    Keygen(KeygenArgs),
    /// Sign a proof's commitment with the key that its training was begun with.
    Sign(SignArgs),
    /// Have an authority timestamp a proof's commitment, or take its answer.
    Timestamp(TimestampArgs),
    /// Write a proof's public commitment, for a verifier who does not get the proof.
    Commit(CommitArgs),
    /// Draw which segments of a committed training have to be opened.
    Challenge(ChallengeArgs),
    /// Disclose what a challenge asks for, and nothing else.
    Open(OpenArgs),
    /// Say how many segments to replay to catch a forger with some probability.
    AuditPlan(AuditPlanArgs),
    /// Measure what interval and tolerance a recipe can be verified with on stock kernels.
    Calibrate(CalibrateArgs),
    /// Forge a proof by an attack, to see what a policy is worth; `list` names them.
    Attack(AttackArgs),
    /// Run an experiment from a recipe: raw rows, and a summary.
    Measure(MeasureArgs),
    /// Write a report of a proof or an experiment: one page that opens offline.
    Report(ReportArgs),
    /// Check and show a signed verdict.
    Verdict(VerdictArgs),
    /// Make one file of a proof's folder.
    Pack(PackArgs),
    /// Make a folder of a proof in one file.
    Unpack(UnpackArgs),
    /// Remove from a run what its proof is not made of; with --keep, states that can be recomputed.
    Gc(GcArgs),
    /// Show what a proof claims, without checking more than its manifest.
    Inspect(InspectArgs),
    /// List the backends: compiled in, present, their devices.
    Doctor(DoctorArgs),
    /// Time training steps: milliseconds, records a second, kernels launched, memory.
    Bench(BenchArgs),
    /// Fetch and check data sets.
    Data(DataArgs),
    /// Print shell completions.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

impl Command {
    /// The threads that were asked for.
    pub(crate) fn threads(&self) -> Option<usize> {
        match self {
            Self::Train(args) => args.machine.threads,
            Self::Verify(args) => args.machine.threads,
            Self::Open(args) => args.machine.threads,
            Self::Attack(args) => args.machine.threads,
            Self::Calibrate(args) => args.machine.threads,
            Self::Measure(args) => args.threads,
            Self::Bench(args) => args.threads,
            _ => None,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    /// A shipped recipe by name, or a TOML file. Default: digits-lenet.
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) recipe: Option<String>,
    /// The model: mlp, lenet5, resnet20/32/44/56/110, resnet18/34/50.
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// The data set: digits, mnist, fashion-mnist, cifar10, cifar100.
    #[arg(long)]
    pub(crate) dataset: Option<DatasetName>,
    /// none, crop-flip or crop-flip-rotate.
    #[arg(long)]
    pub(crate) augmentation: Option<String>,
    /// Passes over the training data.
    #[arg(long, conflicts_with = "steps")]
    pub(crate) epochs: Option<u64>,
    /// Steps in all, instead of epochs.
    #[arg(long)]
    pub(crate) steps: Option<u64>,
    /// Records in a step.
    #[arg(long)]
    pub(crate) batch_size: Option<u64>,
    /// The base learning rate.
    #[arg(long)]
    pub(crate) learning_rate: Option<f64>,
    /// Whose kernels compute: exact, which give the same bits on every device; exact/fma-v2, faster
    /// where multiply and add is one operation; or stock, Burn's own. Default: what the recipe says,
    /// and that is exact where it says nothing.
    #[arg(long, value_name = "NUMERICS", value_parser = numerics)]
    pub(crate) numerics: Option<Numerics>,
    /// Steps between checkpoints (k).
    #[arg(long, value_name = "K")]
    pub(crate) interval: Option<u64>,
    /// Keep the whole state of every N-th checkpoint only; the others take 32 bytes each and are
    /// recomputed by whoever verifies. Needs exact numerics. Give it again with --resume.
    #[arg(long, value_name = "N")]
    pub(crate) keep: Option<u64>,
    /// The prover's nonce; all randomness follows from it, the recipe and the data. Default: 0.
    #[arg(long, value_name = "S")]
    pub(crate) seed: Option<u64>,
    // All randomness follows from the key too, and the commitment is signed with it.
    #[command(flatten)]
    pub(crate) identity: KeyArgs,
    /// Commit to the data with salts, so that the root tells nothing about the records. Needs --key.
    #[arg(long, requires = "key")]
    pub(crate) private_data: bool,
    /// Fine-tune the final model of this proof.
    #[arg(long, value_name = "RUN")]
    pub(crate) prior: Option<PathBuf>,
    /// Have the journal timestamped after every N-th checkpoint, while the training runs.
    #[arg(long, value_name = "N", requires = "authority")]
    pub(crate) timestamp_every: Option<u64>,
    /// The address of a timestamping authority (RFC 3161), http or https.
    #[arg(long, value_name = "URL")]
    pub(crate) authority: Option<String>,
    /// The folder of the proof. Default: a new one under runs/.
    #[arg(long, value_name = "RUN")]
    pub(crate) out: Option<PathBuf>,
    /// Go on with the unfinished training in --out; its recipe is taken from there.
    #[arg(long, requires = "out")]
    pub(crate) resume: bool,
    /// Refuse to begin if the proof may take more than this: 500MB, 2GiB.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) max_disk: Option<u64>,
    /// Verify the whole proof afterwards. One with --prior is verified by `pol verify RUN --prior …`.
    #[arg(long, conflicts_with = "prior")]
    pub(crate) verify: bool,
    /// Test images to measure accuracy on; 0 for all of them.
    #[arg(long, value_name = "N", default_value_t = 2000)]
    pub(crate) test_records: u64,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// Print one JSON object to stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MachineArgs {
    /// What to compute on: flex, wgpu, vulkan, cuda or cpu.
    #[arg(long, default_value = "flex")]
    pub(crate) backend: Backend,
    /// Threads of the flex backend. Default: one for each core.
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// The folder of the data set's files. Default: $POL_DATA, else ~/.local/share/pol.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct PackArgs {
    /// The folder of a finished proof.
    pub(crate) run: PathBuf,
    /// The new file, a tar archive. `pol verify` and others read a proof from it as from the folder.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct UnpackArgs {
    /// A file of `pol pack`.
    pub(crate) file: PathBuf,
    /// The new folder.
    #[arg(short, long, value_name = "RUN")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// The folder of a proof, or of a training that can be resumed.
    pub(crate) run: PathBuf,
    /// Of a finished proof of exact numerics, keep the whole state of every N-th checkpoint only, as
    /// `pol train --keep` does.
    #[arg(long, value_name = "N")]
    pub(crate) keep: Option<u64>,
    /// Remove nothing, only say how much there is to remove.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The folder of the proof, or its file.
    pub(crate) run: PathBuf,
    /// Print one JSON object to stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Train a few steps on every backend and compare: exact trainings have to end in one commitment,
    /// and of others the reproduction error is shown.
    #[arg(long)]
    pub(crate) thorough: bool,
    /// With --thorough, the models to train: lenet5, mlp, resnet20.
    #[arg(
        long,
        value_name = "MODEL,…",
        value_delimiter = ',',
        default_value = "lenet5,mlp,resnet20",
        requires = "thorough"
    )]
    pub(crate) models: Vec<DoctorModel>,
    /// With --thorough, the steps of each training.
    #[arg(long, value_name = "N", default_value_t = 5, requires = "thorough", value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) steps: u64,
    /// Print one JSON object to stdout.
    #[arg(long)]
    pub(crate) json: bool,
    /// Try one backend in this very process; what `doctor` starts for each of them.
    #[arg(long, hide = true)]
    pub(crate) probe: Option<Backend>,
    /// With --probe, whose kernels to try.
    #[arg(long, hide = true, default_value = "stock", value_parser = numerics)]
    pub(crate) numerics: Numerics,
    /// With --probe, train this model and write the proof to --into.
    #[arg(long, hide = true, requires = "into", requires = "probe")]
    pub(crate) train: Option<DoctorModel>,
    /// With --train, a new folder.
    #[arg(long, hide = true)]
    pub(crate) into: Option<PathBuf>,
}

/// A model that `pol doctor --thorough` trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DoctorModel {
    /// Convolutions of 5×5, pooling, SGD.
    Lenet5,
    /// Linear layers, dropout, Adam.
    Mlp,
    /// Convolutions of 3×3, batch normalisation, shortcuts, SGD.
    Resnet20,
}

#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    #[command(subcommand)]
    pub(crate) command: DataCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Download, check and unpack the official archive of cifar10 or cifar100.
    Fetch {
        /// The data set.
        dataset: DatasetName,
        /// Where to put it. Default: $POL_DATA, else ~/.local/share/pol.
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// Fetch the same archive from elsewhere.
        #[arg(long, value_name = "URL")]
        url: Option<String>,
    },
    /// Load a data set and show its size and commitment.
    Check {
        /// The data set.
        dataset: DatasetName,
        /// The folder of its files. Default: $POL_DATA, else ~/.local/share/pol.
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// Print one JSON object to stdout.
        #[arg(long)]
        json: bool,
    },
}

fn numerics(name: &str) -> Result<Numerics, UnknownNumerics> {
    name.to_owned().try_into()
}

/// Parses `500MB`, `2GiB` or a number of bytes.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        other => {
            return Err(format!(
                "`{other}` is not a unit; write 500MB, 2GiB or bytes"
            ));
        }
    };
    let number: f64 = (digits.trim().parse().ok())
        .filter(|number: &f64| number.is_finite() && *number >= 0.0)
        .ok_or_else(|| format!("`{text}` is not a size; write 500MB, 2GiB or bytes"))?;
    Ok((number * unit as f64) as u64)
}

/// Parses `0.01` or `l2=1e-3,linf=1e-4`.
fn tolerance(text: &str) -> Result<Tolerance, String> {
    let number = |text: &str| match text.trim().parse::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
        _ => Err(format!("`{text}` is not a number that is at least zero")),
    };
    if !text.contains('=') {
        return Ok(Tolerance::relative(number(text)?));
    }
    let mut tolerance = Tolerance::EXACT;
    for bound in text.split(',') {
        let (metric, value) = bound.split_once('=').unwrap_or((bound, ""));
        let slot = match metric.trim() {
            "l1" => &mut tolerance.l1,
            "l2" => &mut tolerance.l2,
            "linf" => &mut tolerance.linf,
            "cosine" => &mut tolerance.cosine,
            "relative" => &mut tolerance.relative,
            other => {
                return Err(format!(
                    "`{other}` is not a metric; they are l1, l2, linf, cosine and relative"
                ));
            }
        };
        *slot = Some(number(value)?);
    }
    Ok(tolerance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_parse_and_nonsense_does_not() {
        for (text, bytes) in [("0", 0), ("12", 12), ("1.5kB", 1500), ("2GiB", 2 << 30)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MB", "-1", "1 parsec", "1e999GB", "nan"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn tolerances_parse_and_nonsense_does_not() {
        assert_eq!(tolerance("0.01"), Ok(Tolerance::relative(0.01)));
        let bounds = tolerance("l2=1e-3, linf=0.5").unwrap();
        assert_eq!(
            (bounds.l2, bounds.linf, bounds.l1),
            (Some(1e-3), Some(0.5), None)
        );
        for text in ["", "-1", "nan", "inf", "l3=1", "l2=", "l2=x"] {
            assert!(tolerance(text).is_err(), "{text}");
        }
    }
}
