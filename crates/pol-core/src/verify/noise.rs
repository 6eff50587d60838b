//! What honest rounding does to a segment: replays under perturbations no larger than rounding makes.

use serde::Serialize;

use crate::policy::Calibration;
use crate::random::{Purpose, Seed, Stream};
use crate::schedule::BatchPlan;
use crate::state::{DType, Entry, Part, State};

use super::distance::Distances;

/// The noise of a segment, as the verifier measured it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct NoiseReport {
    /// Perturbed replays.
    pub replays: u32,
    /// The largest l2 distance of the parameters among them from the unperturbed replay.
    pub l2: f64,
    /// The quantile of the noise that `l2` is above with probability 0.95: `0.05^(1 / replays)`.
    pub quantile: f64,
    /// What is tolerated of the parameters, in l2.
    pub tolerance_l2: f64,
    /// ρ: the segment's movement over the noise.
    pub rho: f64,
}

/// How far perturbed replays end from the unperturbed one, in each part.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Noise {
    pub(super) replays: u32,
    parameters: f64,
    buffers: f64,
    optimizer: f64,
}

impl Noise {
    /// Adds a replay. One that ends infinitely far makes everything noise.
    pub(super) fn add(
        &mut self,
        unperturbed: &State,
        perturbed: &State,
        part: &dyn Fn(&str) -> Part,
    ) {
        self.replays += 1;
        for of in [Part::Parameters, Part::Buffers, Part::Optimizer] {
            let distance = Distances::between(unperturbed, perturbed, of, part);
            let l2 = distance.map_or(f64::INFINITY, |distances| distances.l2);
            if let Some(largest) = self.part(of) {
                *largest = largest.max(l2);
            }
        }
    }

    fn part(&mut self, of: Part) -> Option<&mut f64> {
        match of {
            Part::Parameters => Some(&mut self.parameters),
            Part::Buffers => Some(&mut self.buffers),
            Part::Optimizer => Some(&mut self.optimizer),
            Part::Schedule => None,
        }
    }

    /// What is tolerated of a part, in l2.
    pub(super) fn tolerance(mut self, rule: &Calibration, of: Part, movement: f64) -> f64 {
        let noise = self.part(of).map_or(0.0, |noise| *noise);
        (rule.multiple * noise).max(rule.floor * movement)
    }

    /// For the report.
    pub(super) fn report(self, rule: &Calibration, movement: f64) -> NoiseReport {
        NoiseReport {
            replays: self.replays,
            l2: self.parameters,
            quantile: 0.05f64.powf(1.0 / f64::from(self.replays.max(1))),
            tolerance_l2: self.tolerance(rule, Part::Parameters, movement),
            rho: match self.parameters > 0.0 {
                // Noise without end, in whatever part, is more than any movement.
                _ if !self.is_finite() => 0.0,
                true => movement / self.parameters,
                false => f64::MAX,
            },
        }
    }

    fn is_finite(&self) -> bool {
        [self.parameters, self.buffers, self.optimizer]
            .iter()
            .all(|noise| noise.is_finite())
    }
}

/// One perturbation: the order of the records within each step, and the last bit of the start.
pub(crate) struct Perturbation {
    stream: Stream,
    order: bool,
}

impl Perturbation {
    /// The perturbation of a segment's replay that follows from the verifier's randomness.
    pub(crate) fn new(seed: &Seed, segment: u64, replay: u64, order: bool) -> Self {
        Self {
            stream: seed.stream(Purpose::Noise { segment, replay }),
            order,
        }
    }

    /// The state with every number of the model and the optimizer moved by at most one unit in its
    /// last place.
    pub(crate) fn start(&mut self, state: &State) -> State {
        let entries = state.entries().iter().map(|entry| {
            let moves = entry.header.dtype == DType::F32 && !entry.name().starts_with("schedule/");
            match moves {
                true => self.moved(entry),
                false => entry.clone(),
            }
        });
        // The names and shapes are those of a state.
        State::new(entries.collect()).unwrap_or_else(|_| state.clone())
    }

    fn moved(&mut self, entry: &Entry) -> Entry {
        let mut moved = entry.clone();
        let mut draws = 0;
        for (place, bytes) in moved.bytes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            if place % 16 == 0 {
                draws = self.stream.next_u32();
            }
            let value = f32::from_le_bytes(*bytes);
            let neighbour = match draws & 3 {
                1 => value.next_up(),
                2 => value.next_down(),
                _ => value,
            };
            // Exact zeros stay: they were not rounded.
            if value != 0.0 && neighbour.is_finite() {
                *bytes = neighbour.to_le_bytes();
            }
            draws >>= 2;
        }
        moved
    }

    /// The plan with its records in another order, where their order is free.
    pub(crate) fn plan(&mut self, plan: BatchPlan) -> BatchPlan {
        if !self.order {
            return plan;
        }
        let order = self.stream.permutation(plan.records.len() as u64);
        let records = order.into_iter().map(|i| plan.records[i as usize]);
        BatchPlan {
            records: records.collect(),
            ..plan
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::tagged;

    #[test]
    fn a_perturbation_moves_last_places_and_order_and_nothing_else() {
        let state = State::new(vec![
            Entry::f32("model/w", vec![64], &[1.0; 64]),
            Entry::f32("model/zero", vec![4], &[0.0; 4]),
            Entry::u64("schedule/step", 3),
        ])
        .unwrap();
        let seed = Seed::from_digest(tagged("noise", &[]));
        let mut perturbation = Perturbation::new(&seed, 1, 2, true);
        let moved = perturbation.start(&state);
        assert_eq!(moved.entry("model/zero"), state.entry("model/zero"));
        assert_eq!(moved.entry("schedule/step"), state.entry("schedule/step"));
        let values: Vec<f64> = moved.entry("model/w").unwrap().values().collect();
        assert!(
            values
                .iter()
                .all(|v| (v - 1.0).abs() <= f64::from(f32::EPSILON))
        );
        let changed = values.iter().filter(|v| **v != 1.0).count();
        assert!((16..=48).contains(&changed), "{changed}");

        let plan = BatchPlan {
            step: 3,
            epoch: 0,
            records: (0..20).collect(),
        };
        let permuted = perturbation.plan(plan.clone());
        assert_ne!(permuted.records, plan.records);
        let mut sorted = permuted.records;
        sorted.sort_unstable();
        assert_eq!(sorted, plan.records);
        let mut in_order = Perturbation::new(&seed, 1, 2, false);
        assert_eq!(in_order.plan(plan.clone()), plan);
    }
}
