//! What a device's failure was, in a sentence.
//!
//! Burn and CubeCL hand down a chain of causes of many lines, with the one that matters last.

use std::fmt::Display;

use crate::learner::LearnerError;

/// What a chain of causes ends with, by which a kind of failure is known, and what to say of it.
const KNOWN: [(&[&str], &str); 4] = [
    (
        &["libdevice.10.bc"],
        "stock kernels want `libdevice.10.bc` of the CUDA toolkit: set CUDA_PATH to a folder that has \
         nvvm/libdevice/libdevice.10.bc (the Python package `nvidia-nvvm` has it too), or take exact \
         numerics, which do without",
    ),
    (
        &[
            "OutOfMemory",
            "OUT_OF_MEMORY",
            "out of memory",
            "out of device memory",
            "out-of-memory",
            "an't allocate",
            "BufferTooBig",
            "too big",
        ],
        "the device's memory does not suffice: take a smaller batch, or close what else uses the device",
    ),
    (
        &[
            "UNSUPPORTED_PTX_VERSION",
            "INVALID_PTX",
            "load the PTX",
            "PTX version",
        ],
        "the driver does not take this program's kernels: install a newer one (for CUDA 13: 580 or later)",
    ),
    (
        &[
            "poisoned",
            "DEVICE_LOST",
            "device lost",
            "is lost",
            "Device lost",
        ],
        "the device was lost: its driver gave it up, as after a crash of a kernel; `nvidia-smi` and the \
         system's log may say more",
    ),
];

/// The failure of a device, or of a library, as Burn reports it.
pub fn device_failure(error: &dyn Display) -> LearnerError {
    LearnerError::Device(sentence(&error.to_string()))
}

/// The cause at the end of a chain, after what it is known for.
fn sentence(chain: &str) -> String {
    let cause = innermost(chain);
    let known = (KNOWN.iter()).find(|(signs, _)| signs.iter().any(|sign| chain.contains(sign)));
    match known {
        Some((_, said)) => format!("{said} ({cause})"),
        None => cause,
    }
}

/// The last cause of a chain, on one line.
fn innermost(chain: &str) -> String {
    let last = chain.rsplit("Caused by:").next().unwrap_or(chain);
    let lines = last.lines().map(str::trim);
    // What follows is for whoever debugs the library.
    let trace = |line: &str| {
        let frame = line
            .split_once(": ")
            .is_some_and(|(number, _)| number.parse::<u32>().is_ok());
        frame
            || ["Backtrace", "Asked at:"]
                .iter()
                .any(|word| line.starts_with(word))
    };
    let said = lines.take_while(|line| !trace(line));
    let said: Vec<_> = said
        .filter(|line| !matches!(*line, "" | "No backtrace available"))
        .collect();
    said.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_of_causes_becomes_its_last_one_and_what_to_do() {
        let chain = "An error happened during execution\nCaused by:\n  Several failures at once\nCaused by:\n  \
                     A launch error happened\nCaused by:\n  compiling 'unary' for sm_90: libdevice.10.bc was \
                     not found: the kernel calls a math function.\nBacktrace:\nNo backtrace available\nAsked \
                     at:\nNo backtrace available\n";
        let said = sentence(chain);
        assert!(
            said.starts_with("stock kernels want `libdevice.10.bc`"),
            "{said}"
        );
        assert!(
            said.ends_with(
                "(compiling 'unary' for sm_90: libdevice.10.bc was not found: the kernel \
                                calls a math function.)"
            ),
            "{said}"
        );
        assert!(!said.contains('\n'));

        let lost = "The device is poisoned\nCaused by:\n  The device was poisoned during launch\nCaused by:\n  \
                    cuFuncSetAttribute failed with status 719\nBacktrace:\nNo backtrace available";
        let said = sentence(lost);
        assert!(said.starts_with("the device was lost"), "{said}");
        assert!(
            said.ends_with("(cuFuncSetAttribute failed with status 719)"),
            "{said}"
        );
    }

    #[test]
    fn what_is_not_known_is_said_as_it_is() {
        assert_eq!(sentence("no such thing"), "no such thing");
        assert_eq!(
            sentence("it broke\nCaused by:\n  a\n  b\nBacktrace:\nx"),
            "a b"
        );
        assert_eq!(sentence(""), "");
        let traced = sentence("An out-of-memory error\nBacktrace\n  0: std::main\n     at a.rs");
        assert!(traced.ends_with("(An out-of-memory error)"), "{traced}");
        let full = sentence("out of device memory allocating 8 bytes\nNo backtrace available");
        assert!(
            full.ends_with("(out of device memory allocating 8 bytes)"),
            "{full}"
        );
    }
}
