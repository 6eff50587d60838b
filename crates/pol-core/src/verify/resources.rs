//! How much of the machine a verification takes.

use std::num::NonZero;
use std::thread;

/// Threads, and the memory that they may fill with states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    /// Threads that read and hash objects.
    pub threads: usize,
    /// Bytes of states that all of them hold together. One thread works even where this is too little
    /// for one state.
    pub memory: u64,
}

impl Default for Resources {
    /// All threads of the machine, and two gibibytes.
    fn default() -> Self {
        Self {
            threads: thread::available_parallelism().map_or(1, NonZero::get),
            memory: 2 << 30,
        }
    }
}

impl Resources {
    /// How many threads to use where each of them holds so many bytes: at least one.
    pub fn threads_for(&self, bytes: u64) -> usize {
        self.threads.min(self.memory_for(bytes)).max(1)
    }

    /// How often so many bytes fit.
    pub(super) fn memory_for(&self, bytes: u64) -> usize {
        let fit = self.memory.checked_div(bytes).unwrap_or(u64::MAX);
        usize::try_from(fit).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_bounds_the_threads_and_one_always_works() {
        let of = |threads, memory| Resources { threads, memory };
        assert_eq!(of(8, 100).threads_for(30), 3);
        assert_eq!(of(2, 100).threads_for(30), 2);
        assert_eq!(of(8, 100).threads_for(1000), 1);
        assert_eq!(of(8, 100).threads_for(0), 8);
        assert_eq!(of(0, 100).threads_for(0), 1);
    }
}
