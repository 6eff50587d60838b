//! MNIST's IDX files, plain or gzipped (Y. LeCun, C. Cortes, C. Burges).

use std::io::Read;
use std::path::{Path, PathBuf};

use super::{DatasetError, DatasetName, Images, locate, read, write};

/// The largest file: MNIST's training images have 47,040,016 bytes.
const MAX_FILE_BYTES: u64 = 1 << 28;
const DEBIAN_FASHION: &str = "/usr/share/datasets/fashion-mnist";

/// The training and the test split.
pub(super) fn load(dataset: DatasetName, folder: &Path) -> Result<(Images, Images), DatasetError> {
    let load = |split: &str| -> Result<Images, DatasetError> {
        let file = |kind: &str| find(dataset, folder, &format!("{split}-{kind}-ubyte"));
        let image = dataset.image();
        let (path, header, pixels) = parse(&file("images-idx3")?, 3)?;
        let malformed = |problem| DatasetError::Malformed { path, problem };
        if header[1..] != [image.height, image.width] {
            return Err(malformed(format!(
                "its images are {}×{}",
                header[1], header[2]
            )));
        }
        let (labels_path, _, labels) = parse(&file("labels-idx1")?, 1)?;
        if labels.len() != header[0] {
            let (images, labels) = (header[0], labels.len());
            return Err(malformed(format!(
                "it has {images} images for {labels} labels"
            )));
        }
        if let Some(label) = labels
            .iter()
            .find(|&&l| usize::from(l) >= dataset.classes())
        {
            return Err(DatasetError::Malformed {
                path: labels_path,
                problem: format!("it holds the label {label}"),
            });
        }
        let labels = labels.into_iter().map(u32::from).collect();
        Ok(Images::new(pixels, labels, image.len()))
    };
    Ok((load("train")?, load("t10k")?))
}

/// Whether the folder has a data set of this name of its own.
pub(super) fn is_in(dataset: DatasetName, folder: &Path) -> bool {
    let file = |suffix| format!("{}/train-images-idx3-ubyte{suffix}", dataset.name());
    ["", ".gz"]
        .iter()
        .any(|suffix| folder.join(file(suffix)).is_file())
}

/// Writes both splits into `folder/DATASET`.
pub(super) fn save(
    dataset: DatasetName,
    train: &Images,
    test: &Images,
    folder: &Path,
) -> Result<(), DatasetError> {
    let image = dataset.image();
    for (split, images) in [("train", train), ("t10k", test)] {
        let file = |kind: &str| {
            let name = format!("{}/{split}-{kind}-ubyte", dataset.name());
            folder.join(name)
        };
        let count = images.labels.len();
        let dimensions = [count, image.height, image.width];
        write(
            &file("images-idx3"),
            &encode(&dimensions, images.bytes.iter().copied()),
        )?;
        let labels = images.labels.iter().map(|&label| label as u8);
        write(&file("labels-idx1"), &encode(&[count], labels))?;
    }
    Ok(())
}

fn encode(dimensions: &[usize], content: impl Iterator<Item = u8>) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dimensions.len() as u8];
    for &dimension in dimensions {
        bytes.extend((dimension as u32).to_be_bytes());
    }
    bytes.extend(content);
    bytes
}

fn find(dataset: DatasetName, folder: &Path, name: &str) -> Result<PathBuf, DatasetError> {
    let own = folder.join(dataset.name());
    let folders = match dataset {
        DatasetName::FashionMnist => vec![folder, Path::new(DEBIAN_FASHION)],
        // Only from a folder of its own: the names are MNIST's.
        DatasetName::Digits => vec![own.as_path()],
        _ => vec![folder],
    };
    folders
        .iter()
        .flat_map(|folder| {
            [name.to_owned(), format!("{name}.gz")]
                .map(|file| locate(folder, dataset.name(), &file))
        })
        .flatten()
        .next()
        .ok_or_else(|| DatasetError::Missing {
            dataset,
            path: folder.join(name),
            remedy: dataset.remedy(),
        })
}

/// Dimensions and bytes of a file of unsigned bytes.
fn parse(path: &Path, dimensions: usize) -> Result<(PathBuf, Vec<usize>, Vec<u8>), DatasetError> {
    let malformed = |problem: &str| DatasetError::Malformed {
        path: path.to_owned(),
        problem: problem.to_owned(),
    };
    let mut bytes = read(path, MAX_FILE_BYTES)?;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(bytes.as_slice())
            .take(MAX_FILE_BYTES)
            .read_to_end(&mut plain)
            .map_err(|error| malformed(&format!("it cannot be unzipped: {error}")))?;
        bytes = plain;
    }
    // Magic number: two zeros, the type (8: unsigned byte), the number of dimensions.
    let header_bytes = 4 + 4 * dimensions;
    if bytes.len() < header_bytes || bytes[..4] != [0, 0, 8, dimensions as u8] {
        return Err(malformed(
            "it is not an IDX file of bytes with these dimensions",
        ));
    }
    let header: Vec<usize> = bytes[4..header_bytes]
        .chunks_exact(4)
        .map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize)
        .collect();
    let expected = header.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim));
    if expected != Some(bytes.len() - header_bytes) {
        return Err(malformed("its length is not what its header says"));
    }
    bytes.drain(..header_bytes);
    Ok((path.to_owned(), header, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pol_core::records::Records;
    use std::io::Write;

    fn idx(dims: &[u32], value: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, dims.len() as u8];
        bytes.extend(dims.iter().flat_map(|dim| dim.to_be_bytes()));
        bytes.resize(bytes.len() + dims.iter().product::<u32>() as usize, value);
        bytes
    }

    #[test]
    fn plain_and_zipped_files_load() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("train-images-idx3-ubyte"), idx(&[3, 28, 28], 1)).unwrap();
        std::fs::write(path("train-labels-idx1-ubyte"), idx(&[3], 9)).unwrap();
        std::fs::write(path("t10k-labels-idx1-ubyte"), idx(&[2], 0)).unwrap();
        let zipped = std::fs::File::create(path("t10k-images-idx3-ubyte.gz")).unwrap();
        let mut zipped = flate2::write::GzEncoder::new(zipped, flate2::Compression::fast());
        zipped.write_all(&idx(&[2, 28, 28], 5)).unwrap();
        zipped.finish().unwrap();
        let (train, test) = load(DatasetName::Mnist, folder.path()).unwrap();
        assert_eq!((train.len(), test.len()), (3, 2));
        assert_eq!(train.record(2).unwrap().label, 9);
        assert_eq!(test.record(1).unwrap().bytes, [5; 784]);
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        for dataset in [DatasetName::Digits, DatasetName::Mnist] {
            let image = |label: u32, pixel: u8| (label, vec![pixel; dataset.image().len()]);
            let train = Images::of_pixels(dataset, [image(3, 7), image(9, 0)]).unwrap();
            let test = Images::of_pixels(dataset, [image(1, 16)]).unwrap();
            dataset.save(&train, &test, folder.path()).unwrap();
            let loaded = dataset.load(folder.path()).unwrap();
            assert_eq!((loaded.train, loaded.test), (train, test));
        }
        let short = Images::of_pixels(DatasetName::Mnist, [(0, vec![0; 3])]);
        assert!(short.unwrap_err().to_string().contains("record 0"));
    }

    #[test]
    fn faulty_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let error = || {
            load(DatasetName::Mnist, folder.path())
                .unwrap_err()
                .to_string()
        };
        assert!(error().contains("train-images-idx3-ubyte is missing"));
        for (content, problem) in [
            (vec![], "not an IDX file"),
            (idx(&[3, 28, 28], 0)[..100].to_vec(), "length"),
            (idx(&[2], 0), "not an IDX file"),
            (idx(&[1, 4, 4], 0), "4×4"),
            (vec![0x1f, 0x8b, 0, 0], "unzipped"),
        ] {
            std::fs::write(path("train-images-idx3-ubyte"), content).unwrap();
            std::fs::write(path("train-labels-idx1-ubyte"), idx(&[1], 0)).unwrap();
            assert!(error().contains(problem), "{problem}: {}", error());
        }
    }
}
