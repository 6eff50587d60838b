//! The data commitment (SPEC.md §8): a Merkle root over every record, its label and all of its
//! bytes, in order.

use std::fmt;

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
    /// The leaf of this record in the data tree: `H("pol.v1.record", label, bytes)`, or with a salt
    /// `H("pol.v1.record.salted", salt, label, bytes)`.
    pub fn digest(&self, salt: Option<&Salt>) -> Digest {
        let hash = match salt {
            None => Tagged::new("pol.v1.record"),
            Some(Salt(salt)) => Tagged::new("pol.v1.record.salted").part(salt.as_bytes()),
        };
        hash.number(u64::from(self.label)).part(self.bytes).finish()
    }
}

/// What makes a record's leaf unguessable: disclosed with the record, and with no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Salt(Digest);

/// The prover's secret that salts are derived from. Whoever has it can test guesses of records
/// against their leaves.
#[derive(Clone, PartialEq, Eq)]
pub struct SaltSecret(Digest);

impl SaltSecret {
    /// The secret that follows from other secret bytes, a private key for example:
    /// `H("pol.v1.salt.secret", bytes)`.
    pub fn derive(secret: &[u8]) -> Self {
        Self(Tagged::new("pol.v1.salt.secret").part(secret).finish())
    }

    /// The salt of the record at `index`: `H("pol.v1.salt", secret, index)`.
    pub fn salt(&self, index: u64) -> Salt {
        let hash = Tagged::new("pol.v1.salt").part(self.0.as_bytes());
        Salt(hash.number(index).finish())
    }
}

impl fmt::Debug for SaltSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SaltSecret(…)")
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
    /// Whether leaves are salted, so that the root tells nothing about the records.
    pub salted: bool,
}

impl DataCommitment {
    /// Commits to `records` that are no secret.
    pub fn of(records: &dyn Records) -> Self {
        Self::with_salts(records, None)
    }

    /// Commits to `records`, salted where there is a secret.
    pub fn with_salts(records: &dyn Records, secret: Option<&SaltSecret>) -> Self {
        let leaves = leaves(records, secret);
        Self {
            records: leaves.len() as u64,
            root: Tree::Records.root(&leaves),
            salted: secret.is_some(),
        }
    }
}

/// The leaves of all records, in order.
pub fn leaves(records: &dyn Records, secret: Option<&SaltSecret>) -> Vec<Digest> {
    (0..records.len())
        .map_while(|index| Some((index, records.record(index)?)))
        .map(|(index, record)| {
            let salt = secret.map(|secret| secret.salt(index));
            record.digest(salt.as_ref())
        })
        .collect()
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

    /// A root with salts is of no use to somebody who guesses records.
    #[test]
    fn salts_hide_records_and_differ_by_secret_and_index() {
        let records = MemoryRecords(vec![(0, vec![1]), (0, vec![1])]);
        let (one, two) = (SaltSecret::derive(b"one"), SaltSecret::derive(b"two"));
        let salted = leaves(&records, Some(&one));
        assert_ne!(salted[0], salted[1]);
        assert!(!leaves(&records, None).contains(&salted[0]));
        assert!(!leaves(&records, Some(&two)).contains(&salted[0]));
        assert!(DataCommitment::with_salts(&records, Some(&one)).salted);
        assert!(!format!("{one:?}").contains(&one.0.to_string()));
    }

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
