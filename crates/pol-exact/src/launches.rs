//! Counting the kernels that a program launches on CubeCL's devices.

#[cfg(feature = "cube")]
use std::collections::BTreeMap;
#[cfg(feature = "cube")]
use std::sync::{Arc, Mutex, PoisonError};

/// Counts every kernel launched on any device, from [`Launches::watch`] on, while it lives. The CPU
/// launches none; nor does a build without CubeCL's devices.
#[must_use = "kernels are counted while this lives"]
pub struct Launches {
    #[cfg(feature = "cube")]
    seen: Arc<Seen>,
    #[cfg(feature = "cube")]
    _watching: cubecl::logging::LaunchObservation,
}

#[cfg(feature = "cube")]
#[derive(Default)]
struct Seen(Mutex<BTreeMap<&'static str, u64>>);

#[cfg(feature = "cube")]
impl cubecl::logging::LaunchObserver for Seen {
    fn launched(&self, kernel: &'static str) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *seen.entry(kernel).or_default() += 1;
    }
}

impl Launches {
    /// Begins to count.
    pub fn watch() -> Self {
        #[cfg(feature = "cube")]
        let seen = Arc::new(Seen::default());
        Self {
            #[cfg(feature = "cube")]
            _watching: cubecl::logging::LaunchObservation::new(Arc::clone(&seen) as _),
            #[cfg(feature = "cube")]
            seen,
        }
    }

    /// How often each kernel was launched, by the name of its type.
    pub fn by_kernel(&self) -> Vec<(&'static str, u64)> {
        #[cfg(feature = "cube")]
        {
            let seen = self.seen.0.lock().unwrap_or_else(PoisonError::into_inner);
            seen.iter().map(|(name, count)| (*name, *count)).collect()
        }
        #[cfg(not(feature = "cube"))]
        Vec::new()
    }

    /// How many kernels were launched.
    pub fn count(&self) -> u64 {
        self.by_kernel().iter().map(|(_, count)| count).sum()
    }
}
