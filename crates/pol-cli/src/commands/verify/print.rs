//! The result of a verification, for people and programs.

use pol_core::adapter::Backend;
use pol_core::digest::Digest;
use pol_core::policy::{Comparison, Parts, Policy};
use pol_core::recipe::{Numerics, Recipe};
use pol_core::verify::{PartReport, Reason, Report, SegmentReport, StartReport};
use serde::Serialize;

use crate::backend::Opened;
use crate::commands::attestations::Shown;
use crate::commands::audit::describe_grinding;
use crate::error::Exit;
use crate::output;

use super::basis::Basis;
use super::chain::PriorReport;
use super::odds;

/// Rows of the table before it is cut to the largest distances.
const MAX_ROWS: usize = 24;

/// The first of the lines about an audit is labelled.
const AUDIT_LABELS: [&str; 3] = ["audit", "", ""];

/// What the verifier brought with it.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Expected {
    pub(super) recipe: Option<Digest>,
    pub(super) commitment: Option<Digest>,
    /// Of its own copy of the data, or as given.
    pub(super) data_root: Option<Digest>,
    pub(super) model: Option<Digest>,
    /// Ids of the keys one of which had to sign.
    pub(super) trusted_keys: Vec<String>,
    pub(super) trusted_authorities: u64,
}

/// What verified.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Environment {
    program: &'static str,
    burn: &'static str,
    os: &'static str,
    architecture: &'static str,
    threads: usize,
}

impl Environment {
    fn here() -> Self {
        Self {
            program: concat!("pol ", env!("CARGO_PKG_VERSION")),
            burn: "0.22.1",
            os: std::env::consts::OS,
            architecture: std::env::consts::ARCH,
            threads: rayon::current_num_threads(),
        }
    }
}

/// The result of `pol verify`; see docs/json.md.
#[derive(Serialize)]
pub(crate) struct Verified {
    schema: &'static str,
    backend: &'static str,
    device: String,
    /// The recipe that was replayed, where it is only the proof's own claim.
    pub(super) claimed_recipe: Option<Recipe>,
    #[serde(flatten)]
    pub(super) basis: Basis,
    catches_one_segment: f64,
    catches_1_percent: f64,
    catches_10_percent: f64,
    audit_seed: Option<Digest>,
    /// This verifier's own randomness: samples are drawn from it, and replays perturbed.
    pub(super) randomness: Option<Digest>,
    /// Whether the sample was drawn from the commitment itself.
    pub(super) offline_challenge: bool,
    /// What the proof was held to.
    pub(super) expected: Expected,
    environment: Environment,
    /// Signatures and timestamps that hold.
    pub(super) evidence: Shown,
    /// The prior proofs that the training goes back to, the latest first.
    pub(super) chain: Vec<Digest>,
    /// The same proofs with their recipes.
    pub(super) priors: Vec<PriorReport>,
    /// What the policy says of itself.
    pub(super) warning: Option<String>,
    pub(super) verify_seconds: f64,
    #[serde(flatten)]
    report: Report,
}

impl Verified {
    pub(super) fn new(report: Report, backend: Backend, opened: &Opened) -> Self {
        Self {
            schema: "pol.verify/3",
            backend: backend.name(),
            device: opened.name.clone(),
            claimed_recipe: None,
            randomness: None,
            offline_challenge: false,
            expected: Expected::default(),
            environment: Environment::here(),
            evidence: Shown::default(),
            chain: vec![],
            priors: vec![],
            warning: None,
            basis: Basis::default(),
            catches_one_segment: report.catches_count(1),
            catches_1_percent: report.catches(0.01),
            catches_10_percent: report.catches(0.1),
            audit_seed: (report.selection)
                .and_then(|selection| selection.seed)
                .map(|seed| *seed.digest()),
            verify_seconds: 0.0,
            report,
        }
    }

    fn is_exact(&self) -> bool {
        (self.report.comparison).is_none_or(|comparison| comparison == Comparison::Bits)
    }

    /// Names what was demanded, where it was not come to.
    pub(super) fn name_policy(&mut self, policy: &Policy) {
        if self.report.policy_digest.is_none() {
            self.report.policy.clone_from(&policy.name);
            self.report.policy_digest = Some(policy.digest());
        }
    }

    pub(super) fn report(&self) -> &Report {
        &self.report
    }

    pub(super) fn commitment(&self) -> Option<Digest> {
        self.report.commitment
    }

    pub(crate) fn exit(&self) -> Exit {
        self.report.verdict.into()
    }

    /// For people, to stdout.
    pub(crate) fn print(&self) {
        let report = &self.report;
        if let Some(commitment) = report.commitment {
            output::field("commitment", commitment.to_string());
        }
        self.basis.print(&report.policy);
        self.print_provenance();
        if !report.segments.is_empty() {
            output::field(
                "replayed",
                format!(
                    "{} of {} segments, {} steps on {} ({}) in {:.1} s",
                    report.segments.len(),
                    report.segments_total,
                    report.steps_replayed,
                    self.backend,
                    self.device,
                    self.verify_seconds
                ),
            );
            if let Some(comparison) = &report.comparison {
                output::field("", describe_comparison(comparison));
            }
            self.print_segments();
            for (line, label) in (odds::describe(report).iter()).zip(AUDIT_LABELS) {
                output::field(label, line);
            }
            self.print_limits();
            self.basis.print_randomness(self.audit_seed);
        }
        for reason in &report.reasons {
            output::field("reason", reason.to_string());
        }
        if let Some(warning) = &self.warning {
            output::field("warning", format!("policy {}: {warning}", report.policy));
        }
        output::field("verdict", report.verdict.to_string());
        let bits_differ = |reason: &Reason| matches!(reason, Reason::BitsDiffer { .. });
        if self.is_exact()
            && report.numerics == Some(Numerics::Stock)
            && report.reasons.iter().any(bits_differ)
        {
            output::note(
                "stock kernels give other bits on other hardware; the policy `calibrated` measures \
                 how far an honest replay may end",
            );
        }
    }

    /// Who, when, and from where.
    fn print_provenance(&self) {
        if let Some(key) = &self.evidence.signed_by {
            output::field("signed by", key);
        }
        for timestamp in &self.evidence.timestamps {
            let when = output::date(timestamp.seconds);
            output::field("timestamped", format!("{when} ({})", timestamp.of));
        }
        match self.report.start {
            Some(StartReport::Prior { .. }) => {
                for prior in &self.priors {
                    output::field("starts from", prior.commitment.to_string());
                    output::field("", prior.describe());
                }
            }
            Some(StartReport::Claimed { layers, smallest_p }) => output::field(
                "start",
                format!(
                    "{layers} layers look freshly drawn (smallest p {smallest_p:.3}); nothing shows \
                     that they were"
                ),
            ),
            Some(StartReport::Derived) | None => {}
        }
    }

    fn print_segments(&self) {
        let segments = &self.report.segments;
        let equal = segments.iter().filter(|s| s.digests_equal).count();
        if equal == segments.len() {
            output::field("", "every replay arrived at the logged state, bit for bit");
            return;
        }
        let mut rows: Vec<&SegmentReport> = segments.iter().collect();
        if rows.len() > MAX_ROWS {
            let distance = |s: &SegmentReport| s.parameters.map_or(f64::MAX, |p| p.distances.l2);
            rows.sort_by(|a, b| distance(b).total_cmp(&distance(a)));
            rows.truncate(MAX_ROWS);
            output::field(
                "",
                format!("{equal} equal bit for bit; the {MAX_ROWS} farthest:"),
            );
        }
        output::field(
            "",
            "l2 distance of each part of the state; what follows is of the parameters:",
        );
        output::line(format!(
            "{:>8} {:>15} {:<5}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>9}",
            "segment",
            "steps",
            "bits",
            "parameters",
            "buffers",
            "optimizer",
            "linf",
            "of moved",
            "tolerance",
            "ρ"
        ));
        for segment in rows {
            let steps = format!("{}–{}", segment.first_step, segment.last_step);
            let number = |value: Option<f64>| match value {
                Some(value) => format!("{value:>10.2e}"),
                None => format!("{:>10}", "–"),
            };
            let l2 = |part: Option<PartReport>| number(part.map(|part| part.distances.l2));
            output::line(format!(
                "{:>8} {steps:>15} {:<5}{}{}{}{}{}{}{}",
                segment.index,
                if segment.digests_equal {
                    "equal"
                } else {
                    "–"
                },
                l2(segment.parameters),
                l2(segment.buffers),
                l2(segment.optimizer),
                number(segment.parameters.map(|part| part.distances.linf)),
                number(segment.relative_to_movement),
                number(segment.noise.as_ref().map(|noise| noise.tolerance_l2)),
                rho(segment),
            ));
        }
    }

    /// What the replays and the draw leave open.
    fn print_limits(&self) {
        let differs = |segment: &SegmentReport| !segment.digests_equal;
        let tolerates = self.report.slack.is_none() && !self.is_exact();
        if tolerates && self.report.segments.iter().any(differs) {
            output::field("", "a forgery below the tolerance is not seen");
        }
        if let Some(slack) = &self.report.slack {
            output::field(
                "slack",
                format!(
                    "the differences of all segments come to {:.4} % of the way from the first to the last \
                     state, most of it in `{}`; tolerances to {:.3} %",
                    100.0 * slack.used,
                    slack.entry,
                    100.0 * slack.tolerated
                ),
            );
        }
        if let Some(odds) = self.report.odds.filter(|_| self.offline_challenge) {
            output::field("", describe_grinding(odds.of_count(1)));
        }
    }
}

fn describe_comparison(comparison: &Comparison) -> String {
    match comparison {
        Comparison::Bits => "compared bit for bit".to_owned(),
        Comparison::Calibrated(_) => {
            "compared bit for bit, or within the noise that this verifier measures".to_owned()
        }
        Comparison::Static { tolerance, parts } => {
            let bounds = [
                ("l1", tolerance.l1),
                ("l2", tolerance.l2),
                ("linf", tolerance.linf),
                ("cosine", tolerance.cosine),
                ("share of the movement", tolerance.relative),
            ];
            let bounds = bounds.into_iter();
            let bounds = bounds.filter_map(|(name, bound)| Some(format!("{name} {:e}", bound?)));
            let of = match parts {
                Parts::All => "in every part",
                Parts::Parameters => "of the parameters alone",
            };
            let bounds: Vec<String> = bounds.collect();
            format!(
                "compared within constant distances {of}: {}",
                bounds.join(", ")
            )
        }
    }
}

fn rho(segment: &SegmentReport) -> String {
    match &segment.noise {
        Some(noise) if noise.rho < 1e5 => format!("{:>9.1}", noise.rho),
        Some(noise) if noise.rho < 1e9 => format!("{:>9.1e}", noise.rho),
        Some(_) => format!("{:>9}", "∞"),
        None => format!("{:>9}", "–"),
    }
}
