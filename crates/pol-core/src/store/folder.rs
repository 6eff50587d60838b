//! A proof in a folder of the file system.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{Item, Store, StoreError};

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

    /// The journal, opened for appending and locked against other processes until dropped.
    fn with_journal(
        &self,
        action: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        let path = self.path(Item::Journal);
        let mut open = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        if open.is_none() {
            fs::create_dir_all(&self.root).map_err(|source| failed(&self.root, source))?;
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(&path)
                .map_err(|source| failed(&path, source))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(StoreError::Locked {
                        path: self.root.display().to_string(),
                    });
                }
                Err(TryLockError::Error(source)) => return Err(failed(&path, source)),
            }
            sync_folder(&self.root)?;
            *open = Some(file);
        }
        match open.as_mut() {
            Some(file) => action(file)
                .and_then(|()| file.sync_data())
                .map_err(|source| failed(&path, source)),
            None => Ok(()),
        }
    }
}

impl Store for FolderStore {
    fn location(&self) -> String {
        self.root.display().to_string()
    }

    fn read(&self, item: Item, limit: u64) -> Result<Vec<u8>, StoreError> {
        let path = self.path(item);
        // `symlink_metadata` and the check before opening: a proof folder may hold a pipe that
        // would block, or a link that leads out of it.
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if is_absence(&error) => {
                return Err(StoreError::Missing { item: item.path() });
            }
            Err(source) => return Err(failed(&path, source)),
        };
        if !metadata.is_file() {
            return Err(StoreError::NotAFile { item: item.path() });
        }
        let too_large = |len| StoreError::TooLarge {
            item: item.path(),
            len,
            limit,
        };
        if metadata.len() > limit {
            return Err(too_large(metadata.len()));
        }
        let mut bytes = Vec::with_capacity(metadata.len() as usize);
        File::open(&path)
            .and_then(|file| file.take(limit.saturating_add(1)).read_to_end(&mut bytes))
            .map_err(|source| failed(&path, source))?;
        if bytes.len() as u64 > limit {
            return Err(too_large(bytes.len() as u64));
        }
        Ok(bytes)
    }

    fn write(&self, item: Item, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.path(item);
        let folder = path.parent().unwrap_or(&self.root);
        if !folder.is_dir() {
            fs::create_dir_all(folder).map_err(|source| failed(folder, source))?;
            // Make the new folders durable, up to the proof's own.
            let new = folder.ancestors().take_while(|f| f.starts_with(&self.root));
            new.filter_map(Path::parent).try_for_each(sync_folder)?;
        }
        let mut temporary = tempfile::Builder::new();
        temporary.prefix(".writing-");
        // A proof is made to be handed on: readable by all whom the umask lets.
        #[cfg(unix)]
        temporary.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        temporary
            .tempfile_in(folder)
            .and_then(|mut file| {
                file.write_all(bytes)?;
                file.as_file().sync_all()?;
                file.persist(&path).map_err(|error| error.error)
            })
            .map_err(|source| failed(&path, source))?;
        sync_folder(folder)
    }

    fn append_journal(&self, bytes: &[u8]) -> Result<(), StoreError> {
        self.with_journal(|file| file.write_all(bytes))
    }

    fn truncate_journal(&self, len: u64) -> Result<(), StoreError> {
        self.with_journal(|file| file.set_len(len))
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
