//! The report of an experiment, from its summary and its rows.

use std::collections::BTreeMap;

use pol_experiments::{Summary, SummaryTable};
use serde::Deserialize;

use crate::ReportError;
use crate::page::{Axis, Cell, Fact, Figure, Note, Page, Section, Series, Style, Table, Tone};

/// The page about an experiment: its `summary.json` and its `rows.csv`.
///
/// # Errors
/// If they are not what `pol measure` writes.
pub fn experiment(summary: &str, rows: &str) -> Result<Page, ReportError> {
    let malformed = |file, problem: String| ReportError::Malformed { file, problem };
    let summary: Summary = serde_json::from_str(summary)
        .map_err(|error| malformed("summary.json", error.to_string()))?;
    let figures = match summary.experiment.as_str() {
        "reproduction" => reproduction(rows),
        "reference-distance" => reference(rows),
        "gradient-matching" => matching(rows),
        "cost" => cost(rows),
        _ => Ok(vec![]),
    }
    .map_err(|error| malformed("rows.csv", error.to_string()))?;
    let machine = &summary.machine;
    let mut facts = vec![
        Fact::new("processor", &machine.processor),
        Fact::new("threads", machine.threads.to_string()),
        Fact::new("system", &machine.system),
        Fact::new(
            "program",
            format!("{}, Burn {}", machine.program, machine.burn),
        ),
        Fact::new("nonces", join(&summary.seeds)),
        Fact::new("seconds", format!("{:.0}", summary.seconds)),
    ];
    if let Some(memory) = machine.memory_gib {
        facts.push(Fact::new("memory", format!("{memory} GiB")));
    }
    for device in &machine.devices {
        facts.push(Fact::new("device", device));
    }
    let mut sections = Vec::new();
    if !figures.is_empty() {
        sections.push(Section {
            id: "figures".to_owned(),
            heading: "Figures".to_owned(),
            figures,
            ..Section::default()
        });
    }
    sections.push(Section {
        id: "tables".to_owned(),
        heading: "Tables".to_owned(),
        tables: summary
            .tables
            .iter()
            .map(|t| table(t, &summary.experiment))
            .collect(),
        ..Section::default()
    });
    sections.push(Section {
        id: "machine".to_owned(),
        heading: "Measured on".to_owned(),
        facts,
        ..Section::default()
    });
    Ok(Page {
        title: summary.title.clone(),
        kind: format!("Experiment, {} size", summary.size),
        outcome: None,
        lead: plain(summary.about.trim()),
        notes: (summary.notes.iter())
            .map(|note| Note::new(&plain(note)))
            .collect(),
        sections,
        program: machine.program.clone(),
    })
}

/// Without the marks around names.
fn plain(text: &str) -> String {
    text.replace('`', "")
}

fn join(numbers: &[u64]) -> String {
    let follows = |pair: &[u64]| pair[0].checked_add(1) == Some(pair[1]);
    match numbers {
        [first, _, .., last] if numbers.windows(2).all(follows) => format!("{first} to {last}"),
        _ => {
            let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
            numbers.join(", ")
        }
    }
}

/// A summary's table; what was accepted or rejected shows whether it should have been.
fn table(summary: &SummaryTable, experiment: &str) -> Table {
    let rows = summary.rows.iter().map(|row| {
        let honest = experiment != "attacks" || row.first().is_some_and(|first| first == "honest");
        let cells = row.iter().zip(&summary.columns).map(|(text, column)| {
            // The published rules are there to be evaded.
            let published = column.name == "paper";
            let tone = match text.split(':').next().unwrap_or_default() {
                _ if experiment != "attacks" || published => Tone::Plain,
                "accepted" if honest => Tone::Good,
                "rejected" if !honest => Tone::Good,
                "accepted" | "rejected" => Tone::Bad,
                "inconclusive" => Tone::Unsure,
                _ => Tone::Plain,
            };
            Cell {
                text: text.clone(),
                tone,
            }
        });
        cells.collect()
    });
    Table {
        caption: summary.caption.clone(),
        columns: summary
            .columns
            .iter()
            .map(|column| (column.name.clone(), column.number))
            .collect(),
        rows: rows.collect(),
    }
}

fn read<R: for<'de> Deserialize<'de>>(rows: &str) -> Result<Vec<R>, csv::Error> {
    csv::Reader::from_reader(rows.as_bytes())
        .deserialize()
        .collect()
}

#[derive(Deserialize)]
struct Reproduced {
    training: String,
    numerics: String,
    setting: String,
    interval: u64,
    start: u64,
    metric: String,
    epsilon: f64,
    movement: f64,
}

/// ε over movement and over d_ref against k; a figure for each training.
fn reproduction(rows: &str) -> Result<Vec<Figure>, csv::Error> {
    let rows: Vec<Reproduced> = read(rows)?;
    let mut figures = Vec::new();
    let mut trainings: Vec<(&str, &str)> = Vec::new();
    for row in &rows {
        let training = (row.training.as_str(), row.numerics.as_str());
        if !trainings.contains(&training) {
            trainings.push(training);
        }
    }
    for (number, training) in trainings.into_iter().enumerate() {
        let of = |metric: &'static str| {
            let of = rows.iter();
            of.filter(move |row| (row.training.as_str(), row.numerics.as_str()) == training)
                .filter(move |row| row.metric == metric)
        };
        let reference: Vec<f64> = of("l2")
            .filter(|row| row.setting == "reference")
            .map(|row| row.epsilon)
            .collect();
        let d_ref = reference.iter().sum::<f64>() / reference.len().max(1) as f64;
        for (what, id, title) in [
            ("movement", "movement", "Reproduction error over movement"),
            ("d_ref", "reference", "Reproduction error over d_ref"),
        ] {
            let by = |row: &Reproduced| match what {
                "movement" => row.epsilon / row.movement.max(f64::MIN_POSITIVE),
                _ => row.epsilon / d_ref,
            };
            let mut series = BTreeMap::<String, BTreeMap<u64, Vec<f64>>>::new();
            for row in of("l2").filter(|row| row.setting != "reference") {
                let at = match row.start {
                    0 => "from the start".to_owned(),
                    start => format!("from step {start}"),
                };
                let name = format!("{}, {at}", row.setting);
                let points = series.entry(name).or_default();
                points.entry(row.interval).or_default().push(by(row));
            }
            let (all, zero): (Vec<_>, Vec<_>) = series
                .into_iter()
                .partition(|(_, points)| points.values().flatten().any(|e| *e > 0.0));
            if all.is_empty() || (what == "d_ref" && reference.is_empty()) {
                continue;
            }
            let zero: Vec<String> = zero.into_iter().map(|(name, _)| name).collect();
            let note = match zero.is_empty() {
                true => String::new(),
                false => format!(" Exactly zero, and below the axis: {}.", zero.join("; ")),
            };
            figures.push(Figure {
                id: format!("{id}-{number}"),
                title: format!("{title}: {}, {}", training.0, training.1),
                caption: format!("l2 over the parameters, for each interval k.{note}"),
                x: Axis {
                    label: "k (steps)".to_owned(),
                    log: true,
                },
                y: Axis {
                    label: format!("ε / {what}"),
                    log: true,
                },
                series: all
                    .into_iter()
                    .map(|(label, points)| Series {
                        label,
                        style: Style::Line,
                        points: points
                            .into_iter()
                            .flat_map(|(k, values)| values.into_iter().map(move |e| (k as f64, e)))
                            .collect(),
                    })
                    .collect(),
            });
        }
    }
    Ok(figures)
}

#[derive(Deserialize)]
struct Apart {
    training: String,
    numerics: String,
    step: u64,
    first: u64,
    second: u64,
    metric: String,
    distance: f64,
}

fn reference(rows: &str) -> Result<Vec<Figure>, csv::Error> {
    let rows: Vec<Apart> = read(rows)?;
    let mut series = BTreeMap::<String, Vec<(f64, f64)>>::new();
    for row in rows.iter().filter(|row| row.metric == "l2") {
        let name = format!(
            "{}, {}, seeds {} and {}",
            row.training, row.numerics, row.first, row.second
        );
        let point = (row.step as f64, row.distance);
        series.entry(name).or_default().push(point);
    }
    Ok(vec![Figure {
        id: "d-ref".to_owned(),
        title: "Distance of trainings from independent seeds".to_owned(),
        caption: "l2 over the parameters, for each pair of seeds.".to_owned(),
        x: Axis {
            label: "step".to_owned(),
            log: false,
        },
        y: Axis {
            label: "l2 distance".to_owned(),
            log: false,
        },
        series: series
            .into_iter()
            .map(|(label, points)| Series {
                label,
                style: Style::Line,
                points,
            })
            .collect(),
    }])
}

#[derive(Deserialize)]
struct Matched {
    training: String,
    numerics: String,
    start: u64,
    wanted: f64,
    before: f64,
    unrounded: f64,
    after: f64,
    gradients: u64,
}

/// The residual over the gradient wanted, against the gradients spent.
fn matching(rows: &str) -> Result<Vec<Figure>, csv::Error> {
    let rows: Vec<Matched> = read(rows)?;
    let mut series = BTreeMap::<String, Vec<(f64, f64)>>::new();
    for row in &rows {
        let name = format!(
            "{}, {}, from step {}",
            row.training, row.numerics, row.start
        );
        let spent = row.gradients as f64;
        let wanted = row.wanted.max(f64::MIN_POSITIVE);
        let points = series
            .entry(name.clone())
            .or_insert_with(|| vec![(1.0, row.before / wanted)]);
        points.push((spent, row.unrounded / wanted));
        let points = series.entry(format!("{name}, in bytes")).or_default();
        points.push((spent, row.after / wanted));
    }
    Ok(vec![Figure {
        id: "residual".to_owned(),
        title: "Residual of the matched gradient".to_owned(),
        caption: "‖∇ − g*‖ over ‖g*‖. To be taken for training by a tolerance of one per cent of a segment's \
                  movement, it would have to fall to about 0.01."
            .to_owned(),
        x: Axis {
            label: "gradients spent on the batch".to_owned(),
            log: true,
        },
        y: Axis {
            label: "residual".to_owned(),
            log: true,
        },
        series: series
            .into_iter()
            .map(|(label, points)| Series {
                label,
                style: Style::Line,
                points,
            })
            .collect(),
    }])
}

#[derive(Deserialize)]
struct Costs {
    training: String,
    numerics: String,
    interval: u64,
    plain_seconds: f64,
    recorded_seconds: f64,
    proof_bytes: u64,
    audit: u64,
}

fn cost(rows: &str) -> Result<Vec<Figure>, csv::Error> {
    let rows: Vec<Costs> = read(rows)?;
    let figure = |id: &str, title: &str, label: &str, log: bool, value: &dyn Fn(&Costs) -> f64| {
        let mut series = BTreeMap::<String, Vec<(f64, f64)>>::new();
        for row in rows.iter().filter(|row| row.audit == 0) {
            let name = format!("{}, {}", row.training, row.numerics);
            let point = (row.interval as f64, value(row));
            series.entry(name).or_default().push(point);
        }
        Figure {
            id: id.to_owned(),
            title: title.to_owned(),
            caption: String::new(),
            x: Axis {
                label: "k (steps)".to_owned(),
                log: true,
            },
            y: Axis {
                label: label.to_owned(),
                log,
            },
            series: series
                .into_iter()
                .map(|(label, points)| Series {
                    label,
                    style: Style::Line,
                    points,
                })
                .collect(),
        }
    };
    Ok(vec![
        figure("size", "Size of the proof", "MB", true, &|row| {
            row.proof_bytes as f64 / 1e6
        }),
        figure(
            "recording",
            "Training with recording over training without",
            "ratio of seconds",
            false,
            &|row| row.recorded_seconds / row.plain_seconds.max(f64::MIN_POSITIVE),
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonces_are_joined_in_any_order() {
        assert_eq!(join(&[]), "");
        assert_eq!(join(&[3]), "3");
        assert_eq!(join(&[0, 1, 2]), "0 to 2");
        assert_eq!(join(&[0, 2, 1]), "0, 2, 1");
        assert_eq!(join(&[7, 0]), "7, 0");
        assert_eq!(join(&[u64::MAX, 0]), format!("{}, 0", u64::MAX));
    }
}
