//! What a tolerance in units of movement leaves to a forger: distances as such a rule sums them, over all
//! numbers of a part of the state, and changes that stay below them.

use pol_core::state::{DType, Part, State};
use pol_models::ImageLearner;

use crate::forgery::{with_entries, with_values};

/// The share of a segment's movement that is tolerated: the floor of the default policy until it was
/// abolished, and the tolerance of policies that are relative to movement.
pub const RELATIVE: f64 = 0.01;
/// How much of what is tolerated a forger uses.
pub const USED: f64 = 0.9;

/// The l2 distance of two states in a part, over all its numbers, counters among them. What `from` lacks
/// counts as zero there: an optimizer has nothing before its first step.
pub fn distance(learner: &dyn ImageLearner, from: &State, to: &State, of: Part) -> f64 {
    let entries = to.entries().iter();
    let squares = entries
        .filter(|entry| learner.part(entry.name()) == of)
        .map(|entry| match from.entry(entry.name()) {
            Some(other) => {
                let pairs = entry.values().zip(other.values());
                pairs.map(|(a, b)| (a - b) * (a - b)).sum::<f64>()
            }
            None => entry.values().map(|value| value * value).sum(),
        });
    squares.sum::<f64>().sqrt()
}

/// `wanted`, where its part is at most `most` (l2) from that of `from`; otherwise the point on the line
/// between them that is. Whole numbers, and all other parts, are those of `wanted`.
pub fn within(
    learner: &dyn ImageLearner,
    from: &State,
    wanted: &State,
    of: Part,
    most: f64,
) -> State {
    let share = most / distance(learner, from, wanted, of);
    // Two equal states have no distance to divide by.
    if share.is_nan() || share >= 1.0 {
        return wanted.clone();
    }
    with_entries(wanted, |entry| {
        let moves = learner.part(entry.name()) == of && entry.header.dtype == DType::F32;
        let other = from.entry(entry.name()).filter(|_| moves)?;
        let pairs = other.values().zip(entry.values());
        Some(with_values(entry, pairs.map(|(a, b)| a + share * (b - a))))
    })
}
