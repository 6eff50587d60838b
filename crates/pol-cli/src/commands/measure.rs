//! `pol measure`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use pol_core::adapter::Backend;
use pol_core::recipe::Numerics;
use pol_experiments::{DeviceFound, Lab, Plan, SHIPPED, Size, Summary, SummaryTable, shipped};
use pol_models::dataset::default_folder;

use crate::args::{MeasureArgs, SizeArg};
use crate::backend::{self, Opening};
use crate::error::{CliError, Exit, at};
use crate::output;

pub(crate) fn run(args: &MeasureArgs) -> Result<Exit, CliError> {
    if args.recipe == "list" {
        for plan in SHIPPED.iter().filter_map(|(name, _)| shipped(name)) {
            output::field(plan.name(), plan.title());
        }
        return Ok(Exit::Done);
    }
    let plan = recipe(&args.recipe)?;
    let size = match args.size {
        SizeArg::Quick => Size::Quick,
        SizeArg::Full => Size::Full,
    };
    let mut devices = BTreeMap::from([(
        "flex".to_owned(),
        DeviceFound {
            device: Device::flex(),
            name: "CPU".to_owned(),
        },
    )]);
    for name in plan.backends(size) {
        // What is not there is left out, and the summary says so.
        let opened = name
            .parse()
            .map(|backend: Backend| match backend.is_compiled() {
                true => backend::open_named(backend, Numerics::Stock),
                false => Err(CliError::Environment("it is not compiled in".to_owned())),
            });
        match opened {
            Ok(Ok(Opening::Ready(opened))) => {
                let (device, name_of) = (opened.device, opened.name);
                let found = DeviceFound {
                    device,
                    name: name_of,
                };
                devices.insert(name, found);
            }
            Ok(Ok(Opening::Delegated(exit))) => return Ok(exit),
            Ok(Err(error)) => output::note(format!("without `{name}`: {error}")),
            Err(_) => output::note(format!("without `{name}`: there is no such backend")),
        }
    }
    let out = args.out.clone().unwrap_or_else(|| {
        let name = format!("{}-{size}", plan.name());
        PathBuf::from("runs/measure").join(name)
    });
    let tell = |what: &str| output::progress_note(what);
    let lab = Lab {
        data: args.data_dir.clone().unwrap_or_else(default_folder),
        devices,
        tell: &tell,
    };
    let summary = pol_experiments::run(&plan, size, &lab, &out)?;
    if args.json {
        output::json(&summary)?;
    } else {
        print(&summary, &out);
    }
    Ok(Exit::Done)
}

fn recipe(name: &str) -> Result<Plan, CliError> {
    if let Some(plan) = shipped(name) {
        return Ok(plan);
    }
    if !Path::new(name).exists() {
        let names: Vec<_> = SHIPPED.iter().map(|(name, _)| *name).collect();
        return Err(CliError::Usage(format!(
            "there is no experiment `{name}`: neither a file, nor one of {}",
            names.join(", ")
        )));
    }
    let text = std::fs::read_to_string(name).map_err(at(name))?;
    Ok(Plan::parse(name, &text)?)
}

fn print(summary: &Summary, out: &Path) {
    for note in &summary.notes {
        output::line(output::clean(note));
    }
    for table in &summary.tables {
        output::line("");
        output::line(output::clean(&table.caption));
        output::line("");
        for line in lines(table) {
            output::line(output::clean(&line));
        }
    }
    output::line("");
    let seconds = std::time::Duration::from_secs_f64(summary.seconds.max(0.0));
    output::field("took", output::duration(seconds));
    output::field("results", out.display().to_string());
    output::note(format!(
        "as a page: pol report {} -o report.html",
        out.display()
    ));
}

/// The table in columns.
fn lines(table: &SummaryTable) -> Vec<String> {
    let header: Vec<String> = table
        .columns
        .iter()
        .map(|column| column.name.clone())
        .collect();
    let rows: Vec<&Vec<String>> = std::iter::once(&header).chain(&table.rows).collect();
    let widths: Vec<usize> = (0..header.len())
        .map(|place| {
            let cells = rows.iter().filter_map(|row| row.get(place));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let line = |row: &&Vec<String>| {
        let cells = row.iter().zip(&widths).zip(&table.columns);
        let cells = cells.map(|((cell, &width), column)| match column.number {
            true => format!("{cell:>width$}"),
            false => format!("{cell:<width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}
