//! Comparing a replayed state with the logged one.

use std::sync::Arc;

use crate::policy::{Comparison, Parts};
use crate::state::{Part, State};

use super::calibrated::Compared;
use super::distance::{Distances, movement};
use super::integrity::Segment;
use super::reason::Reason;
use super::report::{PartReport, SegmentReport};

/// The states that a replay compares.
pub(super) struct Replay {
    pub(super) segment: Segment,
    /// Where it began; `None` if the proof does not keep it.
    pub(super) start: Option<Arc<State>>,
    pub(super) logged: Logged,
    pub(super) replayed: Arc<State>,
    pub(super) arrived: bool,
}

/// The logged state at a segment's end.
pub(super) enum Logged {
    /// It is not kept.
    Absent,
    /// It is the replayed one, bit for bit.
    Replayed,
    Other(State),
}

impl Replay {
    /// Whether the replay arrived at the logged state bit for bit.
    pub(super) fn arrived(&self) -> bool {
        self.arrived
    }

    /// The states at both ends of the segment as the proof has them, where it keeps them and the replay
    /// did not arrive.
    pub(super) fn differing(&self) -> Option<(&State, &State)> {
        match (&self.start, &self.logged) {
            (Some(start), Logged::Other(logged)) => Some((start, logged)),
            _ => None,
        }
    }

    /// Compares the replayed with the logged state. `compared` is what a calibrated comparison found,
    /// where bits differ.
    pub(super) fn judge(
        &self,
        rule: &Comparison,
        compared: Option<Compared>,
        reference: Option<f64>,
        part: &dyn Fn(&str) -> Part,
    ) -> SegmentReport {
        let logged: &State = match &self.logged {
            Logged::Replayed => &self.replayed,
            Logged::Other(state) => state,
            Logged::Absent => return self.by_digest(reference),
        };
        let digests_equal = self.arrived;
        let mut reasons = Vec::new();
        let by_noise = compared.is_some();
        let held_to = |of: Part| match rule {
            Comparison::Static { parts, .. } => *parts == Parts::All || of == Part::Parameters,
            _ => true,
        };
        let mut compare = |of: Part| {
            let distances = match self.arrived {
                true => Some(Distances::default()),
                false => Distances::between(&self.replayed, logged, of, part),
            };
            let movement_l2 = self.movement(logged, of, part);
            let Some(distances) = distances else {
                reasons.push(Reason::NoDistance {
                    segment: self.segment.to_string(),
                    part: of,
                });
                return None;
            };
            let movement = movement_l2.unwrap_or(f64::NAN);
            let exceeded = match rule {
                Comparison::Static { tolerance, .. } if !digests_equal && held_to(of) => {
                    tolerance.exceeded(&distances, movement)
                }
                // By bits, or each entry by its own noise: see below.
                _ => vec![],
            };
            for (metric, value, bound) in exceeded {
                reasons.push(Reason::TooFar {
                    segment: self.segment.to_string(),
                    part: of,
                    metric,
                    value,
                    bound,
                });
            }
            Some(PartReport {
                distances,
                movement_l2: movement_l2.filter(|movement| movement.is_finite()),
            })
        };
        let parameters = compare(Part::Parameters);
        let buffers = compare(Part::Buffers);
        let optimizer = compare(Part::Optimizer);
        let by_bits = match rule {
            Comparison::Bits => true,
            Comparison::Calibrated(_) => !by_noise,
            Comparison::Static { .. } => false,
        };
        let schedule_agrees = !held_to(Part::Schedule) || self.schedule_agrees(logged, part);
        if (by_bits && !digests_equal) || !schedule_agrees {
            reasons.push(Reason::BitsDiffer {
                segment: self.segment.to_string(),
                entry: first_difference(&self.replayed, logged),
                l2: parameters.map(|part| part.distances.l2),
                movement_l2: parameters.and_then(|part| part.movement_l2),
            });
        }
        let mut report = SegmentReport::new(
            self.segment,
            digests_equal,
            [parameters, buffers, optimizer],
            reference,
            reasons,
        );
        if let Some(compared) = compared {
            report.note_noise(compared);
        }
        report
    }

    /// Judges a segment whose logged state is not kept.
    fn by_digest(&self, reference: Option<f64>) -> SegmentReport {
        let reasons = match self.arrived {
            true => vec![],
            false => vec![Reason::DigestDiffers {
                segment: self.segment.to_string(),
            }],
        };
        SegmentReport::new(self.segment, self.arrived, [None; 3], reference, reasons)
    }

    /// How far the segment moves a part, in l2; `None` where its start is not kept. An optimizer
    /// that has no state before the first step moves from zero. NaN, which no tolerance admits,
    /// where the two cannot be compared.
    fn movement(&self, logged: &State, of: Part, part: &dyn Fn(&str) -> Part) -> Option<f64> {
        let start = self.start.as_ref()?;
        let entries = |state: &'_ State| -> Vec<usize> {
            (0..state.entries().len())
                .filter(|&i| part(state.entries()[i].name()) == of)
                .collect()
        };
        let (before, after) = (entries(start), entries(logged));
        if before.is_empty() {
            let values = after.into_iter().flat_map(|i| logged.entries()[i].values());
            return Some(values.fold(0.0, |sum, v| sum + v * v).sqrt());
        }
        if before.len() != after.len() {
            return Some(f64::NAN);
        }
        let pairs = (before.into_iter().zip(after))
            .map(|(i, j)| (&start.entries()[i], &logged.entries()[j]));
        Some(movement(pairs).unwrap_or(f64::NAN))
    }

    /// Counters and learning rate are computed, not learned: no rounding excuses a difference.
    fn schedule_agrees(&self, logged: &State, part: &dyn Fn(&str) -> Part) -> bool {
        let schedule = |state: &State| -> Vec<_> {
            let of_schedule = |name: &str| part(name) == Part::Schedule;
            (state.entries().iter())
                .filter(|entry| of_schedule(entry.name()))
                .cloned()
                .collect()
        };
        schedule(&self.replayed) == schedule(logged)
    }
}

/// The first entry in which two states differ.
pub(super) fn first_difference(a: &State, b: &State) -> String {
    let names = a.entries().iter().chain(b.entries());
    let mut differing: Vec<&str> = names
        .map(|entry| entry.name())
        .filter(|name| a.entry(name) != b.entry(name))
        .collect();
    differing.sort_unstable();
    differing
        .first()
        .map_or_else(String::new, |name| (*name).to_owned())
}
