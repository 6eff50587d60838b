//! Data sets: where they come from, how they are split and normalised.

mod cifar;
mod digits;
mod idx;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use pol_core::digest::tagged;
use pol_core::random::{Purpose, Seed};
use pol_core::records::{Record, Records};

use crate::model::ImageShape;

/// A data set by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DatasetName {
    /// UCI handwritten digits, embedded: 1,797 images of 8×8.
    Digits,
    /// MNIST: 70,000 images of 28×28.
    Mnist,
    /// Fashion-MNIST, in MNIST's layout.
    FashionMnist,
    /// CIFAR-10: 60,000 RGB images of 32×32 in 10 classes.
    Cifar10,
    /// CIFAR-100: the same in 100 classes.
    Cifar100,
}

/// Why a data set cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// No data set has this name.
    #[error("there is no data set `{name}`; the data sets are {}", DatasetName::ALL.map(DatasetName::name).join(", "))]
    Unknown {
        /// The name asked for.
        name: String,
    },
    /// A file is missing.
    #[error("{dataset}: {path} is missing; {remedy}")]
    Missing {
        /// The data set.
        dataset: DatasetName,
        /// The file.
        path: PathBuf,
        /// How to get it.
        remedy: String,
    },
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file is not what it has to be.
    #[error("{path}: {problem}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl DatasetName {
    /// All data sets.
    pub const ALL: [Self; 5] = [
        Self::Digits,
        Self::Mnist,
        Self::FashionMnist,
        Self::Cifar10,
        Self::Cifar100,
    ];

    /// The name in recipes and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Digits => "digits",
            Self::Mnist => "mnist",
            Self::FashionMnist => "fashion-mnist",
            Self::Cifar10 => "cifar10",
            Self::Cifar100 => "cifar100",
        }
    }

    /// Size of the images.
    pub const fn image(self) -> ImageShape {
        let (channels, size) = match self {
            Self::Digits => (1, 8),
            Self::Mnist | Self::FashionMnist => (1, 28),
            Self::Cifar10 | Self::Cifar100 => (3, 32),
        };
        ImageShape {
            channels,
            height: size,
            width: size,
        }
    }

    /// Number of classes.
    pub const fn classes(self) -> usize {
        match self {
            Self::Cifar100 => 100,
            _ => 10,
        }
    }

    /// Bytes of a record before its pixels.
    pub const fn pixel_offset(self) -> usize {
        match self {
            Self::Cifar10 => 1,
            Self::Cifar100 => 2,
            _ => 0,
        }
    }

    /// How pixels become the model's input.
    pub const fn normalisation(self) -> Normalisation {
        match self {
            // Mean and deviation of the embedded training split's 0..16, in units of 16.
            Self::Digits => Normalisation::new(16.0, &[0.305], &[0.376]),
            Self::Mnist => Normalisation::new(255.0, &[0.1307], &[0.3081]),
            Self::FashionMnist => Normalisation::new(255.0, &[0.2860], &[0.3530]),
            Self::Cifar10 => {
                Normalisation::new(255.0, &[0.4914, 0.4822, 0.4465], &[0.2470, 0.2435, 0.2616])
            }
            Self::Cifar100 => {
                Normalisation::new(255.0, &[0.5071, 0.4865, 0.4409], &[0.2673, 0.2564, 0.2762])
            }
        }
    }

    /// Loads the data set from `folder`. The digits are embedded; others of that size are taken from
    /// `folder/digits`, in MNIST's layout, if it is there.
    ///
    /// # Errors
    /// [`DatasetError`] names the file and the remedy.
    pub fn load(self, folder: &Path) -> Result<Dataset, DatasetError> {
        let (train, test, notice) = match self {
            Self::Digits if idx::is_in(self, folder) => {
                let (train, test) = idx::load(self, folder)?;
                let notice = format!("the digits are those in {}", folder.display());
                (train, test, Some(notice))
            }
            Self::Digits => {
                let (train, test) = digits::load()?;
                (train, test, None)
            }
            Self::Mnist | Self::FashionMnist => {
                let (train, test) = idx::load(self, folder)?;
                (train, test, None)
            }
            Self::Cifar10 | Self::Cifar100 => cifar::load(self, folder)?,
        };
        Ok(Dataset {
            name: self,
            train,
            test,
            notice,
        })
    }

    /// Writes a data set into `folder`, as [`DatasetName::load`] finds it there.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(self, train: &Images, test: &Images, folder: &Path) -> Result<(), DatasetError> {
        match self {
            Self::Digits | Self::Mnist | Self::FashionMnist => idx::save(self, train, test, folder),
            Self::Cifar10 | Self::Cifar100 => cifar::save(self, train, test, folder),
        }
    }

    /// What to do where the files are missing.
    fn remedy(self) -> String {
        match self {
            Self::Digits => "it is embedded and needs no files".to_owned(),
            Self::Mnist => {
                "put MNIST's four `…-ubyte` or `…-ubyte.gz` files there, or name their folder \
                 with --data-dir"
                    .to_owned()
            }
            Self::FashionMnist => {
                "install it (Debian and Ubuntu: apt install dataset-fashion-mnist) or name its \
                 folder with --data-dir"
                    .to_owned()
            }
            Self::Cifar10 | Self::Cifar100 => format!(
                "run `pol data fetch {self}`, or name the folder of the official binary files \
                 with --data-dir"
            ),
        }
    }
}

impl fmt::Display for DatasetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DatasetName {
    type Err = DatasetError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|dataset| dataset.name() == name)
            .ok_or_else(|| DatasetError::Unknown {
                name: name.chars().take(40).collect(),
            })
    }
}

/// `(pixel / scale − mean) / deviation`, per channel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalisation {
    /// The largest pixel value.
    pub scale: f32,
    /// Mean of each channel after scaling.
    pub mean: &'static [f32],
    /// Standard deviation of each channel after scaling.
    pub deviation: &'static [f32],
}

impl Normalisation {
    const fn new(scale: f32, mean: &'static [f32], deviation: &'static [f32]) -> Self {
        Self {
            scale,
            mean,
            deviation,
        }
    }

    /// Writes the normalised values of one planar image.
    pub fn write(&self, pixels: &[u8], into: &mut [f32]) {
        let plane = (pixels.len() / self.mean.len()).max(1);
        let channels = pixels.chunks_exact(plane).zip(into.chunks_exact_mut(plane));
        for ((pixels, into), (mean, deviation)) in
            channels.zip(self.mean.iter().zip(self.deviation))
        {
            for (value, &pixel) in into.iter_mut().zip(pixels) {
                *value = (f32::from(pixel) / self.scale - mean) / deviation;
            }
        }
    }

    /// The normalised values of planar images of `len` values each, given as shares of the largest
    /// pixel value.
    pub fn of_shares(&self, shares: &[f32], len: usize) -> Vec<f32> {
        self.channels(len)
            .zip(shares)
            .map(|(channel, share)| (share - self.mean[channel]) / self.deviation[channel])
            .collect()
    }

    /// Gradients by the shares, of gradients by normalised values.
    pub fn by_shares(&self, mut gradients: Vec<f32>, len: usize) -> Vec<f32> {
        for (gradient, channel) in gradients.iter_mut().zip(self.channels(len)) {
            *gradient /= self.deviation[channel];
        }
        gradients
    }

    /// The channel of each value of planar images, one after the other without end.
    fn channels(&self, len: usize) -> impl Iterator<Item = usize> {
        let plane = (len / self.mean.len()).max(1);
        (0..len).cycle().map(move |place| place / plane)
    }
}

/// A loaded data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// Which one.
    pub name: DatasetName,
    /// The records that are trained on and committed to.
    pub train: Images,
    /// The records that accuracy is measured on.
    pub test: Images,
    /// Something about the files that the user should know: a part of them is missing, say.
    pub notice: Option<String>,
}

/// Images with labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    bytes: Vec<u8>,
    labels: Vec<u32>,
    record_bytes: usize,
}

impl Dataset {
    /// The pixels of training records, one after the other, as shares of the largest value, and their
    /// labels. Indices past the end are left out.
    pub fn shares(&self, records: &[u64]) -> (Vec<f32>, Vec<u32>) {
        let scale = self.name.normalisation().scale;
        let (mut shares, mut labels) = (Vec::new(), Vec::new());
        for record in records.iter().filter_map(|&index| self.train.record(index)) {
            let pixels = record.bytes.iter().skip(self.name.pixel_offset());
            shares.extend(pixels.map(|&byte| f32::from(byte) / scale));
            labels.push(record.label);
        }
        (shares, labels)
    }
}

impl Images {
    /// Records of `record_bytes` each.
    fn new(bytes: Vec<u8>, labels: Vec<u32>, record_bytes: usize) -> Self {
        debug_assert_eq!(bytes.len(), labels.len() * record_bytes);
        Self {
            bytes,
            labels,
            record_bytes,
        }
    }

    /// Records of `dataset`, each from a label and the bytes of a planar image. Label bytes that
    /// stand before the pixels are those of the label.
    ///
    /// # Errors
    /// If an image has another size than those of the data set.
    pub fn of_pixels(
        dataset: DatasetName,
        images: impl IntoIterator<Item = (u32, Vec<u8>)>,
    ) -> Result<Self, DatasetError> {
        let (mut bytes, mut labels) = (Vec::new(), Vec::new());
        for (label, pixels) in images {
            if pixels.len() != dataset.image().len() || label as usize >= dataset.classes() {
                return Err(DatasetError::Malformed {
                    path: PathBuf::from(format!("record {}", labels.len())),
                    problem: format!("it is not an image of {dataset}"),
                });
            }
            bytes.extend(std::iter::repeat_n(label as u8, dataset.pixel_offset()));
            bytes.extend(pixels);
            labels.push(label);
        }
        let record_bytes = dataset.pixel_offset() + dataset.image().len();
        Ok(Self::new(bytes, labels, record_bytes))
    }

    /// So many images of random pixels in the layout of `dataset`: for measurements that do not depend on
    /// what is in the pictures.
    pub fn noise(dataset: DatasetName, count: u64) -> Self {
        let seed = Seed::from_digest(tagged("noise", &[dataset.name().as_bytes()]));
        let mut stream = seed.stream(Purpose::Audit);
        let largest = dataset.normalisation().scale as u64;
        let (mut bytes, mut labels) = (Vec::new(), Vec::new());
        for index in 0..count {
            let label = (index % dataset.classes() as u64) as u32;
            bytes.extend(std::iter::repeat_n(label as u8, dataset.pixel_offset()));
            let pixels = 0..dataset.image().len();
            bytes.extend(pixels.map(|_| stream.below(largest + 1) as u8));
            labels.push(label);
        }
        let record_bytes = dataset.pixel_offset() + dataset.image().len();
        Self::new(bytes, labels, record_bytes)
    }

    /// The same images with one label replaced; for tests of what a commitment covers.
    pub fn with_label(mut self, index: usize, label: u32) -> Self {
        if let Some(old) = self.labels.get_mut(index) {
            *old = label;
        }
        self
    }
}

impl Records for Images {
    fn len(&self) -> u64 {
        self.labels.len() as u64
    }

    fn record(&self, index: u64) -> Option<Record<'_>> {
        let index = usize::try_from(index).ok()?;
        let start = index.checked_mul(self.record_bytes)?;
        Some(Record {
            label: *self.labels.get(index)?,
            bytes: self.bytes.get(start..start + self.record_bytes)?,
        })
    }
}

/// The folder that holds the files of `dataset`, where no other is named:
/// `$POL_DATA`, else `$XDG_DATA_HOME/pol`, else `~/.local/share/pol`.
pub fn default_folder() -> PathBuf {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(folder) = from("POL_DATA") {
        return folder.into();
    }
    let base = from("XDG_DATA_HOME").map(PathBuf::from).or_else(|| {
        let home = from("HOME").or_else(|| from("USERPROFILE"))?;
        Some(Path::new(&home).join(".local/share"))
    });
    base.unwrap_or_default().join("pol")
}

/// `folder/file`, or `folder/inner/file` where `folder` is one above.
fn locate(folder: &Path, inner: &str, file: &str) -> Option<PathBuf> {
    [folder.join(file), folder.join(inner).join(file)]
        .into_iter()
        .find(|path| path.is_file())
}

/// Writes a file, and the folder that it is in.
fn write(path: &Path, bytes: &[u8]) -> Result<(), DatasetError> {
    let io = |source| DatasetError::Io {
        path: path.to_owned(),
        source,
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(io)?;
    }
    std::fs::write(path, bytes).map_err(io)
}

/// Reads a file that has at most `limit` bytes.
fn read(path: &Path, limit: u64) -> Result<Vec<u8>, DatasetError> {
    let io = |source| DatasetError::Io {
        path: path.to_owned(),
        source,
    };
    let len = std::fs::metadata(path).map_err(io)?.len();
    if len > limit {
        return Err(DatasetError::Malformed {
            path: path.to_owned(),
            problem: format!("it has {len} bytes, more than the {limit} it can have"),
        });
    }
    std::fs::read(path).map_err(io)
}
