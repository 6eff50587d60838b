//! Where the parameters are heading, and how far states are apart in that.
//!
//! A difference in a velocity or a moment changes no weight yet; it will in the steps to come. So states
//! are compared by where their momentum leads: each parameter as it would be after the horizon's steps
//! without gradients ([`coast`]). What a segment learned is measured in the same way, against its start
//! left to itself: decay and momentum that were there before are nobody's learning.

use crate::recipe::Recipe;
use crate::state::{Part, State};

use super::coast::{coast, horizon, knows};
use super::integrity::Segment;

/// The parameters of a training, headed from one step.
pub(crate) struct Headings<'a> {
    recipe: &'a Recipe,
    segment: Segment,
    parameters: Vec<String>,
}

impl<'a> Headings<'a> {
    /// The headings at the end of `segment`, of the entries of `state` that `part` calls parameters.
    /// `None` if the update rule is one that only its own program knows.
    pub(crate) fn new(
        recipe: &'a Recipe,
        segment: Segment,
        state: &State,
        part: &dyn Fn(&str) -> Part,
    ) -> Option<Self> {
        let names = state.entries().iter().map(|entry| entry.name());
        let parameters = names.filter(|name| part(name) == Part::Parameters);
        let headings = Self {
            recipe,
            segment,
            parameters: parameters.map(str::to_owned).collect(),
        };
        knows(recipe, state).then_some(headings)
    }

    /// The names of the parameters, in the order of all figures.
    pub(crate) fn names(&self) -> &[String] {
        &self.parameters
    }

    /// How far apart two states at the segment's end are heading: l2, for each parameter.
    pub(crate) fn apart(&self, a: &State, b: &State) -> Vec<f64> {
        let (last, end) = (self.segment.last, self.end());
        self.distances((a, (last, end)), (b, (last, end)))
    }

    /// What the segment learned: how far from its start, left to itself, the state at its end is
    /// heading. l2, for each parameter.
    pub(crate) fn learned(&self, start: &State, ended: &State) -> Vec<f64> {
        let Segment { first, last, .. } = self.segment;
        self.distances((ended, (last, self.end())), (start, (first, self.end())))
    }

    /// The training ends, and momentum with it.
    fn end(&self) -> u64 {
        let recipe = self.recipe;
        let last = self.segment.last;
        last.saturating_add(horizon(&recipe.optimizer))
            .min(recipe.steps.max(last))
    }

    fn distances(
        &self,
        (a, of_a): (&State, (u64, u64)),
        (b, of_b): (&State, (u64, u64)),
    ) -> Vec<f64> {
        let recipe = self.recipe;
        let distance = |name: &String| {
            let a = coast(recipe, a, name, of_a)?;
            let b = coast(recipe, b, name, of_b)?;
            let squares = a.iter().zip(&b).map(|(x, y)| (x - y) * (x - y));
            (a.len() == b.len()).then(|| squares.sum::<f64>().sqrt())
        };
        // NaN, which no bound admits, where a state lacks the parameter.
        let distances = self
            .parameters
            .iter()
            .map(|name| distance(name).unwrap_or(f64::NAN));
        distances.collect()
    }
}
