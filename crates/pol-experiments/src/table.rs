//! Raw rows in a CSV file, written as they are measured.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ExperimentError;

/// A row of an experiment.
pub trait Row: Serialize + DeserializeOwned {
    /// What names the measurement that it belongs to.
    fn cell(&self) -> &str;
}

/// The rows measured so far.
pub(crate) struct Table<R> {
    path: PathBuf,
    rows: Vec<R>,
    done: BTreeSet<String>,
}

impl<R: Row> Table<R> {
    /// The rows in the file, if there is one.
    pub(crate) fn open(path: &Path) -> Result<Self, ExperimentError> {
        let rows = match path.exists() {
            false => Vec::new(),
            true => read(path)?,
        };
        let done = rows.iter().map(|row: &R| row.cell().to_owned()).collect();
        Ok(Self {
            path: path.to_owned(),
            rows,
            done,
        })
    }

    /// Whether this measurement was made.
    pub(crate) fn has(&self, cell: &str) -> bool {
        self.done.contains(cell)
    }

    /// Adds the rows of a measurement. The file has all of them or none.
    pub(crate) fn add(&mut self, rows: Vec<R>) -> Result<(), ExperimentError> {
        self.done
            .extend(rows.iter().map(|row| row.cell().to_owned()));
        self.rows.extend(rows);
        let fault = |source: csv::Error| ExperimentError::Rows {
            path: self.path.clone(),
            source,
        };
        let io = |source| ExperimentError::Io {
            path: self.path.clone(),
            source,
        };
        // Written beside the file and then put in its place, so that no half of it is ever there.
        let unfinished = self.path.with_extension("csv.tmp");
        let mut writer = csv::Writer::from_path(&unfinished).map_err(fault)?;
        for row in &self.rows {
            writer.serialize(row).map_err(fault)?;
        }
        writer.flush().map_err(io)?;
        drop(writer);
        std::fs::rename(&unfinished, &self.path).map_err(io)
    }

    pub(crate) fn rows(&self) -> &[R] {
        &self.rows
    }
}

fn read<R: Row>(path: &Path) -> Result<Vec<R>, ExperimentError> {
    let fault = |source| ExperimentError::Rows {
        path: path.to_owned(),
        source,
    };
    let mut reader = csv::Reader::from_path(path).map_err(fault)?;
    reader
        .deserialize()
        .collect::<Result<_, _>>()
        .map_err(fault)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Measured {
        cell: String,
        value: Option<f64>,
    }

    impl Row for Measured {
        fn cell(&self) -> &str {
            &self.cell
        }
    }

    #[test]
    fn rows_are_read_back_and_strangers_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        let row = |cell: &str, value| Measured {
            cell: cell.to_owned(),
            value,
        };
        let mut table = Table::open(&path).unwrap();
        table
            .add(vec![row("a", Some(0.1)), row("a", None)])
            .unwrap();
        table.add(vec![row("b, \"quoted\"", Some(1e-300))]).unwrap();
        let again: Table<Measured> = Table::open(&path).unwrap();
        assert!(again.has("a") && again.has("b, \"quoted\"") && !again.has("c"));
        assert_eq!(again.rows(), table.rows());
        std::fs::write(&path, "x,y\n1,2\n").unwrap();
        let error = Table::<Measured>::open(&path).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("rows.csv"), "{error}");
    }
}
