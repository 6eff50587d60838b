//! The forger: honest training, and after each segment a push as far as the tolerance goes.

use std::cell::RefCell;

use burn::tensor::Device;
use pol_attacks::forgery::{Forgery, model_distance, with_entries, with_values};
use pol_core::digest::tagged;
use pol_core::learner::Batch;
use pol_core::policy::Calibration;
use pol_core::random::{Purpose, Seed};
use pol_core::recipe::Optimizer;
use pol_core::records::Records;
use pol_core::schedule::Schedule;
use pol_core::state::{DType, Entry, State};
use pol_core::store::MemoryStore;
use pol_core::verify::Report;
use pol_models::{ImageLearner, image_learner};

use crate::ExperimentError;
use crate::lab::{Setting, judge, terms};
use crate::plan::Resolved;

/// What of its tolerance in units in the last place a difference uses: near zero that noise varies most.
const CAUTION_IN_UNITS: f64 = 0.1;
/// How far towards the stolen model the forger probes what training makes of a push, as a share of the way.
const PROBE: f64 = 1e-3;
/// A difference in units in the last place may be this many times larger, against its noise, than one in
/// size (SPEC.md §16).
const COARSER: f64 = 32.0;

/// How a forger pushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Adversary {
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
    pub(super) const ALL: [(Self, &'static str); 4] = [
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
/// A forger of one training.
pub(super) struct Forger<'a> {
    pub(super) training: &'a Resolved,
    pub(super) interval: u64,
    pub(super) stolen: &'a State,
    pub(super) adversary: Adversary,
    pub(super) rule: Calibration,
}

/// A forged proof, judged.
pub(super) struct Made {
    pub(super) strength: f64,
    pub(super) end: State,
    pub(super) report: Report,
}

impl Forger<'_> {
    /// The proof forged with so much of each tolerance, and what the policy says of it.
    pub(super) fn judged(&self, strength: f64, policy: &str) -> Result<Made, ExperimentError> {
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
