//! A proof in a folder of the file system.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::file::open_unlinked;
use super::{Beside, Item, MAX_BESIDE, Store, StoreError};
use crate::digest::Digest;

/// What the names of files that are being written begin with.
const TEMPORARY: &str = ".writing-";

/// A proof folder.
#[derive(Debug)]
pub struct FolderStore {
    root: PathBuf,
    journal: Mutex<Option<File>>,
}

impl FolderStore {
    /// The proof in `root`; the folder need not exist before something is written.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            journal: Mutex::new(None),
        }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, item: Item) -> PathBuf {
        self.root.join(item.path())
    }

    /// Writes a file as a whole: under a temporary name, synced, renamed.
    fn write_file(&self, path: &Path, bytes: &mut impl Read) -> Result<(), StoreError> {
        let folder = path.parent().unwrap_or(&self.root);
        if !folder.is_dir() {
            fs::create_dir_all(folder).map_err(|source| failed(folder, source))?;
            // Make the new folders durable, up to the proof's own.
            let new = folder.ancestors().take_while(|f| f.starts_with(&self.root));
            new.filter_map(Path::parent).try_for_each(sync_folder)?;
        }
        let mut temporary = tempfile::Builder::new();
        temporary.prefix(TEMPORARY);
        // A proof is made to be handed on: readable by all whom the umask lets.
        #[cfg(unix)]
        temporary.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        temporary
            .tempfile_in(folder)
            .and_then(|mut file| {
                io::copy(bytes, &mut file)?;
                file.as_file().sync_all()?;
                file.persist(path).map_err(|error| error.error)
            })
            .map_err(|source| failed(path, source))?;
        sync_folder(folder)
    }

    /// Writes a file beside the proof.
    ///
    /// # Errors
    /// [`StoreError::Io`], also for a name that none may have.
    pub fn write_beside(&self, folder: Beside, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.write_beside_from(folder, name, &mut &*bytes)
    }

    /// As [`Self::write_beside`], with what `bytes` gives.
    pub(super) fn write_beside_from(
        &self,
        folder: Beside,
        name: &str,
        bytes: &mut impl Read,
    ) -> Result<(), StoreError> {
        let path = self.beside_path(folder, name)?;
        self.write_file(&path, bytes)
    }

    /// Writes an item as a whole, with what `bytes` gives: no more of it is held than a buffer.
    pub(super) fn write_from(&self, item: Item, bytes: &mut impl Read) -> Result<(), StoreError> {
        self.write_file(&self.path(item), bytes)
    }

    /// Removes what the proof is not made of: objects that are not in `live`, and what was left by writers
    /// that were killed. With `dry`, only counts it.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn collect(&self, live: &BTreeSet<Digest>, dry: bool) -> Result<Collected, StoreError> {
        let mut collected = Collected::default();
        let objects = self.root.join("objects");
        let mut folders = vec![self.root.clone(), objects.clone()];
        folders.extend(Beside::ALL.map(|of| self.root.join(of.name())));
        let prefixes = match objects.is_dir() {
            true => entries(&objects)?,
            false => vec![],
        };
        folders.extend(prefixes);
        for folder in folders.iter().filter(|folder| folder.is_dir()) {
            for path in entries(folder)? {
                let Ok(metadata) = fs::symlink_metadata(&path) else {
                    continue;
                };
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let unfinished = name.starts_with(TEMPORARY);
                let dead = object_at(&objects, &path).is_some_and(|name| !live.contains(&name));
                if !metadata.is_file() || !(unfinished || dead) {
                    continue;
                }
                collected.files += 1;
                collected.bytes += metadata.len();
                if !dry {
                    fs::remove_file(&path).map_err(|source| failed(&path, source))?;
                }
            }
            if folder.parent() == Some(&objects) && !dry {
                // Only if it is empty now.
                let _ = fs::remove_dir(folder);
            }
        }
        Ok(collected)
    }

    fn beside_path(&self, folder: Beside, name: &str) -> Result<PathBuf, StoreError> {
        let folder = self.root.join(folder.name());
        match Beside::may_be_named(name) {
            true => Ok(folder.join(name)),
            false => {
                let error = io::Error::from(io::ErrorKind::InvalidFilename);
                Err(failed(&folder, error))
            }
        }
    }

    /// The journal, opened for appending and locked against other processes until dropped.
    fn with_journal(
        &self,
        action: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        let path = self.path(Item::Journal);
        let mut open = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match &mut *open {
            Some(file) => file,
            closed => closed.insert(self.open_journal(&path)?),
        };
        action(file).map_err(|source| failed(&path, source))
    }

    fn open_journal(&self, path: &Path) -> Result<File, StoreError> {
        fs::create_dir_all(&self.root).map_err(|source| failed(&self.root, source))?;
        let locked = || StoreError::Locked {
            path: self.root.display().to_string(),
        };
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(|source| failed(path, source))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(locked()),
            Err(TryLockError::Error(source)) => return Err(failed(path, source)),
        }
        // Another training may have ended, and removed the file, since it was opened.
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
            let here = file.metadata().map(identity);
            let there = fs::symlink_metadata(path).map(identity);
            if here.ok() != there.ok() {
                return Err(locked());
            }
        }
        sync_folder(&self.root)?;
        Ok(file)
    }
}

/// What was removed from a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    /// How many files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Store for FolderStore {
    fn location(&self) -> String {
        self.root.display().to_string()
    }

    fn read(&self, item: Item, limit: u64) -> Result<Vec<u8>, StoreError> {
        read_file(&self.path(item), &item.path(), limit)
    }

    fn length(&self, item: Item) -> Result<u64, StoreError> {
        let found = opened(&self.path(item), &item.path());
        found.map(|(_, len)| len)
    }

    fn write(&self, item: Item, bytes: &[u8]) -> Result<(), StoreError> {
        self.write_from(item, &mut &*bytes)
    }

    fn lock(&self) -> Result<(), StoreError> {
        self.with_journal(|_| Ok(()))
    }

    fn append_journal(&self, bytes: &[u8]) -> Result<(), StoreError> {
        self.with_journal(|file| {
            file.write_all(bytes)?;
            file.sync_data()
        })
    }

    fn truncate_journal(&self, len: u64) -> Result<(), StoreError> {
        self.with_journal(|file| {
            file.set_len(len)?;
            file.sync_data()
        })
    }

    fn remove_journal(&self) -> Result<(), StoreError> {
        let path = self.path(Item::Journal);
        let mut open = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        *open = None;
        match fs::remove_file(&path) {
            Err(source) if !is_absence(&source) => Err(failed(&path, source)),
            _ => sync_folder(&self.root),
        }
    }

    fn contains(&self, item: Item) -> bool {
        fs::symlink_metadata(self.path(item)).is_ok()
    }

    fn size(&self) -> Result<u64, StoreError> {
        let mut total = 0;
        for item in [Item::Manifest, Item::Journal, Item::Model] {
            total += fs::symlink_metadata(self.path(item)).map_or(0, |m| m.len());
        }
        let objects = self.root.join("objects");
        if !objects.is_dir() {
            return Ok(total);
        }
        for prefix in entries(&objects)? {
            for object in entries(&prefix)? {
                total += fs::symlink_metadata(&object).map_or(0, |m| m.len());
            }
        }
        Ok(total)
    }

    fn beside(&self, folder: Beside) -> Result<Vec<String>, StoreError> {
        let folder = self.root.join(folder.name());
        if !folder.is_dir() {
            return Ok(vec![]);
        }
        let mut names = Vec::new();
        let found = fs::read_dir(&folder).map_err(|source| failed(&folder, source))?;
        for entry in found.take(MAX_BESIDE) {
            let entry = entry.map_err(|source| failed(&folder, source))?;
            let regular = fs::symlink_metadata(entry.path()).is_ok_and(|found| found.is_file());
            let name = entry.file_name().into_string().ok();
            names.extend(name.filter(|name| regular && Beside::may_be_named(name)));
        }
        names.sort_unstable();
        Ok(names)
    }

    fn read_beside(&self, folder: Beside, name: &str) -> Result<Vec<u8>, StoreError> {
        let path = self.beside_path(folder, name)?;
        let item = format!("{}/{name}", folder.name());
        read_file(&path, &item, folder.limit())
    }
}

/// A regular file of a proof, and its length.
fn opened(path: &Path, item: &str) -> Result<(File, u64), StoreError> {
    let item = || item.to_owned();
    // What is there is looked at before it is opened, so that the error says what it is: a proof folder may
    // hold a pipe that would block, or a link that leads out of it. What is opened then is looked at again.
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Err(StoreError::NotAFile { item: item() }),
        Err(error) if is_absence(&error) => return Err(StoreError::Missing { item: item() }),
        Err(source) => return Err(failed(path, source)),
    }
    open_unlinked(path).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidInput => StoreError::NotAFile { item: item() },
        _ => failed(path, error),
    })
}

/// Reads a regular file of at most `limit` bytes.
fn read_file(path: &Path, item: &str, limit: u64) -> Result<Vec<u8>, StoreError> {
    let too_large = |len| StoreError::TooLarge {
        item: item.to_owned(),
        len,
        limit,
    };
    let (file, len) = opened(path, item)?;
    if len > limit {
        return Err(too_large(len));
    }
    let mut bytes = Vec::with_capacity(len as usize);
    // A file that grows while it is read does not grow beyond the limit.
    (file.take(limit.saturating_add(1)))
        .read_to_end(&mut bytes)
        .map_err(|source| failed(path, source))?;
    match bytes.len() as u64 {
        len if len > limit => Err(too_large(len)),
        _ => Ok(bytes),
    }
}

/// The object that is stored at a path, if one is.
fn object_at(objects: &Path, path: &Path) -> Option<Digest> {
    let inside = path.strip_prefix(objects).ok()?.to_str()?;
    let name: Digest = inside.replacen('/', "", 1).parse().ok()?;
    (objects.parent()?.join(Item::Object(name).path()) == path).then_some(name)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    fs::read_dir(folder)
        .and_then(|found| found.map(|entry| Ok(entry?.path())).collect())
        .map_err(|source| failed(folder, source))
}

/// Makes names in a folder durable. Not every system can sync a folder; those that can't
/// need not.
fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    if cfg!(unix) {
        let folder = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        };
        File::open(folder)
            .and_then(|file| file.sync_all())
            .map_err(|source| failed(folder, source))?;
    }
    Ok(())
}

fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn failed(path: &Path, source: io::Error) -> StoreError {
    StoreError::Io {
        path: path.display().to_string(),
        source,
    }
}
