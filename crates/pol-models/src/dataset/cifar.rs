//! CIFAR-10 and CIFAR-100 in their official binary layout (A. Krizhevsky, 2009): label bytes,
//! then 3,072 bytes of red, green and blue rows.

use std::path::Path;

use super::{DatasetError, DatasetName, Images, locate, read, write};

const PIXELS: usize = 3072;
/// A file of the whole CIFAR-100 training set has 153,700,000 bytes.
const MAX_FILE_BYTES: u64 = 1 << 28;

struct Layout {
    folder: &'static str,
    train: &'static [&'static str],
    test: &'static str,
    /// Label bytes before the pixels; the last of them is the class.
    labels: usize,
}

fn layout(dataset: DatasetName) -> Layout {
    if dataset == DatasetName::Cifar100 {
        Layout {
            folder: "cifar-100-binary",
            train: &["train.bin"],
            test: "test.bin",
            labels: dataset.pixel_offset(),
        }
    } else {
        Layout {
            folder: "cifar-10-batches-bin",
            train: &[
                "data_batch_1.bin",
                "data_batch_2.bin",
                "data_batch_3.bin",
                "data_batch_4.bin",
                "data_batch_5.bin",
            ],
            test: "test_batch.bin",
            labels: dataset.pixel_offset(),
        }
    }
}

/// Loads what is there of the training files, at least the first, and the test file. The third
/// value says what is missing; the data commitment holds the number of records in any case.
pub(super) fn load(
    dataset: DatasetName,
    folder: &Path,
) -> Result<(Images, Images, Option<String>), DatasetError> {
    let layout = layout(dataset);
    let require = |file: &str| {
        locate(folder, layout.folder, file).ok_or_else(|| DatasetError::Missing {
            dataset,
            path: folder.join(file),
            remedy: dataset.remedy(),
        })
    };
    let mut train = Part::default();
    train.append(dataset, &layout, &require(layout.train[0])?)?;
    let mut missing = Vec::new();
    for file in &layout.train[1..] {
        match locate(folder, layout.folder, file) {
            Some(path) => train.append(dataset, &layout, &path)?,
            None => missing.push(*file),
        }
    }
    let mut test = Part::default();
    test.append(dataset, &layout, &require(layout.test)?)?;
    let notice = (!missing.is_empty()).then(|| {
        format!(
            "{dataset}: {} of {} training files are there ({} records); missing: {}",
            layout.train.len() - missing.len(),
            layout.train.len(),
            train.labels.len(),
            missing.join(", ")
        )
    });
    let images = |part: Part| Images::new(part.bytes, part.labels, layout.labels + PIXELS);
    Ok((images(train), images(test), notice))
}

/// Writes both splits into the set's own folder inside `folder`: training images into one file.
pub(super) fn save(
    dataset: DatasetName,
    train: &Images,
    test: &Images,
    folder: &Path,
) -> Result<(), DatasetError> {
    let layout = layout(dataset);
    let inner = folder.join(layout.folder);
    write(&inner.join(layout.train[0]), &train.bytes)?;
    write(&inner.join(layout.test), &test.bytes)
}

#[derive(Default)]
struct Part {
    bytes: Vec<u8>,
    labels: Vec<u32>,
}

impl Part {
    fn append(
        &mut self,
        dataset: DatasetName,
        layout: &Layout,
        path: &Path,
    ) -> Result<(), DatasetError> {
        let malformed = |problem: String| DatasetError::Malformed {
            path: path.to_owned(),
            problem,
        };
        let bytes = read(path, MAX_FILE_BYTES)?;
        let record = layout.labels + PIXELS;
        if bytes.is_empty() || !bytes.len().is_multiple_of(record) {
            return Err(malformed(format!(
                "its {} bytes are not a whole number of records of {record}",
                bytes.len()
            )));
        }
        for (index, image) in bytes.chunks_exact(record).enumerate() {
            let label = image[layout.labels - 1];
            if usize::from(label) >= dataset.classes() {
                return Err(malformed(format!(
                    "record {index} has the label {label}; {dataset} has {} classes",
                    dataset.classes()
                )));
            }
            self.labels.push(u32::from(label));
        }
        self.bytes.extend(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pol_core::records::Records;

    fn write(folder: &Path, file: &str, labels: &[u8], label_bytes: usize) {
        let bytes: Vec<u8> = (labels.iter())
            .flat_map(|&label| {
                let mut record = vec![0; label_bytes - 1];
                record.push(label);
                record.resize(label_bytes + PIXELS, 7);
                record
            })
            .collect();
        std::fs::write(folder.join(file), bytes).unwrap();
    }

    #[test]
    fn a_subset_loads_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "data_batch_1.bin", &[3, 9], 1);
        write(folder.path(), "data_batch_3.bin", &[1], 1);
        write(folder.path(), "test_batch.bin", &[0], 1);
        let (train, test, notice) = load(DatasetName::Cifar10, folder.path()).unwrap();
        assert_eq!((train.len(), test.len()), (3, 1));
        let record = train.record(1).unwrap();
        assert_eq!((record.label, record.bytes.len()), (9, PIXELS + 1));
        assert!(notice.unwrap().contains("data_batch_2.bin"));
    }

    #[test]
    fn the_fine_label_is_the_class_and_the_coarse_one_is_committed() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "train.bin", &[42], 2);
        write(folder.path(), "test.bin", &[99], 2);
        let (train, ..) = load(DatasetName::Cifar100, folder.path()).unwrap();
        let record = train.record(0).unwrap();
        assert_eq!((record.label, record.bytes.len()), (42, PIXELS + 2));
    }

    #[test]
    fn faulty_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = || {
            load(DatasetName::Cifar10, folder.path())
                .unwrap_err()
                .to_string()
        };
        assert!(error().contains("pol data fetch cifar10"));
        write(folder.path(), "data_batch_1.bin", &[10], 1);
        assert!(error().contains("label 10"));
        std::fs::write(folder.path().join("data_batch_1.bin"), [0; 100]).unwrap();
        assert!(error().contains("whole number of records"));
    }
}
