//! What an experiment comes to.

use serde::{Deserialize, Serialize};

use crate::Lab;

pub(crate) const SCHEMA: &str = "pol.measure/1";

/// The summary of an experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// `pol.measure/1`.
    pub schema: String,
    /// Which experiment.
    pub experiment: String,
    /// Its title.
    pub title: String,
    /// What it is for.
    pub about: String,
    /// `quick` or `full`.
    pub size: String,
    /// How long it took: the runs that came to an end.
    pub seconds: f64,
    /// What it ran on.
    pub machine: Machine,
    /// The nonces that trainings took their seeds from.
    pub seeds: Vec<u64>,
    /// What a reader has to know.
    pub notes: Vec<String>,
    /// What the rows come to.
    pub tables: Vec<SummaryTable>,
}

/// A table for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SummaryTable {
    /// What it shows.
    pub caption: String,
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its rows, a cell for each column.
    pub rows: Vec<Vec<String>>,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// What stands above it.
    pub name: String,
    /// Whether it holds numbers.
    pub number: bool,
}

impl SummaryTable {
    /// A table without rows; columns whose names end in `#` hold numbers.
    pub(crate) fn new(caption: &str, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|name| Column {
            name: name.trim_end_matches('#').to_owned(),
            number: name.ends_with('#'),
        });
        Self {
            caption: caption.to_owned(),
            columns: columns.collect(),
            rows: Vec::new(),
        }
    }
}

/// What an experiment ran on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// The processor.
    pub processor: String,
    /// Threads used.
    pub threads: usize,
    /// Memory, in GiB.
    pub memory_gib: Option<f64>,
    /// The system.
    pub system: String,
    /// Devices used, by backend.
    pub devices: Vec<String>,
    /// This program.
    pub program: String,
    /// Burn.
    pub burn: String,
}

impl Machine {
    pub(crate) fn here(lab: &Lab<'_>) -> Self {
        let value_of = |file: &str, key: &str, separator: char| {
            let text = std::fs::read_to_string(file).ok()?;
            let line = text.lines().find(|line| line.starts_with(key))?;
            let (_, value) = line.split_once(separator)?;
            Some(value.trim().trim_matches('"').to_owned())
        };
        let memory = value_of("/proc/meminfo", "MemTotal", ':');
        let kib = memory.and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
        let system = value_of("/etc/os-release", "PRETTY_NAME", '=');
        Self {
            processor: value_of("/proc/cpuinfo", "model name", ':')
                .unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            threads: rayon::current_num_threads(),
            memory_gib: kib.map(|kib| (kib / 1024.0 / 1024.0).round()),
            system: system.unwrap_or_else(|| std::env::consts::OS.to_owned()),
            devices: (lab.devices.iter())
                .map(|(backend, device)| format!("{backend}: {}", device.name))
                .collect(),
            program: concat!("pol ", env!("CARGO_PKG_VERSION")).to_owned(),
            burn: "0.22.1".to_owned(),
        }
    }
}

/// What a kind of experiment gives to its summary.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) seeds: Vec<u64>,
    pub(crate) notes: Vec<String>,
    pub(crate) tables: Vec<SummaryTable>,
}

/// A number as tables show it.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if (0.01..10_000.0).contains(&size) => format!("{value:.3}"),
        _ => format!("{value:.1e}"),
    }
}

/// The value in the middle; of an even number, the mean of the two.
pub(crate) fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_medians_in_the_middle() {
        assert_eq!(short(0.0), "0");
        assert_eq!(short(0.12345), "0.123");
        assert_eq!(short(1.5e-7), "1.5e-7");
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&mut [4.0, 1.0]), Some(2.5));
    }
}
