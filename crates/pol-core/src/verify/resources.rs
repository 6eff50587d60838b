//! How much of the machine a verification takes.

use std::num::NonZero;
use std::thread;

use super::reason::Reason;

/// Memory that is taken whatever is allowed, in bytes: what small proofs need.
const LEAST_MEMORY: u64 = 16 << 20;

/// Threads, and the memory that they may fill with what a proof is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    /// Threads that read and hash objects.
    pub threads: usize,
    /// Bytes of memory that all of them hold together, at most; 16 MiB where this is less. What takes more
    /// is not begun with: the verdict is inconclusive then.
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
    /// How many threads to use where each of them holds `bytes` bytes: at least one.
    pub fn threads_for(&self, bytes: u64) -> usize {
        self.threads.min(self.memory_for(bytes)).max(1)
    }

    /// How many buffers of `bytes` bytes fit into the memory that may be used.
    pub(super) fn memory_for(&self, bytes: u64) -> usize {
        let fit = self.memory.checked_div(bytes).unwrap_or(u64::MAX);
        usize::try_from(fit).unwrap_or(usize::MAX)
    }

    /// Bytes of memory that may be used.
    pub(super) fn allowed(&self) -> u64 {
        self.memory.max(LEAST_MEMORY)
    }

    /// Refuses `what`, which takes `needed` bytes of memory, if that is more than may be used.
    pub fn admit(&self, what: &str, needed: u64) -> Result<(), Reason> {
        let allowed = self.allowed();
        match needed <= allowed {
            true => Ok(()),
            false => Err(Reason::Memory {
                what: what.to_owned(),
                needed,
                allowed,
            }),
        }
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

    #[test]
    fn what_takes_more_than_is_allowed_is_refused_and_nothing_small_is() {
        let of = |memory| Resources { threads: 1, memory };
        assert!(of(1 << 30).admit("a state", 1 << 30).is_ok());
        assert!(of(1 << 30).admit("a state", (1 << 30) + 1).is_err());
        assert!(of(0).admit("a state", LEAST_MEMORY).is_ok());
        let refused = of(0).admit("a state", LEAST_MEMORY + 1).unwrap_err();
        assert_eq!(refused.check(), "cost");
        assert!(!refused.is_rejection());
    }
}
