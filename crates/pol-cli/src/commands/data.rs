//! `pol data`.

use std::path::Path;

use pol_core::records::{DataCommitment, Records};
use pol_models::dataset::{DatasetName, default_folder};
use pol_models::fetch::Archive;
use serde::Serialize;

use crate::args::DataCommand;
use crate::error::{CliError, Exit};
use crate::output;

pub(crate) fn run(command: &DataCommand) -> Result<Exit, CliError> {
    match command {
        DataCommand::Fetch {
            dataset,
            data_dir,
            url,
        } => {
            let folder = data_dir.clone().unwrap_or_else(default_folder);
            fetch(*dataset, &folder, url.as_deref())
        }
        DataCommand::Check {
            dataset,
            data_dir,
            json,
        } => {
            let folder = data_dir.clone().unwrap_or_else(default_folder);
            check(*dataset, &folder, *json)
        }
    }
}

fn fetch(dataset: DatasetName, folder: &Path, url: Option<&str>) -> Result<Exit, CliError> {
    let mut archive = Archive::of(dataset).ok_or_else(|| {
        CliError::Usage(format!(
            "`{dataset}` is not fetched; only cifar10 and cifar100 are"
        ))
    })?;
    if let Some(url) = url {
        archive.url = url.to_owned();
    }
    if archive.is_unpacked(folder) {
        output::line(format!("{dataset} is already in {}", folder.display()));
        return Ok(Exit::Done);
    }
    let bar = output::progress(
        archive.bytes,
        "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left",
    );
    bar.set_message(dataset.name());
    let unpacked = archive.fetch(folder, &mut |done| bar.set_position(done));
    bar.finish_and_clear();
    output::line(format!("{dataset} is in {}", unpacked?.display()));
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Check {
    schema: &'static str,
    dataset: &'static str,
    train_records: u64,
    test_records: u64,
    complete: bool,
    data_root: String,
}

fn check(dataset: DatasetName, folder: &Path, json: bool) -> Result<Exit, CliError> {
    let loaded = dataset.load(folder)?;
    let check = Check {
        schema: "pol.data/1",
        dataset: dataset.name(),
        train_records: loaded.train.len(),
        test_records: loaded.test.len(),
        complete: loaded.notice.is_none(),
        data_root: DataCommitment::of(&loaded.train).root.to_string(),
    };
    if let Some(notice) = &loaded.notice {
        output::note(notice);
    }
    if json {
        output::json(&check)?;
    } else {
        output::field("data set", check.dataset);
        output::field("training", format!("{} records", check.train_records));
        output::field("test", format!("{} records", check.test_records));
        output::field("data root", &check.data_root);
    }
    Ok(Exit::Done)
}
