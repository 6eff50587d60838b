//! Forgeries against policies, beside honest runs under the same ones.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use burn::tensor::Device;
use pol_attacks::{Access, Attack, AttackError, Forged, Options, Victim};
use pol_core::audit::{Challenge, Draw, PublicCommitment, open};
use pol_core::learner::LearnerError;
use pol_core::recipe::Recipe;
use pol_core::records::Records;
use pol_core::state::State;
use pol_core::store::{MemoryStore, Store};
use pol_core::verify::{Report, Verdict, Verifier, final_state, read_claim};
use pol_models::image_learner;
use serde::{Deserialize, Serialize};

use crate::lab::{Proved, Setting, TOLERANCE_ALONE, judge, policy_named, presentable_nonce, prove};
use crate::plan::{AttackPlan, Attacks, Resolved};
use crate::reproduction::note_absent;
use crate::summary::{Found, SummaryTable, short};
use crate::table::{Row, Table};
use crate::{ExperimentError, Lab};

/// The forgers' first nonce, far from honest ones.
const NONCE: u64 = 1_000;

/// An audit that is drawn from the commitment.
const OFFLINE: &str = "offline draw";

/// One verdict.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Measured {
    cell: String,
    training: String,
    numerics: String,
    interval: u64,
    /// The forgery, or `honest`.
    attack: String,
    /// How it differs from the attack's own defaults; for honest runs, where they were verified.
    variant: String,
    /// What the verifier has: `public` data, or what an audit `opened`.
    data: String,
    policy: String,
    verdict: String,
    /// The check that decided.
    check: String,
    reason: String,
    gradients: u64,
    honest_gradients: u64,
    proof_bytes: u64,
    honest_proof_bytes: u64,
    forge_seconds: f64,
    verify_seconds: f64,
    figures: String,
}

impl Row for Measured {
    fn cell(&self) -> &str {
        &self.cell
    }
}

/// Everything that a row says beside the verdict.
struct Subject<'a> {
    training: &'a Resolved,
    claimed: &'a Recipe,
    store: &'a dyn Store,
    interval: u64,
    attack: &'a str,
    variant: &'a str,
    cost: (u64, f64, u64),
    honest: (u64, u64),
    figures: String,
}

pub(crate) fn run(plan: &Attacks, lab: &Lab<'_>, rows: &Path) -> Result<Found, ExperimentError> {
    let mut table: Table<Measured> = Table::open(rows)?;
    let mut found = Found::default();
    for (number, training) in plan.trainings.iter().enumerate() {
        let training = training.resolve(lab)?;
        let nonce = presentable_nonce(&training)?;
        found.seeds.push(nonce);
        for interval in training.intervals(&plan.intervals) {
            let place = format!("{number}/{interval}");
            let mut victim = None;
            // Beside forgeries of a kind, what was honest is in the other tables.
            let settings = match training.is_limited() {
                true => &["same".to_owned()][..],
                false => &plan.honest[..],
            };
            for honest in settings {
                let setting = Setting::honest(honest)?;
                let cell = format!("{place}/honest/{honest}");
                let Some(device) = lab.device(&setting) else {
                    note_absent(&mut found, honest);
                    continue;
                };
                if !table.has(&cell) {
                    (lab.tell)(&format!(
                        "{}, k = {interval}: honest, {honest}",
                        training.name
                    ));
                    let proved = prove(&training, nonce, interval, &setting)?;
                    let bytes = size(&proved.store)?;
                    let subject = Subject {
                        training: &training,
                        claimed: &training.recipe,
                        store: proved.store.as_ref(),
                        interval,
                        attack: "honest",
                        variant: honest,
                        cost: (training.recipe.steps, 0.0, bytes),
                        honest: (training.recipe.steps, bytes),
                        figures: String::new(),
                    };
                    table.add(judge_by_all(
                        plan,
                        &cell,
                        &subject,
                        "public",
                        &training.data.train,
                        &setting,
                        &device,
                    )?)?;
                }
            }
            for attack in applicable(plan, &training, interval) {
                let cell = format!("{place}/{}", label(attack));
                if table.has(&cell) {
                    continue;
                }
                let what = label(attack);
                (lab.tell)(&format!("{}, k = {interval}: {what}", training.name));
                let victim = match &victim {
                    Some(victim) => victim,
                    None => victim.insert(publish(&training, nonce, interval)?),
                };
                let rows = forge_and_judge(plan, attack, &training, interval, victim, &cell)?;
                if rows.is_empty() {
                    let note = format!("`{what}` does not apply to {}.", training.name);
                    if !found.notes.contains(&note) {
                        found.notes.push(note);
                    }
                } else {
                    table.add(rows)?;
                }
            }
        }
    }
    let note = "Honest runs are those of the first nonce whose start the published test admits; how often \
                it rejects honest starts is in the experiment `false-rejections`.";
    found.notes.push(note.to_owned());
    found.notes.splice(0..0, passed(table.rows()));
    found.tables = tables(table.rows());
    Ok(found)
}

/// An honest training, and what is stolen of it.
struct Published {
    proved: Proved,
    stolen: State,
    bytes: u64,
}

fn publish(training: &Resolved, nonce: u64, interval: u64) -> Result<Published, ExperimentError> {
    let proved = prove(training, nonce, interval, &Setting::Same)?;
    let (_, stolen) = final_state(proved.store.as_ref())
        .ok_or_else(|| ExperimentError::Plan("the honest proof has no final state".to_owned()))?;
    let bytes = size(&proved.store)?;
    Ok(Published {
        proved,
        stolen,
        bytes,
    })
}

fn size(store: &MemoryStore) -> Result<u64, ExperimentError> {
    let items = store.items().into_iter();
    let bytes = items.map(|item| Ok(store.read(item, u64::MAX)?.len() as u64));
    bytes.sum::<Result<u64, ExperimentError>>()
}

fn applicable<'p>(
    plan: &'p Attacks,
    training: &'p Resolved,
    interval: u64,
) -> impl Iterator<Item = &'p AttackPlan> {
    plan.attacks.iter().filter(move |attack| {
        attack.interval.is_none_or(|only| only == interval) && training.is_tried(attack)
    })
}

fn variant(plan: &AttackPlan) -> String {
    let mut parts = Vec::new();
    if let Some(access) = &plan.access {
        parts.push(format!("{access} data"));
    }
    if plan.adaptive {
        parts.push("adaptive".to_owned());
    }
    parts.join(", ")
}

fn label(plan: &AttackPlan) -> String {
    let variant = variant(plan);
    match variant.is_empty() {
        true => plan.name.clone(),
        false => format!("{} ({variant})", plan.name),
    }
}

fn forge_and_judge(
    plan: &Attacks,
    attack_plan: &AttackPlan,
    training: &Resolved,
    interval: u64,
    published: &Published,
    cell: &str,
) -> Result<Vec<Measured>, ExperimentError> {
    let unknown = |what: String| ExperimentError::Plan(what);
    let attack: &dyn Attack = pol_attacks::named(&attack_plan.name)
        .ok_or_else(|| unknown(format!("there is no attack `{}`", attack_plan.name)))?;
    let defaults = Options::default();
    let access = attack_plan.access.as_deref().unwrap_or("training");
    let options = Options {
        interval,
        segments: attack_plan.segments.unwrap_or(defaults.segments),
        learning_rate: attack_plan.learning_rate,
        nonce: attack_plan.nonce.unwrap_or(NONCE),
        access: access.parse::<Access>().map_err(unknown)?,
        iterations: attack_plan.iterations.unwrap_or(defaults.iterations),
        adaptive: attack_plan.adaptive,
        sample: attack_plan.sample.unwrap_or(defaults.sample),
    };
    if options.interval == 0 || options.segments == 0 {
        return Err(unknown(format!(
            "{}: interval and segments are at least 1",
            attack_plan.name
        )));
    }
    let victim = Victim {
        terms: &published.proved.manifest.claim.terms,
        proof: published.proved.store.as_ref(),
        stolen: &published.stolen,
        data: &training.data,
    };
    let claimed = attack.claimed(&victim, &options);
    let mut learner = image_learner(&claimed, &Device::flex())?;
    let store = MemoryStore::new();
    let started = Instant::now();
    let made = match attack.forge(&victim, &options, learner.as_mut(), &store) {
        Ok(made) => made,
        Err(AttackError::NotApplicable(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let forge_seconds = started.elapsed().as_secs_f64();
    let variant = variant(attack_plan);
    let subject = Subject {
        training,
        claimed: &claimed,
        store: &store,
        interval,
        attack: &attack_plan.name,
        variant: &variant,
        cost: (made.spent.gradients, forge_seconds, size(&store)?),
        honest: (made.spent.honest_steps, published.bytes),
        figures: figures(&made),
    };
    let device = Device::flex();
    let by = |data: &str, records: &dyn Records| {
        judge_by_all(plan, cell, &subject, data, records, &Setting::Same, &device)
    };
    let mut rows = by("public", &training.data.train)?;
    if let Some(records) = &made.records {
        rows.extend(by("opened", records)?);
    }
    if attack_plan.name == "grinding" {
        rows.push(judge_drawn_offline(&subject, cell, options.sample)?);
    }
    Ok(rows)
}

fn figures(made: &Forged) -> String {
    let figures = made.figures.iter();
    let figures: BTreeMap<_, _> = figures.map(|figure| (figure.name, figure.value)).collect();
    serde_json::to_string(&figures).unwrap_or_default()
}

fn judge_by_all(
    plan: &Attacks,
    cell: &str,
    subject: &Subject<'_>,
    data: &str,
    records: &dyn Records,
    setting: &Setting,
    device: &Device,
) -> Result<Vec<Measured>, ExperimentError> {
    // Without its bounds the default only admits more, which says nothing about honest runs.
    let honest = subject.attack == "honest";
    let policies = plan.policies.iter();
    let policies = policies.filter(|policy| !honest || policy.as_str() != TOLERANCE_ALONE);
    let rows = policies.map(|policy| {
        let started = Instant::now();
        let report = judge(
            subject.store,
            subject.claimed,
            records,
            policy,
            setting,
            device,
        )?;
        let seconds = started.elapsed().as_secs_f64();
        Ok(measured(subject, cell, data, policy, &report, seconds))
    });
    rows.collect()
}

fn measured(
    subject: &Subject<'_>,
    cell: &str,
    data: &str,
    policy: &str,
    report: &Report,
    verify_seconds: f64,
) -> Measured {
    let (check, reason) = decided(report);
    Measured {
        cell: cell.to_owned(),
        training: subject.training.name.clone(),
        numerics: subject.training.recipe.numerics.to_string(),
        interval: subject.interval,
        attack: subject.attack.to_owned(),
        variant: subject.variant.to_owned(),
        data: data.to_owned(),
        policy: policy.to_owned(),
        verdict: report.verdict.to_string(),
        check,
        reason,
        gradients: subject.cost.0,
        honest_gradients: subject.honest.0,
        proof_bytes: subject.cost.2,
        honest_proof_bytes: subject.honest.1,
        forge_seconds: subject.cost.1,
        verify_seconds,
        figures: subject.figures.clone(),
    }
}

/// The default policy on an opening whose challenge is drawn from the commitment itself.
fn judge_drawn_offline(
    subject: &Subject<'_>,
    cell: &str,
    sample: u64,
) -> Result<Measured, ExperimentError> {
    let training = subject.training;
    let records = &training.data.train;
    let unread = || ExperimentError::Plan("the forged proof cannot be read".to_owned());
    let claim = read_claim(subject.store)?.map_err(|_| unread())?.claim;
    let public = PublicCommitment::new(claim, Vec::new());
    let challenge = Challenge::offline(public.digest(), Draw::Sample(sample));
    let mut none = || -> Result<_, LearnerError> {
        Err(LearnerError::Device("a state is not kept".to_owned()))
    };
    let opening = open(subject.store, records, None, &challenge, &mut none)
        .map_err(|error| ExperimentError::Plan(format!("the forged proof: {error}")))?;
    let started = Instant::now();
    let mut learner = image_learner(subject.claimed, &Device::flex())?;
    let report = Verifier::new(records)
        .policy(policy_named("calibrated")?, challenge.seed())
        .verify_opening(&public, &challenge, opening, learner.as_mut(), None, |_| {})?;
    let seconds = started.elapsed().as_secs_f64();
    Ok(measured(
        subject,
        cell,
        OFFLINE,
        "calibrated",
        &report,
        seconds,
    ))
}

/// The first check that failed, and how.
pub(crate) fn decided(report: &Report) -> (String, String) {
    // What rejects decides before what could not be checked.
    let mut reasons = report.reasons.iter();
    let rejecting = reasons.clone().find(|reason| reason.is_rejection());
    match rejecting.or_else(|| reasons.next()) {
        None => (String::new(), String::new()),
        Some(reason) => (reason.check().to_owned(), reason.to_string()),
    }
}

/// What has to be said first.
fn passed(rows: &[Measured]) -> Vec<String> {
    let mut findings: Vec<(String, Vec<String>)> = Vec::new();
    let mut find = |finding: String, row: &Measured| {
        let place = format!("{}, {}, k = {}", row.training, row.numerics, row.interval);
        match findings.iter_mut().find(|(known, _)| *known == finding) {
            Some((_, places)) => places.push(place),
            None => findings.push((finding, vec![place])),
        }
    };
    for row in rows {
        let honest = row.attack == "honest";
        if honest && row.verdict == Verdict::Rejected.to_string() {
            let finding = format!(
                "**An honest run is rejected by `{}`** ({}): {}.",
                row.policy, row.variant, row.reason
            );
            find(finding, row);
        }
        if !honest && row.policy == "calibrated" && row.verdict == Verdict::Accepted.to_string() {
            let stop = match row.data.as_str() {
                OFFLINE => {
                    "where its audit is drawn from the commitment**, which the forger changes until the \
                     draw misses; a draw by the verifier, after the commitment, stops it."
                }
                _ => "**: no check of that policy stops it.",
            };
            let finding = format!("**{} is accepted by the default policy {stop}", row.attack);
            find(finding, row);
        }
    }
    let findings = findings.into_iter();
    findings
        .map(|(finding, places)| format!("{finding} Seen with {}.", places.join("; ")))
        .collect()
}

fn tables(rows: &[Measured]) -> Vec<SummaryTable> {
    let mut policies: Vec<&str> = Vec::new();
    for row in rows {
        if !policies.contains(&row.policy.as_str()) {
            policies.push(&row.policy);
        }
    }
    type Group<'r> = ((&'r str, &'r str, u64), Vec<&'r Measured>);
    let mut groups: Vec<Group<'_>> = Vec::new();
    for row in rows {
        let key = (row.training.as_str(), row.numerics.as_str(), row.interval);
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, group)) => group.push(row),
            None => groups.push((key, vec![row])),
        }
    }
    let mut tables = Vec::new();
    for ((training, numerics, interval), rows) in groups {
        let mut columns = vec!["", "variant", "data"];
        columns.extend(&policies);
        columns.extend(["cost#", "proof#"]);
        let caption = format!(
            "{training}, {numerics} numerics, k = {interval}. Cost: gradients over those of the honest \
             training; proof: bytes over those of the honest proof"
        );
        let mut table = SummaryTable::new(&caption, &columns);
        let mut lines: Vec<(&str, &str, &str)> = Vec::new();
        for row in &rows {
            let line = (row.attack.as_str(), row.variant.as_str(), row.data.as_str());
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        for line in lines {
            let of: Vec<&&Measured> = (rows.iter())
                .filter(|r| (r.attack.as_str(), r.variant.as_str(), r.data.as_str()) == line)
                .collect();
            let mut cells = vec![line.0.to_owned(), line.1.to_owned(), line.2.to_owned()];
            for policy in &policies {
                let row = of.iter().find(|row| row.policy == *policy);
                cells.push(
                    row.map_or_else(String::new, |row| match row.check.is_empty() {
                        true => row.verdict.clone(),
                        false => format!("{}: {}", row.verdict, row.check),
                    }),
                );
            }
            if let Some(row) = of.first() {
                cells.push(short(
                    row.gradients as f64 / row.honest_gradients.max(1) as f64,
                ));
                cells.push(short(
                    row.proof_bytes as f64 / row.honest_proof_bytes.max(1) as f64,
                ));
            }
            table.rows.push(cells);
        }
        tables.push(table);
    }
    tables
}
