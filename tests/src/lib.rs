//! What the tests share: a toy training of two parameters that runs in microseconds, the forger's side of
//! a proof, and forgeries with their verdicts.

pub mod forge;
pub mod forgeries;
pub mod toy;

use burn::tensor::Device;
use pol_core::adapter::Backend;

/// The backends that this build has and this machine can run. Absent ones are named on stderr,
/// so that a skipped test says so.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
pub fn backends() -> Vec<(Backend, Device)> {
    Backend::ALL
        .into_iter()
        .filter_map(|backend| {
            // Burn panics where a driver is broken.
            match std::panic::catch_unwind(|| backend.device()) {
                Ok(Ok(device)) => Some((backend, device)),
                Ok(Err(error)) => {
                    eprintln!("skipped: {error}");
                    None
                }
                Err(_) => {
                    eprintln!("skipped: opening `{backend}` panicked");
                    None
                }
            }
        })
        .collect()
}
