//! Data behind an ellipsis. The reference implementation hashes the print-out of an array, and numpy
//! abbreviates large arrays: three rows and columns from either edge are all that the hash covers. So
//! records can be altered in their middle, and the hash stays. Here the middle pixels of all records
//! are inverted, the altered records trained on, and the original ones committed to.

use pol_core::recipe::Recipe;
use pol_core::records::{MemoryRecords, Records};
use pol_core::store::Store;
use pol_models::ImageLearner;

use crate::forgery::{Practice, constant_rate, honest_rate, train_otherwise};
use crate::start::presentable;
use crate::{Attack, AttackError, Forged, Options, Victim};

/// Rows and columns that a print-out shows at either edge.
const EDGE: usize = 3;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct ElidedData;

impl Attack for ElidedData {
    fn name(&self) -> &'static str {
        "elided-data"
    }

    fn source(&self) -> &'static str {
        "against the reference implementation of Jia et al., 2021: hash of an abbreviated print-out"
    }

    fn needs(&self) -> &'static str {
        "the training data; a data hash over an abbreviated print-out"
    }

    fn claimed(&self, victim: &Victim<'_>, options: &Options) -> Recipe {
        constant_rate(victim, options, honest_rate(victim, options))
    }

    fn forge(
        &self,
        victim: &Victim<'_>,
        options: &Options,
        learner: &mut dyn ImageLearner,
        store: &dyn Store,
    ) -> Result<Forged, AttackError> {
        let (terms, _) = presentable(victim, options, &self.claimed(victim, options), learner)?;
        let image = victim.data.name.image();
        let offset = victim.data.name.pixel_offset();
        let scale = victim.data.name.normalisation().scale as u8;
        let train = &victim.data.train;
        let altered = (0..train.len()).filter_map(|index| {
            let record = train.record(index)?;
            let mut bytes = record.bytes.to_vec();
            for (place, pixel) in bytes.iter_mut().skip(offset).enumerate() {
                let (row, column) = (place / image.width % image.height, place % image.width);
                if is_elided(row, image.height) && is_elided(column, image.width) {
                    *pixel = scale - *pixel;
                }
            }
            Some((record.label, bytes))
        });
        let altered = MemoryRecords(altered.collect());
        let seed = terms.seed;
        let practice = Practice {
            records: &altered,
            order: seed,
            draws: seed,
        };
        let steps = train_otherwise(terms, victim, learner, store, practice)?;
        Ok(Forged::on_their_data(victim, steps))
    }
}

fn is_elided(place: usize, len: usize) -> bool {
    (EDGE..len.saturating_sub(EDGE)).contains(&place)
}

/// What an abbreviated print-out shows of one channel of an image: its edges.
pub fn abbreviated(pixels: &[u8], height: usize, width: usize) -> Vec<u8> {
    let shown = (0..height * width).filter(|place| {
        let (row, column) = (place / width, place % width);
        !is_elided(row, height) && !is_elided(column, width)
    });
    shown
        .filter_map(|place| pixels.get(place).copied())
        .collect()
}
