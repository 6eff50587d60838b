//! Results to stdout, everything else to stderr.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the one place that prints"
)]

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::error::{CliError, printable};

/// A line of the result.
pub(crate) fn line(text: impl AsRef<str>) {
    println!("{}", text.as_ref());
}

/// A labelled line of the result.
pub(crate) fn field(label: &str, text: impl AsRef<str>) {
    println!("{label:<12} {}", clean(text.as_ref()));
}

/// The result as one JSON object.
pub(crate) fn json(value: &impl Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| CliError::Environment(format!("the result cannot be printed: {error}")))?;
    println!("{text}");
    Ok(())
}

/// Something the user should know.
pub(crate) fn note(text: impl AsRef<str>) {
    eprintln!("note: {}", clean(text.as_ref()));
}

/// What went wrong, and the remedy.
pub(crate) fn error(error: &CliError) {
    eprintln!("error: {}", printable(error));
    if let Some(remedy) = error.remedy() {
        eprintln!("  help: {remedy}");
    }
}

/// `text` without control characters, which could steer a terminal.
pub(crate) fn clean(text: &str) -> String {
    let harmless = |c: char| {
        if c.is_control() && c != '\n' {
            '\u{fffd}'
        } else {
            c
        }
    };
    text.chars().map(harmless).collect()
}

/// A progress bar on stderr, drawn only on a terminal.
pub(crate) fn progress(length: u64, template: &str) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let style = ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─");
    ProgressBar::with_draw_target(Some(length), target).with_style(style)
}

/// `12.3 s`, `4 min 5 s`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{} min {} s", seconds as u64 / 60, seconds as u64 % 60)
    }
}

/// `2.3 MB`.
pub(crate) fn bytes(bytes: u64) -> String {
    let bytes = bytes as f64;
    match bytes {
        b if b < 1e3 => format!("{b} bytes"),
        b if b < 1e6 => format!("{:.1} kB", b / 1e3),
        b if b < 1e9 => format!("{:.1} MB", b / 1e6),
        b => format!("{:.2} GB", b / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(clean("a\u{1b}[31mb\u{7}c\nd"), "a\u{fffd}[31mb\u{fffd}c\nd");
    }
}
