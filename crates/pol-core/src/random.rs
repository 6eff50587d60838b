//! All randomness is derived (SPEC.md §6): a counter-based generator on the host, keyed by the
//! seed, a purpose and a position, so that any step can be replayed alone and on any device.

use std::collections::BTreeMap;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Tagged};

/// What all randomness of a training is derived from.
///
/// It depends on the data, the recipe, the prover's key and the nonce, so none of them can be
/// exchanged after the fact without changing the initial weights and every batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed(Digest);

/// What a stream of random numbers is for. Streams of different purposes are independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose<'a> {
    /// The initial value of the parameter with this path.
    Weights(&'a str),
    /// The order of the records in an epoch.
    Permutation {
        /// Counted from zero.
        epoch: u64,
    },
    /// The augmentation of a record in an epoch.
    Augmentation {
        /// Counted from zero.
        epoch: u64,
        /// Index of the record in the data set.
        record: u64,
    },
    /// A dropout mask in a step.
    Dropout {
        /// The step, counted from zero.
        step: u64,
        /// Which of the model's dropout layers.
        layer: u64,
    },
    /// A verifier's choice of segments.
    Audit,
    /// A verifier's perturbation of a segment.
    Noise {
        /// The segment.
        segment: u64,
        /// Which of its perturbed replays.
        replay: u64,
    },
}

impl Seed {
    /// `H("pol.v1.seed", data root, recipe, prover key, nonce)` (SPEC.md §6).
    ///
    /// `prover_key` is empty for a prover without an identity.
    pub fn derive(data_root: &Digest, recipe: &Digest, prover_key: &[u8], nonce: u64) -> Self {
        Self(
            Tagged::new("pol.v1.seed")
                .part(data_root.as_bytes())
                .part(recipe.as_bytes())
                .part(prover_key)
                .number(nonce)
                .finish(),
        )
    }

    /// A seed that is not derived from a training: a verifier's own randomness, or a test's.
    pub const fn from_digest(digest: Digest) -> Self {
        Self(digest)
    }

    /// The seed's 32 bytes.
    pub const fn digest(&self) -> &Digest {
        &self.0
    }

    /// The stream of random numbers for `purpose`.
    pub fn stream(&self, purpose: Purpose<'_>) -> Stream {
        let hash = Tagged::new("pol.v1.stream").part(self.0.as_bytes());
        let (key, position) = match purpose {
            Purpose::Weights(path) => (hash.part(b"weights").part(path.as_bytes()), 0),
            Purpose::Permutation { epoch } => (hash.part(b"permutation").number(epoch), 0),
            Purpose::Augmentation { epoch, record } => {
                (hash.part(b"augmentation").number(epoch), record)
            }
            Purpose::Dropout { step, layer } => (hash.part(b"dropout").number(step), layer),
            Purpose::Audit => (hash.part(b"audit"), 0),
            Purpose::Noise { segment, replay } => (hash.part(b"noise").number(segment), replay),
        };
        let mut generator = ChaCha20Rng::from_seed(*key.finish().as_bytes());
        generator.set_stream(position);
        Stream(generator)
    }
}

/// Random numbers for one purpose: ChaCha20 with 32-byte key, 64-bit stream number and counter
/// from zero. The mappings to other types are fixed in SPEC.md §6.
pub struct Stream(ChaCha20Rng);

impl Stream {
    /// 32 uniform bits.
    pub fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// 64 uniform bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in `0..n`, without bias: draws above the largest multiple of `n` are thrown away.
    /// Zero for `n = 0`.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 {
            return 0;
        }
        // 2^64 mod n; draws under it would make the smallest results more frequent.
        let biased = n.wrapping_neg() % n;
        loop {
            let draw = self.next_u64();
            if draw >= biased {
                return draw % n;
            }
        }
    }

    /// Uniform in `[0, 1)`, a multiple of 2⁻⁵³.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (-53f64).exp2()
    }

    /// Standard normal, by the Box–Muller transform in `f64` with `libm`'s functions, which give
    /// the same bits on every platform.
    pub fn normal(&mut self) -> f64 {
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - self.unit()));
        radius * libm::cos(2.0 * std::f64::consts::PI * self.unit())
    }

    /// `q` of `0..n`, uniformly without replacement, ascending; all of them if `q` is larger. The
    /// first q exchanges of a Fisher–Yates shuffle from the first position up, so that memory grows
    /// with `q` alone.
    pub fn sample(&mut self, n: u64, q: u64) -> Vec<u64> {
        let mut moved = BTreeMap::<u64, u64>::new();
        let mut chosen: Vec<u64> = (0..q.min(n))
            .map(|place| {
                let other = place + self.below(n - place);
                let here = moved.get(&place).copied().unwrap_or(place);
                moved.insert(other, here).unwrap_or(other)
            })
            .collect();
        chosen.sort_unstable();
        chosen
    }

    /// A uniform permutation of `0..n` (Fisher–Yates, from the last position down).
    pub fn permutation(&mut self, n: u64) -> Vec<u64> {
        let mut order: Vec<u64> = (0..n).collect();
        for last in (1..order.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            order.swap(last, other);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::tagged;

    fn seed() -> Seed {
        Seed::from_digest(tagged("test", &[]))
    }

    #[test]
    fn a_stream_depends_on_purpose_and_position_alone() {
        let draw = |purpose| seed().stream(purpose).next_u64();
        let base = draw(Purpose::Augmentation {
            epoch: 1,
            record: 2,
        });
        assert_eq!(
            base,
            draw(Purpose::Augmentation {
                epoch: 1,
                record: 2
            })
        );
        assert_ne!(
            base,
            draw(Purpose::Augmentation {
                epoch: 2,
                record: 1
            })
        );
        assert_ne!(base, draw(Purpose::Dropout { step: 1, layer: 2 }));
        assert_ne!(draw(Purpose::Weights("a")), draw(Purpose::Weights("b")));
    }

    #[test]
    fn a_permutation_holds_every_index_once() {
        for n in [0, 1, 2, 17, 1000] {
            let mut order = seed()
                .stream(Purpose::Permutation { epoch: n })
                .permutation(n);
            order.sort_unstable();
            assert_eq!(order, (0..n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_sample_is_uniform_and_without_repetition() {
        let mut counts = [0u32; 7];
        let mut stream = seed().stream(Purpose::Audit);
        for _ in 0..7000 {
            let sample = stream.sample(7, 3);
            assert!(
                sample.windows(2).all(|pair| pair[0] < pair[1]),
                "{sample:?}"
            );
            assert_eq!(sample.len(), 3);
            sample.iter().for_each(|i| counts[*i as usize] += 1);
        }
        // 3000 expected, standard deviation 41.
        assert!(counts.iter().all(|n| n.abs_diff(3000) < 200), "{counts:?}");
        assert_eq!(stream.sample(4, 9), [0, 1, 2, 3]);
        assert_eq!(stream.sample(u64::MAX, 2).len(), 2);
        assert!(stream.sample(0, 5).is_empty());
    }

    #[test]
    fn normal_draws_have_mean_zero_and_variance_one() {
        let mut stream = seed().stream(Purpose::Weights("w"));
        let n = 20_000;
        let (mut sum, mut squares) = (0.0, 0.0);
        for _ in 0..n {
            let x = stream.normal();
            assert!(x.is_finite());
            sum += x;
            squares += x * x;
        }
        let mean = sum / f64::from(n);
        assert!(mean.abs() < 0.03, "mean {mean}");
        let variance = squares / f64::from(n) - mean * mean;
        assert!((variance - 1.0).abs() < 0.05, "variance {variance}");
    }

    #[test]
    fn below_is_in_range_and_reaches_every_value() {
        let mut stream = seed().stream(Purpose::Audit);
        let mut seen = [false; 5];
        for _ in 0..200 {
            seen[stream.below(5) as usize] = true;
        }
        assert_eq!(seen, [true; 5]);
        assert_eq!(stream.below(0), 0);
    }
}
