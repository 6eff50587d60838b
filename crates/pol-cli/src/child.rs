//! This program again, in a process of its own: a driver that falls over takes nothing else with it, and
//! its peak of memory is its own.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

/// Why a child gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChildError {
    /// It could not be begun, or not be waited for.
    #[error("no process could be begun: {0}")]
    Begin(#[from] io::Error),
    /// It took too long, and was ended.
    #[error("it was not done after {0:?}")]
    Late(Duration),
    /// A signal ended it.
    #[error("it was ended by a signal: the driver crashed, or memory ran out")]
    Signal,
    /// It ended by itself and said why.
    #[error("{0}")]
    Said(String),
}

/// The JSON that this program prints when it is given `arguments`; a child that takes longer than `limit`
/// is ended. It has to call [`end_with_parent`].
///
/// # Errors
/// [`ChildError`].
pub(crate) fn ask<T: DeserializeOwned>(
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    limit: Option<Duration>,
) -> Result<T, ChildError> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // Open for as long as this function runs.
    let _alive = child.stdin.take();
    let (stdout, stderr) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if let Some(limit) = limit.filter(|limit| started.elapsed() > *limit) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(ChildError::Late(limit));
        }
        thread::sleep(Duration::from_millis(10));
    };
    let [stdout, stderr] = [stdout, stderr].map(|reader| reader.join().unwrap_or_default());
    match (status.success(), status.code()) {
        (_, None) => Err(ChildError::Signal),
        (false, Some(_)) => Err(ChildError::Said(said(&String::from_utf8_lossy(&stderr)))),
        (true, _) => serde_json::from_slice(&stdout)
            .map_err(|error| ChildError::Said(format!("its answer cannot be read: {error}"))),
    }
}

/// Ends this process when the one that asked is gone, however that ended: its end of the pipe that is our
/// standard input closes.
pub(crate) fn end_with_parent() {
    thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(130);
    });
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

/// What a child said was wrong, with its remedy; of a panic, its message; else its last line.
fn said(stderr: &str) -> String {
    let after = |prefix: &str| {
        stderr
            .lines()
            .find_map(|line| line.trim().strip_prefix(prefix))
    };
    let panicked = || {
        let mut lines = stderr
            .lines()
            .skip_while(|line| !line.contains("panicked at"));
        lines.nth(1)
    };
    match (after("error: "), after("help: ")) {
        (Some(error), Some(remedy)) => format!("{error}; {remedy}"),
        (Some(error), None) => error.to_owned(),
        // LLVM ends a process with a line of its own.
        (None, _) => (panicked().or_else(|| stderr.lines().rfind(|line| !line.trim().is_empty())))
            .unwrap_or("it failed and said nothing")
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_s_last_words_are_an_error_with_its_remedy_or_a_panic_s_message() {
        let words = "note: this\nerror: no disk\n  help: buy one\n";
        assert_eq!(said(words), "no disk; buy one");
        let panic = "\nthread 'main' panicked at a.rs:1:2:\nout of registers\nnote: run with `RUST_BACKTRACE=1`\n";
        assert_eq!(said(panic), "out of registers");
        assert_eq!(said("LLVM ERROR: too old\n\n"), "LLVM ERROR: too old");
        assert_eq!(said(""), "it failed and said nothing");
    }
}
