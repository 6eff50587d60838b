//! The embedded digits: UCI Optical Recognition of Handwritten Digits, E. Alpaydin and
//! C. Kaynak (1998), CC BY 4.0; see `datasets/README.md`.

use std::io::Read;
use std::path::PathBuf;

use super::{DatasetError, Images};

static ARCHIVE: &[u8] = include_bytes!("../../../../datasets/digits.csv.gz");
const PIXELS: usize = 64;
/// Every fifth image is for testing.
const TEST_STRIDE: usize = 5;

/// The training and the test split.
pub(super) fn load() -> Result<(Images, Images), DatasetError> {
    let malformed = |problem: String| DatasetError::Malformed {
        path: PathBuf::from("digits.csv.gz (embedded)"),
        problem,
    };
    let mut text = String::new();
    flate2::read::GzDecoder::new(ARCHIVE)
        .read_to_string(&mut text)
        .map_err(|error| malformed(error.to_string()))?;
    let mut splits = [(Vec::new(), Vec::new()), (Vec::new(), Vec::new())];
    for (index, line) in text.lines().enumerate() {
        // 64 pixels from 0 to 16, then the label.
        let values: Vec<u8> = line
            .split(',')
            .map_while(|v| v.trim().parse().ok())
            .collect();
        let (Some(&label), PIXELS) = (values.last(), values.len().saturating_sub(1)) else {
            return Err(malformed(format!("line {} is not an image", index + 1)));
        };
        let (bytes, labels) = &mut splits[usize::from(index % TEST_STRIDE == 0)];
        bytes.extend_from_slice(&values[..PIXELS]);
        labels.push(u32::from(label));
    }
    let [train, test] = splits.map(|(bytes, labels)| Images::new(bytes, labels, PIXELS));
    Ok((train, test))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pol_core::records::Records;

    #[test]
    fn all_images_are_there_and_every_class_is_in_both_splits() {
        let (train, test) = load().unwrap();
        assert_eq!((train.len(), test.len()), (1437, 360));
        for split in [&train, &test] {
            let mut counts = [0; 10];
            for index in 0..split.len() {
                let record = split.record(index).unwrap();
                assert!(record.bytes.iter().all(|&pixel| pixel <= 16));
                counts[record.label as usize] += 1;
            }
            assert!(counts.iter().all(|&count| count > 20), "{counts:?}");
        }
    }

    #[test]
    fn the_normalisation_is_that_of_the_training_split() {
        let (train, _) = load().unwrap();
        let values: Vec<f64> = (train.bytes.iter()).map(|&p| f64::from(p) / 16.0).collect();
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        let norm = super::super::DatasetName::Digits.normalisation();
        assert!((mean - f64::from(norm.mean[0])).abs() < 1e-3, "{mean}");
        assert!(
            (variance.sqrt() - f64::from(norm.deviation[0])).abs() < 1e-3,
            "{variance}"
        );
    }
}
