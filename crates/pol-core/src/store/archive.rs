//! A proof in one file (SPEC.md §12): a tar archive in the one form that a proof has.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::manifest::{MAX_MANIFEST_BYTES, Manifest};
use crate::object::{MAX_OBJECT_BYTES, MAX_STATE_BYTES};

use super::{Beside, Item, Store, StoreError, live_objects, open_regular};

const BLOCK: usize = 512;
/// Two empty blocks end an archive.
const END: usize = 2 * BLOCK;

/// Why a file is not the archive of a proof, or a proof cannot be made one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// What was read or written.
        path: String,
        /// The system's error.
        source: io::Error,
    },
    /// The file ends in the middle.
    #[error("{path} is cut short after {member}")]
    Cut {
        /// The archive.
        path: String,
        /// The last member that is whole.
        member: String,
    },
    /// Something that no proof's archive holds.
    #[error("{path} is not the archive of a proof: at byte {offset}, {problem}")]
    Foreign {
        /// The archive.
        path: String,
        /// Where.
        offset: u64,
        /// What is there.
        problem: String,
    },
    /// The proof that was to be packed is not whole.
    #[error("the proof is not whole: {0}")]
    NotWhole(String),
    /// The proof that was to be packed, or the folder to unpack to, fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A file of a proof, in the order of an archive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Member {
    Item(Item),
    Beside(Beside, String),
}

impl Member {
    fn path(&self) -> String {
        match self {
            Self::Item(item) => item.path(),
            Self::Beside(folder, name) => format!("{}/{name}", folder.name()),
        }
    }

    /// The member of this path; no other path is one.
    fn parse(path: &str) -> Option<Self> {
        let member = match path.split_once('/') {
            None if path == Item::Manifest.path() => Self::Item(Item::Manifest),
            None if path == Item::Model.path() => Self::Item(Item::Model),
            None => return None,
            Some(("objects", rest)) => {
                let (folder, file) = rest.split_once('/')?;
                Self::Item(Item::Object(format!("{folder}{file}").parse().ok()?))
            }
            Some((folder, name)) => {
                let folder = Beside::ALL.into_iter().find(|of| of.name() == folder)?;
                Self::Beside(folder, name.to_owned())
            }
        };
        let named = match &member {
            Self::Item(_) => true,
            Self::Beside(_, name) => Beside::may_be_named(name),
        };
        (named && member.path() == path).then_some(member)
    }

    const fn limit(&self) -> u64 {
        match self {
            Self::Item(Item::Manifest | Item::Journal) => MAX_MANIFEST_BYTES,
            Self::Item(Item::Model) => MAX_STATE_BYTES,
            Self::Item(Item::Object(_)) => MAX_OBJECT_BYTES,
            Self::Beside(folder, _) => folder.limit(),
        }
    }

    /// The one header that a member of this length has.
    fn header(&self, len: u64) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        // No member's path is longer than the field for it.
        let name = &mut header.as_old_mut().name;
        for (to, from) in name.iter_mut().zip(self.path().bytes()) {
            *to = from;
        }
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(len);
        header.set_cksum();
        header
    }
}

/// Writes the finished proof in `store` to one file: what it is made of, its attestations and its metrics,
/// and nothing else. One proof gives one file, byte for byte. Returns how many bytes were written.
///
/// # Errors
/// [`ArchiveError`] if the proof is not whole, or reading or writing fails.
pub fn pack(store: &dyn Store, path: &Path, to: &mut dyn Write) -> Result<u64, ArchiveError> {
    let manifest = store.read(Item::Manifest, MAX_MANIFEST_BYTES)?;
    let decoded = Manifest::decode(&manifest);
    let decoded = decoded.map_err(|error| ArchiveError::NotWhole(error.to_string()))?;
    let live = live_objects(store, &decoded.checkpoints);
    let live = live.map_err(|error| ArchiveError::NotWhole(error.to_string()))?;
    let mut members = vec![Member::Item(Item::Manifest), Member::Item(Item::Model)];
    members.extend(
        live.into_iter()
            .map(|name| Member::Item(Item::Object(name))),
    );
    for folder in Beside::ALL {
        let names = store.beside(folder)?.into_iter();
        members.extend(names.map(|name| Member::Beside(folder, name)));
    }
    let failed = |source| ArchiveError::Io {
        path: path.display().to_string(),
        source,
    };
    let mut written = 0;
    for member in members {
        let content = match &member {
            Member::Item(item) => store.read(*item, member.limit())?,
            Member::Beside(folder, name) => store.read_beside(*folder, name)?,
        };
        let padding = [0; BLOCK];
        let header = member.header(content.len() as u64);
        let parts = [
            &header.as_bytes()[..],
            &content,
            &padding[..padding_of(content.len() as u64)],
        ];
        for part in parts {
            to.write_all(part).map_err(failed)?;
            written += part.len() as u64;
        }
    }
    to.write_all(&[0; END]).map_err(failed)?;
    Ok(written + END as u64)
}

/// A proof in an archive, to be read where it is.
#[derive(Debug)]
pub struct ArchiveStore {
    path: PathBuf,
    file: Mutex<File>,
    /// Where each member's content begins, and how long it is.
    members: BTreeMap<Member, (u64, u64)>,
}

impl ArchiveStore {
    /// Opens the archive of a proof. Its members are found, none is read.
    ///
    /// # Errors
    /// [`ArchiveError`] if it is not an archive as [`pack`] makes them.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, ArchiveError> {
        let path = path.into();
        let opened = open_regular(&path);
        let (file, len) = opened.map_err(|source| ArchiveError::Io {
            path: path.display().to_string(),
            source,
        })?;
        let members = Scan {
            path: &path,
            len,
            reader: BufReader::new(&file),
            at: 0,
        }
        .members()?;
        Ok(Self {
            path,
            file: Mutex::new(file),
            members,
        })
    }

    /// Writes the proof to a folder that holds none; the manifest comes last.
    ///
    /// # Errors
    /// [`StoreError`] if reading or writing fails, or something is there already.
    pub fn unpack(&self, to: &super::FolderStore) -> Result<(), StoreError> {
        let manifest = Member::Item(Item::Manifest);
        let last = self.members.keys().filter(|member| **member == manifest);
        for member in (self.members.keys().filter(|member| **member != manifest)).chain(last) {
            // What is copied is never held as a whole: an archive may be a sparse file.
            let mut content = self.reader(member)?;
            match member {
                Member::Item(item) => to.write_from(*item, &mut content)?,
                Member::Beside(folder, name) => {
                    to.write_beside_from(*folder, name, &mut content)?
                }
            }
        }
        Ok(())
    }

    /// The content of a member, to be read once. Ending before the member does is an error.
    fn reader(&self, member: &Member) -> Result<Content<'_>, StoreError> {
        let missing = || StoreError::Missing {
            item: member.path(),
        };
        let &(offset, left) = self.members.get(member).ok_or_else(missing)?;
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(offset))
            .map_err(|source| self.failed(source))?;
        Ok(Content { file, left })
    }

    fn content(&self, member: &Member, limit: u64) -> Result<Vec<u8>, StoreError> {
        let item = || member.path();
        let Some(&(offset, len)) = self.members.get(member) else {
            return Err(StoreError::Missing { item: item() });
        };
        if len > limit {
            let item = item();
            return Err(StoreError::TooLarge { item, len, limit });
        }
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut content = vec![0; len as usize];
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.read_exact(&mut content))
            .map_err(|source| self.failed(source))?;
        Ok(content)
    }

    fn failed(&self, source: io::Error) -> StoreError {
        StoreError::Io {
            path: self.path.display().to_string(),
            source,
        }
    }

    fn refused(&self) -> StoreError {
        self.failed(io::Error::from(io::ErrorKind::ReadOnlyFilesystem))
    }
}

impl Store for ArchiveStore {
    fn location(&self) -> String {
        self.path.display().to_string()
    }

    fn read(&self, item: Item, limit: u64) -> Result<Vec<u8>, StoreError> {
        self.content(&Member::Item(item), limit)
    }

    fn length(&self, item: Item) -> Result<u64, StoreError> {
        let found = self.members.get(&Member::Item(item));
        let missing = || StoreError::Missing { item: item.path() };
        found.map(|(_, len)| *len).ok_or_else(missing)
    }

    fn write(&self, _: Item, _: &[u8]) -> Result<(), StoreError> {
        Err(self.refused())
    }

    fn append_journal(&self, _: &[u8]) -> Result<(), StoreError> {
        Err(self.refused())
    }

    fn truncate_journal(&self, _: u64) -> Result<(), StoreError> {
        Err(self.refused())
    }

    fn remove_journal(&self) -> Result<(), StoreError> {
        Err(self.refused())
    }

    fn contains(&self, item: Item) -> bool {
        self.members.contains_key(&Member::Item(item))
    }

    fn size(&self) -> Result<u64, StoreError> {
        let items = |member: &&Member| matches!(member, Member::Item(_));
        let of_items = self.members.iter().filter(|(member, _)| items(member));
        Ok(of_items.map(|(_, (_, len))| len).sum())
    }

    fn beside(&self, folder: Beside) -> Result<Vec<String>, StoreError> {
        let names = self.members.keys().filter_map(|member| match member {
            Member::Beside(of, name) if *of == folder => Some(name.clone()),
            _ => None,
        });
        Ok(names.collect())
    }

    fn read_beside(&self, folder: Beside, name: &str) -> Result<Vec<u8>, StoreError> {
        let member = Member::Beside(folder, name.to_owned());
        self.content(&member, member.limit())
    }
}

/// What is left to be read of a member.
struct Content<'a> {
    file: MutexGuard<'a, File>,
    left: u64,
}

impl Read for Content<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).map_or(to.len(), |left| left.min(to.len()));
        let read = self.file.read(&mut to[..most])?;
        if read == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read as u64;
        Ok(read)
    }
}

/// Goes over an archive's headers.
struct Scan<'a> {
    path: &'a Path,
    len: u64,
    reader: BufReader<&'a File>,
    at: u64,
}

impl Scan<'_> {
    /// All members. They ascend, so that none is there twice.
    fn members(mut self) -> Result<BTreeMap<Member, (u64, u64)>, ArchiveError> {
        let mut members = BTreeMap::new();
        let mut last: Option<Member> = None;
        let after = |last: &Option<Member>| match last {
            Some(member) => member.path(),
            None => "its beginning".to_owned(),
        };
        loop {
            let offset = self.at;
            let mut block = [0; BLOCK];
            if !self.fill(&mut block)? {
                return Err(self.cut(after(&last)));
            }
            if block == [0; BLOCK] {
                break;
            }
            let header = tar::Header::from_byte_slice(&block);
            let name = header.path_bytes();
            let member = std::str::from_utf8(&name).ok().and_then(Member::parse);
            let Some(member) = member else {
                let name = String::from_utf8_lossy(&name).escape_debug().to_string();
                return Err(self.foreign(offset, format!("`{name}` is not a file of a proof")));
            };
            let len = header.size().unwrap_or(u64::MAX);
            if len > member.limit() {
                let problem = format!("{} has {len} bytes", member.path());
                return Err(self.foreign(offset, format!("{problem}, beyond its limit")));
            }
            // Whatever else a header could say (a link, a sparse file, other owners), it does not.
            if member.header(len).as_bytes() != &block {
                let path = member.path();
                let problem = format!("the header of {path} is not that of a regular file");
                return Err(self.foreign(offset, problem));
            }
            if last.as_ref().is_some_and(|last| *last >= member) {
                let problem = format!("{} is out of order", member.path());
                return Err(self.foreign(offset, problem));
            }
            members.insert(member.clone(), (self.at, len));
            let end = self.at.saturating_add(len);
            let mut padding = [0; BLOCK];
            let padding = &mut padding[..padding_of(len)];
            if end > self.len || !self.skip(len)? || !self.fill(padding)? {
                return Err(self.cut(after(&last)));
            }
            if padding.iter().any(|byte| *byte != 0) {
                let problem = format!("there is something after {}", member.path());
                return Err(self.foreign(end, problem));
            }
            last = Some(member);
        }
        let mut block = [0; BLOCK];
        let ended = self.fill(&mut block)? && block == [0; BLOCK] && self.at == self.len;
        match ended {
            true => Ok(members),
            false => {
                let problem = "there is something after its end, or it has none".to_owned();
                Err(self.foreign(self.at.min(self.len), problem))
            }
        }
    }

    /// Reads a part as a whole; `false` if the file ends before.
    fn fill(&mut self, part: &mut [u8]) -> Result<bool, ArchiveError> {
        self.at += part.len() as u64;
        match self.reader.read_exact(part) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(source) => Err(self.failed(source)),
        }
    }

    fn skip(&mut self, len: u64) -> Result<bool, ArchiveError> {
        let Ok(by) = i64::try_from(len) else {
            return Ok(false);
        };
        self.at += len;
        self.reader
            .seek_relative(by)
            .map_err(|source| self.failed(source))?;
        Ok(true)
    }

    fn failed(&self, source: io::Error) -> ArchiveError {
        ArchiveError::Io {
            path: self.path.display().to_string(),
            source,
        }
    }

    fn cut(&self, member: String) -> ArchiveError {
        ArchiveError::Cut {
            path: self.path.display().to_string(),
            member,
        }
    }

    fn foreign(&self, offset: u64, problem: String) -> ArchiveError {
        ArchiveError::Foreign {
            path: self.path.display().to_string(),
            offset,
            problem,
        }
    }
}

const fn padding_of(len: u64) -> usize {
    (BLOCK - len as usize % BLOCK) % BLOCK
}
