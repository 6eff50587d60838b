//! The start-up probe: does a device compute what the profile defines, to the bit?
//!
//! Every operator runs forward and backward on fixed values, among them ties, cancellation,
//! subnormal products and sums near overflow, and the digest of all results is compared with one
//! that is compiled in. A device that fails may not run an exact recipe: its proofs would be
//! rejected everywhere else. The probe is evidence, not proof: a compiler may still treat a kernel of
//! another shape differently.

mod cases;
mod digests;
mod values;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use burn::tensor::Device;
use sha3::{Digest as _, Sha3_256};

use crate::profile::Profile;
use crate::tensor::Exact;

/// A device that may not run an exact recipe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// An operator gives other bits.
    #[error(
        "this device does not compute `{operator}` as the numerics profile {profile} defines it"
    )]
    Differs {
        /// The first operator that differs.
        operator: &'static str,
        /// The profile.
        profile: Profile,
    },
    /// The device fails at what it is asked.
    #[error("the device fails: {0}")]
    Fails(String),
    /// There are no exact kernels for this backend in this build.
    #[error("there are no exact kernels for this backend in this build")]
    NoKernels,
}

/// What a device computes for one operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// The operator.
    pub operator: &'static str,
    /// SHA3-256 of its results.
    pub digest: [u8; 32],
    /// Whether that is the digest that the profile defines.
    pub conforms: bool,
    /// Why there are not all results.
    pub failure: Option<String>,
}

/// Runs every operator on `device`, each when it is asked for.
pub fn run(device: &Device, profile: Profile) -> impl Iterator<Item = Probed> {
    let expected = digests::of(profile);
    let exact = Exact::new(profile);
    let device = device.clone().autodiff();
    let cases = cases::ALL.iter().zip(expected);
    cases.map(move |((operator, case), expected)| {
        let results = case(exact, &device);
        let digest = digest(&results);
        Probed {
            operator,
            digest,
            conforms: digest == *expected,
            failure: results.into_iter().find_map(Result::err),
        }
    })
}

/// Checks that `device` conforms to `profile`; the answer is kept.
///
/// # Errors
/// If it doesn't, naming the first operator that differs.
pub fn passed(device: &Device, profile: Profile) -> Result<(), ProbeError> {
    static KEPT: Mutex<BTreeMap<(String, Profile), Result<(), ProbeError>>> =
        Mutex::new(BTreeMap::new());
    let key = (format!("{:?}", device.clone().inner()), profile);
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let answer = kept.entry(key).or_insert_with(|| {
        if !has_kernels(device) {
            return Err(ProbeError::NoKernels);
        }
        match run(device, profile).find(|probed| !probed.conforms) {
            None => Ok(()),
            Some(Probed {
                failure: Some(why), ..
            }) => Err(ProbeError::Fails(why)),
            Some(probed) => Err(ProbeError::Differs {
                operator: probed.operator,
                profile,
            }),
        }
    });
    answer.clone()
}

fn has_kernels(device: &Device) -> bool {
    let cube = cfg!(all(feature = "cube", not(feature = "fusion")));
    cube || device.clone().inner() == Device::flex()
}

fn digest(results: &cases::Results) -> [u8; 32] {
    let mut hasher = Sha3_256::new();
    for values in results.iter().flatten() {
        hasher.update((values.len() as u64).to_le_bytes());
        for value in values {
            hasher.update(value.to_bits().to_le_bytes());
        }
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prints the table of `digests.rs`: run it on the CPU when a profile is added.
    #[test]
    #[ignore = "prints"]
    #[expect(clippy::print_stdout, reason = "what it is for")]
    fn print_digests() {
        for profile in Profile::ALL {
            println!("{profile}");
            for probed in run(&Device::flex(), profile) {
                let hex: String = probed.digest.iter().map(|b| format!("{b:02x}")).collect();
                println!("    hex(\"{hex}\"), // {}", probed.operator);
            }
        }
    }

    #[test]
    fn the_cpu_conforms() {
        for profile in Profile::ALL {
            assert_eq!(passed(&Device::flex(), profile), Ok(()));
        }
    }
}
