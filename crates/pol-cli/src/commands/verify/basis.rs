//! What a verdict rests on beside the replays: recipe, data, policy as it was changed, randomness.

use pol_core::audit::Randomness;
use pol_core::digest::Digest;
use pol_core::manifest::Claim;
use pol_core::recipe::Recipe;
use pol_core::verify::Report;
use serde::Serialize;

use crate::args::VerifyArgs;
use crate::output;

use super::subject::Subject;

/// What a verdict rests on beside the replays.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Basis {
    /// The flags that changed the policy.
    pub(super) policy_changes: Vec<&'static str>,
    recipes: Option<Recipes>,
    data: Option<DataBasis>,
    randomness_from: Option<RandomnessSource>,
}

/// What was trained, as the proof says and as the verifier expects.
#[derive(Debug, Clone, Serialize)]
struct Recipes {
    claimed: Described,
    expected: Option<Described>,
}

/// A recipe by its digest, and in a line for people.
#[derive(Debug, Clone, Serialize)]
struct Described {
    digest: Digest,
    description: String,
}

impl Described {
    fn new(recipe: &Recipe) -> Self {
        let description = format!(
            "{} on {}, {} steps of {} records, {}, rate {}, {}",
            recipe.model.name,
            recipe.data.name,
            recipe.steps,
            recipe.batch_size,
            recipe.optimizer,
            recipe.learning_rate,
            recipe.numerics
        );
        Self {
            digest: recipe.digest(),
            // The claimed one is the prover's text: it gets one line.
            description: description.replace(char::is_control, "\u{fffd}"),
        }
    }
}

/// What the data was compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum DataBasis {
    /// All of it with the verifier's own copy.
    OwnCopy,
    /// The opened records with the verifier's own copy.
    OwnCopyOfOpened,
    /// Its root with the one that the verifier expects; the opened records with that.
    ExpectedRoot,
    /// The opened records with the root that the proof claims, and with nothing else.
    OpenedRecords,
}

impl DataBasis {
    const fn describe(self) -> &'static str {
        match self {
            Self::OwnCopy => "all records are those of the verifier's own copy",
            Self::OwnCopyOfOpened => "the opened records are those of the verifier's own copy",
            Self::ExpectedRoot => {
                "the opened records are those of the root that the verifier expects"
            }
            Self::OpenedRecords => {
                "the opened records are those that the proof commits to; what they are worth is for \
                 whoever looks at them"
            }
        }
    }
}

/// Whose randomness samples are drawn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum RandomnessSource {
    /// The verifier's, from its operating system, at this verification.
    OperatingSystem,
    /// Given by the caller: good only if the prover could not know it.
    AuditSeed,
    /// The commitment itself.
    Commitment,
    /// The challenge, which its maker drew.
    Challenge,
}

impl RandomnessSource {
    const fn describe(self) -> &'static str {
        match self {
            Self::OperatingSystem => "drawn by this verifier's operating system",
            Self::AuditSeed => {
                "given by --audit-seed; it is worth something if the prover could not know it"
            }
            Self::Commitment => "of the commitment itself, which a prover can make many of",
            Self::Challenge => {
                "of the challenge; it is worth something if this verifier made it after the commitment"
            }
        }
    }
}

impl Basis {
    /// What a verification of `subject` rests on, held to the recipe `expected` where there is one.
    pub(super) fn new(
        args: &VerifyArgs,
        subject: &Subject<'_>,
        claim: &Claim,
        expected: Option<&Recipe>,
        policy_changes: &[&'static str],
    ) -> Self {
        let (data, randomness) = match subject {
            Subject::Folder(_) | Subject::Unread(_) => (
                DataBasis::OwnCopy,
                match (args.offline_challenge, args.audit_seed) {
                    (true, _) => RandomnessSource::Commitment,
                    (false, Some(_)) => RandomnessSource::AuditSeed,
                    (false, None) => RandomnessSource::OperatingSystem,
                },
            ),
            Subject::Opening(opened) => (
                match (args.expect_data_root, args.own_data) {
                    // Without the salts there is no root to compare, but each opened record.
                    (_, true) if claim.terms.data.salted => DataBasis::OwnCopyOfOpened,
                    (_, true) => DataBasis::OwnCopy,
                    (Some(_), false) => DataBasis::ExpectedRoot,
                    (None, false) => DataBasis::OpenedRecords,
                },
                match opened.challenge.randomness {
                    Randomness::Offline => RandomnessSource::Commitment,
                    Randomness::Fresh(_) => RandomnessSource::Challenge,
                },
            ),
        };
        Self {
            policy_changes: policy_changes.to_vec(),
            recipes: Some(Recipes {
                claimed: Described::new(&claim.terms.recipe),
                expected: expected.map(Described::new),
            }),
            data: Some(data),
            randomness_from: Some(randomness),
        }
    }

    /// Leaves out what was not come to: data is compared, and randomness used, before and in replays.
    pub(super) fn up_to(mut self, report: &Report) -> Self {
        if report.odds.is_none() {
            (self.data, self.randomness_from) = (None, None);
        }
        self
    }

    /// Recipe, data and policy, for people.
    pub(super) fn print(&self, policy: &str) {
        if let Some(Recipes { claimed, expected }) = &self.recipes {
            let what = &claimed.description;
            match expected {
                None => output::field(
                    "recipe",
                    format!("{what}, as the proof claims; hold it to yours with --recipe"),
                ),
                Some(expected) if expected.digest == claimed.digest => {
                    output::field("recipe", format!("{what}, as the verifier expects"));
                }
                Some(expected) => {
                    output::field("recipe", format!("{what}, as the proof claims"));
                    output::field("expected", &expected.description);
                }
            }
        }
        if let Some(data) = self.data {
            output::field("data", data.describe());
        }
        if !policy.is_empty() {
            output::field("policy", policy);
        }
    }

    /// Whose randomness was used, for people; `seed` repeats it.
    pub(super) fn print_randomness(&self, seed: Option<Digest>) {
        let Some(source) = self.randomness_from else {
            return;
        };
        let mut text = source.describe().to_owned();
        if let (RandomnessSource::OperatingSystem, Some(seed)) = (source, seed) {
            text += &format!("; --audit-seed {seed} repeats it");
        }
        output::field("randomness", text);
    }
}
