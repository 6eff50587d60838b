//! Opening files that somebody else made, or may exchange at any time.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

/// Opens the regular file at `path` for reading, links followed, and gives its length in bytes.
///
/// Nothing is waited for: a pipe, which opening alone could wait for without end, is refused like a folder
/// or a device. What was opened is asked what it is, not the path, which may lead elsewhere by then.
///
/// # Errors
/// The system's error, or [`io::ErrorKind::InvalidInput`] for what is not a regular file.
pub fn open_regular(path: &Path) -> io::Result<(File, u64)> {
    open(path, 0)
}

/// As [`open_regular`]; a link is refused too.
pub(super) fn open_unlinked(path: &Path) -> io::Result<(File, u64)> {
    #[cfg(unix)]
    let flags = libc::O_NOFOLLOW;
    #[cfg(not(unix))]
    let flags = 0;
    open(path, flags)
}

fn open(path: &Path, flags: i32) -> io::Result<(File, u64)> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK | flags);
    #[cfg(not(unix))]
    let _ = flags;
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    match metadata.is_file() {
        true => Ok((file, metadata.len())),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file; copy what it gives to one",
        )),
    }
}
