//! What all tolerances of a proof could do together, and what was done with them: a share of the way
//! from the first to the last state.
//!
//! A forger who uses a little of every tolerance, always in the direction of a stolen model, comes as near
//! to it as the sum. So the sum is what is bounded, for each parameter by itself.

use serde::Serialize;

use crate::policy::Calibration;
use crate::state::State;

use super::calibrated::{ratio, sizes};
use super::differences::larger;
use super::integrity::Segment;
use super::reason::Reason;
use super::report::Report;

/// What one segment's tolerances admit and what its logged state did with them, for each parameter: l2
/// distances of where it is heading.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct SegmentSlack {
    pub(super) used: Vec<f64>,
    pub(super) tolerated: Vec<f64>,
}

/// How far the tolerances of all segments could have moved the model, and how far the differences in the
/// proof did at most: each a share of the way from the first to the last state, of the parameter for
/// which it is largest or of all together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Slack {
    /// The way: l2 distance of the parameters' first and last values, as most elements go it.
    pub way_l2: f64,
    /// The share that tolerances could have moved the model.
    pub tolerated: f64,
    /// The share that differences between replayed and logged states come to.
    pub used: f64,
    /// The parameter of which most is used.
    pub entry: String,
    /// Segments whose bits differ, in which this was measured.
    pub measured: u64,
    /// Segments that were not replayed, for which the most of any that was is assumed.
    pub assumed: u64,
}

impl Report {
    /// Weighs what the calibrated comparisons of all segments tolerate: each against what its segment
    /// learned, and their sum against the way between the `ends` of the training. `names` are those of the
    /// parameters.
    pub(super) fn weigh(
        &mut self,
        rule: &Calibration,
        names: &[String],
        ends: Option<(&State, &State)>,
    ) {
        let slacks: Vec<_> = self
            .segments
            .iter()
            .filter_map(|s| s.slack.as_ref())
            .collect();
        if slacks.is_empty() {
            return;
        }
        if self.is_rejected() {
            return;
        }
        let Some(ends) = ends else {
            let why =
                "how far tolerances could have moved the model: the final state is not at hand";
            return self.could_not_check(why.to_owned());
        };
        let assumed = self
            .segments_total
            .saturating_sub(self.segments.len() as u64);
        let slack = add_up(&slacks, assumed, names, ends);
        // What a segment may tolerate whatever it learned: its part of what all may use together.
        let harmless = rule.max_used / self.segments_total.max(1) as f64;
        let ways = Ways::new(names, ends);
        let mut reasons = Vec::new();
        for segment in &mut self.segments {
            let (Some(noise), Some(slack)) = (&segment.noise, &segment.slack) else {
                continue;
            };
            // Written so that NaN is too much.
            let learns = noise.of_learned <= rule.max_of_learned
                || ways.share(&slack.tolerated).1 <= harmless;
            if !learns {
                segment.accepted = false;
                let place = Segment {
                    index: segment.index,
                    first: segment.first_step,
                    last: segment.last_step,
                };
                reasons.push(Reason::Noise {
                    segment: place.to_string(),
                    entry: noise.least_learned.clone(),
                    share: noise.of_learned,
                    allowed: rule.max_of_learned,
                });
            }
        }
        reasons.extend(slack.exceeded(rule));
        self.slack = Some(slack);
        self.reasons.extend(reasons);
    }
}

/// Adds up the slack of all segments of a training from `first` to `last`. `segments` are the replayed
/// ones whose bits differ; `assumed` others were not replayed.
pub(super) fn add_up(
    segments: &[&SegmentSlack],
    assumed: u64,
    names: &[String],
    (first, last): (&State, &State),
) -> Slack {
    let ways = Ways::new(names, (first, last));
    let summed = |of: &dyn Fn(&SegmentSlack) -> &[f64]| -> Vec<f64> {
        let of_parameter = |i: usize| {
            let figures = segments.iter().map(|segment| of(segment).get(i).copied());
            let figures: Vec<f64> = figures.map(|figure| figure.unwrap_or(f64::NAN)).collect();
            let most = figures.iter().copied().fold(0.0, larger);
            figures.iter().sum::<f64>() + assumed as f64 * most
        };
        (0..names.len()).map(of_parameter).collect()
    };
    let (entry, used) = ways.share(&summed(&|segment| &segment.used));
    let (_, tolerated) = ways.share(&summed(&|segment| &segment.tolerated));
    Slack {
        way_l2: total(&ways.own),
        tolerated,
        used,
        entry: entry.to_owned(),
        measured: segments.len() as u64,
        assumed,
    }
}

/// How far each parameter goes in the whole training.
struct Ways<'a> {
    names: &'a [String],
    own: Vec<f64>,
    yards: Vec<f64>,
}

impl<'a> Ways<'a> {
    fn new(names: &'a [String], (first, last): (&State, &State)) -> Self {
        let own: Vec<f64> = names.iter().map(|name| way(first, last, name)).collect();
        let yards = yardsticks(&own, &sizes(names, last));
        Self { names, own, yards }
    }

    /// The largest share of its way that these lengths are, one for each parameter; or of all together.
    /// And which.
    fn share(&self, lengths: &[f64]) -> (&'a str, f64) {
        let all = ("all parameters", ratio(total(lengths), total(&self.own)));
        let shares = lengths
            .iter()
            .zip(&self.yards)
            .map(|(of, yard)| ratio(*of, *yard));
        let named = self.names.iter().map(String::as_str).zip(shares);
        named.fold(all, |a, b| match a.1.is_nan() || a.1 >= b.1 {
            true => a,
            false => b,
        })
    }
}

impl Slack {
    /// Why the proof shows nothing, if the slack is more than the rule admits.
    pub(super) fn exceeded(&self, rule: &Calibration) -> Option<Reason> {
        let exceeds = [
            ("used", self.used, rule.max_used),
            ("tolerated", self.tolerated, rule.max_tolerated),
        ];
        // Written so that NaN exceeds every bound.
        let found = exceeds.into_iter().find(|(_, share, bound)| {
            let within = share <= bound;
            !within
        });
        found.map(|(what, share, allowed)| Reason::Slack {
            what,
            entry: self.entry.clone(),
            share,
            allowed,
        })
    }
}

/// How far most elements of a parameter go from `first` to `last`: the l2 distance, or, if that is less,
/// what it would be if each went as far as half of those that move at all do. A few that go very
/// far do not count for the others.
fn way(first: &State, last: &State, name: &str) -> f64 {
    let (Some(a), Some(b)) = (first.entry(name), last.entry(name)) else {
        return f64::NAN;
    };
    if a.header != b.header {
        return f64::NAN;
    }
    let moved: Vec<f64> = (a.values().zip(b.values()))
        .map(|(a, b)| (a - b).abs())
        .collect();
    let l2 = total(&moved);
    let (count, mut moved) = (moved.len(), moved);
    moved.retain(|moved| *moved != 0.0);
    let middle = moved.len() / 2;
    if middle == 0 {
        return l2;
    }
    let (_, median, _) = moved.select_nth_unstable_by(middle, f64::total_cmp);
    // Of normally distributed numbers the root of the mean square is 1.48 medians.
    l2.min(1.5 * *median * (count as f64).sqrt())
}

/// What tolerances of each parameter are measured by: its own length, or what it would be if its elements
/// went as far as the model's [`typical`] ones, if that is more. A parameter that hardly moves is held
/// to what most others do, and none to what a few do.
pub(super) fn yardsticks(lengths: &[f64], sizes: &[f64]) -> Vec<f64> {
    let typical = typical(lengths, sizes);
    let yards = lengths.iter().zip(sizes);
    yards
        .map(|(own, size)| larger(*own, typical * size.sqrt()))
        .collect()
}

/// How far half of all elements go at most: the median, over the elements of all parameters, of the root
/// mean square of the parameter that an element is in. A small parameter that goes very far, as
/// biases do that no loss holds back, does not count for the others.
fn typical(lengths: &[f64], sizes: &[f64]) -> f64 {
    let mut each: Vec<(f64, f64)> = (lengths.iter().zip(sizes))
        .filter(|(_, size)| **size > 0.0)
        .map(|(length, size)| (length / size.sqrt(), *size))
        .collect();
    each.sort_by(|a, b| a.0.total_cmp(&b.0));
    let half = each.iter().map(|(_, size)| size).sum::<f64>() / 2.0;
    let mut counted = 0.0;
    let mut median = each.into_iter().skip_while(|(_, size)| {
        counted += size;
        counted < half
    });
    median
        .next()
        .map_or(0.0, |(root_mean_square, _)| root_mean_square)
}

/// √Σx².
pub(crate) fn total(values: &[f64]) -> f64 {
    values.iter().map(|x| x * x).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Entry;

    fn state(values: &[f32]) -> State {
        let entry = Entry::f32("model/w", vec![values.len() as u64], values);
        State::new(vec![entry]).unwrap()
    }

    fn of(used: f64) -> SegmentSlack {
        SegmentSlack {
            used: vec![used],
            tolerated: vec![2.0 * used],
        }
    }

    #[test]
    fn slack_adds_up_and_what_was_not_replayed_is_taken_for_the_worst() {
        let (first, last) = (state(&[0.0; 4]), state(&[1.0; 4]));
        let names = ["model/w".to_owned()];
        let segments = [of(0.01), of(0.03)];
        let segments: Vec<_> = segments.iter().collect();
        let slack = add_up(&segments, 0, &names, (&first, &last));
        assert!((slack.used - 0.02).abs() < 1e-12 && (slack.tolerated - 0.04).abs() < 1e-12);
        let slack = add_up(&segments, 10, &names, (&first, &last));
        assert!((slack.used - 0.17).abs() < 1e-12, "{slack:?}");
    }

    #[test]
    fn a_swinging_element_does_not_lengthen_the_way() {
        let mut far = [1.0; 100];
        far[0] = 1000.0;
        assert!(way(&state(&[0.0; 100]), &state(&far), "model/w") < 16.0);
        assert_eq!(way(&state(&[0.0; 2]), &state(&[0.0; 2]), "model/w"), 0.0);
    }

    /// An output layer's biases under Adam, which normalises what softmax would cancel: they went 770, the
    /// hidden weights 60. All together went 12 times as far as these.
    #[test]
    fn a_small_parameter_that_goes_far_does_not_lengthen_what_others_are_measured_by() {
        let sizes = [512.0, 8.0, 80.0, 10.0];
        let yards = yardsticks(&[60.0, 2.0, 5.0, 770.0], &sizes);
        let typical = 60.0 / 512f64.sqrt();
        assert_eq!((yards[0], yards[3]), (60.0, 770.0));
        // What hardly moves is measured by what most elements do.
        assert!((yards[1] - typical * 8f64.sqrt()).abs() < 1e-12);
        assert!((yards[2] - typical * 80f64.sqrt()).abs() < 1e-12);
        let none = yardsticks(&[], &[]);
        assert!(none.is_empty());
        let unknown = yardsticks(&[f64::NAN, 1.0], &[4.0, 400.0]);
        assert!(unknown[0].is_nan() && unknown[1] == 1.0);
    }

    #[test]
    fn what_is_no_number_exceeds_every_bound() {
        let rule = Calibration {
            replays: 6,
            multiple: 16.0,
            max_of_learned: 0.02,
            max_tolerated: 0.05,
            max_used: 1e-3,
        };
        let (first, last) = (state(&[0.0]), state(&[1.0]));
        let names = ["model/w".to_owned()];
        let exceeded = |used: f64| {
            let slack = of(used);
            add_up(&[&slack], 0, &names, (&first, &last)).exceeded(&rule)
        };
        assert_eq!(exceeded(0.0), None);
        assert_eq!(exceeded(1e-4), None);
        assert!(exceeded(2e-3).is_some() && exceeded(f64::NAN).is_some());
        // Nothing went anywhere: any difference is too much.
        let still = add_up(&[&of(1e-9)], 0, &names, (&first, &first));
        assert!(still.exceeded(&rule).is_some());
    }
}
