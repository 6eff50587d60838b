//! Why a proof is not accepted.

use serde::{Serialize, Serializer};

use crate::digest::Digest;
use crate::records::DataCommitment;
use crate::state::Part;

/// Why a proof is not accepted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// A training that was not sealed.
    #[error("the training was not finished: there is a journal and no manifest")]
    Unfinished,
    /// The manifest is malformed or contradicts itself.
    #[error("manifest.mp: {0}")]
    Manifest(String),
    /// A file of the proof is missing or altered.
    #[error("{0}")]
    Item(String),
    /// The checkpoints do not cover the training exactly once.
    #[error("chain of checkpoints: {0}")]
    Chain(String),
    /// NaN or infinity in a state.
    #[error("{place}: `{entry}` holds a value that is not finite")]
    NotFinite {
        /// Which state.
        place: String,
        /// Which tensor.
        entry: String,
    },
    /// A state that this training cannot have.
    #[error("{place}: {problem}")]
    UnfitState {
        /// Which state.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The exported model is another one.
    #[error("model.safetensors: {0}")]
    FinalModel(String),
    /// Another proof than the one expected.
    #[error("this is not the expected proof: its commitment is {found}, not {expected}")]
    OtherCommitment {
        /// Expected.
        expected: Digest,
        /// Found.
        found: Digest,
    },
    /// Another recipe than the one expected.
    #[error("the recipe is not the expected one: {}", differences.join("; "))]
    OtherRecipe {
        /// Field by field.
        differences: Vec<String>,
    },
    /// Other data than the verifier's.
    #[error(
        "the training data is not the verifier's: committed to {} records with root {}, expected \
         {} with root {} (a record, a label or the order differs)",
        found.records, found.root, expected.records, expected.root
    )]
    OtherData {
        /// The verifier's.
        expected: DataCommitment,
        /// The proof's.
        found: DataCommitment,
    },
    /// Data with another root than the one expected.
    #[error("the data's root is {found}, not the expected {expected}")]
    OtherDataRoot {
        /// Expected.
        expected: Digest,
        /// Found.
        found: Digest,
    },
    /// Initial weights that were chosen rather than derived.
    #[error(
        "the initial state is not the one it has to be{}",
        entry.as_ref().map_or(String::new(), |entry| format!(": `{entry}` differs"))
    )]
    InitialState {
        /// The first entry that differs, where the state is at hand.
        entry: Option<String>,
    },
    /// An initial state of a kind that the policy does not admit, or that fails its test.
    #[error("the initial state: {0}")]
    Start(String),
    /// A prior proof that is missing, or another one.
    #[error("the prior proof: {0}")]
    Prior(String),
    /// A bound of the policy.
    #[error("the policy's `{bound}` is {allowed}; the proof has {found}")]
    Bound {
        /// Its name.
        bound: &'static str,
        /// What it allows.
        allowed: String,
        /// What the proof has.
        found: String,
    },
    /// Something that the policy wants to come with the proof.
    #[error("the policy demands {0}")]
    Evidence(String),
    /// A signature, a timestamp or another attestation that does not hold.
    #[error("{0}")]
    Attestation(String),
    /// A challenge or an opening that does not belong here.
    #[error("the challenge: {0}")]
    Challenge(String),
    /// Something that the opening has to disclose and does not.
    #[error("the opening withholds {0}")]
    Withheld(String),
    /// Something that the opening discloses, and that was not committed to.
    #[error("{0} cannot be shown to be what was committed to")]
    Inclusion(String),
    /// A record that differs from the verifier's own copy.
    #[error("record {0} is not the one in the verifier's own copy of the data")]
    OtherRecord(u64),
    /// A segment that shows nothing: what is tolerated is not small against what was learned.
    #[error(
        "{segment}: rounding may move {entry} by {:.2} % of what the segment learned, where {:.2} % \
         is the most that may be tolerated: the segment shows nothing; shorter intervals or exact \
         numerics do (pol calibrate)", 100.0 * share, 100.0 * allowed
    )]
    Noise {
        /// Which segment.
        segment: String,
        /// Which parameter, or all together.
        entry: String,
        /// What is tolerated, as a share of what was learned.
        share: f64,
        /// The policy's.
        allowed: f64,
    },
    /// A logged state beyond its tolerance, and yet not beyond what coarser rounding makes: an honest
    /// one may be so, and one that was pushed.
    #[error(
        "{segment}: `{entry}` differs from the logged state by {times:.1} times its tolerance; rounding \
         much coarser than this verifier's could be the reason, so the segment shows nothing; exact \
         numerics leave no such doubt"
    )]
    Unexplained {
        /// Which segment.
        segment: String,
        /// Which entry.
        entry: String,
        /// The difference over the tolerance.
        times: f64,
    },
    /// A proof that shows nothing: what all segments tolerate, or use of it, is not small against the
    /// way from the first to the last state.
    #[error(
        "differences {what} in all segments could together move `{entry}` by {:.3} % of its way from \
         the first to the last state, where the policy admits {:.3} %: the proof shows too little; \
         longer intervals, more segments replayed or exact numerics do", 100.0 * share, 100.0 * allowed
    )]
    Slack {
        /// `tolerated` or `used`.
        what: &'static str,
        /// Which parameter, or all together.
        entry: String,
        /// The share.
        share: f64,
        /// The policy's.
        allowed: f64,
    },
    /// More work than the policy allows.
    #[error("the audit takes {steps} steps; the policy's `max_steps` is {allowed}")]
    Cost {
        /// What it takes.
        steps: u64,
        /// What is allowed.
        allowed: u64,
    },
    /// Something that takes more memory than the verifier allows.
    #[error(
        "{what}: checking it takes {needed} bytes of memory; the verifier allows {allowed} (--memory)"
    )]
    Memory {
        /// What was not begun with.
        what: String,
        /// What it takes, in bytes.
        needed: u64,
        /// What is allowed, in bytes.
        allowed: u64,
    },
    /// An order of records that costs more than what the opening holds.
    #[error(
        "which records the audited steps use takes {draws} random draws to find; for the records that          were opened the verifier makes {allowed}, with a copy of the data as many as it takes"
    )]
    Draws {
        /// Random draws that it takes.
        draws: u64,
        /// What is allowed.
        allowed: u64,
    },
    /// A replay that ends elsewhere, where bits had to agree.
    #[error(
        "{segment}: the replay does not arrive at the logged state: `{entry}` differs{}",
        describe_distance(*l2, *movement_l2)
    )]
    BitsDiffer {
        /// Which segment.
        segment: String,
        /// The first entry that differs.
        entry: String,
        /// l2 distance of the parameters.
        l2: Option<f64>,
        /// How far the segment moves them.
        movement_l2: Option<f64>,
    },
    /// A replay that does not arrive at the committed digest of a state that is not kept.
    #[error("{segment}: the replay does not arrive at the digest that is committed to")]
    DigestDiffers {
        /// Which segment.
        segment: String,
    },
    /// A replay that ends too far away.
    #[error("{segment}: {} are {value:.3e} ({metric}) from the logged state; the tolerance is {bound:.3e}", part.name())]
    TooFar {
        /// Which segment.
        segment: String,
        /// Which part of the state.
        part: Part,
        /// Which distance.
        metric: &'static str,
        /// Its value.
        value: f64,
        /// The bound.
        bound: f64,
    },
    /// A logged state that no rounding explains.
    #[error(
        "{segment}: `{entry}` differs from the logged state by {times:.1} times its tolerance, which \
         rounding 256 times coarser does not explain either"
    )]
    BeyondNoise {
        /// Which segment.
        segment: String,
        /// Which entry.
        entry: String,
        /// The difference over the tolerance.
        times: f64,
    },
    /// States between which there is no finite distance.
    #[error("{segment}: there is no finite distance between the replayed and the logged {}", part.name())]
    NoDistance {
        /// Which segment.
        segment: String,
        /// Which part of the state.
        part: Part,
    },
    /// A check that could not be made; it makes a verdict inconclusive.
    #[error("could not check: {0}")]
    NotChecked(String),
}

impl Reason {
    /// The check that failed, in a word or two: `start`, `bounds`, `data`, `tolerance`, …
    pub const fn check(&self) -> &'static str {
        match self {
            Self::Unfinished
            | Self::Manifest(_)
            | Self::Item(_)
            | Self::Chain(_)
            | Self::NotFinite { .. }
            | Self::UnfitState { .. } => "integrity",
            Self::FinalModel(_) => "final model",
            Self::OtherCommitment { .. } => "commitment",
            Self::OtherRecipe { .. } => "recipe",
            Self::OtherData { .. } | Self::OtherDataRoot { .. } | Self::OtherRecord(_) => "data",
            Self::InitialState { .. } | Self::Start(_) | Self::Prior(_) => "start",
            Self::Bound { .. } => "bounds",
            Self::Evidence(_) | Self::Attestation(_) => "evidence",
            Self::Challenge(_) | Self::Withheld(_) | Self::Inclusion(_) => "opening",
            Self::Noise { .. } | Self::Unexplained { .. } => "noise",
            Self::Slack { .. } => "slack",
            Self::Cost { .. } | Self::Memory { .. } | Self::Draws { .. } => "cost",
            Self::BitsDiffer { .. } | Self::DigestDiffers { .. } => "bits",
            Self::TooFar { .. } | Self::BeyondNoise { .. } | Self::NoDistance { .. } => "tolerance",
            Self::NotChecked(_) => "not checked",
        }
    }

    /// Whether the proof is at fault. Otherwise a check could not be made, or showed nothing.
    pub fn is_rejection(&self) -> bool {
        !matches!(
            self,
            Self::NotChecked(_)
                | Self::Noise { .. }
                | Self::Unexplained { .. }
                | Self::Slack { .. }
                | Self::Cost { .. }
                | Self::Memory { .. }
                | Self::Draws { .. }
        )
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn describe_distance(l2: Option<f64>, movement: Option<f64>) -> String {
    match (l2, movement) {
        (Some(l2), Some(movement)) if movement > 0.0 => format!(
            "; the parameters are {l2:.3e} (l2) away, {:.2e} of the segment's movement",
            l2 / movement
        ),
        (Some(l2), _) => format!("; the parameters are {l2:.3e} (l2) away"),
        _ => String::new(),
    }
}
