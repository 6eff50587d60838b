//! What the profiles define, as computed by the portable path on a CPU.

use crate::profile::Profile;

pub(super) fn of(profile: Profile) -> &'static [[u8; 32]; 16] {
    match profile {
        Profile::UnfusedV1 => &UNFUSED_V1,
        Profile::FmaV1 => &FMA_V1,
    }
}

const UNFUSED_V1: [[u8; 32]; 16] = [[0; 32]; 16];
const FMA_V1: [[u8; 32]; 16] = [[0; 32]; 16];
