//! Merkle trees in the shape of RFC 6962, with tagged hashes and the leaf count bound to the
//! root (SPEC.md §3).

use crate::digest::{Digest, Tagged, tagged};

/// What a tree is about. It is part of the root, so a tree of one kind cannot stand for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tree {
    /// The tensors of one state.
    State,
    /// The records of a data set, in order.
    Records,
    /// The checkpoints of a proof, in order.
    Checkpoints,
}

impl Tree {
    const fn name(self) -> &'static [u8] {
        match self {
            Self::State => b"state",
            Self::Records => b"records",
            Self::Checkpoints => b"checkpoints",
        }
    }

    /// The root over `leaves` in their order:
    /// `H("pol.v1.merkle.root", kind, n, MTH(leaves))`.
    pub fn root(self, leaves: &[Digest]) -> Digest {
        Tagged::new("pol.v1.merkle.root")
            .part(self.name())
            .number(leaves.len() as u64)
            .part(subtree(leaves).as_bytes())
            .finish()
    }
}

/// MTH of RFC 6962 §2.1: a list is split at the largest power of two smaller than its length.
/// Recursion goes log2(n) deep.
fn subtree(leaves: &[Digest]) -> Digest {
    match leaves {
        [] => tagged("pol.v1.merkle.empty", &[]),
        [leaf] => tagged("pol.v1.merkle.leaf", &[leaf.as_bytes()]),
        _ => {
            let split = leaves.len().next_power_of_two() / 2;
            let (left, right) = leaves.split_at(split);
            tagged(
                "pol.v1.merkle.node",
                &[subtree(left).as_bytes(), subtree(right).as_bytes()],
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn leaves(n: u64) -> Vec<Digest> {
        (0..n)
            .map(|i| Tagged::new("leaf").number(i).finish())
            .collect()
    }

    proptest! {
        #[test]
        fn no_two_lists_of_leaves_share_a_root(a in list(), b in list()) {
            prop_assert_eq!(a == b, Tree::State.root(&a) == Tree::State.root(&b));
        }

        #[test]
        fn every_leaf_is_in_the_root(mut leaves in list(), at in any::<prop::sample::Index>()) {
            prop_assume!(!leaves.is_empty());
            let root = Tree::State.root(&leaves);
            let at = at.index(leaves.len());
            leaves[at] = tagged("another leaf", &[leaves[at].as_bytes()]);
            prop_assert_ne!(root, Tree::State.root(&leaves));
        }
    }

    /// Few different leaves, so that equal lists and repetitions turn up.
    fn list() -> impl Strategy<Value = Vec<Digest>> {
        let leaf = (0u64..3).prop_map(|i| Tagged::new("leaf").number(i).finish());
        prop::collection::vec(leaf, 0..9)
    }

    #[test]
    fn order_count_and_kind_change_the_root() {
        let mut seven = leaves(7);
        let root = Tree::Records.root(&seven);
        assert_ne!(root, Tree::Checkpoints.root(&seven));
        assert_ne!(root, Tree::Records.root(&leaves(6)));
        seven.swap(2, 5);
        assert_ne!(root, Tree::Records.root(&seven));
    }

    #[test]
    fn a_duplicated_last_leaf_is_seen() {
        let mut five = leaves(5);
        let root = Tree::State.root(&five);
        five.push(five[4]);
        assert_ne!(root, Tree::State.root(&five));
    }

    #[test]
    fn the_shape_is_that_of_rfc_6962() {
        let l = leaves(3);
        let hash = |d: &Digest| tagged("pol.v1.merkle.leaf", &[d.as_bytes()]);
        let node =
            |a: Digest, b: Digest| tagged("pol.v1.merkle.node", &[a.as_bytes(), b.as_bytes()]);
        assert_eq!(
            subtree(&l),
            node(node(hash(&l[0]), hash(&l[1])), hash(&l[2]))
        );
    }
}
