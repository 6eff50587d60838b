//! `pol pack`, `pol unpack`: a proof in one file.

use std::io::{BufWriter, Write};
use std::path::Path;

use pol_core::store::{self, ArchiveStore, FolderStore, Store};

use crate::args::{PackArgs, UnpackArgs};
use crate::error::{CliError, Exit, at};
use crate::output;

use super::existing_folder;

pub(crate) fn pack(args: &PackArgs) -> Result<Exit, CliError> {
    let store = existing_folder(&args.run)?;
    refuse_existing(&args.out)?;
    let folder = match args.out.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // Under another name until it is whole.
    let mut temporary = tempfile::Builder::new();
    temporary.prefix(".packing-");
    // As readable as the proof is.
    #[cfg(unix)]
    temporary.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = temporary.tempfile_in(folder).map_err(at(&args.out))?;
    let mut writer = BufWriter::new(&mut file);
    let bytes = store::pack(&store, &args.out, &mut writer)?;
    writer.flush().map_err(at(&args.out))?;
    drop(writer);
    file.as_file().sync_all().map_err(at(&args.out))?;
    file.persist_noclobber(&args.out)
        .map_err(|error| at(&args.out)(error.error))?;
    output::field("file", args.out.display().to_string());
    output::field("size", output::bytes(bytes));
    Ok(Exit::Done)
}

pub(crate) fn unpack(args: &UnpackArgs) -> Result<Exit, CliError> {
    let archive = ArchiveStore::open(&args.file)?;
    refuse_existing(&args.out)?;
    let folder = FolderStore::new(&args.out);
    archive.unpack(&folder)?;
    output::field("run", args.out.display().to_string());
    output::field("size", output::bytes(folder.size()?));
    Ok(Exit::Done)
}

/// Nothing is written over: what is there may be the only copy of something.
fn refuse_existing(path: &Path) -> Result<(), CliError> {
    match path.symlink_metadata() {
        Ok(_) => Err(CliError::Usage(format!(
            "{} is there already; give another --out",
            path.display()
        ))),
        Err(_) => Ok(()),
    }
}
