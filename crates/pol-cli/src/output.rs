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

/// What is being done, where something takes long.
pub(crate) fn progress_note(text: &str) {
    if std::io::stderr().is_terminal() {
        eprintln!("… {}", clean(text));
    }
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

/// `2026-11-26 13:04:05 UTC`, for seconds since 1970.
pub(crate) fn date(seconds: u64) -> String {
    // Days from 1970-03-01 backwards are counted in years that begin in March, so that leap days
    // come last (Howard Hinnant, "chrono-compatible low-level date algorithms").
    let days = seconds / 86_400 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!(
        "{:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC",
        400 * era + year + next
    )
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
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(date(951_782_399), "2000-02-28 23:59:59 UTC");
        assert_eq!(date(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(date(1_795_698_245), "2026-11-26 13:04:05 UTC");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(clean("a\u{1b}[31mb\u{7}c\nd"), "a\u{fffd}[31mb\u{fffd}c\nd");
    }
}
