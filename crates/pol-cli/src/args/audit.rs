//! What a proof is signed with, audited by and judged by.

use pol_attacks::Access;
use pol_core::verify::Resources;

use crate::error::CliError;

use super::*;

#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    /// The prover's private key (PKCS#8, PEM), made by `pol keygen`. A training begun with it is
    /// bound to it.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// A file whose first line is the key's passphrase. Default: $POL_PASSPHRASE, else it is asked
    /// for.
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The folder of the proof, or its file. Left out with --opening.
    #[arg(required_unless_present = "opening", conflicts_with = "opening")]
    pub(crate) run: Option<PathBuf>,
    /// What the prover disclosed in answer to --challenge.
    #[arg(long, value_name = "FILE", requires_all = ["challenge", "commitment"])]
    pub(crate) opening: Option<PathBuf>,
    /// The challenge that the opening answers.
    #[arg(long, value_name = "FILE", requires = "opening")]
    pub(crate) challenge: Option<PathBuf>,
    /// The commitment that the proof has to have: its digits, or the file of `pol commit`.
    #[arg(long, value_name = "HEX|FILE")]
    pub(crate) commitment: Option<CommitmentArg>,
    /// What to demand: strict, calibrated (the default), paper, or a TOML file.
    #[arg(long, value_name = "NAME|FILE", default_value = "calibrated")]
    pub(crate) policy: String,
    /// The recipe that the proof has to be of: a shipped one by name, or a TOML file. Without
    /// it the proof's own is replayed.
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) recipe: Option<String>,
    /// The file that has to be the final model.
    #[arg(long, value_name = "FILE")]
    pub(crate) model: Option<PathBuf>,
    /// The root that the data's commitment has to have.
    #[arg(long, value_name = "HEX")]
    pub(crate) expect_data_root: Option<Digest>,
    /// With --opening: compare the opened records with this machine's own copy of the data set.
    #[arg(long, requires = "opening")]
    pub(crate) own_data: bool,
    /// The proof whose final model a fine-tuning starts from; for a chain, each in turn, the
    /// latest first. They are verified too.
    #[arg(long, value_name = "RUN")]
    pub(crate) prior: Vec<PathBuf>,
    /// The recipe that the proof of --prior has to be of; of several, the first is for the first.
    /// Without it that proof's own is replayed, within the policy's bounds.
    #[arg(long, value_name = "NAME|FILE", requires = "prior")]
    pub(crate) prior_recipe: Vec<String>,
    /// A public key (PEM) that the proof has to be signed by; of several, one.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) trust: Vec<PathBuf>,
    /// Certificates (PEM) of timestamping authorities, by one of which the commitment has to be
    /// timestamped.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) trust_authority: Vec<PathBuf>,
    /// Replay every segment, whatever the policy says.
    #[arg(long, conflicts_with_all = ["sample", "top", "opening"])]
    pub(crate) all: bool,
    /// Replay Q segments, drawn uniformly from this verifier's own randomness, and beside them what the
    /// policy always replays.
    #[arg(long, value_name = "Q", conflicts_with = "opening")]
    pub(crate) sample: Option<u64>,
    /// Replay the Q segments of each epoch that move the parameters most.
    #[arg(long, value_name = "Q", conflicts_with = "opening")]
    pub(crate) top: Option<u64>,
    /// This verifier's randomness, to repeat an audit. Default: from the operating system.
    #[arg(long, value_name = "HEX")]
    pub(crate) audit_seed: Option<Digest>,
    /// Draw --sample from the commitment itself. Anyone can repeat it, but a prover can make
    /// commitments until the draw suits it.
    #[arg(long, requires = "sample", conflicts_with = "audit_seed")]
    pub(crate) offline_challenge: bool,
    /// How far a replay of stock kernels may end from the logged state, whatever the policy says: a
    /// fraction of the segment's own movement (0.01), bounds such as l2=1e-3,linf=1e-4, or 0 for
    /// not a bit.
    #[arg(long, value_name = "T", value_parser = tolerance)]
    pub(crate) tolerance: Option<Tolerance>,
    /// The most steps to replay, whatever the policy says.
    #[arg(long, value_name = "N")]
    pub(crate) max_steps: Option<u64>,
    /// Stop at the first segment that is rejected: the verdict is the same, the report shorter.
    #[arg(long)]
    pub(crate) fail_fast: bool,
    /// The distance of two trainings from independent seeds (l2), to compare distances with.
    #[arg(long, value_name = "D_REF")]
    pub(crate) reference_distance: Option<f64>,
    /// Another backend: where noise is measured, how far it ends from the first is noise too.
    #[arg(long, value_name = "BACKEND")]
    pub(crate) second_backend: Option<Backend>,
    // The prover's own key, for data that was committed to with salts.
    #[command(flatten)]
    pub(crate) identity: KeyArgs,
    /// Write the verdict to a new file, signed with --verdict-key.
    #[arg(long, value_name = "FILE", requires = "verdict_key")]
    pub(crate) verdict: Option<PathBuf>,
    /// The verifier's key.
    #[arg(long, value_name = "FILE", requires = "verdict")]
    pub(crate) verdict_key: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    #[command(flatten)]
    pub(crate) effort: EffortArgs,
    /// Print one JSON object to stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How much of the machine a verification takes.
#[derive(Debug, Args)]
pub(crate) struct EffortArgs {
    /// Segments to replay at once, each with a model of its own on its share of the threads. Default: one
    /// for each thread with exact numerics on flex, else 1.
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// The most memory that the proof may take: so many states are hashed and replayed at once as fit, and
    /// what does not fit leaves the verdict inconclusive. Beside it comes what the model itself needs.
    #[arg(long, value_name = "SIZE", default_value = "2GiB", value_parser = size)]
    memory: u64,
}

impl EffortArgs {
    pub(crate) fn jobs(&self) -> Result<Option<usize>, CliError> {
        match self.jobs {
            Some(0) => Err(CliError::Usage("--jobs must be at least 1".to_owned())),
            jobs => Ok(jobs),
        }
    }

    /// On the threads that [`MachineArgs`] asks for.
    pub(crate) fn resources(&self) -> Resources {
        Resources {
            threads: rayon::current_num_threads(),
            memory: self.memory,
        }
    }
}

/// A commitment by its digits, or in a file.
#[derive(Debug, Clone)]
pub(crate) enum CommitmentArg {
    Digest(Digest),
    File(PathBuf),
}

impl FromStr for CommitmentArg {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.parse() {
            Ok(digest) => Self::Digest(digest),
            Err(_) => Self::File(text.into()),
        })
    }
}

#[derive(Debug, Args)]
pub(crate) struct KeygenArgs {
    /// The new private key's file; the public key goes beside it, with `.pub` added.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Encrypt the private key with a passphrase: from --passphrase-file or $POL_PASSPHRASE, else
    /// it is asked for.
    #[arg(long)]
    pub(crate) encrypt: bool,
    /// A file whose first line is the passphrase.
    #[arg(long, value_name = "FILE", requires = "encrypt")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct SignArgs {
    /// The folder of the proof.
    pub(crate) run: PathBuf,
    #[command(flatten)]
    pub(crate) identity: KeyArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TimestampArgs {
    /// The folder of the proof.
    pub(crate) run: PathBuf,
    /// Ask the authority at this address (RFC 3161 over http or https).
    #[arg(long, value_name = "URL", required_unless_present_any = ["request", "answer"])]
    pub(crate) authority: Option<String>,
    /// Write the request to a file, to be sent by other means.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["authority", "answer"])]
    pub(crate) request: Option<PathBuf>,
    /// Take an authority's answer to such a request.
    #[arg(long, value_name = "FILE", conflicts_with = "authority")]
    pub(crate) answer: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct CommitArgs {
    /// The folder of the proof.
    pub(crate) run: PathBuf,
    /// The file to write.
    #[arg(long, short, value_name = "FILE", default_value = "commitment.mp")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ChallengeArgs {
    /// The file of `pol commit`.
    pub(crate) commitment: PathBuf,
    /// Draw Q segments uniformly; the last comes to every draw.
    #[arg(long, value_name = "Q", required_unless_present = "all")]
    pub(crate) sample: Option<u64>,
    /// Every segment.
    #[arg(long, conflicts_with = "sample")]
    pub(crate) all: bool,
    /// Draw from the commitment itself. Anyone can repeat it, but a prover can make commitments until
    /// the draw suits it.
    #[arg(long)]
    pub(crate) offline_challenge: bool,
    /// The file to write.
    #[arg(long, short, value_name = "FILE", default_value = "challenge.mp")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct OpenArgs {
    /// The folder of the proof.
    pub(crate) run: PathBuf,
    /// The verifier's challenge.
    pub(crate) challenge: PathBuf,
    /// The file to write.
    #[arg(long, short, value_name = "FILE", default_value = "opening.mp")]
    pub(crate) out: PathBuf,
    // The prover's key, for data that was committed to with salts.
    #[command(flatten)]
    pub(crate) identity: KeyArgs,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
}

#[derive(Debug, Args)]
pub(crate) struct AuditPlanArgs {
    /// The share of forged segments to catch: 1% or 0.01. Default: one segment, and 1%.
    #[arg(long, value_name = "F", value_parser = share)]
    pub(crate) forged: Option<f64>,
    /// The number of forged segments to catch; one is enough to exchange a model.
    #[arg(long, value_name = "M", conflicts_with = "forged")]
    pub(crate) forged_segments: Option<u64>,
    /// The probability to catch it with: 99% or 0.99.
    #[arg(long, value_name = "P", value_parser = share, default_value = "99%")]
    pub(crate) confidence: f64,
    /// Segments of the proof; or --run, or --commitment.
    #[arg(long, value_name = "N", required_unless_present_any = ["run", "commitment"])]
    pub(crate) segments: Option<u64>,
    /// The folder of the proof.
    #[arg(long, value_name = "RUN", conflicts_with = "segments")]
    pub(crate) run: Option<PathBuf>,
    /// The file of `pol commit`.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["segments", "run"])]
    pub(crate) commitment: Option<PathBuf>,
    /// Print one JSON object to stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CalibrateArgs {
    /// A shipped recipe by name, or a TOML file.
    pub(crate) recipe: String,
    /// Values of k to try.
    #[arg(
        long,
        value_name = "K,…",
        value_delimiter = ',',
        default_value = "1,5,10,25"
    )]
    pub(crate) intervals: Vec<u64>,
    /// Steps of the training to measure at.
    #[arg(
        long,
        value_name = "STEP,…",
        value_delimiter = ',',
        default_value = "0,20,100"
    )]
    pub(crate) points: Vec<u64>,
    /// The policy whose rule is measured for.
    #[arg(long, value_name = "NAME|FILE", default_value = "calibrated")]
    pub(crate) policy: String,
    /// Another backend, whose replays are noise too.
    #[arg(long, value_name = "BACKEND")]
    pub(crate) second_backend: Option<Backend>,
    /// The nonce of the training.
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// Print one JSON object to stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AttackArgs {
    /// The attack's name, or `list`.
    pub(crate) name: String,
    /// The honest proof whose model is stolen.
    #[arg(long, value_name = "RUN")]
    pub(crate) victim: Option<PathBuf>,
    /// The folder of the forged proof.
    #[arg(long, value_name = "RUN")]
    pub(crate) out: Option<PathBuf>,
    /// Steps between the forged checkpoints. Default: 10.
    #[arg(long, value_name = "K")]
    pub(crate) interval: Option<u64>,
    /// Segments to forge, where the attack leaves that free. Default: 20.
    #[arg(long, value_name = "N")]
    pub(crate) segments: Option<u64>,
    /// The learning rate to claim, where the attack leaves that free; each has a default of its own.
    #[arg(long)]
    pub(crate) learning_rate: Option<f64>,
    /// What forged records are made of: training (data), sibling (another sample: the test split) or
    /// noise.
    #[arg(long, value_name = "DATA", default_value_t = Access::Training)]
    pub(crate) access: Access,
    /// L-BFGS iterations for each batch that is optimised.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) iterations: u64,
    /// Bend the attack to this project's own rules, as far as it can be.
    #[arg(long)]
    pub(crate) adaptive: bool,
    /// Segments that the audit draws which a grinding forger evades.
    #[arg(long, value_name = "Q", default_value_t = 3)]
    pub(crate) sample: u64,
    /// The forger's nonce.
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// Print one JSON object to stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VerdictArgs {
    /// The file that `pol verify --verdict` wrote.
    pub(crate) file: PathBuf,
    /// A public key (PEM) of a verifier who is trusted; of several, one has to have signed.
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    pub(crate) trust: Vec<PathBuf>,
    /// The commitment that it has to be about: its digits, or the file of `pol commit`.
    #[arg(long, value_name = "HEX|FILE")]
    pub(crate) commitment: Option<CommitmentArg>,
    /// Print one JSON object to stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Parses `1%` or `0.01`.
fn share(text: &str) -> Result<f64, String> {
    let value = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().map(|percent| percent / 100.0),
        None => text.parse(),
    };
    match value {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err(format!("`{text}` is not a share such as 1% or 0.01")),
    }
}
