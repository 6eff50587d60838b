//! What a verifier asks a prover to open.

use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::digest::{Digest, Tagged, tagged};
use crate::manifest::Claim;
use crate::random::Seed;
use crate::verify::Selection;

const FORMAT: &str = "pol-challenge/v2";
/// Its draws did not hold the last segment.
const FORMER: &str = "pol-challenge/v1";
/// The longest file, in bytes.
pub const MAX_CHALLENGE_BYTES: u64 = 4096;

/// The most segments of a challenge.
pub const MAX_DRAWN: u64 = 1 << 20;

/// Which segments of a committed training are to be opened: those drawn after the commitment was
/// received, so that no prover could know them before, and the last, whose end is the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Challenge {
    format: String,
    /// The commitment in question.
    pub commitment: Digest,
    /// How many.
    pub draw: Draw,
    /// From what.
    pub randomness: Randomness,
}

/// How many segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Draw {
    /// Every segment.
    All,
    /// So many, uniformly without replacement.
    Sample(u64),
}

/// Where the choice comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Randomness {
    /// From the verifier.
    Fresh(Seed),
    /// From the commitment itself (Fiat & Shamir, 1986). Weaker: a prover may make commitments until
    /// one has a choice that suits it, at 1 / P tries for a choice of probability P.
    Offline,
}

impl Challenge {
    /// A challenge by the verifier's own randomness.
    pub fn fresh(commitment: Digest, draw: Draw, seed: Seed) -> Self {
        Self::new(commitment, draw, Randomness::Fresh(seed))
    }

    /// The challenge that follows from the commitment.
    pub fn offline(commitment: Digest, draw: Draw) -> Self {
        Self::new(commitment, draw, Randomness::Offline)
    }

    fn new(commitment: Digest, draw: Draw, randomness: Randomness) -> Self {
        Self {
            format: FORMAT.to_owned(),
            commitment,
            draw,
            randomness,
        }
    }

    /// The randomness that the choice is made with:
    /// `H("pol.v1.audit.offline", commitment, encoding of the draw)` where it is offline.
    pub fn seed(&self) -> Seed {
        match self.randomness {
            Randomness::Fresh(seed) => seed,
            Randomness::Offline => {
                let hash = Tagged::new("pol.v1.audit.offline").part(self.commitment.as_bytes());
                Seed::from_digest(hash.part(&codec::encode(&self.draw)).finish())
            }
        }
    }

    /// The number of segments drawn of `segments`; the last is opened beside them.
    pub fn drawn(&self, segments: u64) -> u64 {
        let drawn = match self.draw {
            Draw::All => segments,
            Draw::Sample(q) => q.min(segments),
        };
        drawn.min(MAX_DRAWN)
    }

    /// The segments of `claim` that are to be opened, ascending.
    pub fn segments(&self, claim: &Claim) -> Vec<u64> {
        let count = claim.terms.segments();
        let chosen = Selection::random(self.drawn(count), self.seed()).and_last();
        chosen.unmeasured(count).into_iter().collect()
    }

    /// The same choice as a verifier with the prover's folder makes it.
    pub fn selection(&self) -> Selection {
        match self.draw {
            Draw::All => Selection::all(),
            Draw::Sample(q) => Selection::random(q.min(MAX_DRAWN), self.seed()).and_last(),
        }
    }

    /// What an opening names it by: `H("pol.v1.challenge", encoding)`.
    pub fn digest(&self) -> Digest {
        tagged("pol.v1.challenge", &[&self.encode()])
    }

    /// The file.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads the file.
    ///
    /// # Errors
    /// If it is not the canonical form of a challenge.
    pub fn decode(bytes: &[u8]) -> Result<Self, ChallengeError> {
        let challenge: Self = codec::decode("the challenge", bytes, MAX_CHALLENGE_BYTES)?;
        match (challenge.format.as_str(), challenge.draw) {
            (FORMAT, Draw::Sample(0)) => Err(ChallengeError::Empty),
            (FORMAT, Draw::Sample(q)) if q > MAX_DRAWN => Err(ChallengeError::TooMany(q)),
            (FORMAT, _) => Ok(challenge),
            (FORMER, _) => Err(ChallengeError::Former),
            _ => Err(ChallengeError::Format),
        }
    }
}

/// Why a file is not a challenge.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChallengeError {
    /// Not canonical MessagePack of one.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Another kind of file, or another version.
    #[error("its format is not `{FORMAT}`")]
    Format,
    /// A version whose draws did not hold the last segment.
    #[error(
        "its format is `{FORMER}`, whose draws could leave out the last segment; draw a new challenge \
         with `pol challenge`, which is of `{FORMAT}`"
    )]
    Former,
    /// It asks for nothing.
    #[error("it asks for no segment")]
    Empty,
    /// It asks for more than the format allows.
    #[error("it asks for {0} segments; the limit is {MAX_DRAWN}")]
    TooMany(u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_has_one_encoding_and_asks_for_something() {
        let commitment = tagged("c", &[]);
        let challenge = Challenge::offline(commitment, Draw::Sample(3));
        assert_eq!(Challenge::decode(&challenge.encode()).unwrap(), challenge);
        for bad in [
            Challenge::offline(commitment, Draw::Sample(0)),
            Challenge::offline(commitment, Draw::Sample(MAX_DRAWN + 1)),
            Challenge {
                format: "pol-challenge/v9".to_owned(),
                ..challenge.clone()
            },
        ] {
            assert!(Challenge::decode(&bad.encode()).is_err());
        }
        assert!(Challenge::decode(&[challenge.encode(), vec![0]].concat()).is_err());
        let former = Challenge {
            format: FORMER.to_owned(),
            ..challenge
        };
        let error = Challenge::decode(&former.encode()).unwrap_err().to_string();
        assert!(error.contains("pol challenge"), "{error}");
    }

    #[test]
    fn every_draw_holds_the_last_segment() {
        for q in [1, 3, 7] {
            let drawn = (0..50u8).map(|i| {
                let commitment = tagged("c", &[&[i]]);
                let selection = Challenge::offline(commitment, Draw::Sample(q)).selection();
                selection.unmeasured(7)
            });
            for drawn in drawn {
                assert!(drawn.contains(&6));
                assert!((q..=q + 1).contains(&(drawn.len() as u64)));
            }
        }
    }

    #[test]
    fn an_offline_choice_follows_from_commitment_and_draw() {
        let seed = |c: &str, q| Challenge::offline(tagged(c, &[]), Draw::Sample(q)).seed();
        assert_eq!(seed("a", 2), seed("a", 2));
        assert_ne!(seed("a", 2), seed("a", 3));
        assert_ne!(seed("a", 2), seed("b", 2));
    }
}
