//! What honest rounding does to a segment: replays under perturbations no larger than rounding makes.

use crate::random::{Purpose, Seed, Stream};
use crate::schedule::BatchPlan;
use crate::state::{Entry, State};

use super::differences::{Differences, at_order, elements, is_rounded, larger};
use super::heading::Headings;

/// How far perturbed replays of a segment end from the unperturbed one: for each entry by itself, and
/// for where each parameter is heading.
#[derive(Debug, Clone, Default)]
pub(super) struct Noise {
    pub(super) replays: u32,
    /// As the entries of the replayed state; of those that rounding does not change, nothing.
    pub(super) entries: Vec<Differences>,
    /// As the parameters (l2).
    pub(super) headings: Vec<f64>,
}

impl Noise {
    /// Adds the end of a perturbed replay: each figure is the largest among all replays.
    pub(super) fn add(&mut self, unperturbed: &State, perturbed: &State, headings: &Headings<'_>) {
        self.replays += 1;
        let entries = unperturbed.entries();
        self.entries
            .resize_with(entries.len(), Differences::default);
        for (noise, entry) in self.entries.iter_mut().zip(entries) {
            if !is_rounded(entry) {
                continue;
            }
            // A replay that ends with other tensors than the first one would not be one of this training.
            if let Some(other) = alike(perturbed, entry) {
                noise.widen(&Differences::between(entry, other));
            }
        }
        let apart = headings.apart(unperturbed, perturbed);
        self.headings.resize(apart.len(), 0.0);
        for (noise, apart) in self.headings.iter_mut().zip(apart) {
            *noise = larger(*noise, apart);
        }
    }
}

/// The entry of another state that has the same name, type and shape.
pub(super) fn alike<'s>(state: &'s State, entry: &Entry) -> Option<&'s Entry> {
    let other = state.entry(entry.name())?;
    (other.header == entry.header).then_some(other)
}

/// How far each number of a start is moved, in units in the last place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Amplitude {
    /// By at most one: what rounding does at the least.
    Fine,
    /// By at most 256: far more than the rounding of any device.
    Coarse,
}

/// One perturbation: the order of the records within each step, and the last places of the start.
pub(crate) struct Perturbation {
    stream: Stream,
    amplitude: Amplitude,
    order: bool,
}

impl Perturbation {
    /// The perturbation of a segment's replay that follows from the verifier's randomness.
    pub(crate) fn new(
        seed: &Seed,
        (segment, replay): (u64, u64),
        amplitude: Amplitude,
        order: bool,
    ) -> Self {
        Self {
            stream: seed.stream(Purpose::Noise { segment, replay }),
            amplitude,
            order,
        }
    }

    /// The state with every float of the model and the optimizer moved by as many units in its last
    /// place as the amplitude says.
    pub(crate) fn start(&mut self, state: &State) -> State {
        let entries = state.entries().iter().map(|entry| match is_rounded(entry) {
            true => self.moved(entry),
            false => entry.clone(),
        });
        // The names and shapes are those of a state.
        State::new(entries.collect()).unwrap_or_else(|_| state.clone())
    }

    fn moved(&mut self, entry: &Entry) -> Entry {
        let size = entry.header.dtype.size();
        let mut moved = entry.clone();
        let places = elements(entry).map(|(_, place)| place).enumerate();
        let mut draws = 0;
        for (at, place) in places {
            let by = match self.amplitude {
                Amplitude::Fine => {
                    if at % 16 == 0 {
                        draws = self.stream.next_u32();
                    }
                    let drawn = draws & 3;
                    draws >>= 2;
                    [0, 1, -1, 0][drawn as usize]
                }
                Amplitude::Coarse => i64::from(self.stream.next_u32() % 513) - 256,
            };
            let pattern = at_order(place + by, size).to_le_bytes();
            // Exact zeros stay: they were not rounded.
            if place != 0 {
                moved.bytes[at * size..][..size].copy_from_slice(&pattern[..size]);
            }
        }
        // Nothing is moved beyond the largest number.
        if moved.is_finite() {
            moved
        } else {
            entry.clone()
        }
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
        let mut perturbation = Perturbation::new(&seed, (1, 2), Amplitude::Fine, true);
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
        let mut in_order = Perturbation::new(&seed, (1, 2), Amplitude::Fine, false);
        assert_eq!(in_order.plan(plan.clone()), plan);
    }
}
