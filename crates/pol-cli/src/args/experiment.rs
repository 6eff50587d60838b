//! Experiments and reports.

use clap::ValueEnum;

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
