//! Everything that reads what strangers made, as functions of bytes.
//!
//! One [`Target`] for each decoder. `tests/tests/hostile.rs` runs them on altered valid inputs with every
//! test run; `fuzz/` runs the same functions under libFuzzer. A target returns normally whatever it is
//! given, and checks that what was read is what would be written.

mod decoders;
mod edit;

pub use edit::Edit;

/// A decoder.
pub struct Target {
    /// Its name, that of its fuzz target too.
    pub name: &'static str,
    /// Reads the bytes. Panics if the decoder breaks a promise.
    pub run: fn(&[u8]),
    /// Valid inputs, to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Bytes of memory that an input of `len` bytes may take: `fixed + factor · len`.
    pub memory: Memory,
}

/// A bound on memory, linear in the input's length.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    fixed: usize,
    factor: usize,
}

impl Memory {
    /// For decoders that hold what they read: lists may hold numbers of eight bytes for one byte each, and
    /// grow by doubling; serde sets aside a mebibyte for a list that claims to be long, at each level.
    const PLAIN: Self = Self {
        fixed: 4 << 20,
        factor: 64,
    };
    /// For stored states: a window of eight mebibytes, and blocks of zstd that repeat a byte 2¹⁷ times in
    /// four bytes, in a list that doubles.
    const ZSTD: Self = Self {
        fixed: 16 << 20,
        factor: 3 << 15,
    };
    /// For gzip, which repeats a byte up to 1032 times in one.
    const GZIP: Self = Self {
        fixed: 4 << 20,
        factor: 4096,
    };

    /// The bound for an input of this length.
    pub const fn of(self, len: usize) -> usize {
        self.fixed + self.factor * len
    }
}

/// All decoders.
pub const TARGETS: &[Target] = &[
    Target {
        name: "manifest",
        run: decoders::manifest,
        seeds: decoders::seeds::manifest,
        memory: Memory::PLAIN,
    },
    Target {
        name: "journal",
        run: decoders::journal,
        seeds: decoders::seeds::journal,
        memory: Memory::PLAIN,
    },
    Target {
        name: "state",
        run: decoders::state,
        seeds: decoders::seeds::states,
        memory: Memory::ZSTD,
    },
    Target {
        name: "batches",
        run: decoders::batches,
        seeds: decoders::seeds::batches,
        memory: Memory::PLAIN,
    },
    Target {
        name: "model_file",
        run: decoders::model_file,
        seeds: decoders::seeds::model_file,
        memory: Memory::PLAIN,
    },
    Target {
        name: "recipe",
        run: decoders::recipe,
        seeds: decoders::seeds::recipes,
        memory: Memory::PLAIN,
    },
    Target {
        name: "policy",
        run: decoders::policy,
        seeds: decoders::seeds::policies,
        memory: Memory::PLAIN,
    },
    Target {
        name: "commitment",
        run: decoders::commitment,
        seeds: decoders::seeds::commitment,
        memory: Memory::PLAIN,
    },
    Target {
        name: "challenge",
        run: decoders::challenge,
        seeds: decoders::seeds::challenges,
        memory: Memory::PLAIN,
    },
    Target {
        name: "opening",
        run: decoders::opening,
        seeds: decoders::seeds::opening,
        memory: Memory::PLAIN,
    },
    Target {
        name: "envelope",
        run: decoders::envelope,
        seeds: decoders::seeds::envelopes,
        memory: Memory::PLAIN,
    },
    Target {
        name: "timestamp",
        run: decoders::timestamp,
        seeds: decoders::seeds::timestamps,
        memory: Memory::PLAIN,
    },
    Target {
        name: "key",
        run: decoders::key,
        seeds: decoders::seeds::keys,
        memory: Memory::PLAIN,
    },
    Target {
        name: "cifar",
        run: decoders::cifar,
        seeds: decoders::seeds::cifar,
        memory: Memory::PLAIN,
    },
    Target {
        name: "idx",
        run: decoders::idx,
        seeds: decoders::seeds::idx,
        memory: Memory::GZIP,
    },
    Target {
        name: "archive",
        run: decoders::archive,
        seeds: decoders::seeds::archive,
        memory: Memory::PLAIN,
    },
];

/// The target of this name.
///
/// # Panics
/// If there is none.
pub fn target(name: &str) -> &'static Target {
    let found = TARGETS.iter().find(|target| target.name == name);
    found.unwrap_or_else(|| panic!("there is no target `{name}`"))
}
