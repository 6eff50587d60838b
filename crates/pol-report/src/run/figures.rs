//! What is drawn: replays, and the curves of the training.

use serde_json::Value;

use super::number;
use crate::page::{Axis, Figure, Section, Series, Strip, Style, Tone};

/// Bins of the strip of segments.
const BINS: usize = 240;
/// Points of a curve.
const POINTS: usize = 2000;

/// Error against tolerance, and which segments were looked at.
pub(super) fn replays(verified: &Value, segments: &[Value]) -> Section {
    let points = |value: &dyn Fn(&Value) -> Option<f64>| -> Vec<(f64, f64)> {
        let of = segments.iter();
        of.filter_map(|segment| Some((number(segment, "last_step")?, value(segment)?)))
            .collect()
    };
    let error = points(&|s| number(s, "l2"));
    let equal = segments
        .iter()
        .filter(|s| s["digests_equal"] == true)
        .count();
    let fixed = number(&verified["comparison"]["tolerance"], "l2");
    let tolerance = points(&|segment| {
        let measured = number(&segment["noise"], "tolerance_l2");
        measured.or(fixed)
    });
    let mut series = vec![
        Series {
            label: "movement".to_owned(),
            style: Style::Line,
            points: points(&|s| number(s, "movement_l2")),
        },
        Series {
            label: "tolerance".to_owned(),
            style: Style::Dashed,
            points: tolerance,
        },
        Series {
            label: "measured noise".to_owned(),
            style: Style::Line,
            points: points(&|s| number(&s["noise"], "l2")),
        },
        Series {
            label: "reproduction error".to_owned(),
            style: Style::Line,
            points: error,
        },
    ];
    series.retain(|series| !series.points.is_empty());
    let figure = Figure {
        id: "error".to_owned(),
        title: "Reproduction error of each segment".to_owned(),
        caption: format!(
            "l2 distance of the replayed from the logged parameters, beside how far the segment moves \
             them and what was tolerated. {equal} of {} replays arrived at the logged state bit for bit{}.",
            segments.len(),
            match equal {
                0 => "",
                _ => "; their error is zero and lies below the axis",
            }
        ),
        x: Axis {
            label: "step".to_owned(),
            log: false,
        },
        y: Axis {
            label: "l2 distance".to_owned(),
            log: true,
        },
        series,
    };
    // With digests alone there are no distances, and nothing to draw where all are zero.
    let drawn = (figure.series.iter())
        .flat_map(|series| &series.points)
        .any(|(_, y)| *y > 0.0);
    let text = match (drawn, segments.len()) {
        (true, _) | (_, 0) => String::new(),
        (false, all) => {
            format!("{equal} of {all} replays arrived at what was committed to, bit for bit.")
        }
    };
    Section {
        id: "replays".to_owned(),
        heading: "Replays".to_owned(),
        text,
        strip: strip(verified, segments),
        figures: if drawn { vec![figure] } else { vec![] },
        ..Section::default()
    }
}

fn strip(verified: &Value, segments: &[Value]) -> Option<Strip> {
    let total = verified["segments_total"].as_u64().filter(|n| *n > 0)?;
    let bins = (total as usize).min(BINS);
    let mut strip = vec![Tone::Plain; bins];
    for segment in segments {
        let index = segment["index"].as_u64().filter(|index| *index < total)?;
        let bin = (u128::from(index) * bins as u128 / u128::from(total)) as usize;
        let held = segment["accepted"] == true;
        if strip[bin] != Tone::Bad {
            strip[bin] = if held { Tone::Good } else { Tone::Bad };
        }
    }
    Some(Strip {
        caption: format!(
            "{} of {total} segments replayed, from the first step to the last",
            segments.len()
        ),
        bins: strip,
    })
}

/// Loss and accuracy, as the training noted them.
pub(super) fn curves(curve: Option<&str>) -> Option<Section> {
    let mut reader = csv::Reader::from_reader(curve?.as_bytes());
    let headers = reader.headers().ok()?.clone();
    let place = |name: &str| headers.iter().position(|header| header == name);
    let step = place("step")?;
    let records: Vec<csv::StringRecord> = reader.records().filter_map(Result::ok).collect();
    let stride = records.len().div_ceil(POINTS).max(1);
    let figure = |name: &str, title: &str, label: &str| {
        let column = place(name)?;
        let read = |record: &csv::StringRecord, place: usize| record.get(place)?.parse().ok();
        let all: Vec<(f64, f64)> = (records.iter())
            .filter_map(|record| Some((read(record, step)?, read(record, column)?)))
            .filter(|(x, y): &(f64, f64)| x.is_finite() && y.is_finite())
            .collect();
        // Means, where there are more steps than pixels.
        let points = all.chunks(stride).map(|chunk| {
            let sum: f64 = chunk.iter().map(|(_, y)| y).sum();
            (chunk[0].0, sum / chunk.len() as f64)
        });
        Some(Figure {
            id: name.to_owned(),
            title: title.to_owned(),
            caption: String::new(),
            x: Axis {
                label: "step".to_owned(),
                log: false,
            },
            y: Axis {
                label: label.to_owned(),
                log: false,
            },
            series: vec![Series {
                label: label.to_owned(),
                style: Style::Curve,
                points: points.collect(),
            }],
        })
    };
    let figures = [
        figure("loss", "Training loss", "cross-entropy"),
        figure("accuracy", "Accuracy on the batches", "share of records"),
        figure("learning_rate", "Learning rate", "learning rate"),
    ];
    Some(Section {
        id: "curves".to_owned(),
        heading: "Curves".to_owned(),
        text: "Noted by the prover for people; not part of what is proved.".to_owned(),
        figures: figures.into_iter().flatten().collect(),
        ..Section::default()
    })
}
