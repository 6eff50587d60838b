//! Which instruction set runs.

use std::fmt::{self, Display};
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// An instruction set that this processor has. All give the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isa(pub(crate) Set);

/// One more than the index in [`Isa::present`]; 0 for none.
static FORCED: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Set {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    Neon,
    Portable,
}

/// An instruction set that is not one, or that the processor lacks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this processor has no instruction set `{asked}`; it has {}", list(.present))]
pub struct UnknownIsa {
    asked: String,
    present: Vec<Isa>,
}

fn list(present: &[Isa]) -> String {
    let names: Vec<_> = present.iter().map(|isa| format!("`{isa}`")).collect();
    names.join(", ")
}

impl Isa {
    /// The environment variable that chooses an instruction set, for tests and measurements.
    pub const VARIABLE: &'static str = "POL_EXACT_ISA";

    /// The instruction sets that this processor has, the widest first.
    pub fn present() -> Vec<Self> {
        let mut present = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
                present.push(Self(Set::Avx512));
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                present.push(Self(Set::Avx2));
            }
        }
        #[cfg(target_arch = "aarch64")]
        present.push(Self(Set::Neon));
        present.push(Self(Set::Portable));
        present
    }

    /// What the kernels use: what [`Isa::VARIABLE`] says, else the widest. Decided once.
    ///
    /// # Errors
    /// If the variable names an instruction set that this processor lacks.
    pub fn chosen() -> Result<Self, UnknownIsa> {
        static CHOSEN: OnceLock<Result<Isa, UnknownIsa>> = OnceLock::new();
        CHOSEN
            .get_or_init(|| match std::env::var(Self::VARIABLE) {
                Ok(name) if !name.is_empty() => name.parse(),
                _ => Ok(Self::widest()),
            })
            .clone()
    }

    /// Makes the kernels of this process use this one from now on: for tests and measurements.
    pub fn make_current(self) {
        let present = Self::present();
        let index = present.iter().position(|isa| *isa == self);
        FORCED.store(index.map_or(0, |index| index + 1), Ordering::Relaxed);
    }

    /// What [`Isa::make_current`] set, else as [`Isa::chosen`], else the widest.
    pub(crate) fn current() -> Self {
        static KEPT: OnceLock<Vec<Isa>> = OnceLock::new();
        let present = KEPT.get_or_init(Self::present);
        match FORCED.load(Ordering::Relaxed) {
            0 => Self::chosen().unwrap_or(present[0]),
            index => present.get(index - 1).copied().unwrap_or(present[0]),
        }
    }

    fn widest() -> Self {
        Self::present()[0]
    }
}

impl Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => "avx2",
            #[cfg(target_arch = "aarch64")]
            Set::Neon => "neon",
            Set::Portable => "portable",
        })
    }
}

impl FromStr for Isa {
    type Err = UnknownIsa;

    fn from_str(name: &str) -> Result<Self, UnknownIsa> {
        let present = Self::present();
        let found = present.iter().copied().find(|isa| isa.to_string() == name);
        found.ok_or_else(|| UnknownIsa {
            asked: name.chars().take(40).collect(),
            present,
        })
    }
}

/// Compiles a plain function once for each instruction set and calls the one that runs.
///
/// The body is ordinary safe Rust; the compiler vectorises it where it can, which changes no bit.
macro_rules! vectorised {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $body:block) => {
        $(#[$meta])*
        #[allow(unsafe_code, clippy::too_many_arguments)]
        $vis fn $name($($arg: $ty),*) {
            #[inline(always)]
            fn body($($arg: $ty),*) $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512vl")]
            fn avx512($($arg: $ty),*) { body($($arg),*) }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $ty),*) { body($($arg),*) }

            match $crate::simd::Isa::current().0 {
                // SAFETY: an `Isa` exists only on a processor that has it.
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Set::Avx512 => unsafe { avx512($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Set::Avx2 => unsafe { avx2($($arg),*) },
                _ => body($($arg),*),
            }
        }
    };
}
pub(crate) use vectorised;
