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
    /// The tensors of a model.
    Model,
}

impl Tree {
    const fn name(self) -> &'static [u8] {
        match self {
            Self::State => b"state",
            Self::Records => b"records",
            Self::Checkpoints => b"checkpoints",
            Self::Model => b"model",
        }
    }

    /// The root over `leaves` in their order:
    /// `H("pol.v1.merkle.root", kind, n, MTH(leaves))`.
    pub fn root(self, leaves: &[Digest]) -> Digest {
        self.bind(leaves.len() as u64, &subtree(leaves))
    }

    /// The root over `count` leaves of which only the `opened` ones are known, ascending by index,
    /// and `nodes`, which [`open`] gave for them. `None` where these don't fit together; whether the
    /// root is the committed one is for the caller to compare.
    pub fn root_of_opened(
        self,
        count: u64,
        opened: &[(u64, Digest)],
        nodes: &[Digest],
    ) -> Option<Digest> {
        let ascending = opened.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let inside = opened.last().is_none_or(|(index, _)| *index < count);
        if !ascending || !inside {
            return None;
        }
        let mut nodes = nodes.iter().copied();
        let tree = rebuild(0, count, opened, &mut nodes)?;
        nodes.next().is_none().then(|| self.bind(count, &tree))
    }

    fn bind(self, count: u64, tree: &Digest) -> Digest {
        Tagged::new("pol.v1.merkle.root")
            .part(self.name())
            .number(count)
            .part(tree.as_bytes())
            .finish()
    }
}

/// What a verifier who knows only the leaves at `opened`, ascending and all there, needs to compute
/// the root: the subtrees without any of them, from left to right. Leaves opened together share
/// their paths.
pub fn open(leaves: &[Digest], opened: &[u64]) -> Vec<Digest> {
    let mut nodes = Vec::new();
    collect(leaves, 0, opened, &mut nodes);
    nodes
}

fn collect(leaves: &[Digest], offset: u64, opened: &[u64], nodes: &mut Vec<Digest>) {
    match leaves {
        _ if opened.is_empty() => nodes.push(subtree(leaves)),
        [] | [_] => {}
        _ => {
            let split = leaves.len().next_power_of_two() / 2;
            let middle = offset + split as u64;
            let (left, right) = opened.split_at(opened.partition_point(|i| *i < middle));
            collect(&leaves[..split], offset, left, nodes);
            collect(&leaves[split..], middle, right, nodes);
        }
    }
}

/// MTH over the leaves `offset .. offset + count`. Goes no deeper than 64 levels, and visits nodes
/// above opened leaves only.
fn rebuild(
    offset: u64,
    count: u64,
    opened: &[(u64, Digest)],
    nodes: &mut impl Iterator<Item = Digest>,
) -> Option<Digest> {
    match (count, opened) {
        (_, []) => nodes.next(),
        (1, [(_, leaf)]) => Some(tagged("pol.v1.merkle.leaf", &[leaf.as_bytes()])),
        (0 | 1, _) => None,
        _ => {
            // The largest power of two below the count.
            let split = 1 << (u64::BITS - 1 - (count - 1).leading_zeros());
            let middle = offset + split;
            let (left, right) = opened.split_at(opened.partition_point(|(i, _)| *i < middle));
            let left = rebuild(offset, split, left, nodes)?;
            let right = rebuild(middle, count - split, right, nodes)?;
            Some(tagged(
                "pol.v1.merkle.node",
                &[left.as_bytes(), right.as_bytes()],
            ))
        }
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

    proptest! {
        #[test]
        fn opened_leaves_give_the_root_and_no_others_do(
            count in 0u64..70,
            chosen in prop::collection::btree_set(0u64..70, 0..12),
            at in any::<prop::sample::Index>(),
        ) {
            let all = leaves(count);
            let root = Tree::Records.root(&all);
            let indices: Vec<u64> = chosen.into_iter().filter(|i| *i < count).collect();
            let nodes = open(&all, &indices);
            let opened: Vec<_> = indices.iter().map(|&i| (i, all[i as usize])).collect();
            let rebuilt = |opened: &[_], nodes: &[_]| Tree::Records.root_of_opened(count, opened, nodes);
            prop_assert_eq!(rebuilt(&opened, &nodes), Some(root));

            let other = tagged("another leaf", &[]);
            if !opened.is_empty() {
                let mut altered = opened.clone();
                altered[at.index(opened.len())].1 = other;
                prop_assert_ne!(rebuilt(&altered, &nodes), Some(root));
                let mut moved = opened.clone();
                moved[at.index(opened.len())].0 += 1;
                prop_assert_ne!(rebuilt(&moved, &nodes), Some(root));
                prop_assert_ne!(rebuilt(&opened[1..], &nodes), Some(root));
            }
            let extended = [&nodes[..], &[other]].concat();
            prop_assert_eq!(rebuilt(&opened, &extended), None);
            if !nodes.is_empty() {
                prop_assert_eq!(rebuilt(&opened, &nodes[1..]), None);
            }
            prop_assert_ne!(Tree::Records.root_of_opened(count + 1, &opened, &nodes), Some(root));
        }
    }

    #[test]
    fn a_claimed_count_without_end_costs_nothing() {
        let opened = [(u64::MAX - 1, tagged("leaf", &[]))];
        let nodes = vec![tagged("node", &[]); 63];
        assert_eq!(Tree::Records.root_of_opened(u64::MAX, &opened, &[]), None);
        assert!(
            Tree::Records
                .root_of_opened(u64::MAX, &opened, &nodes)
                .is_some()
        );
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
