//! What tolerances are worth to a forger who uses all of them: in every segment, in every entry, always
//! towards a stolen model.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;
use pol_attacks::forgery::{Forgery, model_distance, with_entries, with_values};
use pol_core::digest::tagged;
use pol_core::learner::Batch;
use pol_core::policy::{Calibration, Comparison};
use pol_core::random::{Purpose, Seed};
use pol_core::recipe::Optimizer;
use pol_core::records::Records;
use pol_core::schedule::Schedule;
use pol_core::state::{DType, Entry, State};
use pol_core::store::MemoryStore;
use pol_core::verify::Report;
use pol_models::{ImageLearner, image_learner};
use serde::{Deserialize, Serialize};

use crate::attacks::decided;
use crate::lab::{Setting, judge, policy_named, states_at, terms};
use crate::plan::{Resolved, Slack};
use crate::summary::{Found, SummaryTable, short};
use crate::table::{Row, Table};
use crate::{ExperimentError, Lab};

/// What of each tolerance the forger uses, who measures with other randomness than the verifier and
/// pushes all entries in concert.
const CAUTION: f64 = 0.4;
/// What of its tolerance in units in the last place a difference uses: near zero that noise varies most.
const CAUTION_IN_UNITS: f64 = 0.1;
/// How often the forger tries again with less, where the verifier finds an entry beyond its tolerance.
const TRIES: u32 = 4;
/// What of the policy's budget the forger uses.
const OF_BUDGET: f64 = 0.8;
/// How far towards the stolen model the forger probes what training makes of a push, as a share of the way.
const PROBE: f64 = 1e-3;
/// A difference in units in the last place may be this many times larger, against its noise, than one in
/// size (SPEC.md §16).
const COARSER: f64 = 32.0;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Measured {
    cell: String,
    training: String,
    numerics: String,
    interval: u64,
    segments: u64,
    policy: String,
    /// How the forger goes about it.
    adversary: String,
    /// What of its tolerance each difference uses, as the forger measures it.
    strength: f64,
    verdict: String,
    check: String,
    /// The shares of the way that the verifier found used and tolerated.
    used: f64,
    tolerated: f64,
    /// The nearest to its tolerance that any entry comes.
    nearest: f64,
    /// The share of the distance between an honest model and the stolen one that is closed.
    closed: f64,
}

impl Row for Measured {
    fn cell(&self) -> &str {
        &self.cell
    }
}

/// How a forger pushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Adversary {
    /// Every entry towards the stolen model, the optimizer's too.
    Greedy,
    /// The weights alone.
    Weights,
    /// The weights, along the gradient of the distance at which the next segment ends.
    Steered,
    /// Of several pushes, the one after which the next segment ends nearest to it.
    Lookahead,
}

impl Adversary {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Greedy, "greedy"),
        (Self::Weights, "weights"),
        (Self::Steered, "steered"),
        (Self::Lookahead, "lookahead"),
    ];

    /// The pushes that it chooses among: of the model and of the optimizer, each towards the stolen model
    /// or away from it.
    const fn pushes(self) -> &'static [(f64, f64)] {
        match self {
            Self::Greedy => &[(1.0, 1.0)],
            Self::Weights | Self::Steered => &[(1.0, 0.0)],
            Self::Lookahead => &[
                (1.0, 1.0),
                (1.0, 0.0),
                (1.0, -1.0),
                (0.0, 1.0),
                (-1.0, -1.0),
            ],
        }
    }
}

pub(crate) fn run(plan: &Slack, lab: &Lab<'_>, rows: &Path) -> Result<Found, ExperimentError> {
    let mut table: Table<Measured> = Table::open(rows)?;
    for (number, training) in plan.trainings.iter().enumerate() {
        let training = training.resolve(lab)?;
        let steps = training.recipe.steps;
        let last = |nonce| -> Result<State, ExperimentError> {
            let mut states = states_at(&training, nonce, &[steps])?;
            let absent = || ExperimentError::Plan("a training has no last state".to_owned());
            states.remove(&steps).ok_or_else(absent)
        };
        let mut ends = None;
        for interval in training.intervals(&plan.intervals) {
            for policy in &plan.policies {
                for (adversary, name) in Adversary::ALL {
                    let cell = format!("{number}/{interval}/{policy}/{name}");
                    if table.has(&cell) {
                        continue;
                    }
                    (lab.tell)(&format!(
                        "{}: k = {interval}, {policy}, {name}",
                        training.name
                    ));
                    let (honest, stolen) = match &ends {
                        Some(ends) => ends,
                        None => ends.insert((last(0)?, last(1)?)),
                    };
                    let forger = Forger {
                        training: &training,
                        interval,
                        stolen,
                        adversary,
                        rule: rule(policy)?,
                    };
                    let row = |made: Made| -> Measured {
                        let (check, _) = decided(&made.report);
                        let slack = made.report.slack.as_ref();
                        let nearest = made.report.segments.iter().filter_map(|s| s.noise.as_ref());
                        let apart = model_distance(&made.end, stolen);
                        Measured {
                            cell: cell.clone(),
                            training: training.name.clone(),
                            numerics: training.recipe.numerics.to_string(),
                            interval,
                            segments: made.report.segments_total,
                            policy: policy.clone(),
                            adversary: name.to_owned(),
                            strength: made.strength,
                            verdict: made.report.verdict.to_string(),
                            check,
                            used: slack.map_or(0.0, |slack| slack.used),
                            tolerated: slack.map_or(0.0, |slack| slack.tolerated),
                            nearest: nearest.map(|n| n.nearest_of_tolerance).fold(0.0, f64::max),
                            closed: 1.0 - apart / model_distance(honest, stolen),
                        }
                    };
                    let mut all = row(forger.judged(CAUTION, policy)?);
                    for _ in 0..TRIES {
                        if all.nearest <= 1.0 || training.recipe.numerics.is_exact() {
                            break;
                        }
                        let strength = all.strength * f64::max(0.8 / all.nearest, 0.3);
                        all = row(forger.judged(strength, policy)?);
                    }
                    // Once more, within what the policy admits of all differences together.
                    let budget = OF_BUDGET * forger.rule.max_used;
                    let within = match all.used > budget {
                        true => {
                            let strength = all.strength * budget / all.used;
                            Some(row(forger.judged(strength, policy)?))
                        }
                        false => None,
                    };
                    table.add(std::iter::once(all).chain(within).collect())?;
                }
            }
        }
    }
    Ok(Found {
        seeds: vec![0, 1],
        tables: vec![summarise(table.rows())],
        ..Found::default()
    })
}

/// The policy's calibration, or for one that has none what the default would tolerate.
fn rule(policy: &str) -> Result<Calibration, ExperimentError> {
    match (
        policy_named(policy)?.comparison,
        policy_named("calibrated")?.comparison,
    ) {
        (Comparison::Calibrated(rule), _) | (_, Comparison::Calibrated(rule)) => Ok(rule),
        _ => Err(ExperimentError::Plan(
            "the default is not calibrated".to_owned(),
        )),
    }
}

struct Forger<'a> {
    training: &'a Resolved,
    interval: u64,
    stolen: &'a State,
    adversary: Adversary,
    rule: Calibration,
}

/// A forged proof, judged.
struct Made {
    strength: f64,
    end: State,
    report: Report,
}

impl Forger<'_> {
    fn judged(&self, strength: f64, policy: &str) -> Result<Made, ExperimentError> {
        let store = MemoryStore::new();
        let end = self.forge(strength, &store)?;
        let recipe = &self.training.recipe;
        let records = &self.training.data.train;
        let report = judge(
            &store,
            recipe,
            records,
            policy,
            &Setting::Same,
            &Device::flex(),
        )?;
        Ok(Made {
            strength,
            end,
            report,
        })
    }

    /// Trains honestly from the derived start, and pushes the end of every segment.
    fn forge(&self, strength: f64, store: &MemoryStore) -> Result<State, ExperimentError> {
        let terms = terms(self.training, 0, self.interval);
        let (segments, records) = (terms.segments(), &self.training.data.train);
        let steps = terms.recipe.steps;
        let mut learner = image_learner(&self.training.recipe, &Device::flex())?;
        let learner = learner.as_mut();
        learner.initialise(&terms.seed)?;
        let mut state = learner.capture()?;
        let mut forgery = Forgery::begin(terms, records, store);
        forgery.log(&state)?;
        for segment in 0..segments {
            let honest = forgery.train(learner, &state, segment)?;
            let (first, last) = forgery.terms().segment_steps(segment);
            let seed = forgery.terms().seed;
            let room = self.room(learner, &state, &honest, (first, last), &seed)?;
            let goes_on = segment + 1 < segments;
            let aim = match self.adversary == Adversary::Steered && goes_on {
                true => self.gradient(&mut forgery, learner, &honest, segment + 1)?,
                false => self.stolen.clone(),
            };
            let mut best: Option<(f64, State)> = None;
            for &(model, optimizer) in self.adversary.pushes() {
                let rate = self.training.recipe.learning_rate.at(last, steps);
                let push = Push {
                    strength,
                    model,
                    optimizer,
                    rate,
                };
                let pushed = self.pushed(&honest, &aim, &room, push);
                let distance = match self.adversary == Adversary::Lookahead && goes_on {
                    false => 0.0,
                    true => {
                        let next = forgery.train(learner, &pushed, segment + 1)?;
                        model_distance(&next, self.stolen)
                    }
                };
                if best.as_ref().is_none_or(|(least, _)| distance < *least) {
                    best = Some((distance, pushed));
                }
            }
            if let Some((_, pushed)) = best {
                state = pushed;
            }
            forgery.log(&state)?;
        }
        forgery.seal()?;
        Ok(state)
    }

    /// What a verifier would tolerate of each entry, as the forger measures it.
    fn room(
        &self,
        learner: &mut dyn ImageLearner,
        start: &State,
        ended: &State,
        (first, last): (u64, u64),
        seed: &Seed,
    ) -> Result<Vec<Room>, ExperimentError> {
        let records = &self.training.data.train;
        let batch = self.training.recipe.batch_size;
        let mut rooms: Vec<Room> = ended.entries().iter().map(|_| Room::default()).collect();
        let own = Seed::from_digest(tagged("forger", &[]));
        for replay in 0..u64::from(self.rule.replays) {
            let stream = RefCell::new(own.stream(Purpose::Noise {
                segment: first,
                replay,
            }));
            let moved = with_entries(start, |entry| {
                let values: Vec<f64> = (entry.values())
                    .map(
                        |value| match (value != 0.0, stream.borrow_mut().next_u32() & 3) {
                            (true, 1) => f64::from((value as f32).next_up()),
                            (true, 2) => f64::from((value as f32).next_down()),
                            _ => value,
                        },
                    )
                    .collect();
                is_float(entry).then(|| with_values(entry, values.into_iter()))
            });
            learner.restore(&moved)?;
            let mut schedule = Schedule::new(*seed, records.len(), batch)?;
            for step in first..last {
                let mut plan = schedule.batch(step);
                if !learner.order_is_free() {
                    learner.step(&Batch::new(&plan, records, seed)?)?;
                    continue;
                }
                let order = stream.borrow_mut().permutation(plan.records.len() as u64);
                plan.records = order
                    .into_iter()
                    .map(|i| plan.records[i as usize])
                    .collect();
                learner.step(&Batch::new(&plan, records, seed)?)?;
            }
            let noisy = learner.capture()?;
            for (room, (a, b)) in
                (rooms.iter_mut()).zip(ended.entries().iter().zip(noisy.entries()))
            {
                room.widen(a, b);
            }
        }
        Ok(rooms)
    }

    /// Where the weights should go for the next segment to end nearer to the stolen model: against the
    /// gradient of that distance, as far from `honest` as the stolen model is.
    ///
    /// A step of gradient descent carries a small change of the weights through `I − ηH`, which is
    /// symmetric; so what training makes of a change towards the stolen model is, to first order in the
    /// rate, also the gradient. Two trainings give it, as a difference quotient.
    fn gradient(
        &self,
        forgery: &mut Forgery<'_>,
        learner: &mut dyn ImageLearner,
        honest: &State,
        segment: u64,
    ) -> Result<State, ExperimentError> {
        let untouched = forgery.train(learner, honest, segment)?;
        let left = difference(self.stolen, &untouched);
        let probe = plus(honest, &left, PROBE);
        let carried = difference(&forgery.train(learner, &probe, segment)?, &untouched);
        let length = |gap: &State| model_distance(gap, &plus(gap, gap, -1.0));
        let scale = length(&difference(self.stolen, honest)) / length(&carried);
        Ok(match scale.is_finite() {
            true => plus(honest, &carried, scale),
            false => self.stolen.clone(),
        })
    }

    /// The state with every number moved as far as there is room, towards the weights of `aim` where the
    /// directions are positive.
    fn pushed(&self, honest: &State, aim: &State, rooms: &[Room], push: Push) -> State {
        let of = |name: &str| {
            honest
                .entries()
                .iter()
                .position(|entry| entry.name() == name)
        };
        let multiple = push.strength * self.rule.multiple;
        with_entries(honest, |entry| {
            let (path, towards) = match entry.name().strip_prefix("optim/") {
                None => (entry.name().strip_prefix("model/")?, push.model),
                // Weights go against their velocity, or their first moment.
                Some(rest) => match rest.split_once("/momentum.")? {
                    (path, "velocity" | "moment_1") => (path, -push.optimizer),
                    _ => return None,
                },
            };
            let weights = format!("model/{path}");
            let (now, aim) = (honest.entry(&weights)?, aim.entry(&weights)?);
            if !is_float(entry) || towards == 0.0 {
                return None;
            }
            let gaps = now.values().zip(aim.values());
            let mut gaps: Vec<f64> = gaps.map(|(w, s)| towards * (s - w)).collect();
            if let Some(second) = honest.entry(&format!("optim/{path}/momentum.moment_2"))
                && entry.name().ends_with("moment_1")
            {
                // A moment leads its weight as far as the second moment lets it: no farther than the
                // weight itself could be pushed.
                let weights = rooms.get(of(&weights)?)?.typical() * multiple;
                let leads = self.leads(push.rate);
                // At the end of a schedule the rate may be zero, and a moment leads nowhere.
                if leads > 0.0 {
                    for (gap, second) in gaps.iter_mut().zip(second.values()) {
                        let most = weights * second.sqrt() / leads;
                        *gap = gap.clamp(-most, most);
                    }
                }
            }
            let room = rooms.get(of(entry.name())?)?;
            Some(room.push(entry, &gaps, multiple))
        })
    }

    /// How far Adam's first moment leads a weight until it has faded, over the root of the second.
    fn leads(&self, rate: f64) -> f64 {
        match self.training.recipe.optimizer {
            Optimizer::Adam { beta1, .. } | Optimizer::AdamW { beta1, .. } => {
                rate * beta1 / (1.0 - beta1)
            }
            Optimizer::Sgd { .. } | Optimizer::Custom(_) => 0.0,
        }
    }
}

/// One push.
#[derive(Debug, Clone, Copy)]
struct Push {
    /// What of each tolerance it uses.
    strength: f64,
    /// The directions of the model and of the optimizer.
    model: f64,
    optimizer: f64,
    /// The learning rate of the steps that follow.
    rate: f64,
}

/// The first state's numbers less the second's.
fn difference(a: &State, b: &State) -> State {
    plus(a, b, -1.0)
}

/// The first state's model and so many times the second's.
fn plus(a: &State, b: &State, times: f64) -> State {
    with_entries(a, |entry| {
        let of_model = entry.name().starts_with("model/") && is_float(entry);
        let other = b.entry(entry.name()).filter(|_| of_model)?;
        let sums = entry.values().zip(other.values());
        let sums: Vec<f64> = sums.map(|(x, y)| x + times * y).collect();
        Some(with_values(entry, sums.into_iter()))
    })
}

/// The noise of an entry, by rank: the largest among all replays.
#[derive(Debug, Clone, Default)]
struct Room {
    sizes: Vec<f64>,
    units: Vec<f64>,
}

impl Room {
    /// The noise of most elements.
    fn typical(&self) -> f64 {
        self.sizes.get(self.sizes.len() / 2).copied().unwrap_or(0.0)
    }

    fn widen(&mut self, a: &Entry, b: &Entry) {
        let pairs = || a.values().zip(b.values());
        let sizes: Vec<f64> = pairs().map(|(a, b)| (a - b).abs()).collect();
        let units: Vec<f64> = pairs()
            .map(|(a, b)| place(a).abs_diff(place(b)) as f64)
            .collect();
        let widen = |mine: &mut Vec<f64>, mut other: Vec<f64>| {
            other.sort_by(|a, b| b.total_cmp(a));
            mine.resize(other.len(), 0.0);
            mine.iter_mut()
                .zip(other)
                .for_each(|(mine, other)| *mine = mine.max(other));
        };
        widen(&mut self.units, units);
        widen(&mut self.sizes, sizes);
    }

    /// The entry with each element moved in the direction of its gap: the largest gaps by the most.
    fn push(&self, entry: &Entry, gaps: &[f64], multiple: f64) -> Entry {
        let by = |key: &dyn Fn(usize) -> f64| {
            let mut order: Vec<usize> = (0..gaps.len()).collect();
            order.sort_by(|&a, &b| key(b).total_cmp(&key(a)));
            order
        };
        let values: Vec<f64> = entry.values().collect();
        let mut moved = values.clone();
        for (rank, i) in by(&|i| gaps[i].abs()).into_iter().enumerate() {
            let most = (multiple * self.sizes[rank]).min(gaps[i].abs());
            moved[i] += most * gaps[i].signum();
        }
        let apart = |moved: &[f64], i: usize| place(moved[i]).abs_diff(place(values[i])) as f64;
        let before = moved.clone();
        for (rank, i) in by(&|i| apart(&before, i)).into_iter().enumerate() {
            let most = CAUTION_IN_UNITS * COARSER * multiple * self.units[rank];
            if apart(&before, i) > most {
                let by = (most as i64) * if gaps[i] < 0.0 { -1 } else { 1 };
                moved[i] = at_place(place(values[i]) + by);
            }
        }
        with_values(entry, moved.into_iter())
    }
}

/// The place of a value among all single-precision floats; both zeros are at 0.
fn place(value: f64) -> i64 {
    let bits = (value as f32).to_bits();
    let magnitude = i64::from(bits & 0x7fff_ffff);
    if bits >> 31 == 0 {
        magnitude
    } else {
        -magnitude
    }
}

/// The float at this place.
fn at_place(place: i64) -> f64 {
    let magnitude = f64::from(f32::from_bits(place.unsigned_abs() as u32));
    if place < 0 { -magnitude } else { magnitude }
}

fn is_float(entry: &Entry) -> bool {
    entry.header.dtype == DType::F32 && !entry.name().starts_with("schedule/")
}

fn summarise(rows: &[Measured]) -> SummaryTable {
    let mut table = SummaryTable::new(
        "A forger who uses every tolerance in every segment",
        &[
            "training",
            "numerics",
            "k#",
            "segments#",
            "policy",
            "adversary",
            "of its tolerance#",
            "verdict",
            "check",
            "used of the way#",
            "tolerated of the way#",
            "gap closed#",
            "gap closed, accepted#",
        ],
    );
    let mut groups = BTreeMap::<_, Vec<&Measured>>::new();
    for row in rows {
        let key = (
            &row.training,
            &row.numerics,
            row.interval,
            &row.policy,
            &row.adversary,
        );
        groups.entry(key).or_default().push(row);
    }
    for row in groups.into_values().flatten() {
        let accepted = match row.verdict.as_str() {
            "accepted" => short(row.closed),
            _ => "0".to_owned(),
        };
        table.rows.push(vec![
            row.training.clone(),
            row.numerics.clone(),
            row.interval.to_string(),
            row.segments.to_string(),
            row.policy.clone(),
            row.adversary.clone(),
            short(row.nearest),
            row.verdict.clone(),
            row.check.clone(),
            short(row.used),
            short(row.tolerated),
            short(row.closed),
            accepted,
        ]);
    }
    table
}
