//! What the programs that measure time share.

use std::error::Error;

use pol_core::digest::tagged;
use pol_core::random::{Purpose, Seed};
use pol_core::recipe::Recipe;
use pol_core::records::{Record, Records};
use pol_models::dataset::DatasetName;
use pol_models::recipe_file::{Named, RecipeFile};

/// The shipped recipe of ResNet-20, with another model (`lenet`, …), numerics, batch and length.
pub(crate) fn recipe(
    model: &str,
    numerics: &str,
    batch: u64,
    steps: u64,
) -> Result<Recipe, Box<dyn Error>> {
    let mut file = RecipeFile::shipped("cifar10-resnet20").ok_or("the recipe is shipped")?;
    file.model = Named::new(if model == "lenet" { "lenet5" } else { model });
    file.data = Named::new(DatasetName::Cifar10.name());
    file.batch_size = batch;
    (file.epochs, file.steps) = (None, Some(steps));
    file.numerics = numerics.to_owned().try_into()?;
    Ok(file.resolve(4096)?)
}

/// Noise in the layout of CIFAR-10: what is timed does not depend on the pixels.
pub(crate) struct Noise {
    records: Vec<Vec<u8>>,
}

impl Noise {
    /// So many records.
    pub(crate) fn new(count: u64) -> Self {
        let seed = Seed::derive(&tagged("noise", &[]), &tagged("noise", &[]), &[], 0);
        let mut stream = seed.stream(Purpose::Audit);
        let record = |index: u64| {
            let mut bytes = vec![(index % 10) as u8];
            bytes.extend((0..3072).map(|_| stream.below(256) as u8));
            bytes
        };
        Self {
            records: (0..count).map(record).collect(),
        }
    }
}

impl Records for Noise {
    fn len(&self) -> u64 {
        self.records.len() as u64
    }

    fn record(&self, index: u64) -> Option<Record<'_>> {
        let bytes = self.records.get(usize::try_from(index).ok()?)?;
        Some(Record {
            label: u64::from(bytes[0]) as _,
            bytes,
        })
    }
}

/// The middle value.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The most memory that the process held, where the system tells it.
pub(crate) fn peak_rss_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}
