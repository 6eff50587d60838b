//! Numerics profiles.

use std::fmt::{self, Display};
use std::str::FromStr;

/// Which sequence of roundings every result is defined by (NUMERICS.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Profile {
    /// Every product and every sum is rounded: what every device can do.
    UnfusedV2,
    /// A product that is added to a sum is not rounded by itself: for devices that show a true
    /// fused multiply-add.
    FmaV2,
}

impl Profile {
    /// All profiles.
    pub const ALL: [Self; 2] = [Self::UnfusedV2, Self::FmaV2];

    /// Whether a product and the sum it enters are rounded once.
    pub const fn fused(self) -> bool {
        matches!(self, Self::FmaV2)
    }

    /// The name, as in recipes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnfusedV2 => "unfused-v2",
            Self::FmaV2 => "fma-v2",
        }
    }
}

impl Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no profile has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no numerics profile of this name; there are `unfused-v2` and `fma-v2`")]
pub struct UnknownProfile;

impl FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(name: &str) -> Result<Self, UnknownProfile> {
        let mut all = Self::ALL.into_iter();
        all.find(|profile| profile.name() == name)
            .ok_or(UnknownProfile)
    }
}
