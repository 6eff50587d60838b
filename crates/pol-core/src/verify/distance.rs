//! Distances between a replayed and a logged state, and how large they may be.

use serde::{Deserialize, Serialize};

use crate::state::{DType, Entry, Part, State};

/// The distances between two states in one part, summed in `f64` in the order of names and
/// elements.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Distances {
    /// Σ|aᵢ − bᵢ|.
    pub l1: f64,
    /// √Σ(aᵢ − bᵢ)².
    pub l2: f64,
    /// max|aᵢ − bᵢ|.
    pub linf: f64,
    /// 1 − ⟨a, b⟩ / (‖a‖·‖b‖); 0 for two zero vectors, 1 if only one is zero.
    pub cosine: f64,
}

impl Distances {
    /// The distances between `a` and `b` in the entries for which `part` says `of`.
    ///
    /// `None` where the two have different entries there or a distance is not finite: NaN is
    /// never a distance.
    pub fn between(a: &State, b: &State, of: Part, part: &dyn Fn(&str) -> Part) -> Option<Self> {
        let entries = |state: &'_ State| -> Vec<usize> {
            (0..state.entries().len())
                .filter(|&i| part(state.entries()[i].name()) == of)
                .collect()
        };
        let (in_a, in_b) = (entries(a), entries(b));
        if in_a.len() != in_b.len() {
            return None;
        }
        let (mut l1, mut squares, mut linf) = (0.0f64, 0.0f64, 0.0f64);
        let (mut dot, mut aa, mut bb) = (0.0f64, 0.0f64, 0.0f64);
        for (i, j) in in_a.into_iter().zip(in_b) {
            let (x, y) = (&a.entries()[i], &b.entries()[j]);
            if x.header != y.header {
                return None;
            }
            for (x, y) in x.values().zip(y.values()) {
                let difference = (x - y).abs();
                if !difference.is_finite() {
                    return None;
                }
                l1 += difference;
                squares += difference * difference;
                linf = linf.max(difference);
                dot += x * y;
                aa += x * x;
                bb += y * y;
            }
        }
        let cosine = match (aa == 0.0, bb == 0.0) {
            // Equal vectors, where rounding would leave 1e-16.
            _ if linf == 0.0 => 0.0,
            (false, false) => (1.0 - dot / (aa.sqrt() * bb.sqrt())).max(0.0),
            _ => 1.0,
        };
        let distances = Self {
            l1,
            l2: squares.sqrt(),
            linf,
            cosine,
        };
        [l1, squares, linf, cosine]
            .iter()
            .all(|d| d.is_finite())
            .then_some(distances)
    }
}

/// √Σ(aᵢ − bᵢ)² over all pairs of entries, in `f64`, in their order. `None` where two have other
/// headers or the sum is not finite.
pub(super) fn movement<'e>(pairs: impl Iterator<Item = (&'e Entry, &'e Entry)>) -> Option<f64> {
    let mut squares = 0.0;
    for (a, b) in pairs {
        if a.header != b.header {
            return None;
        }
        if a.header.dtype == DType::F32 {
            let float = |bytes: &[u8; 4]| f64::from(f32::from_le_bytes(*bytes));
            let values = a.bytes.as_chunks().0.iter().zip(b.bytes.as_chunks().0);
            values.for_each(|(x, y)| squares += (float(x) - float(y)).powi(2));
        } else {
            let values = a.values().zip(b.values());
            values.for_each(|(x, y)| squares += (x - y).powi(2));
        }
    }
    Some(squares.sqrt()).filter(|moved| moved.is_finite())
}

/// How far a replay may end from the logged state. Each bound that is set must hold, for the
/// parameters, the buffers and the optimizer alike; with none set the bits must agree.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tolerance {
    /// Bound on l1.
    pub l1: Option<f64>,
    /// Bound on l2.
    pub l2: Option<f64>,
    /// Bound on l∞.
    pub linf: Option<f64>,
    /// Bound on the cosine distance.
    pub cosine: Option<f64>,
    /// Bound on l2 as a fraction of how far the segment itself moves in l2.
    pub relative: Option<f64>,
}

impl Tolerance {
    /// No difference at all: the digests must be equal.
    pub const EXACT: Self = Self {
        l1: None,
        l2: None,
        linf: None,
        cosine: None,
        relative: None,
    };

    /// A bound relative to each segment's own movement.
    pub const fn relative(fraction: f64) -> Self {
        Self {
            relative: Some(fraction),
            ..Self::EXACT
        }
    }

    /// Whether it sets a bound, and none that nothing could hold.
    pub(crate) fn is_valid(&self) -> bool {
        let bounds = [self.l1, self.l2, self.linf, self.cosine, self.relative];
        let bounds: Vec<f64> = bounds.into_iter().flatten().collect();
        !bounds.is_empty() && bounds.iter().all(|bound| *bound >= 0.0)
    }

    /// Whether no difference is allowed.
    pub fn is_exact(&self) -> bool {
        *self == Self::EXACT
    }

    /// The bounds that `distances` exceed: metric, value, bound. A value that cannot be compared
    /// exceeds every bound.
    pub fn exceeded(
        &self,
        distances: &Distances,
        movement_l2: f64,
    ) -> Vec<(&'static str, f64, f64)> {
        [
            ("l1", distances.l1, self.l1),
            ("l2", distances.l2, self.l2),
            ("linf", distances.linf, self.linf),
            ("cosine", distances.cosine, self.cosine),
            (
                "l2",
                distances.l2,
                self.relative.map(|fraction| fraction * movement_l2),
            ),
        ]
        .into_iter()
        .filter_map(|(metric, value, bound)| {
            let bound = bound?;
            let within = value <= bound;
            (!within).then_some((metric, value, bound))
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Entry;

    fn state(values: &[f32]) -> State {
        State::new(vec![Entry::f32(
            "model/w",
            vec![values.len() as u64],
            values,
        )])
        .unwrap()
    }

    fn between(a: &[f32], b: &[f32]) -> Option<Distances> {
        Distances::between(&state(a), &state(b), Part::Parameters, &Part::by_prefix)
    }

    #[test]
    fn distances_are_those_of_their_formulas() {
        let d = between(&[3.0, 0.0], &[0.0, 4.0]).unwrap();
        assert_eq!((d.l1, d.l2, d.linf, d.cosine), (7.0, 5.0, 4.0, 1.0));
        // Not 1 − ⟨a,b⟩/‖a‖², which would be −1 here.
        assert_eq!(between(&[1.0, 0.0], &[2.0, 0.0]).unwrap().cosine, 0.0);
        assert_eq!(between(&[1.0, 0.0], &[-2.0, 0.0]).unwrap().cosine, 2.0);
    }

    #[test]
    fn zero_vectors_have_a_cosine_distance() {
        assert_eq!(between(&[0.0], &[0.0]).unwrap().cosine, 0.0);
        assert_eq!(between(&[0.0], &[1.0]).unwrap().cosine, 1.0);
    }

    #[test]
    fn nan_and_infinity_are_no_distance() {
        assert_eq!(between(&[f32::NAN], &[f32::NAN]), None);
        assert_eq!(between(&[f32::INFINITY], &[f32::INFINITY]), None);
        assert_eq!(between(&[1.0], &[1.0, 2.0]), None);
    }

    #[test]
    fn every_bound_that_is_set_must_hold_and_nan_holds_none() {
        let distances = between(&[3.0, 0.0], &[0.0, 4.0]).unwrap();
        let tolerance = Tolerance {
            l2: Some(5.0),
            relative: Some(0.1),
            ..Tolerance::EXACT
        };
        assert!(tolerance.exceeded(&distances, 50.0).is_empty());
        assert_eq!(tolerance.exceeded(&distances, 49.0).len(), 1);
        assert_eq!(tolerance.exceeded(&distances, f64::NAN).len(), 1);
    }
}
