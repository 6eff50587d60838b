//! The data commitment (SPEC.md §8): a Merkle root over every record, its label and all of its
//! bytes, in order.

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Tagged};
use crate::merkle::Tree;

/// One record of a data set, as stored: every byte, with its label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The class.
    pub label: u32,
    /// The record's bytes in the data set's own layout.
    pub bytes: &'a [u8],
}

impl Record<'_> {
    /// The leaf of this record in the data tree: `H("pol.v1.record", label, bytes)`.
    pub fn digest(&self) -> Digest {
        Tagged::new("pol.v1.record")
            .number(u64::from(self.label))
            .part(self.bytes)
            .finish()
    }
}

/// The training records, addressed by index.
pub trait Records: Send + Sync {
    /// How many records there are.
    fn len(&self) -> u64;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The record at `index`, or `None` past the end.
    fn record(&self, index: u64) -> Option<Record<'_>>;
}

/// What a prover commits to of its training data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataCommitment {
    /// The number of records.
    pub records: u64,
    /// The root of the tree over all records, in order.
    pub root: Digest,
}

impl DataCommitment {
    /// Commits to `records`.
    pub fn of(records: &dyn Records) -> Self {
        let leaves: Vec<Digest> = (0..records.len())
            .map_while(|index| records.record(index))
            .map(|record| record.digest())
            .collect();
        Self {
            records: leaves.len() as u64,
            root: Tree::Records.root(&leaves),
        }
    }
}

/// Records held in memory, for examples, tests and small data sets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryRecords(pub Vec<(u32, Vec<u8>)>);

impl Records for MemoryRecords {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn record(&self, index: u64) -> Option<Record<'_>> {
        let (label, bytes) = self.0.get(usize::try_from(index).ok()?)?;
        Some(Record {
            label: *label,
            bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_bytes_and_order_are_committed() {
        let records = MemoryRecords(vec![(0, vec![1, 2, 3]), (1, vec![4, 5]), (0, vec![])]);
        let root = DataCommitment::of(&records).root;

        let changes: [fn(&mut MemoryRecords); 5] = [
            |r| r.0[1].0 = 2,
            |r| r.0[0].1[2] = 9,
            |r| r.0.swap(0, 1),
            |r| drop(r.0.pop()),
            |r| r.0.push((0, vec![])),
        ];
        for change in changes {
            let mut changed = records.clone();
            change(&mut changed);
            assert_ne!(root, DataCommitment::of(&changed).root);
        }
    }
}
