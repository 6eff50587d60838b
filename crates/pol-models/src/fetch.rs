//! Fetching archives: only on request, checked against a pinned digest, resumed where a download
//! broke off, unpacked without trusting a single path inside.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::dataset::DatasetName;

/// An archive that can be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// Where from.
    pub url: String,
    /// SHA-256 of the whole file, in hexadecimal.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
    /// The folder inside that holds the files.
    pub folder: String,
    /// The files that are unpacked; all others are passed over.
    pub files: Vec<String>,
}

/// Why an archive could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The download failed; what came is kept, and the next try goes on from there.
    #[error("{url}: {problem}; run the command again to go on from byte {kept}")]
    Download {
        /// Where from.
        url: String,
        /// What happened.
        problem: String,
        /// Bytes kept.
        kept: u64,
    },
    /// The file is not the pinned one. It was removed.
    #[error("{url} has the SHA-256 {found}, not the pinned {expected}; it was not used")]
    WrongDigest {
        /// Where from.
        url: String,
        /// What came.
        found: String,
        /// What is pinned.
        expected: String,
    },
    /// The archive lacks a file, or one is not a plain file of a sensible size.
    #[error("the archive {url}: {problem}")]
    Archive {
        /// Where from.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// The disk.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// The largest file inside an archive.
const MAX_FILE_BYTES: u64 = 1 << 28;

impl Archive {
    /// The official binary archive of a data set, where there is one.
    pub fn of(dataset: DatasetName) -> Option<Self> {
        let text = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let base = "https://www.cs.toronto.edu/~kriz";
        Some(match dataset {
            DatasetName::Cifar10 => Self {
                url: format!("{base}/cifar-10-binary.tar.gz"),
                sha256: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd".into(),
                bytes: 170_052_171,
                folder: "cifar-10-batches-bin".into(),
                files: text(&[
                    "data_batch_1.bin",
                    "data_batch_2.bin",
                    "data_batch_3.bin",
                    "data_batch_4.bin",
                    "data_batch_5.bin",
                    "test_batch.bin",
                    "batches.meta.txt",
                ]),
            },
            DatasetName::Cifar100 => Self {
                url: format!("{base}/cifar-100-binary.tar.gz"),
                sha256: "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec".into(),
                bytes: 168_513_733,
                folder: "cifar-100-binary".into(),
                files: text(&[
                    "train.bin",
                    "test.bin",
                    "coarse_label_names.txt",
                    "fine_label_names.txt",
                ]),
            },
            _ => return None,
        })
    }

    /// Whether all files are already unpacked under `into`.
    pub fn is_unpacked(&self, into: &Path) -> bool {
        let folder = into.join(&self.folder);
        self.files.iter().all(|file| folder.join(file).is_file())
    }

    /// Downloads, checks and unpacks into the folder `into`; `progress` is called with the bytes
    /// so far. Returns the folder of the files.
    ///
    /// # Errors
    /// [`FetchError`]; a download that broke off is kept and resumed by the next call.
    pub fn fetch(&self, into: &Path, progress: &mut dyn FnMut(u64)) -> Result<PathBuf, FetchError> {
        fs::create_dir_all(into).map_err(failed(into))?;
        let part = into.join(format!("{}.tar.gz.part", self.folder));
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&part)
            .map_err(failed(&part))?;
        self.download(&mut file, &part, progress)?;
        let found = digest(&mut file).map_err(failed(&part))?;
        if found != self.sha256 {
            drop(file);
            fs::remove_file(&part).map_err(failed(&part))?;
            return Err(FetchError::WrongDigest {
                url: self.url.clone(),
                found,
                expected: self.sha256.clone(),
            });
        }
        file.seek(SeekFrom::Start(0)).map_err(failed(&part))?;
        let folder = self.unpack(&mut file, into)?;
        drop(file);
        fs::remove_file(&part).map_err(failed(&part))?;
        Ok(folder)
    }

    /// Appends to `file` until it has all bytes.
    fn download(
        &self,
        file: &mut File,
        path: &Path,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), FetchError> {
        let mut kept = file.seek(SeekFrom::End(0)).map_err(failed(path))?;
        if kept > self.bytes {
            file.set_len(0).map_err(failed(path))?;
            kept = file.seek(SeekFrom::Start(0)).map_err(failed(path))?;
        }
        if kept == self.bytes {
            return Ok(());
        }
        let broken = |kept, problem: String| FetchError::Download {
            url: self.url.clone(),
            problem,
            kept,
        };
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(30)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_recv_body(Some(Duration::from_secs(3600)))
            .build()
            .into();
        let mut request = agent.get(&self.url);
        if kept > 0 {
            request = request.header("Range", format!("bytes={kept}-"));
        }
        let response = request
            .call()
            .map_err(|error| broken(kept, error.to_string()))?;
        if kept > 0 && response.status() != 206 {
            // The server sends the whole file again.
            file.set_len(0).map_err(failed(path))?;
            kept = file.seek(SeekFrom::Start(0)).map_err(failed(path))?;
        }
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; 1 << 16];
        while kept < self.bytes {
            let read = body
                .read(&mut buffer)
                .map_err(|error| broken(kept, error.to_string()))?;
            if read == 0 {
                return Err(broken(kept, format!("it ended before byte {}", self.bytes)));
            }
            // A server that sends more than the pinned length fails the digest.
            file.write_all(&buffer[..read]).map_err(failed(path))?;
            kept += read as u64;
            progress(kept.min(self.bytes));
        }
        Ok(())
    }

    /// Unpacks the listed files into a new folder beside the final one, then renames it.
    fn unpack(&self, archive: &mut File, into: &Path) -> Result<PathBuf, FetchError> {
        let faulty = |problem: String| FetchError::Archive {
            url: self.url.clone(),
            problem,
        };
        let fresh = tempfile::Builder::new()
            .prefix(".unpacking-")
            .tempdir_in(into)
            .map_err(failed(into))?;
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(archive));
        let entries = tar.entries().map_err(|error| faulty(error.to_string()))?;
        for entry in entries {
            let mut entry = entry.map_err(|error| faulty(error.to_string()))?;
            let name = match entry.path() {
                Ok(path) => path.into_owned(),
                Err(error) => return Err(faulty(error.to_string())),
            };
            let wanted = |file: &&String| name == Path::new(&self.folder).join(file);
            let Some(file) = self.files.iter().find(wanted) else {
                continue;
            };
            if !entry.header().entry_type().is_file() || entry.size() > MAX_FILE_BYTES {
                return Err(faulty(format!(
                    "`{file}` is not a plain file of a sensible size"
                )));
            }
            let path = fresh.path().join(file);
            File::create(&path)
                .and_then(|mut out| io::copy(&mut entry, &mut out))
                .map_err(failed(&path))?;
        }
        if let Some(file) = self.files.iter().find(|f| !fresh.path().join(f).is_file()) {
            return Err(faulty(format!("`{file}` is not in it")));
        }
        let folder = into.join(&self.folder);
        if folder.exists() {
            for file in &self.files {
                let (from, to) = (fresh.path().join(file), folder.join(file));
                fs::rename(&from, &to).map_err(failed(&to))?;
            }
        } else {
            fs::rename(fresh.keep(), &folder).map_err(failed(&folder))?;
        }
        Ok(folder)
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> FetchError + '_ {
    move |source| FetchError::Io {
        path: path.to_owned(),
        source,
    }
}

fn digest(file: &mut File) -> io::Result<String> {
    file.seek(SeekFrom::Start(0))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hasher.update(&buffer[..read]),
        }
    }
    Ok(hasher
        .finalize()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect())
}
