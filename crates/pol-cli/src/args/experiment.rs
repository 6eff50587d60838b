//! Experiments and reports.

use super::*;

#[derive(Debug, Args)]
pub(crate) struct MeasureArgs {
    /// A shipped recipe by name, a TOML file, or `list`.
    #[arg(value_name = "NAME|FILE|list")]
    pub(crate) recipe: String,
    /// Minutes on two cores, or hours.
    #[arg(long, value_enum, default_value_t = SizeArg::Quick)]
    pub(crate) size: SizeArg,
    /// The folder for rows and summary; an experiment that was broken off there goes on. Default:
    /// runs/measure/NAME-SIZE.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Threads of the flex backend. Default: one for each core.
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// The folder of the data sets' files. Default: $POL_DATA, else ~/.local/share/pol.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Print the summary as one JSON object to stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SizeArg {
    /// Minutes on two cores.
    Quick,
    /// Hours.
    Full,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// The recipe to time: a shipped one by name, or a TOML file. Its data is not needed: records are
    /// noise of that form.
    #[arg(long, value_name = "NAME|FILE", default_value = "cifar10-resnet20")]
    pub(crate) recipe: String,
    /// Another model than the recipe's.
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Records in a step.
    #[arg(long)]
    pub(crate) batch_size: Option<u64>,
    /// What to compute on, one after the other.
    #[arg(
        long,
        value_name = "B,…",
        value_delimiter = ',',
        default_value = "flex"
    )]
    pub(crate) backend: Vec<Backend>,
    /// Whose kernels to time, one after the other. Default: stock, and every exact profile that the device
    /// may run.
    #[arg(
        long,
        value_name = "NUMERICS,…",
        value_delimiter = ',',
        value_parser = numerics
    )]
    pub(crate) numerics: Vec<Numerics>,
    /// Steps to time.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) steps: u64,
    /// Steps before these, in which kernels are compiled and memory is taken.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub(crate) warmup: u64,
    /// Threads of the flex backend. Default: one for each core.
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Time exact kernels also where the device fails their probe: their results are wrong there, and their
    /// times are told all the same.
    #[arg(long)]
    pub(crate) unprobed: bool,
    /// Print one JSON object to stdout.
    #[arg(long)]
    pub(crate) json: bool,
    /// Time the one combination that is named, in this very process: what `bench` starts for each.
    #[arg(long, hide = true)]
    pub(crate) here: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// The folder of a proof, or of an experiment's results.
    #[arg(value_name = "RUN|EXPERIMENT")]
    pub(crate) subject: PathBuf,
    /// The page to write.
    #[arg(short, long, value_name = "FILE", default_value = "report.html")]
    pub(crate) output: PathBuf,
    /// What `pol verify --json` printed about the proof; `-` for stdin. Without it the proof is verified
    /// now.
    #[arg(long, value_name = "FILE", conflicts_with = "verify")]
    pub(crate) verified: Option<PathBuf>,
    /// Options for `pol verify`, after `--`.
    #[arg(last = true, value_name = "OPTIONS")]
    pub(crate) verify: Vec<std::ffi::OsString>,
}
